//! A small server of channels, one thread per connection, that follows docs/protocol.md or makes
//! one mistake. It sends everything under one lock, so that all connections see the same order.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// The server's mistake. It happens only once if one time is enough to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// A subscriber gets a publication of another identifier.
    WrongIdentifier,
    /// A publication with a 50th delivery reaches no subscriber: several, as the last one before a
    /// subscriber leaves is not missed.
    Lost,
    /// One delivery is repeated, or has a wrong byte.
    Twice,
    WrongByte,
    /// A recovery leaves out one of the missed publications.
    HalfRecovered,
    /// The server has none of the missed publications any more.
    NoHistory,
    /// A publication is stored and delivered once more, with another offset.
    StoredTwice,
    /// Subscriptions have no start position, and begin late.
    LateSubscription,
    /// An unsubscribed connection still gets publications.
    StaysSubscribed,
    /// A response belongs to another request.
    WrongResponse,
    /// Every `subscribe` is refused, or gets no answer.
    Refusing,
    Silent,
    /// The server has no feed.
    NoFeed,
}

/// Starts the server. It runs until the test process ends.
pub(crate) fn start(mistake: Mistake) -> SocketAddr {
    listen(&Arc::new(Hub::new(mistake)))
}

/// Starts two servers with the same channels, which end the connections of all subscribers twice.
pub(crate) fn start_nodes(mistake: Mistake) -> String {
    let hub = Arc::new(Hub { ends: true, ..Hub::new(mistake) });
    [(); 2].map(|()| listen(&hub).to_string()).join(",")
}

fn listen(hub: &Arc<Hub>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let hub = Arc::clone(hub);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = Arc::clone(&hub);
            // A client that resets its connection ends its thread.
            thread::spawn(move || hub.serve(stream));
        }
    });
    address
}

struct Hub {
    mistake: Mistake,
    /// Whether it ends all subscribers' connections after some publications.
    ends: bool,
    /// Connections so far.
    connections: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Whether the feed runs.
    feeding: bool,
    fed: u64,
    published: u64,
    deliveries: u64,
    recoveries: u64,
    responses: u64,
}

#[derive(Default)]
struct Channel {
    members: Vec<(usize, TcpStream)>,
    /// All publications, from offset 1 on.
    history: Vec<Value>,
    /// The number of publications that a late subscription does not get.
    late: u64,
}

impl Hub {
    fn new(mistake: Mistake) -> Hub {
        Hub { mistake, ends: false, connections: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes messages of about so many bytes until the feed is stopped, or without subscribers.
    fn feed(&self, bytes: usize) {
        loop {
            thread::sleep(Duration::from_millis(1));
            let mut state = self.lock();
            let subscribed =
                state.channels.iter().filter(|(_, channel)| !channel.members.is_empty());
            let names: Vec<_> = subscribed.map(|(name, _)| name.clone()).collect();
            if !state.feeding || names.is_empty() {
                return;
            }
            state.fed += 1;
            let name = &names[state.fed as usize * 7 % names.len()];
            let wrong = self.mistake == Mistake::WrongIdentifier && state.fed == 20;
            let identifier = if wrong { "0" } else { &name[..] };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("now");
            let elements = "x".repeat(bytes.saturating_sub(70));
            let data = json!({"request": state.fed, "timestamp": now.as_millis() as u64,
                "identifier": identifier, "elements": elements});
            let message = publication(identifier, None, &data);
            for (_, stream) in &state.channels[name].members {
                send(stream, &message);
            }
        }
    }

    fn serve(self: &Arc<Self>, stream: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        // The connection is over, whatever the result.
        let _ = self.answer(number, &stream);
        for channel in self.lock().channels.values_mut() {
            channel.members.retain(|(member, _)| *member != number);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(self: &Arc<Self>, number: usize, stream: &TcpStream) -> tungstenite::Result<()> {
        stream.set_nodelay(true)?;
        // The client connects once to see whether there is a server.
        let Ok(mut socket) = tungstenite::accept(stream) else { return Ok(()) };
        loop {
            match socket.read()? {
                Message::Text(text) => match serde_json::from_str(&text).expect("our client") {
                    Value::Array(batch) => {
                        batch.iter().for_each(|one| self.execute(number, stream, one));
                    }
                    command => self.execute(number, stream, &command),
                },
                Message::Ping(_) | Message::Close(_) => {
                    let _state = self.lock();
                    socket.flush()?;
                }
                message => panic!("our client sends {message:?}"),
            }
        }
    }

    fn execute(self: &Arc<Self>, number: usize, stream: &TcpStream, command: &Value) {
        let mut state = self.lock();
        let identifier = command["identifier"].as_str().unwrap_or_default();
        let mut answer = match command["action"].as_str().expect("our client") {
            "subscribe" if self.mistake == Mistake::Refusing => {
                json!({"type": "error", "code": "not_allowed", "message": "no \"entry\""})
            }
            "subscribe" if self.mistake == Mistake::Silent => return,
            "subscribe" => return self.subscribe(&mut state, number, stream, command),
            "unsubscribe" => {
                if self.mistake != Mistake::StaysSubscribed {
                    let channel = state.channels.get_mut(identifier).expect("subscribed to");
                    channel.members.retain(|(member, _)| *member != number);
                }
                json!({"type": "unsubscribed", "identifier": identifier})
            }
            "publish" => {
                self.publish(&mut state, identifier, &command["data"]);
                if command["id"].is_null() {
                    return;
                }
                let mut answer = json!({"type": "published", "identifier": identifier});
                if identifier.starts_with("kept:") {
                    let offset = state.channels[identifier].history.len();
                    answer["position"] = json!({"epoch": 7, "offset": offset});
                }
                answer
            }
            "feed" if self.mistake == Mistake::NoFeed => {
                json!({"type": "error", "code": "unknown_action", "message": "not without --bench"})
            }
            "feed" => {
                let bytes = command["bytes"].as_u64().expect("our client") as usize;
                state.feeding = command["rate"].as_f64() != Some(0.0);
                if state.feeding {
                    let hub = Arc::clone(self);
                    thread::spawn(move || hub.feed(bytes));
                }
                json!({"type": "feed"})
            }
            "request" => {
                let data = &command["data"];
                state.responses += 1;
                let wrong = self.mistake == Mistake::WrongResponse && state.responses == 20;
                let request = data["request"].as_u64().expect("our client") + u64::from(wrong);
                json!({"type": "response", "service": command["service"], "data":
                    {"request": request, "timestamp": data["timestamp"], "address": "here"}})
            }
            action => panic!("our client says {action}"),
        };
        if !command["id"].is_null() {
            answer["id"] = command["id"].clone();
        }
        send(stream, &answer);
    }

    fn subscribe(&self, state: &mut State, number: usize, stream: &TcpStream, command: &Value) {
        let identifier = command["identifier"].as_str().expect("our client");
        let recovering = identifier.starts_with("kept:") && command["position"].is_object();
        state.recoveries += u64::from(recovering);
        let skip = usize::from(self.mistake == Mistake::HalfRecovered && state.recoveries > 3);
        let channel = state.channels.entry(identifier.to_owned()).or_default();
        let mut answer = json!({"type": "subscribed", "identifier": identifier});
        let mut missed = channel.history.len()..channel.history.len();
        if identifier.starts_with("kept:") {
            answer["position"] = json!({"epoch": 7, "offset": channel.history.len()});
        }
        if recovering {
            assert_eq!(command["position"]["epoch"], 7);
            answer["recovered"] = json!(self.mistake != Mistake::NoHistory);
            if self.mistake != Mistake::NoHistory {
                missed.start = command["position"]["offset"].as_u64().expect("our client") as usize;
            }
        }
        send(stream, &answer);
        for offset in missed.skip(skip) {
            let data = &channel.history[offset];
            send(stream, &publication(identifier, Some(offset as u64 + 1), data));
        }
        if self.mistake == Mistake::LateSubscription {
            channel.late = 2;
        }
        channel.members.push((number, stream.try_clone().expect("a descriptor")));
    }

    fn publish(&self, state: &mut State, identifier: &str, data: &Value) {
        state.published += 1;
        if self.ends && matches!(state.published, 50 | 150) {
            for (_, stream) in state.channels.values().flat_map(|channel| &channel.members) {
                // It may have ended.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let mut deliveries = state.deliveries;
        let channel = state.channels.entry(identifier.to_owned()).or_default();
        let offset = identifier.starts_with("kept:").then(|| {
            channel.history.push(data.clone());
            channel.history.len() as u64
        });
        let message = publication(identifier, offset, data);
        if channel.late > 0 {
            channel.late -= 1;
            return;
        }
        let after = deliveries + channel.members.len() as u64;
        let lost = self.mistake == Mistake::Lost && deliveries / 50 < after / 50;
        for (_, stream) in &channel.members {
            deliveries += 1;
            match self.mistake {
                _ if lost => {}
                Mistake::Twice if deliveries == 50 => {
                    send(stream, &message);
                    send(stream, &message);
                }
                Mistake::WrongByte if deliveries == 50 => {
                    let text = message.to_string().replace("mno", "mnO");
                    send(stream, &serde_json::from_str(&text).expect("still JSON"));
                }
                _ => send(stream, &message),
            }
        }
        let again = self.mistake == Mistake::StoredTwice
            && channel.history.iter().filter(|one| *one == data).count() == 1
            && channel.history.len() == 20;
        state.deliveries = deliveries;
        if again {
            self.publish(state, identifier, data);
        }
    }
}

fn publication(identifier: &str, offset: Option<u64>, data: &Value) -> Value {
    let mut message = json!({"type": "publication", "identifier": identifier, "data": data});
    if let Some(offset) = offset {
        message["offset"] = offset.into();
    }
    message
}

/// Sends a text. A closed connection does not get it.
fn send(stream: &TcpStream, message: &Value) {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    let _ = socket.send(Message::text(message.to_string()));
}
