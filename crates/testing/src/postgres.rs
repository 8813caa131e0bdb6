//! A PostgreSQL server for tests, in a folder of its own, as an unprivileged user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// A running server. It ends when dropped, and its folder with it.
pub struct PostgresServer {
    folder: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

/// The user `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;
/// The longest time for which the server starts.
const PATIENCE: Duration = Duration::from_secs(60);

impl PostgresServer {
    /// Starts a server that listens on a Unix socket.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        Self::start_with(&[], |_| {})
    }

    /// Starts a server with these settings, as `name=value`, after `prepare` has changed the folder of its data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // A short name: those of sockets have up to 107 bytes.
        let folder = PathBuf::from(format!("/tmp/murre-pg-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("there is room for a folder");
        let options = settings.iter().map(|setting| format!("-c{setting}")).collect();
        let mut server = PostgresServer { folder, options, child: None };
        server.own(&server.folder);
        let mut init = server.command("initdb");
        init.args([
            "--no-sync",
            "--auth=trust",
            "--username=murre",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ]);
        init.arg(server.data());
        let output = init.output().expect("initdb starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        prepare(&server.data());
        for file in fs::read_dir(server.data()).expect("initdb made it").flatten() {
            if file.file_type().is_ok_and(|kind| kind.is_file()) {
                server.own(&file.path());
            }
        }
        server.run();
        server
    }

    /// The folder of the data.
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Gives a file to the user of the server.
    fn own(&self, path: &Path) {
        if is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let mode = if path.is_dir() { 0o755 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its owner may");
    }

    /// Starts the server again after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(&self.options);
        // A killed server loses nothing that the kernel has.
        command.args(["-cfsync=off", "-cshared_buffers=16MB", "-cmax_connections=60"]);
        if !self.options.iter().any(|option| option.starts_with("-clisten_addresses")) {
            command.arg("-clisten_addresses=");
        }
        let log = fs::File::create(self.folder.join("log")).expect("the folder is there");
        command.stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("postgres starts"));
        let began = std::time::Instant::now();
        while self.try_sql("postgres", "SELECT 1").is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "PostgreSQL does not start: {}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills all its processes, as the kernel does when memory is short.
    pub fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut child) = self.child.take() {
            _ = child.wait();
        }
    }

    /// Sends all its processes a signal, such as STOP or CONT.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: &str) {
        let parent = self.child.as_ref().expect("it runs").id().to_string();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let mut processes: Vec<String> = vec![parent];
        processes.extend(children.unwrap_or_default().split_whitespace().map(str::to_owned));
        let mut kill = Command::new("kill");
        // One of them may have ended meanwhile.
        _ = kill.arg(format!("-{signal}")).args(&processes).stderr(Stdio::null()).status();
    }

    /// Makes a database, and gives its URL.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://murre@{folder}/{name}")
    }

    /// The lines of the answer to a statement, with `|` between columns.
    ///
    /// # Panics
    /// If it fails.
    pub fn sql(&self, database: &str, statement: &str) -> Vec<String> {
        self.try_sql(database, statement).unwrap_or_else(|problem| panic!("{statement}: {problem}"))
    }

    fn try_sql(&self, database: &str, statement: &str) -> Result<Vec<String>, String> {
        let mut psql = self.command("psql");
        psql.args(["-XAtq", "-vON_ERROR_STOP=1", "-Umurre", "-d", database, "-h"])
            .arg(&self.folder);
        let port = self.options.iter().find_map(|option| option.strip_prefix("-cport="));
        psql.args(["-p", port.unwrap_or("5432")]);
        let output = psql.args(["-c", statement]).output().expect("psql starts");
        match output.status.success() {
            true => {
                let lines = String::from_utf8_lossy(&output.stdout);
                Ok(lines.lines().map(str::to_owned).collect())
            }
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(find(program));
        command.current_dir(&self.folder).env_clear().env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.signal("CONT");
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program of PostgreSQL. Debian has those of the server beside the path.
fn find(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = folders.iter().map(|folder| folder.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {program} on this machine: apt-get install postgresql"))
}
