//! Tests of settings from every source, of their names, and of the errors for wrong values.

use std::fs;
use std::time::Duration;

use super::*;

impl Default for Config {
    fn default() -> Self {
        read(&[]).expect("the defaults are valid")
    }
}

/// The configuration from these flags after `murre serve`.
fn read(flags: &[&str]) -> Result<Config, ConfigError> {
    let arguments = ["murre", "serve"].iter().chain(flags).map(OsString::from);
    Cli::read(arguments.collect()).map(|cli| match cli.command {
        Command::Serve(config) => *config,
        _ => panic!("the command is `serve`"),
    })
}

/// The configuration from these flags and a TOML file with this text.
fn read_with_file(name: &str, text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    let path = std::env::temp_dir().join(format!("murre-{}-{name}.toml", std::process::id()));
    fs::write(&path, text).expect("there is room for a file");
    let file = format!("--config={}", path.display());
    let config = read(&[&[file.as_str()], flags].concat());
    fs::remove_file(&path).expect("it was there");
    config
}

/// The declarations of the flags pass the checks of the parser itself.
#[test]
fn the_flags_are_consistent() {
    command().debug_assert();
}

/// Without flags, variables and a file, the documented defaults are in force.
#[test]
fn defaults_are_those_of_the_contract() {
    let config = read(&[]).expect("defaults are valid");
    assert_eq!(config.listen, ["127.0.0.1:8000".parse().expect("an address")]);
    assert_eq!(config.admin.to_string(), "127.0.0.1:8001");
    assert_eq!((config.shards, config.limits.max_conns), (None, None));
    assert_eq!((config.io, config.descriptors, config.bench), (None, None, false));
    assert_eq!((config.files, config.limits.max_files_bytes), (None, 64 * 1024 * 1024));
}

/// A wrong value that may have a password is not shown, whether it comes from a flag or from the file; another one
/// is.
#[test]
fn wrong_values_show_no_password() {
    let url = "postgres://murre:hushhush@db/log?sslmode=verify-ca";
    let nats = "nats://ann:hushhush@nats:port";
    let (sessions, cluster) = (format!("--sessions={url}"), format!("--cluster-nats={nats}"));
    let file = read_with_file("secret", &format!("sessions = \"{url}\"\n"), &[]);
    for wrong in [read(&[&sessions]), read(&[&cluster]), file] {
        let said = wrong.expect_err("it is wrong").to_string();
        assert!(said.contains("not shown") && !said.contains("hushhush"), "{said}");
    }
    let said = read(&["--shards=many"]).expect_err("it is wrong").to_string();
    assert!(said.contains("many"), "{said}");
}

/// A flag takes precedence over the file, and the file over the default.
#[test]
fn flags_go_before_the_file() {
    let text = "shards = 3\nlisten = \"[::1]:9000\"\nbench = true\nping-interval = 0.5\n";
    let config = read_with_file("order", text, &["--shards=4", "--bench=false"]);
    let config = config.expect("all of it is valid");
    assert_eq!(config.shards, Some(4));
    assert_eq!(config.listen, ["[::1]:9000".parse().expect("an address")]);
    assert!(!config.bench);
    assert_eq!(config.limits.ping_interval.0, Duration::from_millis(500));
    assert_eq!(config.limits.pong_timeout.0, Duration::from_secs(10));
}

/// Namespaces come from flags or from tables of the file. If both name namespaces, only the flags
/// count.
#[test]
fn namespaces_from_every_source() {
    let sizes = |config: &Config| {
        let namespaces = config.namespaces();
        ["chat:x", "a.b:x", "other"].map(|name| namespaces.rules(name).history_size)
    };
    let flags = &["--namespace=chat,history-size=1", "--namespace", "default,history-size=2;x"];
    let text = "[namespace.chat]\nhistory-size = 3\nhistory-ttl = 1.5\nslow = \"latest_only\"\n\
                [namespace.default]\n[namespace.\"a.b\"]\nhistory-size = \"4\"\n";
    assert_eq!(sizes(&read(&[]).expect("none")), [0, 0, 0]);
    assert_eq!(sizes(&read(flags).expect("flags")), [1, 2, 2]);
    let file = read_with_file("namespaces", text, &[]).expect("a file");
    assert_eq!(sizes(&file), [3, 4, 0]);
    assert_eq!(file.namespaces().rules("chat:x").history_ttl, Duration::from_millis(1500));
    assert_eq!(sizes(&read_with_file("both", text, flags).expect("both")), [1, 2, 2]);
}

/// `bench` adds the namespaces of its chat page, unless they are configured.
#[test]
fn bench_adds_namespaces() {
    let size = |flags: &[&str]| {
        read(flags).expect("settings").namespaces().rules("demo-chat:lobby").history_size
    };
    assert_eq!(size(&[]), 0);
    assert_eq!(size(&["--bench"]), 100);
    assert_eq!(size(&["--bench", "--namespace=demo-chat,history-size=7"]), 7);
}

/// Two namespaces of the same name are an error, because it is unclear which rules hold.
#[test]
fn a_namespace_is_given_once() {
    for flags in [&["--namespace=a;b;a"][..], &["--namespace=a", "--namespace=a,publish=anyone"]] {
        let error = read(flags).expect_err("it is there twice");
        assert!(matches!(error, ConfigError::Arguments(_)));
        assert!(error.to_string().contains("'a' twice"), "{error}");
    }
}

/// A path is of one setting: of two, one would have no effect.
#[test]
fn a_path_is_given_once() {
    for (flags, other) in [
        (&["--phoenix-path=/a,/b", "--supabase-path=/b/"][..], "'--phoenix-path'"),
        (&["--phoenix-path=/", "--supabase-path=/realtime/v1,/"], "'--phoenix-path'"),
        (&["--bench", "--supabase-path=/demo/socket"], "'--bench'"),
    ] {
        let error = read(flags).expect_err("it is there twice").to_string();
        let remedy = "give each a path of its own";
        assert!(error.contains(other) && error.contains(remedy), "{error}");
    }
    for flags in [
        &["--phoenix-path=/a", "--supabase-path=/b"][..],
        &["--phoenix-path=/a", "--supabase-path=/A"],
        &["--supabase-path=/demo/socket"],
        &["--bench", "--phoenix-path=/demo/socket"],
    ] {
        assert!(read(flags).is_ok(), "{flags:?}");
    }
    let error = read_with_file("paths", "phoenix-path = \"/a\"\n", &["--supabase-path=/a"]);
    assert!(error.expect_err("twice").to_string().contains("both have /a"));
}

/// The limits of commands can be set, but not to 0 and not above the largest value of the protocol.
#[test]
fn limits_of_commands() {
    let limits = read(&[]).expect("defaults are valid").name_and_payload_limits();
    assert_eq!((limits.max_name_bytes, limits.max_publication_bytes), (255, 65_536));
    let flags = ["--max-name-bytes=1", "--max-publication-bytes=2"];
    let limits = read(&flags).expect("they are valid").name_and_payload_limits();
    assert_eq!((limits.max_name_bytes, limits.max_publication_bytes), (1, 2));
    for flag in [
        "--max-name-bytes=256",
        "--max-name-bytes=0",
        "--max-channels=0",
        "--max-publication-bytes=0",
        "--max-commands-per-second=0",
    ] {
        assert!(read(&[flag]).is_err(), "{flag}");
    }
}

/// The default rate of accepts follows from the number of cores. A floor of 0 bytes and a pressure
/// of 100 turn these limits off.
#[test]
fn bounds_of_admission() {
    let config = read(&[]).expect("defaults are valid");
    assert_eq!(
        (config.limits.accepts_per_second(1), config.limits.accepts_per_second(4)),
        (25_000, 100_000)
    );
    assert_eq!((config.limits.memory_floor_bytes, config.limits.max_memory_pressure), (None, 20));
    let flags =
        ["--max-accepts-per-second=7", "--memory-floor-bytes=0", "--max-memory-pressure=100"];
    let config = read(&flags).expect("they are valid");
    assert_eq!(config.limits.accepts_per_second(4), 7);
    assert_eq!(
        (config.limits.memory_floor_bytes, config.limits.max_memory_pressure),
        (Some(0), 100)
    );
    for flag in ["--max-accepts-per-second=0", "--max-memory-pressure=101"] {
        assert!(read(&[flag]).is_err(), "{flag}");
    }
}

/// An error in the file names the unknown key or the value that its flag does not take.
#[test]
fn wrong_files_are_refused_by_name() {
    for (text, named) in [
        ("max_conns = 5", "`max_conns`"),
        ("config = \"other.toml\"", "`config`"),
        ("[limits]\nshards = 1", "`limits`"),
        ("max-conns = -5", "--max-conns"),
        ("io = \"kqueue\"", "one of auto, uring, uring-plain, epoll"),
        ("bench = 2", "--bench"),
        ("shards = 1\nshards = 2", "line 2"),
        ("namespace = \"chat\"", "`namespace` must be tables"),
        (
            "namespaces = 1",
            "unknown key `namespaces`, did you mean `namespace`; the keys are listen,",
        ),
        ("[namespace]\nchat = 1", "`namespace.chat` must be a table"),
        ("[namespace.chat]\npublish = []", "`namespace.chat.publish` must be"),
        ("[namespace.chat]\npublish = \"all\"", "'chat,publish=all'"),
        ("[namespace.chat]\npublsh = \"all\"", "no rule `publsh`"),
        ("[namespace.chat]\nhistory-size = -1", "`history-size` is a number"),
        ("[namespace.chat]\nslow = \"disconnect,publish=anyone\"", "`namespace.chat.slow` has"),
        ("[namespace.\"a;b\"]", "`namespace.a;b` has"),
        ("[namespace.\"a:b\"]", "`a:b` is no name"),
        ("[namespace.chat]\n[namespace.chat]", "line 2"),
        ("max-name-bytes = 256", "--max-name-bytes"),
        ("unix-mode = 0o660", "--unix-mode"),
    ] {
        let error = read_with_file("wrong", text, &[]).expect_err(text);
        assert!(matches!(error, ConfigError::File { .. }), "{text}");
        assert!(error.to_string().contains(named), "{text}: {error}");
    }
}

/// A setting has the same name as a field, as a flag, as a variable, in `/stats` and in the start
/// line.
#[test]
fn a_setting_has_one_name() {
    let (settings, limits) = Config::default().by_name();
    let command = command();
    for setting in serve(&command).get_arguments() {
        let name = setting.get_id().as_str();
        assert_eq!(setting.get_long(), Some(&*name.replace('_', "-")));
        let variable = setting.get_env().and_then(|variable| variable.to_str());
        assert_eq!(variable, Some(&*format!("MURRE_{}", name.to_uppercase())));
        let is_limit = setting.get_help_heading() == Some("Limits");
        assert_eq!(limits.contains_key(name), is_limit, "{name}");
        // `/stats` does not show the rules of namespaces.
        assert_eq!(settings.contains_key(name), !is_limit && name != "namespace", "{name}");
    }
}

/// The configuration in force has the values that the server chose for settings that were left
/// open.
#[test]
fn chosen_values_are_in_force() {
    let plan = Plan {
        io: murre_core::host::Io::Epoll,
        io_reason: String::new(),
        descriptors: murre_core::host::Descriptors::Normal,
        descriptors_reason: String::new(),
        shards: 3,
        conns_per_shard: 100,
        cores: 2,
    };
    let [listen, admin] =
        ["127.0.0.1:5000", "[::1]:5001"].map(|at| at.parse::<Listen>().expect("an address"));
    let (settings, limits) =
        Config::default().in_force(&plan, vec![listen.clone(), listen], admin).by_name();
    assert_eq!(settings["listen"], "127.0.0.1:5000,127.0.0.1:5000");
    assert_eq!(settings["admin"], "[::1]:5001");
    assert_eq!(settings["shards"], 3);
    assert_eq!((&settings["io"], &settings["descriptors"]), (&"epoll".into(), &"normal".into()));
    assert_eq!(
        (&limits["max_conns"], &limits["max_accepts_per_second"]),
        (&300.into(), &50_000.into())
    );
    assert_eq!(limits["ping_interval"], 25.0);
}

/// The table of `docs/limits.md` has a row for each limit with its default, and names no key that
/// is not a setting.
#[test]
fn the_document_has_every_limit() {
    let text = include_str!("../../../../docs/limits.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| limit |"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let command = command();
    let settings: Vec<_> = serve(&command).get_arguments().collect();
    let keys = |row: &Vec<&'static str>| -> Vec<&'static str> {
        row[2].split(", ").map(|key| key.trim_matches('`')).collect()
    };
    for row in rows.iter().filter(|row| row[2].starts_with('`')) {
        for key in keys(row) {
            assert!(settings.iter().any(|setting| setting.get_long() == Some(key)), "{key}");
        }
    }
    for limit in settings.iter().filter(|setting| setting.get_help_heading() == Some("Limits")) {
        let key = limit.get_long().expect("a flag");
        let row = rows.iter().find(|row| keys(row).contains(&key));
        let row = row.unwrap_or_else(|| panic!("`{key}` has no row"));
        if let [default] = limit.get_default_values() {
            let default = documented(key, default.to_str().expect("text"));
            let words: Vec<&str> = row[3].split(", ").collect();
            assert!(words.iter().any(|word| word.starts_with(&default)), "`{key}`: {default}");
        }
    }
}

/// A default in the form of the document: bytes in their largest unit, times in seconds.
fn documented(key: &str, default: &str) -> String {
    let number: u64 = default.parse().expect("a whole number");
    let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(bits, _)| number >> bits > 0 && number.trailing_zeros() >= *bits);
    match unit {
        Some((bits, unit)) if key.contains("-bytes") => format!("{} {unit}", number >> bits),
        _ if key.ends_with("-per-second") => format!("{number}/s"),
        _ if key.contains("-bytes") => format!("{number} B"),
        _ if key.ends_with("-timeout") || ["ping-interval", "slow-grace"].contains(&key) => {
            format!("{number} s")
        }
        _ if key == "max-memory-pressure" => format!("{number} %"),
        _ => number.to_string(),
    }
}
