//! What a storm of users costs the session log in PostgreSQL: users connect, and leave all at once. A real server, in a
//! folder of its own, writes with `fsync` off.
//!
//! `cargo run --release -p murre-session-log --example postgres_storm [USERS] [CONNECTS_PER_SECOND]`

use std::thread;
use std::time::{Duration, Instant};

use murre_session_log::{LEASE, SessionLog, Settings};
use murre_testing::PostgresServer;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let users: u64 = arguments.next().unwrap_or(1_000_000);
    let rate: u64 = arguments.next().unwrap_or(10_000);
    let server = PostgresServer::start();
    let settings = Settings {
        place: server.database("log").parse().expect("a URL"),
        gap: Duration::ZERO,
        retention: None,
        node: "node".into(),
        lease: LEASE,
        spool: None,
    };
    let log = SessionLog::open(settings).expect("a database");
    thread::scope(|threads| {
        threads.spawn(|| log.run());
        let names: Vec<String> = (0..users).map(|user| format!("user {user}")).collect();
        let start = Instant::now();
        // In turns of 10 ms.
        for (turn, names) in (0..).zip(names.chunks((rate / 100).max(1) as usize)) {
            names.iter().for_each(|name| log.connected(name));
            let due = Duration::from_millis(10 * turn);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let connected = start.elapsed();
        // Each is one row.
        until(|| log.counts().rows >= users);
        tell(users, "connects", connected, "written after", start.elapsed());
        let start = Instant::now();
        names.iter().for_each(|name| log.disconnected(name));
        let left = start.elapsed();
        until(|| log.counts().written + log.counts().dropped >= users);
        tell(users, "ends", left, "written after", start.elapsed());
        println!("{:?}", log.counts());
        log.begin_end(Duration::from_secs(10));
    });
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_millis(10));
    }
}

fn tell(users: u64, what: &str, took: Duration, then: &str, wrote: Duration) {
    let rate = users as f64 / wrote.as_secs_f64();
    println!("{users} {what} in {took:.2?}, {then} {wrote:.2?}: {rate:.0} a second");
}
