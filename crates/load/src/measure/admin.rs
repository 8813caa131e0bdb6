//! Asks the server's admin port: for `/stats`, and with the key of the API for the members of channels.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use murre_record::PresenceCount;
use serde::Serialize;
use serde_json::Value;

use crate::cli::args::Targets;

/// Where the members of channels are counted, if anywhere.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct AdminArgs {
    /// The server's admin port, whose counts of members are compared with the clients'. Of several nodes all, in
    /// the order of --target; the last one is asked
    #[arg(long, value_name = "HOST:PORT[,...]", requires = "api_key_file")]
    admin: Option<Targets>,

    /// The file with the key of the server's API
    #[arg(long, value_name = "FILE", requires = "admin")]
    api_key_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The admin ports of all nodes.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.admin.as_ref().map_or(&[], Targets::addresses)
    }

    /// The admin port that is asked, and the key of the API.
    fn api(&self) -> anyhow::Result<Option<(SocketAddr, String)>> {
        let (Some(&admin), Some(file)) = (self.addresses().last(), &self.api_key_file) else {
            return Ok(None);
        };
        Ok(Some((admin, read_key(file)?)))
    }

    /// Asks for the number of members of each channel until `is_right` says that the sum is right, for
    /// some seconds. Returns the last sum; `None` without an admin port.
    pub(crate) fn count_members(
        &self,
        channels: &[String],
        is_right: impl Fn(PresenceCount) -> bool,
    ) -> anyhow::Result<Option<PresenceCount>> {
        let Some((admin, key)) = self.api()? else { return Ok(None) };
        for tries_left in (0..TRIES).rev() {
            let mut sum = PresenceCount::default();
            for channel in channels {
                let path = format!("/api/presence/{channel}?limit=1");
                let page = get(admin, &path, Some(&key))?;
                let number =
                    |name: &str| page[name].as_u64().with_context(|| format!("{path}: {page}"));
                sum.clients += number("clients")?;
                sum.users += number("users")?;
            }
            if is_right(sum) || tries_left == 0 {
                return Ok(Some(sum));
            }
            std::thread::sleep(PAUSE);
        }
        unreachable!("the last try returns")
    }

    /// Tells each user that is online by the session log, with the begin of the session in milliseconds since
    /// 1970.
    pub(crate) fn users_online(&self, mut each: impl FnMut(&str, u64)) -> anyhow::Result<()> {
        let (admin, key) = self.api()?.context("no --admin to ask for the session log")?;
        let mut path = ONLINE.to_owned();
        loop {
            let page = get(admin, &path, Some(&key))?;
            let sessions = page["sessions"].as_array();
            for session in sessions.with_context(|| format!("{path}: {page}"))? {
                let (user, since) = (session["user"].as_str(), session["since"].as_u64());
                let (Some(user), Some(since)) = (user, since) else {
                    bail!("{path}: {session}");
                };
                each(user, since);
            }
            let Some(next) = page["next"].as_str() else { return Ok(()) };
            path = format!("{ONLINE}&after={next}");
        }
    }
}

/// The first line of a file.
fn read_key(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("--api-key-file {} cannot be read", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The server's `/stats`.
pub(crate) fn stats(admin: SocketAddr) -> anyhow::Result<Value> {
    get(admin, "/stats", None)
}

/// The server's connections.
pub(crate) fn connections(admin: SocketAddr) -> anyhow::Result<u64> {
    let stats = stats(admin)?;
    stats["connections"].as_u64().with_context(|| format!("{admin}/stats has no connections"))
}

fn get(admin: SocketAddr, path: &str, key: Option<&str>) -> anyhow::Result<Value> {
    let key = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{key}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = ask().with_context(|| format!("asking {admin} for {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "{admin}{path} answers {}: {body}",
        head.lines().next().unwrap_or_default()
    );
    serde_json::from_str(body).with_context(|| format!("{admin}{path} is not JSON"))
}

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the members are counted at most, and the pause between two counts: together longer than the
/// grace of a member whose connection is lost.
pub(crate) const TRIES: u32 = 20;
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Users that are online, 1,000 a page.
const ONLINE: &str = "/api/sessions/online?limit=1000";
