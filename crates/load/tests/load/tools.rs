//! Runs the subcommands `annotate` and `memory` of the binary.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::{Ended, command, run};

/// Shows that an annotated line keeps its fields and gets the fields of its origin, and that a line
/// which is not a JSON object is refused.
#[test]
fn lines_of_other_programs_are_annotated() {
    let annotate = |lines: &'static str| {
        let mut tool = command("annotate")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("murre-load starts");
        let mut stdin = tool.stdin.take().expect("a pipe");
        stdin.write_all(lines.as_bytes()).expect("written");
        drop(stdin);
        Ended::from(tool.wait_with_output().expect("an end"))
    };
    let ended = annotate("{\"form\":\"a\"}\n{\"form\":\"b\"}\n");
    ended.says(0, "");
    let lines: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["form"], &lines[1]["form"]), (&"a".into(), &"b".into()));
    for line in lines {
        assert_eq!(line["commit"], "test");
        assert!(line["started"].is_string() && line["machine"]["kernel"].is_string(), "{line}");
    }
    let ended = annotate("{\"form\":\"a\"}\nrunning 1 test\n");
    ended.says(1, "line 2 is not an object");
}

/// Shows that a baseline is written and read again, that this process grew little meanwhile, and
/// that the output without a baseline omits the kernel's memory.
#[test]
fn memory_is_weighed_against_a_baseline() {
    let pid = std::process::id();
    let [baseline, out] =
        ["baseline", "out"].map(|name| format!("{}/{name}-{pid}", env!("CARGO_TARGET_TMPDIR")));
    run(&format!("memory --pid {pid} --save-baseline {baseline}")).says(0, "");
    let weigh = format!("memory --pid {pid} --conns 1000 --server-descriptors normal");
    let ended = run(&format!("{weigh} --baseline {baseline} --both-ends --out {out}"));
    ended.says(0, "");
    for part in ["1000 connections (normal descriptors)", "slab caches"] {
        assert!(ended.stdout.contains(part), "{}", ended.stdout);
    }
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(&out).expect("a record")).expect("JSON");
    assert_eq!((&record["tool"], &record["commit"]), (&"murre-load memory".into(), &"test".into()));
    assert!(record["memory"]["user"].as_f64().is_some_and(|bytes| bytes.abs() < 1e6), "{record}");

    let text = run(&weigh).stdout;
    assert!(text.starts_with("at most ") && text.contains("--baseline"), "{text}");
    assert_eq!(run(&format!("{weigh} --out {out}")).code, Some(1));
    [baseline, out].iter().for_each(|path| fs::remove_file(path).expect("it was written"));
}

/// Shows that each error has its exit code, and a line that names the cause.
#[test]
fn errors_name_their_cause() {
    let own = format!("memory --pid {} --conns 1 --baseline /nowhere", std::process::id());
    for (arguments, code, why) in [
        (&own[..], 1, "cannot read /nowhere"),
        ("memory --conns 1", 2, "--pid"),
        ("memory --pid 1", 2, "--conns"),
        ("memory --pid 1 --conns 0", 2, "0 is not in"),
        ("memory --check --conns 100000000", 1, "--conns less"),
    ] {
        run(arguments).says(code, why);
    }
}
