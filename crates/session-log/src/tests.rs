//! The log on a real database.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::sqlite::Store;
use crate::tracker::{Batch, Ended, LeftOpen, Open};
use crate::{End, LEASE, Place, Reader, Session, SessionLog, Settings, Times, Wanted, now};

/// A folder of one test.
fn folder(test: &str) -> std::path::PathBuf {
    let folder =
        std::env::temp_dir().join(format!("murre-session-log-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    folder
}

fn settings(file: &Path, gap: Duration) -> Settings {
    settings_at(Place::File(file.to_owned()), gap)
}

/// The settings of a log that is kept for ever.
pub(crate) fn settings_at(place: Place, gap: Duration) -> Settings {
    Settings { place, gap, retention: None, node: "node".into(), lease: LEASE, spool: None }
}

fn reader(file: &Path) -> Reader {
    Reader::open(&Place::File(file.to_owned())).expect("readable")
}

/// The sessions of a log.
pub(crate) fn sessions_at(place: &Place) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut reader = Reader::open(place).expect("readable");
    reader.sessions(&Wanted::default(), |session| sessions.push(session)).expect("readable");
    sessions
}

/// Runs `during` with a log that is being written, and ends it in order.
pub(crate) fn with_log(settings: Settings, during: impl FnOnce(&SessionLog)) {
    let log = SessionLog::open(settings).expect("a usable file");
    thread::scope(|scope| {
        scope.spawn(|| log.run());
        during(&log);
        log.begin_end(Duration::from_secs(60));
        assert!(log.wait(Duration::from_secs(60)));
    });
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "{what} does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn sessions(file: &Path) -> Vec<Session> {
    sessions_at(&Place::File(file.to_owned()))
}

/// The users that are online.
fn online(file: &Path, now: u64) -> Vec<Session> {
    let mut online = Vec::new();
    let found = reader(file).online(&Wanted::default(), now, |session| online.push(session));
    found.expect("readable");
    online
}

fn open(user: &str, join_at: u64, left_at: Option<u64>) -> Open {
    let connections = u32::from(left_at.is_none());
    Open { user: user.into(), join_at, left_at, connections, is_new: true }
}

fn ended(user: &str, join_at: u64, terminate_at: u64) -> Ended {
    Ended { user: user.into(), join_at, terminate_at, how: End::Left }
}

/// A session with several connections has one row, whose end is that of the last. With a restart in
/// order within the gap it goes on.
#[test]
fn sessions_go_on_after_a_restart() {
    let file = folder("restart").join("log");
    let [ann, bob]: [Arc<str>; 2] = ["ann", "bob"].map(Arc::from);
    with_log(settings(&file, Duration::from_secs(3600)), |log| {
        for user in [&ann, &ann, &bob] {
            log.connected(user);
        }
        log.disconnected(&ann);
        log.disconnected(&bob);
        until("both are written", || sessions(&file).len() == 2);
        log.disconnected(&ann);
    });
    let before = sessions(&file);
    assert!(before.iter().all(|session| session.terminate_at.is_some() && !session.died));
    with_log(settings(&file, Duration::from_secs(3600)), |log| {
        log.connected(&ann);
        assert_eq!(log.counts().open, 2);
        until("ann is there again", || {
            let is_there =
                |session: &Session| session.user == "ann" && session.terminate_at.is_none();
            sessions(&file).iter().any(is_there)
        });
        let online = online(&file, now());
        assert_eq!(online.len(), 1);
        assert_eq!(online[0].join_at, before[0].join_at);
    });
    // Without a gap nobody is waited for.
    with_log(settings(&file, Duration::ZERO), |log| {
        until("both have ended", || log.counts().written == 2);
        assert_eq!(log.counts().open, 0);
    });
    assert_eq!(sessions(&file).len(), 2);
}

/// What a run that was killed has left open is read with the time at which it was last seen.
#[test]
fn a_killed_run_leaves_its_sessions_open() {
    let file = folder("killed").join("log");
    let mut store = Store::open(&file, 100).expect("a new file");
    let batch = Batch {
        open: vec![open("gone", 150, Some(180)), open("there", 160, None)],
        ..Batch::default()
    };
    store.write(1, &batch, 200).expect("written");
    store.beat(300).expect("written");
    drop(store);
    let left =
        |user: &str, join_at, left_at, died| LeftOpen { user: user.into(), join_at, left_at, died };
    let expected = [left("gone", 150, 180, false), left("there", 160, 300, true)];
    // A run that dies without having seen them changes nothing of it.
    for now in [1000, 2000] {
        let store = Store::open(&file, now).expect("the same file");
        assert_eq!(store.left_open().expect("rows"), expected);
        store.beat(now + 500).expect("written");
    }
    assert_eq!(online(&file, 2500), []);
    // Users that a run in order has not been able to write have left.
    let mut store = Store::open(&file, 3000).expect("the same file");
    let batch = Batch { open: vec![open("there", 3100, None)], ..Batch::default() };
    store.write(1, &batch, 3200).expect("written");
    assert_eq!(online(&file, 3300).len(), 1);
    assert_eq!(online(&file, 3300 + 60_000), []);
    store.end(3500).expect("written");
    drop(store);
    let store = Store::open(&file, 4000).expect("the same file");
    assert_eq!(store.left_open().expect("rows")[1], left("there", 3100, 3500, false));
}

/// A batch that is written again changes nothing, and a user's new session follows the old one.
#[test]
fn a_batch_is_written_once() {
    let file = folder("once").join("log");
    let mut store = Store::open(&file, 0).expect("a new file");
    let batch = Batch {
        ended: vec![ended("ann", 1, 2), ended("ann", 3, 4)],
        open: vec![open("ann", 5, None)],
        ..Batch::default()
    };
    for _ in 0..2 {
        store.write(1, &batch, 10).expect("written");
    }
    assert_eq!(sessions(&file).len(), 3);
    // Sessions that were dropped are forgotten when all others are written, so that a kill before loses none.
    let there = vec![open("bob", 6, None)];
    let batch = Batch { forget_open: true, open: there, ..Batch::default() };
    store.write(2, &batch, 10).expect("written");
    assert_eq!(sessions(&file).len(), 4);
    let batch = Batch { is_rest: true, open: vec![open("cara", 7, None)], ..Batch::default() };
    store.write(3, &batch, 10).expect("written");
    let users: Vec<_> = sessions(&file).into_iter().map(|session| session.user).collect();
    assert_eq!(users, ["ann", "ann", "bob", "cara"]);
    let batch = Batch { is_rest: true, open: vec![open("dan", 8, None)], ..Batch::default() };
    store.write(4, &batch, 10).expect("written");
    assert_eq!(sessions(&file).len(), 5);
    assert_eq!(store.trim(4, 9).expect("deleted"), 1);
    assert_eq!(sessions(&file)[0].join_at, 3);
}

/// A database that fails for a while loses nothing, and nobody waits for it.
#[test]
fn a_database_that_fails_loses_nothing() {
    let file = folder("fails").join("log");
    with_log(settings(&file, Duration::ZERO), |log| {
        let other = rusqlite::Connection::open(&file).expect("readable");
        let fail =
            "CREATE TRIGGER fail BEFORE UPDATE ON murre_node BEGIN SELECT RAISE(ABORT, 'no'); END";
        other.execute_batch(fail).expect("a trigger");
        let user: Arc<str> = "ann".into();
        for _ in 0..3 {
            log.connected(&user);
            log.disconnected(&user);
        }
        until("a batch fails", || log.counts().failed > 1);
        assert_eq!((log.counts().written, sessions(&file).len()), (0, 0));
        other.execute_batch("DROP TRIGGER fail").expect("it is there");
        until("all are written", || log.counts().written == 3);
    });
    assert_eq!(sessions(&file).len(), 3);
}

/// A file that cannot be used is refused with the remedy.
#[test]
fn unusable_files_are_refused() {
    let folder = folder("refused");
    let problem = |file: &Path| Store::open(file, 0).expect_err("unusable").to_string();
    let file = folder.join("log");
    let store = Store::open(&file, 0).expect("a new file");
    assert!(problem(&file).contains("another server writes it"));
    drop(store);
    let newer = rusqlite::Connection::open(&file).expect("a database");
    newer.pragma_update(None, "user_version", 99).expect("changed");
    drop(newer);
    assert!(problem(&file).contains("version 99") && problem(&file).contains("newer server"));
    let place = |file: &Path| Place::File(file.to_owned());
    let problem_of_reader = Reader::open(&place(&file)).err().expect("unusable").to_string();
    assert!(problem_of_reader.contains("version 99"));
    assert!(problem(&folder.join("none/log")).contains("its folder must exist"));
    let text = folder.join("text");
    fs::write(&text, "this is a text and no database".repeat(100)).expect("written");
    assert!(problem(&text).contains("not a database") && problem(&text).contains("name the file"));
    let foreign = folder.join("foreign");
    let other = rusqlite::Connection::open(&foreign).expect("a database");
    other.execute_batch("CREATE TABLE theirs (a)").expect("a table");
    assert!(problem(&foreign).contains("not a session log"));
    let mode: String =
        other.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
    assert_eq!(mode, "delete", "nothing of it is changed");
    let store = Store::open(&folder.join("one"), 0).expect("a new file");
    std::os::unix::fs::symlink("one", folder.join("same")).expect("a link");
    assert!(problem(&folder.join("same")).contains("another server writes it"));
    drop(store);
    assert!(problem(&folder).contains("unable to open"), "{}", problem(&folder));
    assert!(Reader::open(&place(&folder.join("absent"))).is_err());
    // A question makes no file.
    assert!(!folder.join("absent").exists());
}

const HOUR: u64 = 60 * 60 * 1000;

/// Days and peaks are those that a walk over all minutes finds.
#[test]
fn questions_are_answered() {
    let file = folder("questions").join("log");
    let mut store = Store::open(&file, 0).expect("a new file");
    let mut rng = fastrand::Rng::with_seed(7);
    let minute = 60_000;
    let now = 4 * 24 * HOUR;
    let mut all = Vec::new();
    let mut batch = Batch::default();
    for number in 0..60 {
        let user = format!("user {}", number % 7);
        let begin = rng.u64(..now / minute) * minute;
        let end = (begin + rng.u64(..30 * 60) * minute).min(now);
        all.push((user.clone(), begin, end));
        batch.ended.push(ended(&user, begin, end));
    }
    all.push(("open".into(), now - 90 * minute, now));
    batch.open.push(open("open", now - 90 * minute, None));
    all.push(("away".into(), now - 70 * minute, now - 65 * minute));
    batch.open.push(open("away", now - 70 * minute, Some(now - 65 * minute)));
    store.write(1, &batch, now).expect("written");
    let mut reader = reader(&file);
    for wanted in [
        Wanted::default(),
        Wanted { user: Some("user 3".into()), ..Wanted::default() },
        Wanted { from: 30 * HOUR, to: Some(50 * HOUR + 7 * minute), ..Wanted::default() },
        Wanted { user: Some("nobody".into()), ..Wanted::default() },
    ] {
        let is_of = |user: &str| wanted.user.as_deref().is_none_or(|wanted| wanted == user);
        let at = |time: u64| {
            let is_in = time >= wanted.from && wanted.to.is_none_or(|to| time < to);
            let there = all
                .iter()
                .filter(|(user, begin, end)| is_of(user) && (*begin..*end).contains(&time));
            if is_in { there.count() as u64 } else { 0 }
        };
        let minutes: Vec<u64> = (0..now / minute).map(|number| at(number * minute)).collect();
        let mut days: Vec<_> =
            minutes.chunks(24 * 60).map(|day| day.iter().sum::<u64>() * minute).collect();
        for day in reader.days(&wanted, now).expect("rows") {
            let online = std::mem::take(&mut days[(day.begins / (24 * HOUR)) as usize]);
            assert_eq!(day.online, online, "{wanted:?}");
        }
        assert!(days.iter().all(|day| *day == 0));
        let mut hours: Vec<_> =
            minutes.chunks(60).map(|hour| *hour.iter().max().expect("60")).collect();
        for hour in reader.peaks(&wanted, now).expect("rows") {
            let users = std::mem::take(&mut hours[(hour.begins / HOUR) as usize]);
            assert_eq!(hour.users, users, "{wanted:?} {hour:?}");
        }
        assert!(hours.iter().all(|hour| *hour == 0), "{wanted:?} {hours:?}");
    }
}

/// Sessions come in pages, which together have each session once.
#[test]
fn sessions_come_in_pages() {
    let file = folder("pages").join("log");
    let mut store = Store::open(&file, 0).expect("a new file");
    let mut batch = Batch::default();
    for number in 0..30 {
        batch.ended.push(ended(&format!("user {}", number % 10), 100 + number / 4, 200));
        batch.open.push(open(&format!("there {number}"), 100 + number % 7, None));
    }
    store.write(1, &batch, 300).expect("written");
    pages(&Place::File(file), 60, 30);
}

/// Pages of a log with so many sessions, of which so many are open, have all of them once.
pub(crate) fn pages(place: &Place, all: usize, there: usize) {
    let mut reader = Reader::open(place).expect("readable");
    for limit in [1, 7, 1000] {
        let mut wanted = Wanted { limit: Some(limit), ..Wanted::default() };
        let mut found: Vec<Session> = Vec::new();
        loop {
            let before = found.len();
            reader.sessions(&wanted, |session| found.push(session)).expect("readable");
            if found.len() == before {
                break;
            }
            wanted.after = found.last().map(|last| (last.join_at, last.user.clone()));
        }
        assert_eq!(found.len(), all);
        let order = |session: &Session| (session.join_at, session.user.clone());
        assert!(found.is_sorted_by_key(order));
        let mut wanted = Wanted { limit: Some(limit), ..Wanted::default() };
        let mut online: Vec<Session> = Vec::new();
        loop {
            let before = online.len();
            reader.online(&wanted, 300, |session| online.push(session)).expect("readable");
            if online.len() == before {
                break;
            }
            wanted.after = online.last().map(|last| (0, last.user.clone()));
        }
        assert_eq!(online.len(), there);
        assert!(online.is_sorted_by_key(|session| session.user.clone()));
    }
}

/// Times are read as they are written.
#[test]
fn times_are_texts() {
    let times = Times::new().expect("memory");
    let time = 1_796_073_300_123;
    let text = times.text(time).expect("a text");
    assert_eq!(text, "2026-11-30T21:15:00.123Z");
    assert_eq!(times.time(&text).expect("readable"), Some(time));
    assert_eq!(times.time("2026-11-30").expect("readable"), Some(1_795_996_800_000));
    assert_eq!(times.time("2026-11-30 22:15:00+01:00").expect("readable"), Some(1_796_073_300_000));
    for wrong in ["yesterday", "2026", "12:00", "2026-02-31", "2026-11-30T25:00:00Z", ""] {
        assert_eq!(times.time(wrong).expect("readable"), None, "{wrong}");
    }
    assert_eq!(times.text(u64::MAX).expect("a text"), "never");
}
