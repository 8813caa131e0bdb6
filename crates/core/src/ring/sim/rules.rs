//! Rules for the callers of a ring. A kernel would not report a broken rule, it would do harm.

use std::collections::HashMap;

use super::net::Net;
use crate::conn::id::ConnId;
use crate::ring::operation::{Op, OpKind, Socket, Token};

/// The operations in flight, and the first rule that was broken.
#[derive(Default)]
pub(super) struct Rules {
    /// The kinds in flight of each connection, from push to pop.
    held: HashMap<ConnId, u8>,
    /// A rule that is broken unless the ring is dropped next, which ends every operation.
    pub(super) broken: Option<String>,
}

impl Rules {
    /// Notes that `op` is in flight; panics if it must not be pushed now.
    pub(super) fn pushed(&mut self, op: &Op, token: Token, net: &Net) {
        let (socket, expected) = match op {
            Op::Accept => (None, OpKind::Accept),
            Op::Connect(socket, _) => (Some(*socket), OpKind::Connect),
            Op::Poll(socket) => (Some(*socket), OpKind::Poll),
            Op::Recv(socket, _) => (Some(*socket), OpKind::Recv),
            Op::Send { socket, data, at } => {
                assert!(*at <= data.len(), "rule: a send begins within its bytes");
                (Some(*socket), OpKind::Send)
            }
            Op::Close(socket) => (Some(*socket), OpKind::Close),
        };
        assert_eq!(token.kind, expected, "rule: the token names the operation");
        self.begin(token, socket, net);
    }

    /// Notes that an operation on `socket` is in flight; panics if it must not be.
    pub(super) fn begin(&mut self, token: Token, socket: Option<Socket>, net: &Net) {
        let Token { kind, id } = token;
        if let Some(socket) = socket {
            let owner = net.owner(socket);
            assert_eq!(owner, Some(id), "rule: {kind:?} on an open socket of its own");
        }
        let held = self.held.entry(id).or_default();
        assert!(*held & kind as u8 == 0, "rule: one {kind:?} at a time, of {id:?}");
        assert!(*held & OpKind::Close as u8 == 0, "rule: nothing for {id:?} after its close");
        if kind == OpKind::Close && *held != 0 {
            let broken = format!("rule: {id:?} is closed while {held:#b} is in flight");
            self.broken = Some(broken);
        }
        *held |= kind as u8;
    }

    /// Notes that the caller has read the operation's completion.
    pub(super) fn popped(&mut self, token: Token) {
        let held = self.held.get_mut(&token.id).expect("held since it was pushed");
        *held &= !(token.kind as u8);
        if *held == 0 {
            self.held.remove(&token.id);
        }
    }
}
