//! A chat room on all cores: each member hears what any other says.
//!
//! `cargo run --release -p murre-core --example chat`, then connect two browser tabs to
//! ws://127.0.0.1:9000/?name=ada and ws://127.0.0.1:9000/?name=grace.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use murre_core::codec::handshake::Upgrade;
use murre_core::codec::http::{Request, Response};
use murre_core::codec::{CloseCode, Data, Kind, OpCode, encode};
use murre_core::{
    Bytes, CloseReason, ConnId, Handler, Listener, Mailbox, Message, Opened, Outbox, ServeMail,
    Server, ServerConfig, ServerError, Signals,
};

/// The room as one shard sees it: its own members, and the way to the other shards.
struct Room {
    shard: usize,
    members: HashSet<ConnId>,
    shards: Arc<[ChatMailbox]>,
}

/// A member, as long as the WebSocket is open.
struct Member {
    name: String,
}

/// A message between shards.
pub(crate) enum Mail {
    /// All shards run: their mailboxes, by number.
    Join(Arc<[ChatMailbox]>),
    /// A line that a member on another shard has said, as a frame.
    Said(Bytes),
}

type ChatMailbox = Arc<Mailbox<ServeMail<Mail>>>;

/// A member who says nothing for so long has to leave.
const SILENCE_MAX: Duration = Duration::from_secs(600);

impl Room {
    fn new(shard: usize) -> Self {
        Room { shard, members: HashSet::new(), shards: Arc::new([]) }
    }

    /// Sends a line to all members on all shards.
    fn say(&self, line: &str, out: &mut Outbox) {
        // One frame for everybody: the members share its bytes.
        let frame = encode::frame(OpCode::Data(Data::Text), line.as_bytes());
        for (shard, mailbox) in self.shards.iter().enumerate() {
            if shard != self.shard {
                // A full mailbox: that shard is overloaded, and its members miss this line.
                let _ = mailbox.post(ServeMail::App(Mail::Said(frame.clone())));
            }
        }
        self.deliver(&frame, out);
    }

    fn deliver(&self, frame: &Bytes, out: &mut Outbox) {
        for &member in &self.members {
            // The shard closes a member that does not read, and then calls `close`.
            let _ = out.send(member, frame);
        }
    }
}

impl Handler for Room {
    type Session = Member;
    type Mail = Mail;

    fn open(
        &mut self,
        _conn: ConnId,
        request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<Member>, Response> {
        match request.query("name") {
            Some(name) if !name.is_empty() => Ok(Opened::new(Member { name: name.into() })),
            _ => Err(Response::text(400, "say who you are: ?name=\n")),
        }
    }

    fn opened(&mut self, conn: ConnId, member: &mut Member, out: &mut Outbox) {
        self.members.insert(conn);
        out.set_session_timer(conn, SILENCE_MAX);
        self.say(&format!("{} is here", member.name), out);
    }

    fn message(
        &mut self,
        conn: ConnId,
        member: &mut Member,
        message: Message<'_>,
        out: &mut Outbox,
    ) {
        match (message.kind, std::str::from_utf8(message.bytes)) {
            (Kind::Text, Ok(line)) => {
                out.set_session_timer(conn, SILENCE_MAX);
                self.say(&format!("{}: {line}", member.name), out);
            }
            _ => out.close_websocket(
                conn,
                CloseCode::Unsupported,
                "text only",
                CloseReason::Finished,
            ),
        }
    }

    fn timer(&mut self, conn: ConnId, _member: &mut Member, out: &mut Outbox) {
        out.close_websocket(conn, CloseCode::Normal, "you said nothing", CloseReason::Finished);
    }

    fn close(&mut self, conn: ConnId, member: Member, _reason: CloseReason, out: &mut Outbox) {
        self.members.remove(&conn);
        self.say(&format!("{} is gone", member.name), out);
    }

    fn mail(&mut self, mail: Mail, out: &mut Outbox) {
        match mail {
            Mail::Join(shards) => self.shards = shards,
            Mail::Said(frame) => self.deliver(&frame, out),
        }
    }
}

/// Starts the shards, and tells each of the others.
pub(crate) fn start(
    config: ServerConfig,
    signals: Option<Signals>,
) -> Result<Server<Mail>, ServerError> {
    let server = Server::start(config, signals, Room::new)?;
    let shards: Arc<[ChatMailbox]> =
        server.shards().iter().map(|shard| Arc::clone(&shard.mailbox)).collect();
    for mailbox in &*shards {
        let joined = mailbox.post(ServeMail::App(Mail::Join(Arc::clone(&shards))));
        assert!(joined.is_ok(), "a mailbox that is empty has room");
    }
    Ok(server)
}

#[cfg_attr(test, expect(dead_code, reason = "tests start the server themselves"))]
fn main() -> Result<(), ServerError> {
    let signals = Signals::block().map_err(ServerError::Thread)?;
    let listener = Listener::bind(([127, 0, 0, 1], 9000).into()).map_err(ServerError::Thread)?;
    start(ServerConfig::new(listener)?, Some(signals))?.run()
}
