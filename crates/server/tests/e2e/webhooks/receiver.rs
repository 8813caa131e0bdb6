//! An application with a webhook: an HTTP server that applies the batches that it takes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http_request::{field, read_request};
use crate::knowledge::Application;
use crate::server::PATIENCE;

/// What the application does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Take,
    /// Answers with this status.
    Refuse(u16),
    /// Closes the connection without an answer.
    Close,
    /// Says nothing, and keeps the connection.
    Ignore,
}

/// An application that is told of events.
pub(super) struct Receiver {
    pub(super) url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

pub(super) struct State {
    pub(super) manner: Manner,
    /// What it does with the next requests, before `manner`.
    next: Vec<Manner>,
    pub(super) requests: Vec<Request>,
    pub(super) knows: Application,
    /// The last batch that was applied, by node and number.
    last: Option<(String, u64)>,
    /// Events that it was not told.
    pub(super) missed: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) signature: Option<String>,
    pub(super) text: Vec<u8>,
    pub(super) body: Value,
    pub(super) manner: Manner,
}

impl Receiver {
    pub(super) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook?secret=1", listener.local_addr().expect("an address"));
        let state = State {
            manner,
            next: Vec::new(),
            requests: Vec::new(),
            knows: Application::default(),
            last: None,
            missed: 0,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_threads = Arc::clone(&shared);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_threads);
                thread::spawn(move || while receive(&mut stream, &shared).is_some() {});
            }
        });
        Receiver { url, shared }
    }

    pub(super) fn flag(&self) -> String {
        format!("--webhook={}", self.url)
    }

    pub(super) fn set(&self, manner: Manner, next: &[Manner]) {
        let mut state = self.shared.0.lock().expect("no panic");
        (state.manner, state.next) = (manner, next.to_vec());
    }

    /// Waits until something holds, and returns what `is_there` has found.
    pub(super) fn until<T>(&self, what: &str, mut is_there: impl FnMut(&State) -> Option<T>) -> T {
        let (state, changed) = &*self.shared;
        let (mut state, started) = (state.lock().expect("no panic"), Instant::now());
        loop {
            if let Some(found) = is_there(&state) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "not {what}: {:?}", state.knows);
            state = changed.wait_timeout(state, Duration::from_secs(1)).expect("no panic").0;
        }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.0.lock().expect("no panic").requests.clone()
    }
}

/// Handles one request. `None` at the end of the connection.
fn receive(stream: &mut TcpStream, shared: &(Mutex<State>, Condvar)) -> Option<()> {
    let (head, text) = read_request(stream)?;
    assert!(head.starts_with("post /hook?secret=1 http/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&text).expect("JSON");
    let mut state = shared.0.lock().expect("no panic");
    let manner = if state.next.is_empty() { state.manner } else { state.next.remove(0) };
    if manner == Manner::Take {
        state.take(&body);
    }
    state.requests.push(Request {
        signature: field(&head, "murre-signature").map(str::to_owned),
        text,
        body,
        manner,
    });
    drop(state);
    shared.1.notify_all();
    let status = match manner {
        Manner::Take => 200,
        Manner::Refuse(status) => status,
        Manner::Close => return None,
        Manner::Ignore => {
            // Until the server gives up.
            let _ = stream.read(&mut [0]);
            return None;
        }
    };
    let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: 2\r\n\r\nok");
    stream.write_all(answer.as_bytes()).ok()
}

impl State {
    /// Applies a batch, which may have been applied before.
    fn take(&mut self, body: &Value) {
        let node = body["node"].as_str().expect("a node").to_owned();
        let sequence = body["sequence"].as_u64().expect("a number");
        let missed = body["missed"].as_u64().expect("a number");
        assert!(body["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{body}");
        match &self.last {
            Some((known, last)) if *known == node => {
                if sequence == *last {
                    return;
                }
                assert!(sequence > *last, "{sequence} after {last}");
                assert!(sequence == last + 1 || missed > 0, "a gap that is not told: {body}");
            }
            // Another run of the server, which begins with nothing.
            known => {
                assert!(known.is_none() || sequence == 1 || missed > 0, "{body}");
                self.knows = Application::default();
            }
        }
        self.last = Some((node, sequence));
        self.missed += missed;
        for event in body["events"].as_array().expect("a list") {
            // After a gap the application would have to ask anew; these tests only count.
            if self.missed == 0 {
                self.knows.apply(event);
            }
        }
    }
}
