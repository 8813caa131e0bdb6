//! A WebSocket server that returns each message to its sender, on all cores.
//!
//! `cargo run --release -p murre-core --example echo`, then connect to ws://127.0.0.1:9000/ from a
//! browser.

use murre_core::codec::handshake::Upgrade;
use murre_core::codec::http::{Request, Response};
use murre_core::{
    ConnId, Handler, Listener, Message, Opened, Outbox, Server, ServerConfig, ServerError, Signals,
};

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Mail = ();

    fn open(
        &mut self,
        _conn: ConnId,
        _request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<()>, Response> {
        Ok(Opened::new(()))
    }

    fn message(&mut self, conn: ConnId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        // The shard closes a peer that does not read: there is nothing to do about it here.
        let _ = out.message(conn, message.kind, message.bytes);
    }
}

fn main() -> Result<(), ServerError> {
    let signals = Signals::block().map_err(ServerError::Thread)?;
    let listener = Listener::bind(([127, 0, 0, 1], 9000).into()).map_err(ServerError::Thread)?;
    Server::start(ServerConfig::new(listener)?, Some(signals), |_shard| Echo)?.run()
}
