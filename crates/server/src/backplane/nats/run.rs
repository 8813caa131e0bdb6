//! The thread of the link: connects, serves the connection until it breaks, and connects again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::channels::{Channels, Done};
use super::connection::{Connection, Failure, Opener};
use super::link::{Link, Request};
use super::mail::{Mail, Post};
use super::reads::Reads;
use super::services::Services;
use super::settings::NatsServer;
use super::streams::Streams;
use super::{Command, Shared};

/// What the thread begins with.
pub(crate) struct Runner {
    pub(super) opener: Opener,
    pub(super) servers: Vec<NatsServer>,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) services: Services,
    pub(super) streams: Streams,
    pub(super) reads: Reads,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) requests: UnboundedReceiver<Request>,
}

/// All that the thread works on, with and without a connection.
struct Work {
    link: Link,
    channels: Channels,
    services: Services,
    commands: UnboundedReceiver<Command>,
    requests: UnboundedReceiver<Request>,
    done: UnboundedReceiver<Done>,
}

/// What other threads, and tasks of this one, have for it.
enum Event {
    Command(Command),
    Request(Request),
    Done(Done),
}

/// Room for one read.
const READ_BYTES: usize = 256 << 10;
/// Commands of one turn, between two reads.
const COMMANDS_MAX: usize = 4096;
/// The resolution of times.
const TICK: Duration = Duration::from_millis(50);
/// The pause before mail is posted again to a full mailbox.
const POST_AGAIN: Duration = Duration::from_millis(1);
/// The shortest and the longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Runner {
    /// Runs as long as the process. News for the shards are posted.
    ///
    /// # Errors
    /// A sentence: NATS refuses this node, which it has never taken, and the operator has to change something.
    pub(crate) fn run(self, shards: usize, post: Post) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let Runner {
            opener,
            mut servers,
            shared,
            link,
            services,
            streams,
            reads,
            commands,
            requests,
        } = self;
        runtime.block_on(async {
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (sender, done) = unbounded_channel();
            let now = Instant::now();
            let mail = Mail::new(shards, post, now);
            let channels = Channels::new(Arc::clone(&shared), streams, reads, sender, mail, now);
            let mut work = Work { link, channels, services, commands, requests, done };
            // Nodes that have lost the same server come back at different times and places.
            fastrand::shuffle(&mut servers);
            loop {
                let (server, connection) =
                    work.connect(&opener, &mut servers, &shared, &mut tick).await?;
                let Connection { info, .. } = &connection;
                tracing::info!(
                    %server,
                    name = info.server_name,
                    version = info.version,
                    node = %shared.node.name,
                    "connected to NATS"
                );
                let why = work.serve(connection, &shared, &mut tick).await;
                work.link.disconnected();
                work.channels.disconnected(work.link.proved(), Instant::now());
                shared.counts.reconnects.fetch_add(1, Relaxed);
                tracing::warn!(%server, %why, "the connection to NATS is broken; connecting again");
            }
        })
    }
}

impl Work {
    /// Connects to one of the servers, and does meanwhile what needs no connection.
    async fn connect(
        &mut self,
        opener: &Opener,
        servers: &mut [NatsServer],
        shared: &Shared,
        tick: &mut Interval,
    ) -> Result<(NatsServer, Connection), String> {
        let connect = connect(opener, servers, shared.joined.load(Relaxed));
        tokio::pin!(connect);
        loop {
            tokio::select! {
                connected = &mut connect => return connected,
                event = self.next() => self.handle(event),
                _ = tick.tick() => self.tick(true).unwrap_or_default(),
            }
            self.handle_all();
        }
    }

    /// Serves a connection, and returns why it is broken.
    async fn serve(
        &mut self,
        connection: Connection,
        shared: &Shared,
        tick: &mut Interval,
    ) -> io::Error {
        let Connection { mut input, mut reader, mut writer, info } = connection;
        let now = Instant::now();
        self.link.connected(info, now);
        self.services.connected(&mut self.link);
        self.channels.connected(&mut self.link, now);
        self.handle_all();
        let mut is_flushed = true;
        let mut was_read = true;
        loop {
            input.reserve(READ_BYTES);
            let is_idle = self.link.out().is_empty() && is_flushed;
            let is_read = !self.channels.mail.is_full();
            if was_read && !is_read {
                shared.counts.paused.fetch_add(1, Relaxed);
            }
            was_read = is_read;
            let Work { link, channels, commands, requests, done, .. } = self;
            let mut event = None;
            tokio::select! {
                read = reader.read_buf(&mut input), if is_read => match read {
                    Ok(0) => return io::Error::other("the server closed it"),
                    Err(error) => return error,
                    Ok(_) => link.heard(Instant::now()),
                },
                written = write(&mut writer, link.out()), if !is_idle => match written {
                    Ok(all) => is_flushed = all,
                    Err(error) => return error,
                },
                Some(command) = commands.recv() => event = Some(Event::Command(command)),
                Some(request) = requests.recv() => event = Some(Event::Request(request)),
                Some(done) = done.recv() => event = Some(Event::Done(done)),
                () = sleep(POST_AGAIN), if channels.mail.is_waiting() => {}
                _ = tick.tick() => {
                    if let Err(why) = self.tick(is_read) {
                        return io::Error::other(why);
                    }
                }
            }
            if let Some(event) = event {
                self.handle(event);
            }
            let now = Instant::now();
            let Work { link, channels, services, .. } = self;
            let taken = link.take(&mut input, |link, message| {
                if let Some(message) = services.message(message, link, &mut channels.mail, now) {
                    channels.message(message, link, now);
                }
            });
            if link.has_moved() {
                channels.doubt(link, now);
            }
            if let Err(why) = taken {
                return io::Error::other(why);
            }
            self.handle_all();
        }
    }

    /// The next event.
    async fn next(&mut self) -> Event {
        let Work { commands, requests, done, .. } = self;
        tokio::select! {
            Some(command) = commands.recv() => Event::Command(command),
            Some(request) = requests.recv() => Event::Request(request),
            Some(done) = done.recv() => Event::Done(done),
            // Tasks have what they need to send more.
            else => std::future::pending().await,
        }
    }

    fn handle(&mut self, event: Event) {
        let Work { link, channels, services, .. } = self;
        let now = Instant::now();
        match event {
            Event::Command(Command::Service(command)) => {
                services.obey(command, link, &mut channels.mail, now);
            }
            Event::Command(Command::Channel(command)) => channels.obey(command, link, now),
            Event::Command(command) => link.obey(command),
            Event::Request(request) => link.request(request, now),
            Event::Done(done) => channels.done(done, link, now),
        }
    }

    /// Handles all events that are there, and what follows from them: many make one write and one mail.
    fn handle_all(&mut self) {
        for _ in 0..COMMANDS_MAX {
            let Ok(command) = self.commands.try_recv() else { break };
            self.handle(Event::Command(command));
        }
        while let Ok(done) = self.done.try_recv() {
            self.handle(Event::Done(done));
        }
        while let Ok(request) = self.requests.try_recv() {
            self.handle(Event::Request(request));
        }
        self.channels.turn(&mut self.link, Instant::now());
    }

    /// Does what is due.
    ///
    /// # Errors
    /// Why the connection counts as broken.
    fn tick(&mut self, is_read: bool) -> Result<(), String> {
        let now = Instant::now();
        self.channels.tick(&mut self.link, now);
        self.services.tick(now);
        self.link.tick(now, is_read)
    }
}

/// Connects to the first of the servers that takes this node, and tries until one does.
///
/// # Errors
/// A sentence: a server refuses this node, no other takes it, and none ever has.
async fn connect(
    opener: &Opener,
    servers: &mut [NatsServer],
    has_joined: bool,
) -> Result<(NatsServer, Connection), String> {
    let mut pause = PAUSE_MIN;
    let mut told = false;
    loop {
        let mut refused = None;
        for _ in 0..servers.len() {
            servers.rotate_left(1);
            let server = &servers[0];
            match opener.open(server, !has_joined).await {
                Ok(connection) => return Ok((server.clone(), connection)),
                Err(Failure::Refused(why)) => refused = Some(why),
                Err(Failure::Away(why)) if !told => {
                    tracing::warn!(%server, why, "cannot connect to NATS; trying again");
                }
                Err(Failure::Away(_)) => {}
            }
        }
        match refused {
            Some(why) if !has_joined => return Err(why),
            Some(why) if !told => tracing::error!(why, "NATS refuses this node; trying again"),
            _ => {}
        }
        told = true;
        sleep(pause.mul_f32(0.5 + fastrand::f32())).await;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
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
