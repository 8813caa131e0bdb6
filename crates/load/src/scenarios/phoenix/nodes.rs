//! Several nodes: half of the users have a second connection on another one, and two of the nodes end. Members and
//! the session log are compared with the clients.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use murre_record::{NodesFacts, PresenceCount, SessionCount};
use serde::Serialize;

use crate::cli::args;
use crate::cli::common::Common;
use crate::client::channel::unix_time;
use crate::client::users::{UserArgs, connection_of};
use crate::engine::failover::Pauses;
use crate::measure::admin::{PAUSE, TRIES};
use crate::run::nodes::NodePlan;

/// The arguments about nodes.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct NodeArgs {
    /// Each part of --target, between commas, is a node. Half of the users have a second connection on another
    /// node. After --duration the first node is killed and then the second one drained: their clients connect
    /// to the others
    #[arg(long, requires = "token_secret_file", requires = "admin")]
    nodes: bool,

    /// The processes of the first two nodes, which get SIGKILL and SIGTERM [default: a line says when to end each]
    #[arg(long, value_name = "PID,PID", value_delimiter = ',', requires = "nodes", value_parser = clap::value_parser!(i32).range(1..))]
    node_pids: Vec<i32>,

    /// Clients reconnect after random pauses, as clients/js does, in place of those of phoenix.js
    #[arg(long, requires = "nodes")]
    jitter: bool,

    /// How long the run goes on after the end of each
    #[arg(long, default_value = "30s", value_parser = args::duration, requires = "nodes")]
    #[serde(serialize_with = "args::seconds")]
    settle: Duration,

    /// Compares the session log, in which no session may have ended
    #[arg(long, requires = "nodes")]
    sessions: bool,

    /// Processes whose processor time and memory are recorded, with those of their children
    #[arg(long, value_name = "NAME=PID[,...]", value_delimiter = ',', value_parser = process, requires = "nodes")]
    #[serde(skip)]
    processes: Vec<(String, i32)>,

    #[arg(skip)]
    #[serde(skip)]
    seen: Arc<Seen>,
}

/// What the servers have said.
#[derive(Default)]
struct Seen {
    /// Before the first node ended.
    members: OnceLock<PresenceCount>,
    /// When that was, in milliseconds since 1970: all sessions had begun.
    at_millis: OnceLock<u64>,
    sessions: OnceLock<SessionCount>,
}

fn process(text: &str) -> Result<(String, i32), String> {
    let process = text.split_once('=').and_then(|(name, pid)| Some((name, pid.parse().ok()?)));
    let (name, pid) = process.ok_or_else(|| format!("`{text}` is not NAME=PID"))?;
    Ok((name.to_owned(), pid))
}

impl NodeArgs {
    /// The pauses of clients whose node has ended, if there are several nodes.
    pub(super) fn pauses(&self) -> Option<Pauses> {
        let pauses = if self.jitter { Pauses::Doubled } else { Pauses::Millis(&RECONNECT_AFTER) };
        self.nodes.then_some(pauses)
    }

    pub(super) fn check(&self, common: &Common, users: &UserArgs) -> Result<(), String> {
        let (nodes, admins) = (common.target.nodes().len(), users.admin().addresses().len());
        if self.nodes && (nodes < NODES_MIN || nodes != admins) {
            return Err(format!(
                "--nodes needs {NODES_MIN} parts of --target or more, and as many of --admin: there are \
                 {nodes} and {admins}"
            ));
        }
        if !matches!(self.node_pids.len(), 0 | 2) {
            return Err("--node-pids takes two: those of the nodes that end".to_owned());
        }
        Ok(())
    }

    pub(super) fn plan(&self, users: &UserArgs) -> Option<NodePlan> {
        self.nodes.then(|| NodePlan {
            admins: users.admin().addresses().to_vec(),
            pids: <[i32; 2]>::try_from(&self.node_pids[..]).ok(),
            settle: self.settle,
            processes: self.processes.clone(),
        })
    }

    /// The number of the user of a connection. Of three connections in a row the last one is the second of the
    /// first one's user.
    pub(super) fn user(&self, connection: u32) -> u32 {
        let (row, place) = (connection / 3, connection % 3);
        if self.nodes { row * 2 + u32::from(place == 1) } else { connection }
    }

    /// The users of so many connections.
    pub(super) fn users(&self, connections: u64) -> u64 {
        let (rows, rest) = (connections / 3, connections % 3);
        if self.nodes { rows * 2 + rest } else { connections }
    }

    /// Compares while all nodes, or all but one, live. Users of several nodes are counted for each.
    pub(super) fn compare(
        &self,
        users: &UserArgs,
        channels: &[String],
        connections: u64,
    ) -> anyhow::Result<()> {
        let is_right = |count: PresenceCount| count.clients == connections;
        let count = users.admin().count_members(channels, is_right)?.unwrap_or_default();
        let _ = self.seen.members.set(count);
        let _ = self.seen.at_millis.set(unix_time().as_millis() as u64);
        let clients = count.clients;
        ensure!(clients == connections, "{clients} members are counted, not {connections}");
        self.verify_sessions(users, connections)
    }

    /// Compares the session log, again for some seconds, as the nodes write it twice a second.
    pub(super) fn verify_sessions(&self, users: &UserArgs, connections: u64) -> anyhow::Result<()> {
        if !self.sessions {
            return Ok(());
        }
        let expected = self.users(connections);
        for tries_left in (0..TRIES).rev() {
            match self.count_sessions(users, expected)? {
                (count, None) => {
                    let _ = self.seen.sessions.set(count);
                    return Ok(());
                }
                (_, Some(wrong)) => {
                    ensure!(tries_left > 0, "the session log: {wrong}");
                    thread::sleep(PAUSE);
                }
            }
        }
        unreachable!("the last try returns")
    }

    /// The sessions, and how they differ from the clients' users.
    fn count_sessions(
        &self,
        users: &UserArgs,
        expected: u64,
    ) -> anyhow::Result<(SessionCount, Option<String>)> {
        let (mut there, mut wrong) = (vec![false; expected as usize], None);
        let mut count = SessionCount { online: 0, unbroken: 0 };
        let begun = self.seen.at_millis.get().copied().unwrap_or(u64::MAX);
        users.admin().users_online(|user, since| {
            let number = connection_of(user).and_then(|number| there.get_mut(number as usize));
            match number {
                Some(seen) if !*seen => *seen = true,
                Some(_) => wrong = Some(format!("{user} is online twice")),
                None => wrong = Some(format!("{user} is online, whom no client is")),
            }
            count.online += 1;
            count.unbroken += u64::from(since <= begun);
        })?;
        let SessionCount { online, unbroken } = count;
        if online != expected || unbroken != expected {
            wrong = wrong.or(Some(format!(
                "{online} users are online, {unbroken} of them without an end since the steady part; the \
                 clients are {expected}"
            )));
        }
        Ok((count, wrong))
    }

    pub(super) fn facts(&self, common: &Common) -> Option<NodesFacts> {
        self.nodes.then(|| NodesFacts {
            nodes: common.target.nodes().len() as u64,
            users: self.users(common.conns.into()),
            members_before: self.seen.members.get().copied(),
            sessions: self.seen.sessions.get().copied(),
            ..NodesFacts::default()
        })
    }
}

/// `reconnectAfterMs` of phoenix.js 1.8.
const RECONNECT_AFTER: [u64; 10] = [10, 50, 100, 150, 200, 250, 500, 1000, 2000, 5000];

/// One is killed, one is drained, and one stays.
const NODES_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that half of the users have two connections, each other one has one, and none is left out.
    #[test]
    fn every_second_user_has_a_second_connection() {
        let nodes = NodeArgs {
            nodes: true,
            node_pids: Vec::new(),
            jitter: false,
            settle: Duration::ZERO,
            sessions: false,
            processes: Vec::new(),
            seen: Arc::default(),
        };
        for connections in 1..100 {
            let mut count = vec![0; nodes.users(connections) as usize];
            (0..connections as u32).for_each(|conn| count[nodes.user(conn) as usize] += 1);
            let expected = (0..count.len()).map(|user| if user % 2 == 0 { 2 } else { 1 });
            let whole = connections as usize / 3 * 2;
            assert_eq!(count[..whole], expected.collect::<Vec<_>>()[..whole]);
            assert!(count[whole..].iter().all(|&count| count == 1), "{connections}");
        }
        let alone = NodeArgs { nodes: false, ..nodes };
        assert_eq!((alone.user(7), alone.users(7)), (7, 7));
        assert_eq!(process("nats=12"), Ok(("nats".to_owned(), 12)));
        assert!(process("12").is_err() && process("a=b").is_err());
    }
}
