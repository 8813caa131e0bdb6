//! An application behind the server, as its author would write it: an HTTP server that answers calls. It
//! can be slow, dead or wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http_request::read_request;
use crate::server::PATIENCE;

/// A call that has arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `connect`, `subscribe` and so on.
    pub(crate) kind: String,
    /// The head of the request, in lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// What the application does with a call.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Answers with status 200 and this JSON.
    Say(Value),
    /// The same after a while.
    SayLater(u64, Value),
    /// Answers with these bytes, and closes the connection.
    Write(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Says nothing until the client closes.
    Hang,
}

/// A running application.
pub(crate) struct Application {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Application {
    /// Starts an application that does with each call what `answer` says.
    pub(crate) fn start(answer: impl Fn(&Call) -> Do + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/app", listener.local_addr().expect("an address"));
        let application =
            Application { url, calls: Arc::default(), now: Arc::default(), most: Arc::default() };
        let (calls, answer) = (Arc::clone(&application.calls), Arc::new(answer));
        let (now, most) = (Arc::clone(&application.now), Arc::clone(&application.most));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (calls, answer) = (Arc::clone(&calls), Arc::clone(&answer));
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                thread::spawn(move || {
                    stream.set_nodelay(true).expect("no delay");
                    let mut stream = stream;
                    while let Some(call) = read(&mut stream) {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        calls.lock().expect("no panic").push(call.clone());
                        let goes_on = obey(&mut stream, answer(&call));
                        now.fetch_sub(1, Ordering::SeqCst);
                        if !goes_on {
                            break;
                        }
                    }
                });
            }
        });
        application
    }

    /// The flag that names the application.
    pub(crate) fn flag(&self) -> String {
        format!("--backend={}", self.url)
    }

    /// The calls of a kind so far.
    pub(crate) fn calls(&self, kind: &str) -> Vec<Call> {
        let calls = self.calls.lock().expect("no panic");
        calls.iter().filter(|call| call.kind == kind).cloned().collect()
    }

    /// Waits until there are so many calls of a kind.
    pub(crate) fn wait_for(&self, kind: &str, count: usize) {
        let start = Instant::now();
        while self.calls(kind).len() < count {
            assert!(start.elapsed() < PATIENCE, "no {count} calls of {kind}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The most calls that were there at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn read(stream: &mut TcpStream) -> Option<Call> {
    let (head, body) = read_request(stream)?;
    let kind = head.strip_prefix("post /app/").expect("a call").split(' ').next();
    let kind = kind.expect("a path").to_owned();
    Some(Call { kind, head, body: serde_json::from_slice(&body).expect("JSON") })
}

/// Returns whether the connection goes on.
fn obey(stream: &mut TcpStream, what: Do) -> bool {
    match what {
        Do::Say(value) => say(stream, &value),
        Do::SayLater(ms, value) => {
            thread::sleep(Duration::from_millis(ms));
            say(stream, &value)
        }
        Do::Write(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0]);
            false
        }
        Do::Close => {
            let _ = stream.shutdown(Shutdown::Both);
            false
        }
        Do::Hang => {
            let _ = stream.read(&mut [0]);
            false
        }
    }
}

fn say(stream: &mut TcpStream, value: &Value) -> bool {
    let body = value.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).is_ok()
}
