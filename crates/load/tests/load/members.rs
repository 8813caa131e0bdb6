//! A small server of members, one thread per connection, that speaks to Phoenix clients or `murre.v1` and
//! makes at most one mistake; and the API that counts the members. It sends everything under one lock.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// The protocol of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Phoenix,
    MurreV1,
}

/// The server's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// A command is refused, not answered, or its answer has another id.
    Refuses,
    Silent,
    WrongAnswer,
    /// Somebody is told of another channel's members.
    OtherChannel,
    /// Changes and counts are not told.
    Loses,
    /// A join has the metadata of an earlier one.
    OldMeta,
    /// A leave has the name of another connection.
    OtherConnection,
    /// The API counts one too many.
    Miscounts,
}

/// Starts the server and its API. They run until the test process ends.
pub(crate) fn start(protocol: Protocol, mistake: Mistake) -> (SocketAddr, SocketAddr) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (listener, api) = (bind(), bind());
    let addresses = [&listener, &api].map(|listener| listener.local_addr().expect("bound"));
    let server = Arc::new(Server { protocol, mistake, state: Mutex::default() });
    let counting = Arc::clone(&server);
    thread::spawn(move || {
        for stream in api.incoming().flatten() {
            // A client that is gone needs no answer.
            let _ = counting.count(&stream);
        }
    });
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(number, &stream));
        }
    });
    (addresses[0], addresses[1])
}

struct Server {
    protocol: Protocol,
    mistake: Mistake,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By channel and connection.
    members: BTreeMap<String, BTreeMap<usize, Member>>,
    commands: u64,
}

struct Member {
    user: String,
    meta: Value,
    /// The news that the client asks for: the member `presence` of its `subscribe`.
    watch: Value,
    stream: TcpStream,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request to the API.
    fn count(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut authorized = false;
        for line in lines {
            let line = line?;
            authorized |= line == "Authorization: Bearer what the test and its server know";
            if line.is_empty() {
                break;
            }
        }
        assert!(authorized, "{request}");
        let path = request.split(' ').nth(1).unwrap_or_default();
        let channel = path.strip_prefix("/api/presence/").expect("our client");
        let channel = channel.split('?').next().unwrap_or_default();
        let members = self.lock().members.get(channel).map_or(0, BTreeMap::len);
        let clients = members + usize::from(self.mistake == Mistake::Miscounts);
        let body = json!({"clients": clients, "users": members}).to_string();
        write!(&mut &*stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn serve(&self, number: usize, stream: &TcpStream) {
        // The connection is over, whatever the result.
        let _ = self.answer(number, stream);
        for members in self.lock().members.values_mut() {
            members.remove(&number);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, number: usize, stream: &TcpStream) -> tungstenite::Result<()> {
        stream.set_nodelay(true)?;
        // The client connects once to see whether there is a server.
        let Ok(mut socket) = tungstenite::accept(stream) else { return Ok(()) };
        let mut user = String::new();
        loop {
            match socket.read()? {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).expect("our client");
                    match (self.protocol, message) {
                        (Protocol::Phoenix, message) => self.phoenix(number, stream, &message),
                        (Protocol::MurreV1, Value::Array(batch)) => {
                            user = user_of(&batch[0]["token"]);
                            send(stream, &json!({"type": "authenticated", "user": user}));
                            self.murre(number, stream, &user, &batch[1]);
                        }
                        (Protocol::MurreV1, one) => self.murre(number, stream, &user, &one),
                    }
                }
                Message::Ping(_) | Message::Close(_) => {
                    let _state = self.lock();
                    socket.flush()?;
                }
                message => panic!("our client sends {message:?}"),
            }
        }
    }

    fn phoenix(&self, number: usize, stream: &TcpStream, message: &Value) {
        let mut state = self.lock();
        let [join_ref, reference, topic, event] = [0, 1, 2, 3].map(|at| &message[at]);
        let is_join = event == "phx_join";
        let refused = is_join && self.mistake == Mistake::Refuses;
        if !is_join && self.mistake == Mistake::Silent {
            return;
        }
        if is_join {
            let member = Member {
                user: user_of(&message[4]["token"]),
                meta: Value::Null,
                watch: Value::Null,
                stream: stream.try_clone().expect("a descriptor"),
            };
            let topic = topic.as_str().expect("our client").to_owned();
            state.members.entry(topic).or_default().insert(number, member);
        }
        let wrong = !is_join && self.mistake == Mistake::WrongAnswer;
        let reference = if wrong { &json!("0") } else { reference };
        let status = if refused { "error" } else { "ok" };
        let reply = json!({"status": status, "response": {}});
        send(stream, &json!([join_ref, reference, topic, "phx_reply", reply]));
        let told = if self.mistake == Mistake::OtherChannel { &json!("elsewhere") } else { topic };
        if is_join {
            send(stream, &json!([null, null, told, "presence_diff", {"joins": {}, "leaves": {}}]));
        }
    }

    fn murre(&self, number: usize, stream: &TcpStream, user: &str, command: &Value) {
        let mut state = self.lock();
        let channel = command["identifier"].as_str().expect("our client");
        state.commands += 1;
        // The first joins are right.
        let wrong = |mistake| self.mistake == mistake && state.commands > 40;
        let (refuses, silent, other_id) =
            (wrong(Mistake::Refuses), wrong(Mistake::Silent), wrong(Mistake::WrongAnswer));
        let (old_meta, other_name) = (wrong(Mistake::OldMeta), wrong(Mistake::OtherConnection));
        let (loses, elsewhere) = (wrong(Mistake::Loses), wrong(Mistake::OtherChannel));
        let id = command["id"].as_u64().expect("our client") + u64::from(other_id);
        if refuses {
            let error = json!({"type": "error", "id": id, "message": "refused here"});
            return send(stream, &error);
        }
        if silent {
            return;
        }
        let members = state.members.entry(channel.to_owned()).or_default();
        let mut diff = json!({"type": "presence_diff", "joins": [], "leaves": [], "identifier":
            if elsewhere { "elsewhere" } else { channel }});
        if command["action"] == "subscribe" {
            let (meta, watch) = (command["meta"].clone(), command["presence"].clone());
            send(stream, &json!({"type": "subscribed", "identifier": channel, "id": id}));
            let stream = stream.try_clone().expect("a descriptor");
            let member = Member { user: user.to_owned(), meta, watch, stream };
            let mut shown = shown(number, &member);
            if old_meta {
                diff["joins"] = json!([shown.clone()]);
                shown["meta"] = json!(1);
            }
            diff["joins"].as_array_mut().expect("an array").push(shown);
            members.insert(number, member);
            let own = &members[&number];
            if own.watch == "members" {
                let all: Vec<_> =
                    members.iter().map(|(at, member)| self::shown(*at, member)).collect();
                let state =
                    json!({"type": "presence_state", "identifier": channel, "members": all});
                send(&own.stream, &state);
            }
        } else {
            if let Some(member) = members.remove(&number) {
                let name = if other_name { usize::MAX } else { number };
                diff["leaves"] = json!([shown(name, &member)]);
            }
            send(stream, &json!({"type": "unsubscribed", "identifier": channel, "id": id}));
        }
        let all = members.len();
        let count =
            json!({"type": "presence_count", "identifier": channel, "clients": all, "users": all});
        for member in members.values().filter(|_| !loses) {
            match member.watch.as_str() {
                Some("members") => send(&member.stream, &diff),
                Some(_) => send(&member.stream, &count),
                None => {}
            }
        }
    }
}

fn shown(number: usize, member: &Member) -> Value {
    json!({"user": member.user, "connection": format!("0-{number}-0"), "meta": member.meta})
}

/// The user of a token.
fn user_of(token: &Value) -> String {
    let claims = token.as_str().and_then(|token| token.split('.').nth(1)).expect("a token");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("claims");
    claims["sub"].as_str().expect("a user").to_owned()
}

/// Sends a text. A closed connection does not get it.
fn send(stream: &TcpStream, message: &Value) {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    let _ = socket.send(Message::text(message.to_string()));
}
