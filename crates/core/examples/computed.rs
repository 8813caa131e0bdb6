//! HTTP answers that are computed on another thread, so that a long computation delays no other
//! connection of the shard.
//!
//! `cargo run --release -p murre-core --example computed`, then
//! `curl 'http://127.0.0.1:9000/primes?below=100000000'`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use murre_core::codec::http::{Request, Response, ResponseOptions};
use murre_core::{
    Answer, CloseReason, ConnId, Handler, Listener, Mailbox, Outbox, ServeMail, Server,
    ServerConfig, ServerError, Signals,
};

/// One shard's part: it sends jobs to the worker and gets the results by mail.
struct Primes {
    shard: usize,
    jobs: Sender<Job>,
    /// Connections whose answers are to come, and whether they go on after that.
    waiting: HashMap<ConnId, bool>,
}

/// A job for the worker.
struct Job {
    shard: usize,
    conn: ConnId,
    below: usize,
}

/// The result of a job.
pub(crate) struct Done {
    conn: ConnId,
    count: usize,
}

type PrimesMailbox = Arc<Mailbox<ServeMail<Done>>>;

const BELOW_MAX: usize = 100_000_000;

impl Handler for Primes {
    /// Nothing: `waiting` has all there is.
    type Session = ();
    type Mail = Done;

    fn request(&mut self, conn: ConnId, request: &Request<'_, '_>, out: &mut Outbox) -> Answer<()> {
        if (request.method, request.path()) != ("GET", "/primes") {
            return Answer::Now(Response::text(404, "not found\n"));
        }
        match request.query("below").and_then(|below| below.parse().ok()) {
            Some(below) if below <= BELOW_MAX => {
                let job = Job { shard: self.shard, conn, below };
                if self.jobs.send(job).is_err() {
                    return Answer::Now(out.unavailable(conn, "the worker has ended\n"));
                }
                self.waiting.insert(conn, request.keep_alive);
                Answer::Later(())
            }
            _ => Answer::Now(Response::text(400, "?below= is a number up to 100 million\n")),
        }
    }

    fn mail(&mut self, Done { conn, count }: Done, out: &mut Outbox) {
        // None if the client has gone meanwhile: `close` has removed it.
        let Some(keep_alive) = self.waiting.remove(&conn) else { return };
        let keep_alive = keep_alive && !out.is_draining();
        let response = Response::text(200, format!("{count}\n"));
        // A client that is just going needs no answer.
        let options = ResponseOptions { keep_alive, ..ResponseOptions::default() };
        let _ = out.write_answer(conn, |bytes| response.write(bytes, &options));
    }

    /// Once the answer is queued the connection can go on with the next request.
    fn answered(&self, conn: ConnId, _: &()) -> bool {
        !self.waiting.contains_key(&conn)
    }

    /// In a drain the answers that are being computed are still sent, as far as its time allows.
    fn leave(&mut self, _conn: ConnId, _: &mut (), _out: &mut Outbox) {}

    fn close(&mut self, conn: ConnId, _: (), _reason: CloseReason, _out: &mut Outbox) {
        self.waiting.remove(&conn);
    }
}

/// The worker: does one job after the other, until all shards have ended.
fn work(jobs: Receiver<Job>, shards: &[PrimesMailbox]) {
    for Job { shard, conn, below } in jobs {
        let mut mail = ServeMail::App(Done { conn, count: primes(below) });
        // A full mailbox has room again after the shard's next turn.
        while let Err(back) = shards[shard].post(mail) {
            mail = back;
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How many primes are below `below` (the sieve of Eratosthenes).
fn primes(below: usize) -> usize {
    let mut prime = vec![true; below];
    prime.iter_mut().take(2).for_each(|number| *number = false);
    let mut number = 2;
    while number * number < below {
        if prime[number] {
            (number * number..below).step_by(number).for_each(|multiple| prime[multiple] = false);
        }
        number += 1;
    }
    prime.into_iter().filter(|&prime| prime).count()
}

/// Starts the shards and the worker.
pub(crate) fn start(
    config: ServerConfig,
    signals: Option<Signals>,
) -> Result<Server<Done>, ServerError> {
    let (jobs, to_do) = mpsc::channel();
    let make = move |shard| Primes { shard, jobs: jobs.clone(), waiting: HashMap::new() };
    let server = Server::start(config, signals, make)?;
    let shards: Vec<PrimesMailbox> =
        server.shards().iter().map(|shard| Arc::clone(&shard.mailbox)).collect();
    thread::spawn(move || work(to_do, &shards));
    Ok(server)
}

#[cfg_attr(test, expect(dead_code, reason = "tests start the server themselves"))]
fn main() -> Result<(), ServerError> {
    let signals = Signals::block().map_err(ServerError::Thread)?;
    let listener = Listener::bind(([127, 0, 0, 1], 9000).into()).map_err(ServerError::Thread)?;
    start(ServerConfig::new(listener)?, Some(signals))?.run()
}
