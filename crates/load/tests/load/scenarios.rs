//! Runs the scenarios against a small server: a correct server passes, and the scenarios find each of its
//! mistakes.

use std::process::Stdio;

use serde_json::Value;

use crate::server::{self, Mistake};
use crate::{command, run};

/// Runs a scenario against a correct server.
#[track_caller]
fn passes(arguments: &str) -> Value {
    let port = server::start(Mistake::None).port();
    crate::passes(&format!("{arguments} --target 127.0.0.1-3:{port}"))
}

/// Runs a scenario against a server with a mistake.
#[track_caller]
fn fails(arguments: &str, mistake: Mistake, why: &str) -> Value {
    crate::fails(&format!("{arguments} --target {}", server::start(mistake)), why)
}

const HTTP: &str = "http-keepalive --conns 20 --idle 0.1-0.3 --duration 1s";
const UPPER: &str = "ws-upper --conns 20 --every 200ms --duration 1s";
const IDLE: &str = "ws-idle --conns 20 --sample 1 --every 300ms --duration 1s";
const ECHO: &str = "ws-echo --conns 8 --pipeline 4 --payload 100 --duration 1s";

/// Shows a small run of R1: every connection sends requests repeatedly, and every response is
/// right.
#[test]
fn bodies_of_random_length_are_compared() {
    let record = passes(HTTP);
    assert_eq!(record["latency_us"]["counted_from"], "due");
    assert!(record["hold"]["requests"].as_u64() >= Some(20), "{}", record["hold"]);
    assert_eq!(record["connect"]["connections"], 20);
}

/// Shows that a record of a new run has the schema that reports read.
#[test]
fn a_record_has_the_schema_of_records() {
    let address = server::start(Mistake::None);
    let ended = run(&format!("{UPPER} --target {address}"));
    let record: murre_record::Record<Value> = serde_json::from_str(&ended.stdout).expect("one");
    assert_eq!((record.connections(), record.faults()), (20, 0));
    assert_eq!(record.parameters["every"], 0.2);
}

/// Shows a small run of R2.
#[test]
fn texts_come_back_in_upper_case() {
    let record = passes(UPPER);
    assert!(record["hold"]["requests"].as_u64() >= Some(20), "{}", record["hold"]);
}

/// Shows that idle WebSockets stay open, and that the pings of the sample are answered.
#[test]
fn a_sample_pings_and_all_stay() {
    let record = passes(&IDLE.replace("--sample 1", "--sample 0.5"));
    assert_eq!(record["errors"]["lost"], 0);
}

/// Shows that a lost connection, or a wrong response, fails the run if it happens between the
/// storms.
#[test]
fn a_storm_loses_no_connection_that_stays() {
    let storm = "storm --conns 10 --sample 0.9 --every 100ms --duration 1s --timeout 500ms";
    fails(storm, Mistake::CloseFrame, "more connections failed");
    fails(storm, Mistake::WrongByte, "wrong: ");
}

/// Shows that pipelined messages come back whole, with idle connections beside them.
#[test]
fn messages_are_echoed_in_a_closed_loop() {
    let record = passes(&format!("{ECHO} --idle-conns 12"));
    assert_eq!(record["latency_us"]["counted_from"], "sent-in-closed-loop");
    assert_eq!(record["connect"]["connections"], 20);
}

/// Shows that a message which arrives in many pieces is compared too.
#[test]
fn messages_larger_than_a_buffer_are_echoed() {
    passes("ws-echo --conns 2 --payload 200000 --duration 1s");
}

/// Shows that `--rate` determines the number of messages, about 1,000 here; the server could answer
/// many times as many.
#[test]
fn an_open_loop_keeps_its_schedule() {
    let record = passes("ws-echo --conns 8 --rate 500 --duration 2s");
    assert_eq!(record["latency_us"]["counted_from"], "due");
    let requests = record["latency_us"]["count"].as_u64().unwrap();
    assert!((500..=2000).contains(&requests), "{requests}");
}

/// Shows that `--connect-rate` limits the rate of connects: the phase of 60 connects at 100/s has a
/// minimum time, less the initial burst.
#[test]
fn connects_are_paced() {
    let record =
        passes(&format!("{HTTP} --conns 60 --connect-rate 100/s").replace("--conns 20 ", ""));
    assert!(record["connect"]["seconds"].as_f64() > Some(0.4), "{}", record["connect"]);
}

/// Shows that one wrong or missing byte in one answer fails the run in every scenario, whatever the
/// value of `--max-errors`.
#[test]
fn a_wrong_answer_is_found() {
    for scenario in [HTTP, UPPER, IDLE, ECHO] {
        for mistake in [Mistake::WrongByte, Mistake::Short] {
            let scenario = format!("{scenario} --max-errors 5");
            let record = fails(&scenario, mistake, "wrong answers");
            assert_eq!(record["wrong"], 1, "{scenario} {mistake:?}");
        }
    }
}

/// Shows that a connection closed by the server fails the run in every scenario.
#[test]
fn a_lost_connection_is_found() {
    for scenario in [HTTP, UPPER, IDLE, ECHO] {
        fails(scenario, Mistake::Dropped, "more connections failed than --max-errors 0: 1");
    }
}

/// Shows that a close frame during the run is a lost connection, with the server's reason.
#[test]
fn a_close_frame_of_the_server_is_a_loss() {
    for scenario in [UPPER, IDLE, ECHO] {
        let record = fails(scenario, Mistake::CloseFrame, "1001 going away");
        assert_eq!(record["lost"], 1, "{scenario}");
    }
}

/// Shows that a missing answer fails the run after the time limit for answers. Only one message is
/// under way: with more, the next answer would take the place of the missing one.
#[test]
fn a_missing_answer_is_found() {
    let echo = ECHO.replace("--pipeline 4", "--pipeline 1");
    for scenario in [HTTP, UPPER, IDLE, &echo] {
        let record = fails(&format!("{scenario} --timeout 1s"), Mistake::Silent, "timeout");
        assert!(record["errors"]["timeout"].as_u64() >= Some(1), "{scenario}");
    }
}

/// Shows that bytes which are neither HTTP nor WebSocket fail the run.
#[test]
fn garbage_is_found() {
    for scenario in [HTTP, UPPER, IDLE, ECHO] {
        let record = fails(scenario, Mistake::Garbage, "garbled");
        assert_eq!(record["errors"]["garbled"], 1, "{scenario}");
    }
}

/// Shows that a connection counts only after a valid handshake.
#[test]
fn an_upgrade_that_is_refused_is_found() {
    let record = fails(UPPER, Mistake::NoUpgrade, "status 404");
    assert_eq!(record["hold"], Value::Null);
}

/// Shows that `--max-errors` allows a lost connection, and counts it.
#[test]
fn as_many_errors_as_are_forgiven_pass() {
    let address = server::start(Mistake::Dropped);
    crate::passes(&format!("{UPPER} --target {address} --max-errors 1"));
}

/// Shows that `--out` appends one line to the file, and that a file which cannot be written is an
/// error before the run.
#[test]
fn the_record_is_appended_to_a_file() {
    let address = server::start(Mistake::None);
    let path = std::env::temp_dir().join(format!("murre-load-out-{}", std::process::id()));
    std::fs::write(&path, "{}\n").unwrap();
    let ended = run(&format!("{IDLE} --target {address} --out {}", path.display()));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((ended.code, &ended.stdout[..]), (Some(0), ""));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.ends_with("}\n") && text.contains("\"ws-idle\""));

    let ended = run(&format!("{IDLE} --target {address} --out /nowhere/record"));
    ended.says(1, "cannot write to /nowhere/record");
}

/// Shows the exit codes and the advice of the error messages: 2 for wrong arguments, 1 for limits
/// of the machine.
#[test]
fn errors_before_the_run_say_what_to_do() {
    let address = server::start(Mistake::None);
    let says = |arguments: &str, code: i32, what: &str| {
        let ended = run(arguments);
        ended.says(code, what);
        assert!(ended.stdout.is_empty(), "{arguments}");
    };
    says("ws-idle --conns 1", 2, "--target");
    says("ws-nothing --target 127.0.0.1:80 --conns 1", 2, "ws-nothing");
    says("ws-echo --target 127.0.0.1:80 --conns 1 --rate 0", 2, "closed loop");
    says("ws-echo --target 127.0.0.1 --conns 1", 2, "HOST:PORT");
    says(&format!("ws-idle --target {address} --conns 4000000000"), 1, "--target 127.0.0.1-");
    says(
        &format!("ws-idle --target {address} --conns 1 --source 203.0.113.1"),
        1,
        "ip address add 203.0.113.1",
    );
    says(
        &format!("ws-idle --target {address} --conns 1 --server-pid 2147483647"),
        1,
        "--server-pid 2147483647 cannot be measured",
    );
}

/// Shows that SIGINT ends a long run soon, and that the record says so.
#[test]
fn a_signal_ends_the_run_with_a_record() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::{BufRead, BufReader, Read};

    let address = server::start(Mistake::None);
    let mut child =
        command(&format!("{IDLE} --target {address} --duration 1h").replace("--duration 1s ", ""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    // The first line of progress appears when all connections are open.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut record = String::new();
    child.stdout.take().unwrap().read_to_string(&mut record).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["outcome"], "interrupted");
    assert_eq!(record["connect"]["connections"], 20);
}
