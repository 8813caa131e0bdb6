//! Sockets in the ring's own table of files: made and shut down by operations of the ring.

use std::mem;
use std::net::{IpAddr, SocketAddr};

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};

use super::Uring;
use super::user_data::{self, IGNORED, SHUTDOWN, SLOW_SHUTDOWN};
use crate::conn::id::ConnId;
use crate::ring::operation::{ShutdownHow, ShutdownStatus, Socket, Token};
use crate::ring::sockets;

impl Uring {
    /// Makes a socket at the connection's slot of the table. Every failure shows when it connects.
    pub(super) fn open_direct(
        &mut self,
        id: ConnId,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> Socket {
        let socket = Socket(id.index());
        let slot = DestinationSlot::try_from_slot_target(id.index()).expect("within the table");
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let make = opcode::Socket::new(domain, libc::SOCK_STREAM, 0).file_index(Some(slot));
        self.submit_silently(make.build());
        self.set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
        if self.common.reset_on_close {
            self.set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &sockets::RESET);
        }
        if let Some(from) = from {
            // The kernel chooses the port at connect, when it need only differ for the same peer.
            self.set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32);
            let (addr, len) = self.address(SocketAddr::new(from, 0));
            self.submit_silently(opcode::Bind::new(Fixed(socket.0), addr, len).build());
        }
        socket
    }

    fn set_option<T>(&mut self, socket: Socket, level: i32, name: i32, value: &'static T) {
        let (value, len) = ((&raw const *value).cast(), mem::size_of::<T>() as u32);
        let (level, name) = (level as u32, name as u32);
        self.submit_silently(
            opcode::SetSockOpt::new(Fixed(socket.0), level, name, value, len).build(),
        );
    }

    /// Queues an operation that completes only when it fails.
    fn submit_silently(&mut self, entry: Entry) {
        let entry = entry.flags(Flags::SKIP_SUCCESS);
        self.submit_later(entry.user_data(user_data::pack(IGNORED, 0, 0)));
    }

    /// Shuts a direct descriptor down. It has no number for `shutdown(2)`, and the ring's own
    /// SHUTDOWN always goes to a kernel thread (REQ_F_FORCE_ASYNC, 128 us), so this installs it in
    /// the process's table of files for a moment, if that has room.
    pub(super) fn begin_shutdown_direct(
        &mut self,
        socket: Socket,
        how: ShutdownHow,
        token: Token,
    ) -> ShutdownStatus {
        let key = self.shutdowns.insert((token.id.generation(), how));
        let entry = opcode::FixedFdInstall::new(Fixed(socket.0), 0).build();
        self.submit_later(entry.user_data(user_data::pack(SHUTDOWN, key, socket.0)));
        ShutdownStatus::Pending
    }

    /// Shuts a direct descriptor down by the ring's own operation, which needs a kernel thread but no
    /// descriptor of the process.
    pub(super) fn begin_slow_shutdown(&mut self, key: u32, slot: u32) {
        let (_, how) = self.shutdowns.get(key);
        let how = match how {
            ShutdownHow::Write => libc::SHUT_WR,
            ShutdownHow::Both => libc::SHUT_RDWR,
        };
        let entry = opcode::Shutdown::new(Fixed(slot), how).build();
        self.submit_later(entry.user_data(user_data::pack(SLOW_SHUTDOWN, key, slot)));
    }
}
