//! Runs `backend` against a small server that asks the application about each connection, and is right or makes
//! one mistake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// The server's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The application is not asked.
    AsksNobody,
    /// A connection gets the user of the one before.
    OtherUser,
    /// One connection is refused when all come back.
    RefusesOne,
}

const CONNS: usize = 20;
const BESIDE: usize = 3;

/// Starts the server. It runs until the test process ends.
fn start(application: SocketAddr, mistake: Mistake) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        // `murre-load` connects once to see whether there is a server.
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let refuses = mistake == Mistake::RefusesOne && number == CONNS + BESIDE + 5;
            // A client that resets its connection ends its thread.
            thread::spawn(move || serve(&stream, number, application, mistake, refuses));
        }
    });
    address
}

fn serve(
    stream: &TcpStream,
    number: usize,
    application: SocketAddr,
    mistake: Mistake,
    refuses: bool,
) -> tungstenite::Result<()> {
    stream.set_nodelay(true)?;
    let name = format!("0-{number}-1");
    let mut user = None;
    #[expect(clippy::result_large_err, reason = "callbacks of tungstenite return this")]
    let ask = |_: &Request, response: Response| {
        if refuses {
            return Err(ErrorResponse::new(None));
        }
        user = (mistake != Mistake::AsksNobody).then(|| ask(application, &name));
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, ask) else { return Ok(()) };
    if mistake == Mistake::OtherUser {
        user = Some(format!("0-{}-1", number - 1));
    }
    loop {
        let answer = match socket.read()? {
            Message::Text(text) => {
                let command: Value = serde_json::from_str(&text).expect("our client");
                match &command["identifier"] {
                    Value::String(channel) => {
                        let owner = channel.rsplit_once('#').expect("our client").1;
                        if user.as_deref().is_none_or(|user| user == owner) {
                            json!({"type": "subscribed", "identifier": channel})
                        } else {
                            json!({"type": "error", "code": "not_allowed", "identifier": channel})
                        }
                    }
                    _ => json!({"type": "pong", "connection": name}),
                }
            }
            _ => {
                socket.flush()?;
                continue;
            }
        };
        socket.send(Message::text(answer.to_string()))?;
    }
}

/// Asks the application who the client of a connection is.
fn ask(application: SocketAddr, name: &str) -> String {
    let body = json!({"client": name, "transport": "websocket"}).to_string();
    let mut stream = TcpStream::connect(application).expect("the application of `murre-load`");
    let head = "POST /connect HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length:";
    write!(stream, "{head} {}\r\n\r\n{body}", body.len()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["result"]["user"].as_str().expect("a user").to_owned()
}

fn arguments(mistake: Mistake) -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let application = free.local_addr().expect("bound");
    drop(free);
    let address = start(application, mistake);
    format!(
        "backend --target {address} --application {application} --conns {CONNS} --beside {BESIDE} \
         --arrivals 2 --duration 300ms --shards 2 --timeout 3s"
    )
}

/// Shows that all connections come at once each time and get the session of their own user, and that the
/// application's part and the pings beside are recorded.
#[test]
fn all_come_at_once() {
    let record = crate::passes(&arguments(Mistake::None));
    let backend = &record["backend"];
    assert_eq!(backend["arrivals"].as_array().map(Vec::len), Some(2), "{backend}");
    assert_eq!(backend["application"]["calls"], 3 * CONNS + BESIDE);
    let in_flight = backend["application"]["in_flight_max"].as_u64();
    assert!(in_flight > Some(1) && in_flight <= Some((CONNS + BESIDE) as u64), "{backend}");
    for arrival in backend["arrivals"].as_array().expect("an array") {
        // No answer comes before its time.
        assert!(arrival["seconds"].as_f64() >= Some(0.02), "{backend}");
        assert_eq!(arrival["tries_missed"], 0);
    }
    assert!(backend["quiet_us"]["count"].as_u64() > Some(0), "{backend}");
}

/// Shows that a connect that is refused is tried again, and counted.
#[test]
fn a_connect_that_is_refused_is_counted() {
    let record = crate::passes(&arguments(Mistake::RefusesOne));
    assert_eq!(record["backend"]["arrivals"][0]["tries_missed"], 1);
}

/// Shows that a server fails which asks nobody, or mistakes one user for another.
#[test]
fn mistakes_of_a_server_that_asks_are_found() {
    crate::fails(&arguments(Mistake::AsksNobody), "has asked about 0 of 63 connections");
    crate::fails(&arguments(Mistake::OtherUser), "wrong: unexpected: {\"code\":\"not_allowed\"");
}

/// Shows that a run ends before it begins if the application cannot have its address.
#[test]
fn an_application_without_an_address_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let application = taken.local_addr().expect("bound");
    let address = start(application, Mistake::None);
    let ended = crate::run(&format!(
        "backend --conns 2 --target {address} --application {application} --duration 100ms"
    ));
    ended.says(1, &format!("--application {application} cannot be listened on"));
}
