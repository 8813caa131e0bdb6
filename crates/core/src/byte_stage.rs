//! The stage between the bytes of a socket and those of the protocol: the place of a record layer.
//!
//! ```text
//!   ring ── received bytes ──▶ open ── plain bytes ──▶ Protocol::received
//!   ring ◀── sealed pieces ─── take ◀── queued pieces ── Outbox
//! ```
//!
//! A stage keeps the state of a connection in a table of its own, by slot, so a connection whose bytes
//! it leaves unchanged takes no memory there. [`Plain`] leaves all bytes unchanged and has no table.

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::ring::SendData;

/// Changes the bytes of connections on their way from and to the socket.
///
/// The shard calls it for each connection from [`opened`](ByteStage::opened) to
/// [`closed`](ByteStage::closed). Like a [`Protocol`](crate::Protocol) it must not block.
pub trait ByteStage {
    /// A connection has opened.
    fn opened(&mut self, conn: ConnId);

    /// Opens received bytes in place. The first `plain` of `bytes` are plain already; behind them are the
    /// bytes that an earlier call left closed and those that have arrived since.
    ///
    /// # Errors
    /// The peer has broken the rules of the stage. The queued bytes are dropped, what
    /// [`end`](ByteStage::end) returns is sent, and the connection ends for this reason.
    fn open(
        &mut self,
        conn: ConnId,
        bytes: &mut [u8],
        plain: usize,
    ) -> Result<Unsealed, CloseReason>;

    /// The next piece to send: bytes of the stage itself, or the piece that `queued` takes from the
    /// connection's queue, sealed. `None` while nothing may be sent; `queued` is then not called.
    fn take(&mut self, conn: ConnId, queued: impl FnOnce() -> Option<SendData>)
    -> Option<SendData>;

    /// The last piece of a closing connection, whose queue is empty; `None` when there is no more.
    fn end(&mut self, conn: ConnId) -> Option<SendData>;

    /// The connection is closed: forgets it.
    fn closed(&mut self, conn: ConnId);
}

/// What [`ByteStage::open`] has made of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// The bytes at the front that are plain.
    pub plain: usize,
    /// The plain bytes and those behind them that are still closed, for instance a begun record. The
    /// rest was taken out.
    pub len: usize,
    /// The stage has bytes of its own to send.
    pub answers: bool,
}

/// The stage of a server without a record layer: all bytes stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl ByteStage for Plain {
    fn opened(&mut self, _conn: ConnId) {}

    fn open(&mut self, _: ConnId, bytes: &mut [u8], _: usize) -> Result<Unsealed, CloseReason> {
        Ok(Unsealed { plain: bytes.len(), len: bytes.len(), answers: false })
    }

    fn take(&mut self, _: ConnId, queued: impl FnOnce() -> Option<SendData>) -> Option<SendData> {
        queued()
    }

    fn end(&mut self, _conn: ConnId) -> Option<SendData> {
        None
    }

    fn closed(&mut self, _conn: ConnId) {}
}

/// It has no table.
const _: () = assert!(size_of::<Plain>() == 0);
