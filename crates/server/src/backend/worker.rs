//! The thread that makes the calls.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use murre_router::Shard;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::answer::without_effect;
use super::counts::{Counts, Outcome};
use super::gate::{Gate, IN_FLIGHT_MAX};
use super::{Answer, BackendConfig, Call, CallId, CallKind, Failure};
use crate::http_client::{Endpoint, HttpError, without_query};

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The calls of all shards, and the endpoints that they go to.
pub(crate) struct Worker {
    calls: UnboundedReceiver<Call>,
    endpoints: Arc<[Option<Bounded>; 5]>,
    gates: Arc<[Gate; 5]>,
    counts: Arc<Counts>,
}

struct Bounded {
    endpoint: Endpoint,
    in_flight: Semaphore,
    /// Bytes of the data of an answer at most.
    data_bytes_max: usize,
}

/// The state of the application as a call has found it, for the circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It answers, if perhaps wrongly to this client.
    Alive,
    /// It has been asked, and has not answered.
    Down,
    /// Nothing: the call was not sent in time, or its answer breaks off the protocol.
    Nothing,
}

/// Posts an answer to a shard, or gives it back if the shard's mailbox is full.
pub(crate) type Deliver =
    Arc<dyn Fn(Shard, CallId, Answer) -> Result<(), Answer> + Send + Sync + 'static>;

/// A shard whose mailbox is full is told again, so often and after this time.
const TRIES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    pub(super) fn new(
        config: &BackendConfig,
        calls: UnboundedReceiver<Call>,
        gates: Arc<[Gate; 5]>,
        counts: Arc<Counts>,
    ) -> Self {
        let endpoint = |url: hyper::Uri| Bounded {
            endpoint: Endpoint::new(url, ANSWER_BYTES_MAX),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            data_bytes_max: config.data_bytes_max,
        };
        let endpoints = config.urls.clone().map(|url| url.map(endpoint));
        Worker { calls, endpoints: Arc::new(endpoints), gates, counts }
    }

    /// Makes the calls of all shards until their hubs have ended.
    pub(crate) async fn run(mut self, deliver: Deliver) {
        while let Some(call) = self.calls.recv().await {
            let (endpoints, gates) = (Arc::clone(&self.endpoints), Arc::clone(&self.gates));
            let (counts, deliver) = (Arc::clone(&self.counts), Arc::clone(&deliver));
            tokio::spawn(async move {
                let (kind, shard, id, bytes) = (call.kind, call.shard, call.id, call.body.len());
                let (answer, seen) = match &endpoints[kind as usize] {
                    Some(endpoint) => endpoint.ask(call, &counts).await,
                    None => (Answer::Failed(Failure::Unreachable), Seen::Down),
                };
                let gate = &gates[kind as usize];
                if seen != Seen::Nothing {
                    gate.ended(seen == Seen::Alive);
                }
                gate.leave(bytes);
                hand_over(shard, id, answer, &deliver).await;
            });
        }
    }
}

impl Bounded {
    /// Makes a call as soon as there are less than [`IN_FLIGHT_MAX`] in flight, and counts its outcome.
    async fn ask(&self, call: Call, counts: &Counts) -> (Answer, Seen) {
        let Call { kind, fields, body, deadline, .. } = call;
        let failed = |why, problem: &str| {
            counts.failed(kind, why, &format!("{}: {problem}", without_query(self.endpoint.url())));
            Answer::Failed(why)
        };
        let at_once = self.in_flight.try_acquire();
        let has_waited = at_once.is_err();
        let _in_flight = match at_once {
            Ok(place) => place,
            Err(_) => match timeout_at(deadline.into(), self.in_flight.acquire()).await {
                Ok(Ok(place)) => place,
                _ => {
                    let why = "it has waited for the calls before it";
                    return (failed(Failure::Timeout, why), Seen::Nothing);
                }
            },
        };
        let answer = match self.endpoint.post(fields, body, deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                let (why, seen) = match error {
                    HttpError::Connect(_) => (Failure::Unreachable, Seen::Down),
                    // The application had only the rest of the time.
                    HttpError::Timeout if has_waited => (Failure::Timeout, Seen::Nothing),
                    HttpError::Timeout => (Failure::Timeout, Seen::Down),
                    HttpError::Closed => (Failure::Broken, Seen::Down),
                    HttpError::TooLong(_) => (Failure::Broken, Seen::Alive),
                    HttpError::Malformed(_) => (Failure::Broken, Seen::Nothing),
                };
                return (failed(why, &error.to_string()), seen);
            }
        };
        if answer.status != StatusCode::OK {
            let why = format!("it is answered with {}", answer.status);
            return (failed(Failure::Status, &why), Seen::Alive);
        }
        let read = Answer::read(kind, &answer.body, self.data_bytes_max);
        let read = match read {
            Ok(read) => {
                counts.count(kind, Outcome::from(&read));
                let members = without_effect(kind, &answer.body);
                if !members.is_empty() && matches!(read, Answer::Result(_)) {
                    counts.have_no_effect(kind, &members.join(", "));
                }
                read
            }
            Err(problem) => failed(Failure::Nonsense, &problem),
        };
        (read, Seen::Alive)
    }
}

/// Hands an answer to its shard. A shard that takes no mail for a second has given the call up.
async fn hand_over(shard: Shard, id: CallId, mut answer: Answer, deliver: &Deliver) {
    for _ in 0..TRIES {
        match deliver(shard, id, answer) {
            Ok(()) => return,
            Err(back) => answer = back,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

const _: () = assert!(CallKind::ALL.len() == 5);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use hyper::body::Bytes;
    use hyper::header::HeaderMap;

    use super::*;

    /// The outcome of a call to an application that writes `answer` to each connection and then waits. With
    /// `waits` another call is in flight for the first half of the call's time.
    fn seen(answer: &'static [u8], waits: bool) -> (Option<Failure>, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let _ = stream.write_all(answer);
                    while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
                });
            }
        });
        let bounded = Bounded {
            endpoint: Endpoint::new(url.parse().expect("a URL"), ANSWER_BYTES_MAX),
            in_flight: Semaphore::new(1),
            data_bytes_max: 1000,
        };
        let time = Duration::from_millis(400);
        let call = Call {
            id: 1,
            shard: 0,
            kind: CallKind::Publish,
            fields: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
            deadline: Instant::now() + time,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (answer, seen) = runtime.expect("a runtime").block_on(async {
            let before = waits.then(|| bounded.in_flight.try_acquire().expect("it is the first"));
            let before = async {
                tokio::time::sleep(time / 2).await;
                drop(before);
            };
            let counts = Counts::default();
            tokio::join!(bounded.ask(call, &counts), before).0
        });
        match answer {
            Answer::Failed(why) => (Some(why), seen),
            _ => (None, seen),
        }
    }

    /// The circuit breaker hears of calls that were sent and got no answer in their whole time, and not of
    /// answers that are too long or that came late because others were in flight.
    #[test]
    fn what_a_call_shows() {
        let long = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";
        for (answer, waits, why, expected) in [
            (&b""[..], false, Some(Failure::Timeout), Seen::Down),
            (b"", true, Some(Failure::Timeout), Seen::Nothing),
            (long, false, Some(Failure::Broken), Seen::Alive),
            (b"SSH-2.0-OpenSSH_9.9\r\n", false, Some(Failure::Broken), Seen::Nothing),
            (
                b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
                false,
                Some(Failure::Status),
                Seen::Alive,
            ),
            (good, false, None, Seen::Alive),
        ] {
            assert_eq!(seen(answer, waits), (why, expected), "{answer:?} {waits}");
        }
    }
}
