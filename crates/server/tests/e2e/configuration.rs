//! Tests of settings from every source, and of the errors for wrong settings.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::server::{Server, murre};

/// A configuration file for one test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("the directory is there");
    path
}

/// The exit code and stderr of a server that does not start.
fn failure(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// A flag takes precedence over the environment, the environment over the file, and the file over
/// the default.
#[test]
fn sources_have_an_order() {
    let path = file(
        "order.toml",
        "max-head-bytes = 1111\nmax-body-bytes = 1111\nmax-send-bytes = 1111\nping-interval = 1.5\n\
         max-channels = 7\n[namespace.chat]\nhistory-size = 10\n",
    );
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--max-head-bytes=3333"]).arg("--config").arg(path);
    command.env("MURRE_MAX_HEAD_BYTES", "2222").env("MURRE_MAX_BODY_BYTES", "2222");
    let server = Server::spawn(&mut command);
    let limits = &server.stats()["limits"];
    assert_eq!(limits["max_head_bytes"], 3333);
    assert_eq!(limits["max_body_bytes"], 2222);
    assert_eq!(limits["max_send_bytes"], 1111);
    assert_eq!(limits["max_channels"], 7);
    assert_eq!(limits["max_name_bytes"], 255);
    assert_eq!(limits["ping_interval"], 1.5);
    assert_eq!(limits["pong_timeout"], 10.0);
    assert_eq!(limits["max_conns"], 100);
    let settings = server.start["settings"].as_str().expect("a text");
    for setting in ["max_send_bytes=1111", "max_conns=100", "log_format=\"json\"", "bench=false"] {
        assert!(settings.split(' ').any(|one| one == setting), "{setting}: {settings}");
    }
}

/// Variables can name the file and set `--bench`, and a flag overrides them.
#[test]
fn the_environment_reaches_every_flag() {
    let path = file("environment.toml", "shards = 1\nbench = true\n");
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--bench=false"]).env("MURRE_CONFIG", path);
    let server = Server::spawn(&mut command);
    assert_eq!(server.stats()["shards"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.connect().get("/scenario").status, 404);

    let mut command = murre();
    command.args(["serve", "--max-conns=100"]).env("MURRE_BENCH", "1");
    assert_eq!(Server::spawn(&mut command).connect().get("/scenario").status, 200);
}

/// An empty variable counts as not set, and the log names a variable that belongs to no setting.
#[test]
fn empty_and_unknown_variables() {
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--drain-timeout=0.1"]);
    command.env("MURRE_SHARDS", "").env("MURRE_TRUSTED_PROXY", "").env("MURRE_CONFIG", "");
    let server = Server::spawn(command.env("MURRE_MAX_CHANEL", "5"));
    assert_eq!(server.stats()["limits"]["max_channels"], 1000);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    let warned = log.iter().filter(|line| line.contains("this variable is no setting"));
    let warned: Vec<_> = warned.collect();
    assert!(warned.len() == 1 && warned[0].contains("MURRE_MAX_CHANEL"), "{log:?}");
    assert!(warned[0].contains("did you mean MURRE_MAX_CHANNELS?"), "{log:?}");
}

/// An error in the file gives one line that names the file and the key, and exit code 1.
#[test]
fn a_wrong_file_is_one_clear_line() {
    for (name, text, problem) in [
        ("unknown.toml", "shrads = 2\n", "unknown key `shrads`, did you mean `shards`"),
        ("range.toml", "shards = 0\n", "--shards"),
        ("type.toml", "listen = [1]\n", "`listen` must be"),
        ("syntax.toml", "\nshards = = 1\n", "line 2"),
        ("io.toml", "io = \"kqueue\"\n", "auto, uring, uring-plain, epoll"),
        ("rule.toml", "[namespace.chat]\npublsh = \"anyone\"\n", "no rule `publsh`"),
    ] {
        let path = file(name, text);
        let (code, stderr) = failure(murre().args(["serve", "--config"]).arg(&path));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(problem) && stderr.contains(name), "{stderr}");
    }
    let (code, stderr) = failure(murre().args(["serve", "--config", "/nowhere/murre.toml"]));
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("/nowhere/murre.toml"), "{stderr}");
}

/// Bad arguments give exit code 2 and a message with the valid forms.
#[test]
fn bad_arguments_exit_with_2() {
    for (flags, problem) in [
        (vec!["--io", "kqueue"], "auto, uring, uring-plain, epoll"),
        (vec!["--descriptors", "many"], "auto, normal, direct"),
        (vec!["--shards", "0"], "--shards"),
        (vec!["--listen", "here"], "ADDRESS:PORT, NAME:PORT, :PORT (all addresses) or unix:PATH"),
        (vec!["--admin", "unix:/tmp/murre"], "it is a TCP address"),
        (vec!["--pin", "sometimes"], "auto, always, never"),
        (vec!["--drain-delay=-1"], "--drain-delay"),
        (vec!["--ping-interval", "0"], "between 0.1 and 3600"),
        (vec!["--log-filter", "a=b=c"], "--log-filter"),
        (vec!["--turbo"], "--turbo"),
        (vec!["--namespace", "chat,publish=all"], "anyone, authenticated, subscriber"),
        (vec!["--namespace", "chat;chat"], "'chat' twice"),
    ] {
        let (code, stderr) = failure(murre().arg("serve").args(&flags));
        assert_eq!(code, Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(problem), "{flags:?}: {stderr}");
    }
    let (code, _) = failure(&mut murre());
    assert_eq!(code, Some(2), "no command");
    let (code, stderr) = failure(murre().arg("serve").env("MURRE_SHARDS", "two"));
    assert_eq!(code, Some(2), "{stderr}");
}

/// An error of the machine gives one line with the remedy, and exit code 1.
#[test]
fn what_the_machine_refuses_comes_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let free = "127.0.0.1:0";
    let nine = [free; 9].join(",");
    for (flags, remedy) in [
        (vec!["--listen", address.as_str(), "--admin", free], "choose another port"),
        (vec!["--listen", free, "--admin", address.as_str()], "choose another port"),
        (vec!["--listen", "192.0.2.1:80", "--admin", free], "an address that this machine has"),
        (vec!["--listen", free, "--listen", &address, "--admin", free], "choose another port"),
        (vec!["--listen", "unix:/nowhere/socket", "--admin", free], "make the folder first"),
        (vec!["--listen", "no.such.name.invalid:80", "--admin", free], "no.such.name.invalid:80"),
        (vec!["--listen", &nine, "--admin", free], "8 at most"),
        (
            vec!["--listen", free, "--admin", free, "--descriptors=normal", "--max-conns=9000000"],
            "raise the limit",
        ),
        (
            vec!["--listen", free, "--admin", free, "--descriptors=direct", "--io=uring-plain"],
            "leave the choice to 'auto'",
        ),
        (
            vec!["--listen", free, "--admin", free, "--descriptors=direct", "--io=epoll"],
            "leave the choice to 'auto'",
        ),
    ] {
        let (code, stderr) = failure(murre().arg("serve").args(&flags));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{flags:?}: {stderr}");
        assert!(stderr.contains(remedy), "{flags:?}: {stderr}");
    }
}

/// `--help` shows every flag with its variable, and the documented defaults.
#[test]
fn help_shows_defaults() {
    let output = murre().args(["serve", "--help"]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("text");
    let settings: Vec<&str> = help.split("\n      --").skip(1).collect();
    assert!(settings.len() > 40, "{help}");
    for setting in settings {
        let name = setting.split([' ', '[', '\n']).next().unwrap_or_default();
        let variable = format!("[env: MURRE_{}]", name.to_uppercase().replace('-', "_"));
        assert!(setting.contains(&variable), "{setting}");
        assert!(setting.contains("[default: ") || name == "config", "{setting}");
    }
    assert!(help.contains("127.0.0.1:8000") && help.contains("127.0.0.1:8001"));
}
