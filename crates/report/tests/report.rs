//! `murre-report`, run as people run it, on the records of the fixture.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture/records");

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_murre-report"))
        .args(arguments)
        .output()
        .expect("murre-report starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory of its own for a test, gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("murre-report-{name}-{}", std::process::id()));
        // Left there by a process of the same number.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the test");
        Scratch(path)
    }

    /// With the fixture's records in it, as bench-results has them.
    fn with_records(name: &str) -> Scratch {
        let scratch = Scratch::new(name);
        let records = scratch.0.join("bench-results/records");
        fs::create_dir_all(&records).expect("a directory for records");
        for entry in fs::read_dir(FIXTURE).expect("the fixture") {
            let path = entry.expect("a file of the fixture").path();
            fs::copy(&path, records.join(path.file_name().expect("a name"))).expect("a copy");
        }
        scratch
    }

    fn results(&self) -> String {
        self.0.join("bench-results").display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every file below a directory, by its name there.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below it").to_owned();
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// Shows that two places with the same records get the same bytes, pictures among them, and
/// that the line which is cut off is named and left out.
#[test]
fn the_same_records_make_the_same_files() {
    let (one, other) = (Scratch::with_records("one"), Scratch::with_records("other"));
    for scratch in [&one, &other] {
        let output = run(&["--dir", &scratch.results()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let warning = "2026-11-23-http.jsonl:3: skipped";
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
    }
    let made = files(&one.0);
    assert!(made == files(&other.0), "reports of the same records differ");
    let pictures = ["http-keepalive-over-time", "ws-upper-over-time", "ws-idle-over-time"];
    let more = ["memory-per-connection", "user-space-per-connection", "latency"];
    for picture in pictures.iter().chain(&more).chain(&["echo-beside-peers"]) {
        let file = |kind| Path::new("bench-results/plots").join(format!("{picture}.{kind}"));
        assert!(made[&file("png")].starts_with(b"\x89PNG"), "{picture}");
        assert!(made[&file("svg")].ends_with(b"</svg>\n"), "{picture}");
    }
}

/// Shows a kept claim with its record, a pending one, a published figure beside ours, a peer's
/// ratio, and the other kinds of lines.
#[test]
fn the_readme_says_what_the_records_say() {
    let scratch = Scratch::with_records("readme");
    run(&["--dir", &scratch.results()]);
    let readme = fs::read_to_string(scratch.path("bench-results/README.md")).expect("a README");
    for part in [
        "| 4,143 B | at most 4,220 B | kept | [2026-11-23-idle:1](records/2026-11-23-idle.jsonl#L1)",
        "| User space per idle WebSocket, at 1,000,000 |  | at most 96 B | pending |",
        "| reached in | 183 s | 2.86 s |",
        "| `ab` beside it, requests per second | 31,405/s | 52,000/s |",
        "| **Murre, 10k WebSockets, normal** | 64.3 B |",
        "| **murre** | 2 |",
        "| uWebSockets, C++ | 251 B |",
        "| tokio-uring | 2 |",
        "| uring normal Registered | 49,000/s",
        "| PollThenRecv | 135,000 | 135,000 | 0.0870 |  |",
        "| Armed | 0.95 × | 0.95 × | 0.0870 | 865 B |",
        "| Multishot | 4,000 | 4,000 | 9.50 µs |",
        "| 16,384 | 20.1 |",
        "jsonl#L6), commit fedcba987654.",
        "they agree",
        "| 0123456789ab | [amd-epyc-2c-24g-linux-6.18-",
    ] {
        assert!(readme.contains(part), "no `{part}` in\n{readme}");
    }
}

/// Shows that --check passes behind a report, writes nothing, and fails after a change by hand,
/// with a picture that no record speaks of, and with another record.
#[test]
fn a_check_finds_what_is_not_as_the_records_say() {
    let scratch = Scratch::with_records("check");
    let results = scratch.results();
    let check = || run(&["--check", "--dir", &results]);
    let specification = scratch.path("SPECIFICATION.md");
    let text = "# Promises\n<!-- report: speed -->\n<!-- report end -->\n";
    fs::write(&specification, text).expect("a specification");
    let readme = scratch.path("README.md");
    let costs = "# Murre\n<!-- report: costs -->\n<!-- report end -->\n";
    fs::write(&readme, costs).expect("a README");

    assert_eq!(check().status.code(), Some(1));
    assert_eq!(fs::read_to_string(&specification).expect("there"), text);
    assert_eq!(run(&["--dir", &results]).status.code(), Some(0));
    let filled = fs::read_to_string(&specification).expect("there");
    assert!(filled.contains("| *pending* | `scripts/reproduce-600k` |"), "{filled}");
    let filled = fs::read_to_string(&readme).expect("there");
    assert!(
        filled.starts_with("# Murre\n") && filled.contains("| *pending* | pending |"),
        "{filled}"
    );
    assert!(filled.contains("(bench-results/records/2026-11-23-echo.jsonl#L1)"), "{filled}");
    assert_eq!(check().status.code(), Some(0));

    let picture = scratch.path("bench-results/plots/old.svg");
    fs::write(&picture, "").expect("a picture");
    assert!(stderr(&check()).contains("old.svg"));
    run(&["--dir", &results]);
    assert!(!Path::new(&picture).exists());

    let mut readme = fs::OpenOptions::new();
    let readme = readme.append(true).open(scratch.path("bench-results/README.md"));
    readme.expect("there").write_all(b"better than that\n").expect("written");
    assert!(stderr(&check()).contains("README.md"));
    run(&["--dir", &results]);
    assert_eq!(check().status.code(), Some(0));

    fs::remove_file(scratch.path("bench-results/records/2026-11-23-upper.jsonl")).expect("there");
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ws-upper-over-time.png"), "{}", stderr(&output));
}

/// Shows the table, the line of `ab` that goes with the run, and that a run of too few
/// connections shows nothing.
#[test]
fn a_verdict_names_what_is_not_kept() {
    let file = format!("{FIXTURE}/2026-11-23-http.jsonl");
    let output = run(&["verdict", "--run", "r1", &file]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["http-kit", "183 s", "2.86 s", "31,405/s", "52,000/s", "not shown"] {
        assert!(table.contains(part), "no `{part}` in\n{table}");
    }
    let why = "r1-reached: not shown: 2,000 connections instead of 600,000";
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
    // Columns are aligned: the heading ends where the rows end.
    let rows = table
        .lines()
        .filter(|line| line.trim_start().starts_with("published ") || line.contains("183 s"));
    let widths: Vec<_> = rows.map(|line| line.chars().count()).collect();
    assert!(widths.len() == 2 && widths[0] == widths[1], "{table}");
}

/// Shows exit code 0, with the fixture's run made as large and as fast as was promised.
#[test]
fn a_verdict_is_kept_by_a_run_that_keeps_it() {
    let text = fs::read_to_string(format!("{FIXTURE}/2026-11-23-upper.jsonl")).expect("there");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("a record");
    record["connect"]["connections"] = 600_000.into();
    record["hold"]["requests_per_second"] = 24_100.0.into();
    record["memory"]["user"] = 90.0.into();
    let scratch = Scratch::new("kept");
    let file = scratch.path("run.jsonl");
    fs::write(&file, record.to_string()).expect("written");
    let output = run(&["verdict", "--run", "r2", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    for (key, why) in [("outcome", "did not pass"), ("label", "no record of murre")] {
        let mut worse = record.clone();
        worse[key] = "failed".into();
        fs::write(&file, worse.to_string()).expect("written");
        let output = run(&["verdict", "--run", "r2", &file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
}

/// Shows that the step which missed the criterion, the last one, is not the one that is shown.
#[test]
fn a_verdict_of_a_search_is_about_its_greatest_step() {
    let text = fs::read_to_string(format!("{FIXTURE}/2026-11-23-http.jsonl")).expect("there");
    let text = text.lines().nth(1).expect("a run");
    let mut record: serde_json::Value = serde_json::from_str(text).expect("a record");
    record["parameters"]["idle"] = "4-12".into();
    let mut steps = String::new();
    for (conns, p90_us) in [(1000, 9_000), (2000, 3_000_000), (4000, 3_000_001)] {
        record["connect"]["connections"] = conns.into();
        record["latency_us"]["p90"] = p90_us.into();
        steps += &format!("{record}\n");
    }
    let scratch = Scratch::new("search");
    let file = scratch.path("run.jsonl");
    fs::write(&file, steps).expect("written");
    let output = run(&["verdict", "--run", "r4", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("run.jsonl:2") && table.contains("2,000  kept"), "{table}");

    // Alone the step that missed shows nothing.
    fs::write(&file, format!("{record}\n")).expect("written");
    let output = run(&["verdict", "--run", "r4", &file]);
    assert_eq!(output.status.code(), Some(1));
    let why = "r4-connections: not shown: 90 % within 3000 ms instead of 3000 ms";
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
}

/// Shows that each mistake has its exit code and a line that names it.
#[test]
fn errors_name_their_cause() {
    for (arguments, code, why) in [
        ("--dir /nowhere", 1, "cannot read the records in /nowhere/records"),
        ("verdict --run r1 /nowhere", 1, "cannot read /nowhere"),
        ("verdict --run r9 /nowhere", 2, "invalid value 'r9'"),
    ] {
        let output = run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments}: {}", stderr(&output));
    }
}
