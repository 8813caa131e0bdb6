//! Runs the subcommands `annotate` and `memory` of the binary.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_murre-load"))
        .args(arguments)
        .env("MURRE_COMMIT", "test")
        .output()
        .expect("murre-load starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The directory of one test, removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("murre-load-{name}-{}", std::process::id()));
        // An earlier process with the same id may have left it.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the test");
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // No test depends on the removal.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Shows that an annotated line keeps its fields and gets the fields of its origin, and that a line
/// which is not a JSON object is refused.
#[test]
fn lines_of_other_programs_are_stamped() {
    let annotate = |lines: &'static str| {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_murre-load"))
            .arg("annotate")
            .env("MURRE_COMMIT", "test")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("murre-load starts");
        let mut stdin = tool.stdin.take().expect("a pipe");
        stdin.write_all(lines.as_bytes()).expect("written");
        drop(stdin);
        tool.wait_with_output().expect("an end")
    };
    let output = annotate("{\"form\":\"a\"}\n{\"form\":\"b\"}\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["form"], &lines[1]["form"]), (&"a".into(), &"b".into()));
    for line in lines {
        assert_eq!(line["commit"], "test");
        assert!(line["started"].is_string() && line["machine"]["kernel"].is_string(), "{line}");
    }
    let output = annotate("{\"form\":\"a\"}\nrunning 1 test\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("line 2 is not an object"), "{}", stderr(&output));
}

/// Shows that a baseline is written and read again, that this process grew little meanwhile, and
/// that the output without a baseline omits the kernel's memory.
#[test]
fn memory_is_weighed_against_a_baseline() {
    let scratch = Scratch::new("memory");
    let (baseline, out) = (scratch.path("baseline"), scratch.path("out.jsonl"));
    let pid = std::process::id().to_string();
    let output = run(&["memory", "--pid", &pid, "--save-baseline", &baseline]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let weigh = ["memory", "--pid", &pid, "--conns", "1000", "--server-descriptors", "normal"];
    let more = ["--baseline", &baseline, "--both-ends", "--out", &out];
    let output = run(&[&weigh[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("1000 connections (normal descriptors)"), "{table}");
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(&out).expect("a record")).expect("JSON");
    assert_eq!((&record["tool"], &record["commit"]), (&"murre-load memory".into(), &"test".into()));
    assert!(record["memory"]["user"].as_f64().is_some_and(|bytes| bytes.abs() < 1e6), "{record}");

    assert!(table.contains("slab caches"), "{table}");

    let output = run(&weigh);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("at most ") && text.contains("--baseline"), "{text}");
    let output = run(&[&weigh[..], &["--out", &out]].concat());
    assert_eq!(output.status.code(), Some(1));
}

/// Shows that each error has its exit code, and a line that names the cause.
#[test]
fn what_cannot_be_done_is_said() {
    let own = format!("memory --pid {} --conns 1 --baseline /nowhere", std::process::id());
    for (arguments, code, why) in [
        (&own[..], 1, "cannot read /nowhere"),
        ("memory --conns 1", 2, "--pid"),
        ("memory --pid 1", 2, "--conns"),
        ("memory --pid 1 --conns 0", 2, "0 is not in"),
        ("memory --check --conns 100000000", 1, "--conns less"),
    ] {
        let output = run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments}: {}", stderr(&output));
    }
}
