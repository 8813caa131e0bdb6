//! The cost of presence in one channel: members join and leave, and watchers are told.
//!
//! `cargo run --release -p murre-router --example presence_churn [MEMBERS] [CHANGES]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::channels::{Origin, Taken};
use murre_router::presence::{Departure, News, Presence, PresenceRules, UserName, Watch, Watching};

/// Watchers that take everything.
struct Taking(u64);

impl Watching<()> for Taking {
    fn offer(&mut self, _: u32, _: &Arc<str>, news: &News, (): &mut ()) -> Taken {
        black_box(news);
        self.0 += 1;
        Taken::Yes
    }
}

/// Bytes of this process in memory (proc_pid_statm(5)).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let members: u64 = arguments.next().unwrap_or(100_000);
    let changes: u64 = arguments.next().unwrap_or(2_000_000);
    let rules = PresenceRules { lists: true, push_max: 200, interval_ms: 1000, grace_ms: 5000 };
    let users: Vec<UserName> = (0..2 * members).map(|n| format!("user{n}").into()).collect();
    let mut presence: Presence = Presence::new(0, 1, 7, move |_| Some(rules), 1000);
    let mut watchers = Taking(0);
    for watcher in 0..1000 {
        presence.watch(watcher, "c", Watch::Members, 0).expect("room");
    }
    let before = resident();
    let start = Instant::now();
    for origin in 0..members {
        let user = &users[origin as usize];
        presence.join("c", Origin(origin), user, None, 0).expect("room");
    }
    let took = start.elapsed();
    let bytes = resident().saturating_sub(before);
    println!(
        "{members} joins: {:.0} ns each, {:.1} bytes each",
        took.as_nanos() as f64 / members as f64,
        bytes as f64 / members as f64
    );
    // 1,000 joins and 1,000 leaves a second, in turns of 1 ms.
    let (mut now, mut slowest, start) = (0, Duration::ZERO, Instant::now());
    for turn in 0..changes / 2 {
        now += 1;
        let turn_start = Instant::now();
        let (joins, leaves) = (members + turn, turn);
        let user = &users[(joins % (2 * members)) as usize];
        presence.join("c", Origin(joins), user, None, now).expect("room");
        presence.leave("c", Origin(leaves), Departure::Lost, now);
        presence.expire(now);
        presence.deliver(64, now, &mut watchers);
        slowest = slowest.max(turn_start.elapsed());
    }
    let took = start.elapsed();
    println!(
        "{changes} changes in {now} simulated ms: {:.0} ns each, slowest turn {slowest:?}, {} told, {:?}",
        took.as_nanos() as f64 / changes as f64,
        watchers.0,
        presence.stats()
    );
}
