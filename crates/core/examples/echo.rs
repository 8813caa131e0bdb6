//! A WebSocket server that says back what it is told, on one shard.
//!
//! `cargo run --release --example echo`, then connect to ws://127.0.0.1:9000/ from a browser.

use std::io;

use murre_codec::handshake::Upgrade;
use murre_codec::http::{Request, Response};
use murre_core::ring::{KernelRing, RingConfig};
use murre_core::{
    ConnId, Handler, Listener, Message, Opened, Outbox, Serve, ServeLimits, Shard, ShardConfig,
};

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Mail = ();

    fn open(
        &mut self,
        _id: ConnId,
        _request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
    ) -> Result<Opened<()>, Response> {
        Ok(Opened::new(()))
    }

    fn message(&mut self, id: ConnId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        // A peer that does not read is closed by the shard; there is nothing to do about it here.
        let _ = out.message(id, message.kind, message.bytes);
    }
}

fn main() -> io::Result<()> {
    let listener = Listener::bind(([127, 0, 0, 1], 9000).into())?;
    let ring = KernelRing::new(RingConfig { listener: Some(listener), ..RingConfig::default() })?;
    let serve = Serve::new(Echo, ServeLimits::default());
    Shard::new(ring, serve, &ShardConfig::default()).run()
}
