//! A NATS server for tests, as a process with a folder of its own.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::server::PATIENCE;

/// A running NATS server. Killed when dropped, and its folder removed.
pub(crate) struct Nats {
    child: Child,
    folder: PathBuf,
    flags: Vec<String>,
    pub(crate) port: u16,
    /// The port for other servers; 0 without.
    pub(super) route_port: u16,
}

/// The programs, installed once.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let binary = Path::new(env!("CARGO_BIN_EXE_murre"));
        let target = binary.ancestors().nth(2).expect("target/debug/murre");
        let folder = target.join("tools/nats");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let installed = Command::new(root.join("tests/nats/install")).arg(&folder).status();
        assert!(installed.expect("bash").success(), "NATS for tests cannot be installed");
        folder
    })
}

impl Nats {
    /// Starts a server with JetStream on a free port.
    pub(crate) fn start() -> Self {
        Self::spawn("nats-server", &["--jetstream"])
    }

    /// Starts the program of this name with these flags on a free port.
    pub(crate) fn spawn(program: &str, flags: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("murre-nats-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let child = run(program, &folder, &flags, -1);
        let file = folder.join(format!("{program}_{}.ports", child.id()));
        let mut nats = Nats { child, folder, flags, port: 0, route_port: 0 };
        let start = Instant::now();
        let ports: Value = loop {
            let text = fs::read(&file).unwrap_or_default();
            if let Ok(ports) = serde_json::from_slice(&text) {
                break ports;
            }
            assert!(start.elapsed() < PATIENCE, "NATS does not start");
            thread::sleep(Duration::from_millis(10));
        };
        let port = |kind: &str| {
            let (_, port) = ports[kind][0].as_str()?.rsplit_once(':')?;
            Some(port.parse().expect("a port"))
        };
        nats.port = port("nats").expect("a URL");
        nats.route_port = port("cluster").unwrap_or_default();
        nats
    }

    /// The address for clients.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// The answer of the JetStream API to a request without parameters; `None` if nobody answers for a second.
    pub(crate) fn ask(&self, api: &str) -> Option<Value> {
        let operations = format!("SUB answer 1\r\nPUB $JS.API.{api} answer 0\r\n\r\n");
        let text = self.try_raw(&operations, "}\r\n", Duration::from_secs(1)).ok()?;
        let answer = text.lines().find(|line| line.starts_with('{')).expect("JSON");
        Some(serde_json::from_str(answer).expect("JSON"))
    }

    /// The names of its streams.
    pub(crate) fn streams(&self) -> Vec<String> {
        let answer = self.ask("STREAM.NAMES").unwrap_or_default();
        let names = answer["streams"].as_array().into_iter().flatten();
        names.map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// Sends operations as a client of NATS, and returns what the server says up to this end of it.
    pub(crate) fn raw(&self, operations: &str, end: &str) -> String {
        self.try_raw(operations, end, PATIENCE).expect("NATS answers")
    }

    fn try_raw(&self, operations: &str, end: &str, patience: Duration) -> io::Result<String> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        socket.set_read_timeout(Some(patience))?;
        let options = r#"{"verbose":false,"headers":true}"#;
        write!(socket, "CONNECT {options}\r\nPING\r\n")?;
        let mut reader = BufReader::new(&socket);
        let mut line = String::new();
        while line != "PONG\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line)? > 0);
        }
        (&socket).write_all(operations.as_bytes())?;
        (&socket).write_all(b"PING\r\n")?;
        let mut text = String::new();
        while !text.ends_with(end) {
            assert!(reader.read_line(&mut text)? > 0, "{text}");
        }
        Ok(text)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Keeps a copy of what it has on disk, after [`kill`](Self::kill).
    pub(crate) fn save(&self) {
        self.copy("store", "copy");
    }

    /// Puts the copy of [`save`](Self::save) in place of what it has on disk.
    pub(crate) fn load(&self) {
        fs::remove_dir_all(self.folder.join("store")).expect("it is there");
        self.copy("copy", "store");
    }

    fn copy(&self, from: &str, to: &str) {
        let [from, to] = [from, to].map(|name| self.folder.join(name));
        let copied = Command::new("cp").arg("--recursive").args([from, to]).status();
        assert!(copied.expect("cp").success());
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and with what it has on disk.
    pub(crate) fn restart(&mut self) {
        for flag in self.flags.iter_mut().filter(|flag| flag.starts_with("--cluster=")) {
            *flag = format!("--cluster=nats://127.0.0.1:{}", self.route_port);
        }
        self.child = run("nats-server", &self.folder, &self.flags, self.port.into());
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "NATS does not start again");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(program: &str, folder: &Path, flags: &[String], port: i32) -> Child {
    let mut command = Command::new(programs().join(program));
    command.args(["--addr=127.0.0.1", &format!("--port={port}")]);
    command.arg("--ports_file_dir").arg(folder).arg("--store_dir").arg(folder.join("store"));
    command.args(flags).stderr(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("it is installed")
}
