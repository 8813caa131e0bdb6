//! Tests of the session log: servers that end in order, are killed, and whose database fails; and
//! `murre sessions`.

use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use murre_testing::PostgresServer;

use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::server::murre;

/// The file of a log, in a folder that is removed when dropped.
struct Log(PathBuf);

impl Log {
    fn new(test: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("murre-sessions-{}-{test}", std::process::id()));
        std::fs::create_dir(&folder).expect("there is room for a folder");
        Log(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("log")
    }

    fn server(&self, gap: &str) -> Guarded {
        let file = format!("--sessions={}", self.file().display());
        let gap = format!("--session-gap={gap}");
        Guarded::start(&[&file, &gap, "--shards=2", "--drain-timeout=0.1"])
    }

    /// Asks a question, and gives the lines of the answer.
    fn ask(&self, arguments: &[&str]) -> Vec<Value> {
        let (code, lines, problem) = ask(&self.file(), &[arguments, &["--json"]].concat());
        assert_eq!((code, &*problem), (Some(0), ""));
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The users that are online.
    fn online(&self) -> Vec<String> {
        let users = self.ask(&["online"]).into_iter();
        users.map(|line| line["user"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until the answer to a question is right.
    fn until(&self, arguments: &[&str], is_right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        for _ in 0..3000 {
            let lines = self.ask(arguments);
            if is_right(&lines) {
                return lines;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{arguments:?} stays {:?}", self.ask(arguments));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ask(file: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    ask_at(&file.display().to_string(), arguments)
}

fn ask_at(place: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = murre();
    command.arg("sessions").args(arguments).arg(format!("--sessions={place}"));
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn client_of(user: &str, guarded: &Guarded) -> Client {
    Client::at(&guarded.server, &format!("/ws?token={}", token(&json!({"sub": user}))))
}

/// A user with several connections, of any kind, has one session. Sessions go on when a server is restarted
/// within the gap; anonymous clients have none.
#[test]
fn a_restart_within_the_gap_ends_no_session() {
    let log = Log::new("restart");
    let guarded = log.server("600");
    let [first, second, bob] = ["ann", "ann", "bob"].map(|user| client_of(user, &guarded));
    let anonymous = Client::of(&guarded.server);
    let mut other = Client::of(&guarded.server);
    other.ask(json!({"action": "auth", "token": token(&json!({"sub": "cara"}))}));
    let online = log.until(&["online"], |lines| lines.len() == 3);
    assert_eq!(log.online(), ["ann", "bob", "cara"]);
    // Another user takes the connection over: the former one has left.
    other.ask(json!({"action": "auth", "token": token(&json!({"sub": "dan"}))}));
    drop((first, bob));
    log.until(&["online"], |lines| lines.len() == 2);
    assert_eq!(log.online(), ["ann", "dan"]);
    guarded.server.signal(Signal::SIGTERM);
    assert!(guarded.end().0.success());
    assert!(log.online().is_empty());
    let sessions = log.ask(&["list"]);
    assert_eq!(sessions.len(), 4);
    assert!(sessions.iter().all(|session| session["ended"] == "left"), "{sessions:?}");
    drop((second, anonymous, other));

    let guarded = log.server("600");
    let _ann = client_of("ann", &guarded);
    let again = log.until(&["online"], |lines| lines.len() == 1);
    assert_eq!(again[0], online[0], "the session of before goes on");
    assert_eq!(guarded.server.stats()["session_log"]["session_log_open"], 4);
}

/// Of a server that was killed the sessions end about then, unless the user comes back within the gap. Times
/// and columns are those of the page.
#[test]
fn a_killed_server_leaves_its_sessions_to_the_next() {
    let log = Log::new("killed");
    let guarded = log.server("600");
    let _clients = ["ann", "bob"].map(|user| client_of(user, &guarded));
    let before = log.until(&["online"], |lines| lines.len() == 2);
    guarded.server.signal(Signal::SIGKILL);
    guarded.end();
    let guarded = log.server("600");
    let _ann = client_of("ann", &guarded);
    let there = |lines: &[Value]| lines[0]["user"] == "ann" && lines[0]["to"].is_null();
    log.until(&["list", "--user=ann"], there);
    assert_eq!(log.ask(&["list", "--user=ann"])[0]["from"], before[0]["since"]);
    guarded.server.signal(Signal::SIGTERM);
    assert!(guarded.end().0.success());
    // Without a gap all have left.
    let _guarded = log.server("0");
    let sessions = log.until(&["list"], |lines| lines.iter().all(|line| line["ended"] != "no"));
    let ended = |user: &str| {
        let session = sessions.iter().find(|session| session["user"] == user).expect("one each");
        session["ended"].as_str().expect("a text").to_owned()
    };
    assert_eq!((&*ended("ann"), sessions.len()), ("left", 2));
    let (_, table, _) = ask(&log.file(), &["list"]);
    let lines: Vec<_> = table.lines().map(|line| line.split('\t').count()).collect();
    assert_eq!((table.lines().next(), lines), (Some("user\tfrom\tto\tended"), vec![4; 3]));
    let days = log.ask(&["days", "--user=ann"]);
    assert!(
        !days.is_empty() && days.iter().all(|day| day["seconds"].as_f64() > Some(0.0)),
        "{days:?}"
    );
    let peaks = log.ask(&["peaks"]);
    assert!(peaks.iter().any(|hour| hour["users"] == 2), "{peaks:?}");
}

/// A server that writes to PostgreSQL.
fn node(address: &str, name: &str) -> Guarded {
    let sessions = format!("--sessions={address}");
    let name = format!("--cluster-node={name}");
    // Clients of this test answer no pings.
    let flags = ["--session-gap=1", "--ping-interval=600", "--shards=2", "--drain-timeout=0.1"];
    Guarded::start(&[&[&*sessions, &*name], &flags[..]].concat())
}

/// Waits until the API of a server gives the right answer.
fn api_until(guarded: &Guarded, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let mut answer = (0, Value::Null);
    for _ in 0..6000 {
        answer = guarded.get(path);
        if answer.0 == 200 && is_right(&answer.1) {
            return answer.1;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{path} stays {answer:?}");
}

/// Two servers write one log. A user that is on both, or goes from one to the other within the gap, has one session.
/// Of a server that is killed the other ends the sessions. Both answer questions about all.
#[test]
fn two_servers_have_one_log() {
    let database = PostgresServer::start();
    let address = database.database("log");
    let [one, other] = ["one", "other"].map(|name| node(&address, name));
    let ann = [client_of("ann", &one), client_of("ann", &other)];
    let (_bob, cara) = (client_of("bob", &one), client_of("cara", &other));
    for server in [&one, &other] {
        let online = api_until(server, "/api/sessions/online", |answer| {
            answer["sessions"].as_array().is_some_and(|sessions| sessions.len() == 3)
        });
        assert_eq!(
            (&online["sessions"][0]["user"], &online["next"]),
            (&json!("ann"), &Value::Null)
        );
    }
    let page = other.get("/api/sessions/online?limit=2").1;
    let next = page["next"].as_str().expect("there is another page");
    let rest = other.get(&format!("/api/sessions/online?limit=2&after={next}")).1;
    assert_eq!(rest["sessions"][0]["user"], "cara");
    assert_eq!(
        database.sql("log", "SELECT count(*) FROM watching_times WHERE nodes ? 'one/1'"),
        ["2"]
    );

    // In order: its users go to the other one, or have left.
    drop((ann, cara));
    other.server.signal(Signal::SIGTERM);
    assert!(other.end().0.success());
    let left = |answer: &Value| {
        answer["sessions"].as_array().is_some_and(|all| {
            all.len() == 3 && all.iter().filter(|one| one["ended"] == "left").count() == 2
        })
    };
    let all = api_until(&one, "/api/sessions", left);
    let of_ann =
        all["sessions"].as_array().expect("a list").iter().find(|one| one["user"] == "ann");
    let of_ann = of_ann.expect("one each");
    let days = one.get("/api/sessions/days?user=ann").1;
    let seconds: f64 = days["days"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|day| day["seconds"].as_f64())
        .sum();
    let span =
        of_ann["to"].as_f64().expect("it has ended") - of_ann["from"].as_f64().expect("a time");
    assert_eq!(seconds, span / 1000.0);
    let peaks = one.get("/api/sessions/peaks").1;
    assert!(
        peaks["hours"].as_array().is_some_and(|hours| hours.iter().any(|hour| hour["users"] == 3)),
        "{peaks}"
    );
    let (code, lines, problem) = ask_at(&address, &["list", "--user=bob"]);
    assert_eq!((code, lines.lines().count(), &*problem), (Some(0), 2, ""));

    // Killed: the database is restarted, too, and another server ends its sessions after the lease.
    let other = node(&address, "other");
    let _dan = client_of("dan", &one);
    api_until(&other, "/api/sessions/online?user=dan", |answer| {
        answer["sessions"][0]["user"] == "dan"
    });
    one.server.signal(Signal::SIGKILL);
    one.end();
    let _bob = client_of("bob", &other);
    let died = api_until(&other, "/api/sessions?user=dan", |answer| {
        answer["sessions"][0]["ended"] == "server died"
    });
    assert_eq!(died["sessions"].as_array().map(Vec::len), Some(1));
    let there = api_until(&other, "/api/sessions?user=bob", |answer| {
        answer["sessions"][0]["ended"] == "no"
    });
    assert_eq!(
        there["sessions"][0]["from"],
        all["sessions"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["user"] == "bob")
            .expect("one each")["from"]
    );
    let counts = &other.server.stats()["session_log"];
    assert_eq!(
        (&counts["session_log_nodes_cleaned"], &counts["session_log_dropped"]),
        (&json!(1), &json!(0))
    );
}

/// Two servers do not share a file, and files that are no log are refused with the remedy.
#[test]
fn what_cannot_be_used_is_refused() {
    let log = Log::new("refused");
    let guarded = log.server("30");
    let refused = |flag: String| {
        let output =
            murre().args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", &flag]).output();
        let Output { status, stderr, .. } = output.expect("it starts");
        (status.code(), String::from_utf8(stderr).expect("text"))
    };
    let file = log.file();
    let (code, problem) = refused(format!("--sessions={}", file.display()));
    assert!(code == Some(1) && problem.contains("another server writes it"), "{problem}");
    let (code, problem) = refused(format!("--sessions={}/none/log", log.0.display()));
    assert!(code == Some(1) && problem.contains("its folder must exist"), "{problem}");
    let (code, problem) = refused("--sessions=mysql://localhost/murre".into());
    assert!(code == Some(2) && problem.contains("the name of a file"), "{problem}");
    let (code, problem) = refused("--sessions=postgres://localhost/murre?sslmode=always".into());
    assert!(code == Some(2) && problem.contains("sslmode is"), "{problem}");
    let (code, problem) = refused("--session-gap=3601".into());
    assert!(code == Some(2) && problem.contains("between"), "{problem}");
    drop(guarded);
    let (code, _, problem) = ask(&file, &["list", "--from=yesterday"]);
    assert!(code == Some(1) && problem.contains("'yesterday' is no time"), "{problem}");
    let (code, _, problem) = ask(&log.0.join("absent"), &["online"]);
    assert!(code == Some(1) && problem.contains("absent"), "{problem}");
}
