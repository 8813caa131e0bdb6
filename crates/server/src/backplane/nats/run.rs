//! The thread of the link: connects, serves the connection until it breaks, and connects again.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::Command;
use super::connection::{Connection, Failure, Opener};
use super::link::{Link, Request};
use super::settings::NatsServer;

/// All that the thread has.
pub(crate) struct Runner {
    pub(super) opener: Opener,
    pub(super) servers: Vec<NatsServer>,
    pub(super) link: Link,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) requests: UnboundedReceiver<Request>,
}

/// Room for one read.
const READ_BYTES: usize = 256 << 10;
/// The resolution of times.
const TICK: Duration = Duration::from_millis(50);
/// The shortest and the longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Runner {
    /// Runs until the server cannot be used, or the process ends.
    ///
    /// # Errors
    /// A sentence: NATS refuses this node, which it has never taken, and the operator has to change something.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // Nodes that have lost the same server come back at different times and places.
            fastrand::shuffle(&mut self.servers);
            loop {
                let (server, connection) = self.connect(&mut tick).await?;
                let Connection { info, .. } = &connection;
                tracing::info!(%server, name = info.server_name, version = info.version, "connected to NATS");
                let why = self.serve(connection, &mut tick).await;
                self.link.disconnected();
                self.link.counts().reconnects.fetch_add(1, Relaxed);
                tracing::warn!(%server, %why, "the connection to NATS is broken; connecting again");
            }
        })
    }

    /// Connects to one of the servers, and does meanwhile what needs no connection.
    async fn connect(&mut self, tick: &mut Interval) -> Result<(NatsServer, Connection), String> {
        let Runner { opener, servers, link, commands, requests } = self;
        let has_joined = link.has_joined();
        let connect = async {
            let mut pause = PAUSE_MIN;
            let mut told = false;
            loop {
                let mut refused = None;
                for _ in 0..servers.len() {
                    servers.rotate_left(1);
                    match opener.open(&servers[0]).await {
                        Ok(connection) => return Ok((servers[0].clone(), connection)),
                        Err(Failure::Refused(why)) => refused = Some(why),
                        Err(Failure::Away(why)) if !told => {
                            tracing::warn!(server = %servers[0], why, "cannot connect to NATS; trying again");
                        }
                        Err(Failure::Away(_)) => {}
                    }
                }
                match refused {
                    Some(why) if !has_joined => return Err(why),
                    Some(why) if !told => {
                        tracing::error!(why, "NATS refuses this node; trying again")
                    }
                    _ => {}
                }
                told = true;
                sleep(pause.mul_f32(0.5 + fastrand::f32())).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        };
        tokio::pin!(connect);
        loop {
            tokio::select! {
                connected = &mut connect => return connected,
                Some(command) = commands.recv() => link.obey(command),
                Some(request) = requests.recv() => link.request(request, Instant::now()),
                // Only a connection can be too silent.
                _ = tick.tick() => { let _ = link.tick(Instant::now()); }
            }
        }
    }

    /// Serves a connection, and returns why it is broken.
    async fn serve(&mut self, connection: Connection, tick: &mut Interval) -> io::Error {
        let Runner { link, commands, requests, .. } = self;
        let Connection { mut input, mut reader, mut writer, info } = connection;
        link.connected(info, Instant::now());
        let mut is_flushed = true;
        loop {
            input.reserve(READ_BYTES);
            let is_empty = link.out().is_empty();
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return io::Error::other("the server closed it"),
                    Err(error) => return error,
                    Ok(_) => {}
                },
                written = write(&mut writer, link.out()), if !is_empty || !is_flushed => match written {
                    Ok(all) => is_flushed = all,
                    Err(error) => return error,
                },
                Some(command) = commands.recv() => link.obey(command),
                Some(request) = requests.recv() => link.request(request, Instant::now()),
                _ = tick.tick() => {
                    if let Err(why) = link.tick(Instant::now()) {
                        return io::Error::other(why);
                    }
                }
            }
            // Many commands make one write.
            while let Ok(command) = commands.try_recv() {
                link.obey(command);
            }
            if !input.is_empty()
                && let Err(why) = link.take(&mut input, Instant::now(), |_, _| {})
            {
                return io::Error::other(why);
            }
        }
    }
}

/// Writes some of `out`, or flushes what was written before. Returns whether everything is flushed.
async fn write(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<bool> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(true);
    }
    match writer.write_buf(out).await {
        Ok(0) => Err(io::Error::other("the server closed it")),
        written => written.map(|_| false),
    }
}
