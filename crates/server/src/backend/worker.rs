//! The thread that makes the calls.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use murre_router::Shard;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

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
                let answer = match &endpoints[kind as usize] {
                    Some(endpoint) => endpoint.ask(call, &counts).await,
                    None => Answer::Failed(Failure::Unreachable),
                };
                let gate = &gates[kind as usize];
                gate.ended(!is_down(&answer));
                gate.leave(bytes);
                hand_over(shard, id, answer, &deliver).await;
            });
        }
    }
}

/// Whether an answer shows that the application does not work. One that answers in time with a wrong
/// status or body may do so for this client only.
fn is_down(answer: &Answer) -> bool {
    use Failure::{Broken, Timeout, Unreachable};
    matches!(answer, Answer::Failed(Unreachable | Timeout | Broken))
}

impl Bounded {
    /// Makes a call as soon as there are less than [`IN_FLIGHT_MAX`] in flight, and counts its outcome.
    async fn ask(&self, call: Call, counts: &Counts) -> Answer {
        let Call { kind, fields, body, deadline, .. } = call;
        let failed = |why, problem: &str| {
            counts.failed(kind, why, &format!("{}: {problem}", without_query(self.endpoint.url())));
            Answer::Failed(why)
        };
        let Ok(Ok(_in_flight)) = timeout_at(deadline.into(), self.in_flight.acquire()).await else {
            return failed(Failure::Timeout, "it has waited for the calls before it");
        };
        let answer = match self.endpoint.post(fields, body, deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                let why = match error {
                    HttpError::Connect(_) => Failure::Unreachable,
                    HttpError::Timeout => Failure::Timeout,
                    _ => Failure::Broken,
                };
                return failed(why, &error.to_string());
            }
        };
        if answer.status != StatusCode::OK {
            return failed(Failure::Status, &format!("it is answered with {}", answer.status));
        }
        match Answer::read(kind, &answer.body) {
            Ok(answer) => {
                counts.count(kind, Outcome::from(&answer));
                answer
            }
            Err(problem) => failed(Failure::Nonsense, &problem),
        }
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
