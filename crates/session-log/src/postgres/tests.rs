//! The log on a real PostgreSQL, by several nodes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use murre_testing::{PostgresServer, seeds};
use tokio::sync::watch;

use super::nodes::Care;
use super::questions::PostgresReader;
use super::{Node, Postgres};
use crate::questions::Asker;
use crate::store::{StoreError, Written};
use crate::tests::{pages, sessions_at, settings_at, until, with_log};
use crate::tracker::{AtEnd, Batch, Ended, Moment, Open, Tracker};
use crate::{End, Place, PostgresUrl, Session, SessionLog, Settings, Spooled};

const GAP: u64 = 30_000;
const GAP_SPAN: Duration = Duration::from_millis(GAP);
/// Times of the tests begin here, long ago.
const ZERO: u64 = 1_700_000_000_000;

fn url(text: &str) -> PostgresUrl {
    PostgresUrl::parse(text).expect("a URL")
}

fn place(text: &str) -> Place {
    text.parse().expect("a URL")
}

fn node(name: &str) -> Node {
    Node { name: name.into(), lease: Duration::from_secs(30) }
}

fn opened(address: &str, name: &str) -> Result<Postgres, StoreError> {
    let (_, ending) = watch::channel(false);
    Postgres::open(&url(address), node(name), GAP_SPAN, ending, ZERO)
}

fn at(ms: u64) -> Moment {
    Moment { unix_ms: ZERO + ms, ms }
}

/// A node whose clock is that of the test.
struct TestNode {
    tracker: Tracker,
    store: Postgres,
    number: i64,
    connections: Vec<u32>,
}

impl TestNode {
    fn new(address: &str, name: &str, users: usize) -> Self {
        let store = opened(address, name).expect("a database");
        let tracker = Tracker::new(GAP, 1 << 20);
        TestNode { tracker, store, number: 0, connections: vec![0; users] }
    }

    /// Writes all that has changed. A batch may fail before or after it was written.
    fn flush(&mut self, now: u64, rng: &mut Rng, failures: u8) {
        loop {
            let batch = self.tracker.take(3, at(now));
            if batch.rows() == 0 && !batch.forget_open && !self.tracker.tend(3, at(now)) {
                match self.store.beat(ZERO + now).expect("written") {
                    Written::Done => return,
                    Written::Fenced => self.tracker.send_all(),
                }
                continue;
            }
            self.number += 1;
            let fails = rng.u8(..10) < failures;
            if fails && rng.bool() {
                self.tracker.put_back(batch);
                continue;
            }
            match self.store.write(self.number, &batch, ZERO + now).expect("written") {
                Written::Done if fails => self.tracker.put_back(batch),
                Written::Done => {}
                Written::Fenced => {
                    self.tracker.put_back(batch);
                    self.tracker.send_all();
                }
            }
        }
    }
}

/// The sessions that follow from what happened to a user: those that have ended, and the open one.
fn sessions(history: &[(u64, bool)], now: u64) -> Vec<(u64, Option<u64>)> {
    let (mut sessions, mut connections) = (Vec::<(u64, Option<u64>)>::new(), 0);
    for &(at, begins) in history {
        connections += if begins { 1 } else { -1 };
        match (begins, connections, sessions.last_mut()) {
            (true, 1, Some((_, left))) if left.is_some_and(|left| at < left + GAP) => *left = None,
            (true, 1, _) => sessions.push((at, None)),
            (false, 0, Some((_, left))) => *left = Some(at),
            _ => {}
        }
    }
    _ = now;
    sessions
}

/// What the tables have of all users, in milliseconds after the begin of the test.
fn tables(address: &str) -> BTreeMap<String, Vec<(u64, Option<u64>)>> {
    let mut all = BTreeMap::<String, Vec<_>>::new();
    for Session { user, join_at, terminate_at, .. } in sessions_at(&place(address)) {
        all.entry(user).or_default().push((join_at - ZERO, terminate_at.map(|at| at - ZERO)));
    }
    // Those that began together come in any order.
    all.values_mut().for_each(|sessions| sessions.sort_unstable());
    all
}

/// Users come and go on two nodes, batches fail before and after they were written, nodes are taken for dead while
/// they are there: the tables have the sessions that follow from what happened, each once.
#[test]
fn the_tables_follow_what_happened_on_two_nodes() {
    let server = PostgresServer::start();
    for seed in seeds(25) {
        let database = format!("seed_{seed}");
        let address = server.database(&database);
        let mut rng = Rng::with_seed(seed);
        let users = rng.usize(1..5);
        let mut nodes = [TestNode::new(&address, "a", users), TestNode::new(&address, "b", users)];
        let mut keeper = PostgresReader::open(&url(&address), Asker::Server).expect("tables");
        let mut care = Care::new(Duration::ZERO, None);
        let mut histories = BTreeMap::<String, Vec<(u64, bool)>>::new();
        let mut now = 1000;
        for step in 0..60 {
            let longest = if rng.bool() { 500 } else { 2 * GAP };
            now += rng.u64(1..longest);
            let (user, index) = (rng.usize(..users), rng.usize(..2));
            let name = format!("user {user}");
            let is_there = nodes.iter().any(|node| node.connections[user] > 0);
            if !is_there {
                // That a user has left a node is in the database when it is somewhere else after the gap.
                nodes.iter_mut().for_each(|node| node.flush(now, &mut rng, 2));
            }
            let node = &mut nodes[index];
            match rng.u8(..8) {
                0..=2 => {
                    node.connections[user] += 1;
                    node.tracker.connected(&name, at(now));
                    histories.entry(name).or_default().push((now, true));
                }
                3..=5 if node.connections[user] > 0 => {
                    node.connections[user] -= 1;
                    node.tracker.disconnected(&name, at(now));
                    histories.entry(name).or_default().push((now, false));
                }
                6 => {
                    // Its last word is as old as the test's clock has it.
                    node.flush(now, &mut rng, 2);
                    let id = node.store.id.clone().unwrap_or_default();
                    let seen = format!(
                        "UPDATE murre_node SET lease_until = now() - interval '1 s', \
                         seen_at = to_timestamp({}) WHERE node = '{id}'",
                        (ZERO + now) as f64 / 1000.0
                    );
                    server.sql(&database, &seen);
                    assert_eq!(keeper.care(&mut care).expect("cleaned"), 1, "SEED={seed} {step}");
                }
                _ => node.flush(now, &mut rng, 2),
            }
        }
        now += 2 * GAP;
        nodes.iter_mut().for_each(|node| node.flush(now, &mut rng, 0));
        let expected: BTreeMap<_, _> = histories
            .iter()
            .map(|(user, history)| (user.clone(), sessions(history, now)))
            .filter(|(_, sessions)| !sessions.is_empty())
            .collect();
        let found = tables(&address);
        if found != expected {
            for (user, history) in &histories {
                eprintln!("{user}: {history:?}");
            }
        }
        assert_eq!(found, expected, "SEED={seed}");
        // At the end all leave, and nothing of the nodes is left.
        for node in &mut nodes {
            node.tracker.leave_all(at(now), AtEnd::End);
            node.flush(now, &mut rng, 0);
            node.store.end(true).expect("written");
        }
        let left = server.sql(
            &database,
            "SELECT (SELECT count(*) FROM murre_node), (SELECT count(*) FROM murre_session_open)",
        );
        assert_eq!(left, ["0|0"], "SEED={seed}");
        server.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    }
}

fn open(user: &str, join_at: u64) -> Open {
    Open { user: user.into(), join_at: ZERO + join_at, left_at: None, connections: 1, is_new: true }
}

fn ended(user: &str, join_at: u64, terminate_at: u64) -> Ended {
    let (join_at, terminate_at) = (ZERO + join_at, ZERO + terminate_at);
    Ended { user: user.into(), join_at, terminate_at, how: End::Left }
}

/// Two nodes that let go of the same users at once close each session once, whatever the order of the names.
#[test]
fn two_nodes_let_go_of_one_user_at_once() {
    let server = PostgresServer::start();
    let address = server.database("log");
    let users: Vec<String> = (0..200).map(|number| format!("user {number}")).collect();
    let both = Barrier::new(2);
    thread::scope(|threads| {
        for name in ["a", "b"] {
            let (address, users, both) = (&address, &users, &both);
            threads.spawn(move || {
                let mut store = opened(address, name).expect("a database");
                for round in 0..20_u64 {
                    let begin = round * 10 * GAP;
                    let open = users.iter().map(|user| open(user, begin)).collect();
                    let ended = users.iter().map(|user| ended(user, begin, begin + 5)).collect();
                    for (index, batch) in
                        [Batch { open, ..Batch::default() }, Batch { ended, ..Batch::default() }]
                            .into_iter()
                            .enumerate()
                    {
                        both.wait();
                        let number = 1 + round as i64 * 2 + index as i64;
                        let written = store.write(number, &batch, ZERO + begin + 5);
                        assert_eq!(written.expect("written"), Written::Done);
                    }
                }
            });
        }
    });
    let each = "SELECT count(*), count(DISTINCT (user_id, join_at)), (SELECT count(*) FROM murre_session_open) \
                FROM murre_session_log";
    assert_eq!(server.sql("log", each), ["4000|4000|0"]);
}

/// Sessions of the spool that are written twice, late, or beside those of other nodes are there once. Questions are
/// answered from what is there.
#[test]
fn late_sessions_are_joined_with_others() {
    let server = PostgresServer::start();
    let address = server.database("log");
    // Nodes of one name are told apart.
    let [mut here, mut there] = ["a", "a"].map(|name| opened(&address, name).expect("a database"));
    let write = |store: &mut Postgres, number, batch: Batch| {
        assert_eq!(store.write(number, &batch, ZERO + 900_000).expect("written"), Written::Done);
    };
    let open_there = Batch { open: vec![open("ann", 500_000), open("bob", 1)], ..Batch::default() };
    write(&mut there, 1, open_there);
    for number in 1..3 {
        let ended = vec![
            ended("ann", 100_000, 200_000),
            ended("ann", 300_000, 480_000),
            ended("bob", 100_000, 200_000),
            ended("cara", 10, 20),
            ended("cara", 100_000, 150_000),
            ended("dan", 100_000, 150_000),
        ];
        write(&mut here, number, Batch { is_replayed: true, ended, ..Batch::default() });
    }
    let ended = vec![
        ended("cara", 15, 90_000),
        ended("dan", 190_000, 200_000),
        ended("dan", 140_000, 165_000),
    ];
    write(&mut there, 2, Batch { ended, ..Batch::default() });
    let expected = [
        ("ann", vec![(100_000, Some(200_000)), (300_000, None)]),
        ("bob", vec![(1, None)]),
        ("cara", vec![(10, Some(150_000))]),
        ("dan", vec![(100_000, Some(200_000))]),
    ];
    assert_eq!(tables(&address), expected.map(|(user, all)| (user.to_owned(), all)).into());
    pages(&place(&address), 5, 2);
    assert_eq!(server.sql("log", "SELECT count(*) FROM watching_times"), ["5"]);
}

/// Without a gap, too, a session of no length is there once when it is written again, beside one that begins as it ends.
#[test]
fn sessions_of_one_millisecond_are_there_once() {
    let server = PostgresServer::start();
    let address = server.database("log");
    let (_, ending) = watch::channel(false);
    let store = Postgres::open(&url(&address), node("a"), Duration::ZERO, ending, ZERO);
    let mut store = store.expect("a database");
    for (number, batch) in (1..).zip([
        vec![ended("ann", 5, 5)],
        vec![ended("ann", 5, 5), ended("ann", 5, 9)],
        vec![ended("ann", 5, 9), ended("ann", 9, 9)],
        vec![ended("ann", 9, 9)],
    ]) {
        let batch = Batch { ended: batch, ..Batch::default() };
        assert_eq!(store.write(number, &batch, ZERO + 10).expect("written"), Written::Done);
    }
    let expected = vec![(5, Some(5)), (5, Some(9)), (9, Some(9))];
    assert_eq!(tables(&address), [("ann".to_owned(), expected)].into());
}

/// Nodes that start at once make the tables once. A newer version, missing rights and a wrong password are refused with the
/// remedy; a database that is away is waited for.
#[test]
fn migrations_run_once_and_wrong_databases_are_refused() {
    let server = PostgresServer::start();
    let address = server.database("log");
    thread::scope(|threads| {
        for name in ["a", "b", "c", "d"] {
            let address = &address;
            threads.spawn(move || opened(address, name).map(drop));
        }
    });
    let made = "SELECT (SELECT count(*) FROM murre_node), (SELECT count(*) FROM murre_migration), \
                (SELECT count(*) FROM pg_inherits WHERE inhparent = 'murre_session_log'::regclass)";
    assert_eq!(server.sql("log", made), ["4|1|5"]);
    // Days before the retention go as tables.
    server.sql(
        "log",
        "CREATE TABLE murre_session_log_20200101 PARTITION OF murre_session_log \
                       FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00')",
    );
    server.sql("log", "INSERT INTO murre_session_log VALUES ('ann', '2020-01-01 10:00+00', '2020-01-01 12:00+00', 0), \
                       ('ann', '2020-01-03 10:00+00', '2020-01-03 12:00+00', 0), ('ann', now(), now(), 0)");
    let mut keeper = PostgresReader::open(&url(&address), Asker::Server).expect("tables");
    keeper
        .care(&mut Care::new(Duration::from_secs(30), Some(Duration::from_secs(86_400))))
        .expect("cared");
    let left =
        "SELECT count(*), to_regclass('murre_session_log_20200101') IS NULL FROM murre_session_log";
    assert_eq!(server.sql("log", left), ["1|t"]);

    let problem = |address: &str| match opened(address, "x") {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    };
    server.sql("log", "INSERT INTO murre_migration (version) VALUES (99)");
    assert!(problem(&address).contains("version 99") && problem(&address).contains("newer server"));
    server.sql("postgres", "CREATE USER guest");
    server.database("theirs");
    let guest = server.url("theirs").replace("murre@", "guest@");
    assert!(problem(&guest).contains("GRANT CREATE"), "{}", problem(&guest));
    let absent = problem(&server.url("absent"));
    assert!(absent.contains("CREATE DATABASE"), "{absent}");
    // Nobody listens there.
    assert_eq!(problem("postgres://murre@127.0.0.1:1/log"), "");
}

/// The settings of a node with a short lease.
fn settings(address: &str, name: &str) -> Settings {
    let mut settings = settings_at(place(address), Duration::from_millis(300));
    settings.node = name.into();
    settings.lease = Duration::from_secs(2);
    settings
}

/// Users of a dead node end with it, also those that have left it within the gap; users that are on another node go on. A
/// node that was taken for dead and comes back goes on with its sessions.
#[test]
fn dead_nodes_are_cleaned_and_may_come_back() {
    let server = PostgresServer::start();
    let address = server.database("log");
    // It connects and dies: nothing of it runs any more.
    let mut dead = opened(&address, "dead").expect("a database");
    let gone = Open { left_at: Some(ZERO + 5), connections: 0, ..open("cara", 1) };
    let batch = Batch { open: vec![open("ann", 1), open("bob", 1), gone], ..Batch::default() };
    assert_eq!(dead.write(1, &batch, ZERO).expect("written"), Written::Done);
    server.sql("log", "UPDATE murre_node SET lease_until = now() + interval '1 hour'");
    with_log(settings(&address, "alive"), |log| {
        log.connected("bob");
        until("bob is written", || log.counts().rows >= 1);
        server.sql("log", "UPDATE murre_node SET lease_until = now() WHERE name = 'dead'");
        until("the node is cleaned", || log.counts().cleaned == 1);
        let ended = "SELECT user_id, ended FROM murre_session_log ORDER BY user_id";
        assert_eq!(server.sql("log", ended), ["ann|1", "cara|0"]);
        let left = "SELECT count(*) FROM murre_session_open WHERE user_id = 'bob' AND join_at < now() - interval '1 year'";
        assert_eq!(server.sql("log", left), ["1"]);
        // The dead one was only slow: what it writes now is refused, and it sends all anew.
        assert_eq!(dead.write(2, &Batch::default(), ZERO).expect("an answer"), Written::Fenced);
        let all = Batch { open: vec![open("ann", 1)], ..Batch::default() };
        assert_eq!(
            dead.write(3, &all, crate::moment(std::time::Instant::now()).unix_ms).expect("written"),
            Written::Done
        );
        assert_eq!(server.sql("log", ended), ["cara|0"]);
        dead.end(false).expect("written");
        until("the node is cleaned", || log.counts().cleaned == 2);
        assert_eq!(server.sql("log", ended), ["ann|1", "cara|0"]);
    });
    let left =
        "SELECT (SELECT count(*) FROM murre_session_open), (SELECT count(*) FROM murre_node)";
    assert_eq!(server.sql("log", left), ["0|0"]);
}

/// A session as its user has seen it: the times between which it began and ended.
type Seen = (String, RangeInclusive<u64>, RangeInclusive<u64>);

/// A user comes and goes.
fn come_and_go(log: &SessionLog, user: String) -> Seen {
    let before = crate::now();
    log.connected(&user);
    let joined = crate::now();
    // Sessions of some length, so that none are joined.
    thread::sleep(Duration::from_millis(1));
    let leaves = crate::now();
    log.disconnected(&user);
    (user, before..=joined, leaves..=crate::now())
}

/// While PostgreSQL stands still, for longer than a batch waits for it, and after it was killed no call waits. What has
/// ended meanwhile waits in the spool, also for the next run. In the end the log has the sessions that its users have
/// seen, each once.
#[test]
fn a_database_that_is_away_loses_nothing() {
    let mut server = PostgresServer::start();
    let address = server.database("log");
    let spool = std::env::temp_dir().join(format!("murre-spool-{}-away", std::process::id()));
    let _ = std::fs::remove_file(&spool);
    let with_spool = || {
        let mut settings = settings(&address, "a");
        settings.gap = Duration::ZERO;
        settings.spool = Some(Spooled { file: spool.clone(), bytes_max: 1 << 20 });
        settings
    };
    let mut seen = Vec::new();
    let mut come_and_go = |log: &SessionLog, users: std::ops::Range<u32>| {
        seen.extend(users.map(|user| come_and_go(log, format!("user {user}"))));
    };
    let there = crate::now();
    with_log(with_spool(), |log| {
        log.connected("there");
        come_and_go(log, 0..20);
        until("all are written", || log.counts().written == 20);
        server.signal("STOP");
        come_and_go(log, 10..30);
        until("a batch fails", || log.counts().failed > 0);
        come_and_go(log, 20..60);
        until("they are in the spool", || log.counts().spooled >= 40);
        server.signal("CONT");
        until("all are written", || log.counts().written == 80 && log.counts().spooled == 0);
        server.kill();
        come_and_go(log, 50..90);
        until("they are in the spool", || log.counts().spooled == 40);
        assert!(log.counts().spool_bytes > 40 * 30);
        server.run();
        until("all are written", || log.counts().written == 120 && log.counts().spooled == 0);
        assert_eq!(log.counts().spool_bytes, 0);
        server.kill();
        come_and_go(log, 90..100);
        until("they are in the spool", || log.counts().spooled == 10);
        log.begin_end(Duration::from_secs(2));
        assert!(log.wait(Duration::from_secs(60)));
    });
    let left = crate::now();
    // A next run starts while PostgreSQL is away.
    with_log(with_spool(), |log| {
        come_and_go(log, 100..110);
        server.run();
        // With the one that was there: its server has ended in order.
        until("all are written", || log.counts().written == 21);
        until("the rows of the first run are cleaned", || log.counts().cleaned >= 1);
    });
    seen.push(("there".into(), there..=left, there..=left));
    seen.sort_by_key(|(user, joined, _)| (user.clone(), *joined.start()));
    let mut logged = sessions_at(&place(&address));
    logged.sort_by_key(|session| (session.user.clone(), session.join_at));
    assert_eq!(logged.len(), seen.len());
    for (Session { user, join_at, terminate_at, .. }, (who, joined, left)) in
        logged.iter().zip(&seen)
    {
        let is_seen = joined.contains(join_at) && terminate_at.is_some_and(|at| left.contains(&at));
        assert!(
            user == who && is_seen,
            "{user} {join_at} {terminate_at:?}, not {who} {joined:?} {left:?}"
        );
    }
    let _ = std::fs::remove_file(&spool);
}

/// Sessions beyond the bound of memory are dropped and counted. The rows of their users do not stay open, and those of
/// users that are there do.
#[test]
fn what_the_bound_does_not_hold_is_dropped() {
    let mut server = PostgresServer::start();
    let address = server.database("log");
    let mut short = settings(&address, "a");
    short.gap = Duration::ZERO;
    with_log(short, |log| {
        log.connected("there");
        log.connected("gone");
        until("they are written", || log.counts().rows == 2);
        server.kill();
        for _ in 0..10_000 {
            log.disconnected("gone");
            log.connected("gone");
        }
        log.disconnected("gone");
        until("some are dropped", || log.counts().dropped > 0);
        server.run();
        until("all others are written", || log.counts().waiting == 0 && log.counts().fenced > 0);
        until("the rows of before are cleaned", || log.counts().cleaned > 0);
        let there = "SELECT user_id, (SELECT count(*) FROM jsonb_object_keys(nodes)) FROM murre_session_open";
        until("one is there", || server.sql("log", there) == ["there|1"]);
    });
}

/// With `verify-full` the certificate of the server must be trusted and of the host; `require` encrypts with any.
#[test]
fn certificates_are_verified() {
    // Addresses of this process alone, where no other program has the port.
    let id = std::process::id();
    let [named, unnamed] = [64, 128]
        .map(|first| format!("127.{}.{}.{}", first + (id >> 16) % 64, id >> 8 & 255, id & 255));
    let port = 54_329;
    let listen = format!("listen_addresses={named},{unnamed}");
    let settings = ["ssl=on", &listen, &format!("port={port}")];
    let mut certificate = String::new();
    let server = PostgresServer::start_with(&settings, |data| {
        let [file, key] = ["server.crt", "server.key"].map(|name| data.join(name));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=murre",
            ])
            .args([
                "-addext",
                &format!("subjectAltName=IP:{named}"),
                "-addext",
                "basicConstraints=critical,CA:false",
            ])
            .arg("-out")
            .arg(&file)
            .arg("-keyout")
            .arg(&key)
            .output();
        let made = made.expect("openssl is on this machine");
        assert!(made.status.success(), "{made:?}");
        certificate = std::env::temp_dir()
            .join(format!("murre-certificate-{}.pem", std::process::id()))
            .display()
            .to_string();
        std::fs::copy(&file, &certificate).expect("there is room for a file");
    });
    let at = |host: &str, parameters: &str| {
        let address = format!("postgres://murre@{host}:{port}/postgres?{parameters}");
        opened(&address, "a").err().map(|error| error.to_string()).unwrap_or_default()
    };
    let trusted = format!("sslmode=verify-full&sslrootcert={certificate}");
    assert_eq!(at(&named, &trusted), "");
    assert_eq!(at(&unnamed, "sslmode=require"), "");
    let secure = "SELECT bool_and(ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE client_port > 0";
    let _there = opened(&format!("postgres://murre@{named}:{port}/postgres?sslmode=prefer"), "a");
    assert_eq!(server.sql("postgres", secure), ["t"]);
    let other = at(&unnamed, &trusted);
    assert!(other.contains("not valid for name"), "{other}");
    let untrusted = at(&named, "sslmode=verify-full");
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let _ = std::fs::remove_file(certificate);
}
