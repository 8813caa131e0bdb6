//! What waits to be sent, of all connections of a shard.
//!
//! A connection's queue is a head, a tail and a number of bytes; the nodes are the shard's. A
//! connection that has nothing to say owns none, and what a burst took is given back.

use bytes::Bytes;

use crate::pool::{NONE, Pool};
use crate::ring::SendData;

/// One connection's part of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendQueue {
    head: u32,
    tail: u32,
    /// Bytes queued and in flight.
    bytes: u32,
}

impl Default for SendQueue {
    fn default() -> Self {
        SendQueue { head: NONE, tail: NONE, bytes: 0 }
    }
}

impl SendQueue {
    /// Bytes queued and in flight.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Nothing queued, nothing in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Something waits to be taken.
    pub(crate) fn has_waiting(&self) -> bool {
        self.head != NONE
    }

    /// These bytes have left, or will never leave.
    pub(crate) fn done(&mut self, bytes: u32) {
        self.bytes -= bytes;
    }
}

struct Node {
    data: SendData,
    next: u32,
}

/// The nodes of all queues, and buffers to fill.
#[derive(Default)]
pub(crate) struct SendPool {
    nodes: Pool<Node>,
    spare: Vec<Vec<u8>>,
}

/// Small writes are gathered in one buffer up to this size. What is larger is sent from where it is.
pub(crate) const GATHER_BYTES: usize = 16 * 1024;
/// Buffers kept for the next write, as many as a turn fills; more go back to the allocator.
const SPARE_BUFFERS: usize = 32;

impl SendPool {
    /// Queues shared bytes.
    pub(crate) fn push(&mut self, queue: &mut SendQueue, frame: &Bytes) {
        self.append(queue, SendData::Shared(frame.clone()));
        queue.bytes += frame.len() as u32;
    }

    /// Lets `write` append to the queue's last buffer, or to a new one.
    pub(crate) fn write(&mut self, queue: &mut SendQueue, write: impl FnOnce(&mut Vec<u8>)) {
        if self.last_buffer(queue).is_none_or(|last| last.len() >= GATHER_BYTES) {
            let buffer = self.spare.pop().unwrap_or_default();
            self.append(queue, SendData::Own(buffer));
        }
        let buffer = self.last_buffer(queue).expect("just made sure");
        let before = buffer.len();
        write(buffer);
        queue.bytes += (buffer.len() - before) as u32;
    }

    fn last_buffer(&mut self, queue: &SendQueue) -> Option<&mut Vec<u8>> {
        if queue.tail == NONE {
            return None;
        }
        match &mut self.nodes.get_mut(queue.tail).data {
            SendData::Own(buffer) => Some(buffer),
            SendData::Shared(_) => None,
        }
    }

    fn append(&mut self, queue: &mut SendQueue, data: SendData) {
        let node = self.nodes.insert(Node { data, next: NONE });
        match queue.tail {
            NONE => queue.head = node,
            tail => self.nodes.get_mut(tail).next = node,
        }
        queue.tail = node;
    }

    /// Takes what is to be sent next: small pieces are gathered into one.
    pub(crate) fn take(&mut self, queue: &mut SendQueue) -> Option<SendData> {
        let first = self.unlink(queue)?;
        if queue.head == NONE || first.bytes().len() >= GATHER_BYTES {
            return Some(first);
        }
        let mut gathered = match first {
            SendData::Own(buffer) => buffer,
            SendData::Shared(bytes) => {
                let mut buffer = self.spare.pop().unwrap_or_default();
                buffer.extend_from_slice(&bytes);
                buffer
            }
        };
        while queue.head != NONE {
            let next = self.nodes.get_mut(queue.head).data.bytes().len();
            if gathered.len() + next > GATHER_BYTES {
                break;
            }
            let data = self.unlink(queue).expect("there is a head");
            gathered.extend_from_slice(data.bytes());
            self.recycle(data);
        }
        Some(SendData::Own(gathered))
    }

    fn unlink(&mut self, queue: &mut SendQueue) -> Option<SendData> {
        if queue.head == NONE {
            return None;
        }
        let Node { data, next } = self.nodes.remove(queue.head);
        queue.head = next;
        if next == NONE {
            queue.tail = NONE;
        }
        Some(data)
    }

    /// Drops what waits; what is in flight stays until the kernel is done with it.
    pub(crate) fn clear(&mut self, queue: &mut SendQueue) {
        while let Some(data) = self.unlink(queue) {
            queue.bytes -= data.len();
            self.recycle(data);
        }
    }

    /// Keeps a sent buffer for the next write, unless it has grown large.
    pub(crate) fn recycle(&mut self, data: SendData) {
        let SendData::Own(mut buffer) = data else { return };
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() <= GATHER_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// How many pieces wait.
    pub(crate) fn len(&self) -> u32 {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(pool: &mut SendPool, queue: &mut SendQueue) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(data) = pool.take(queue) {
            sent.push(data.bytes().to_vec());
            queue.done(data.len());
            pool.recycle(data);
        }
        sent
    }

    /// Bytes leave in the order they were queued, however they were queued, and are all counted.
    #[test]
    fn order_is_kept() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        pool.write(&mut queue, |out| out.extend_from_slice(b"ab"));
        pool.push(&mut queue, &Bytes::from_static(b"cd"));
        pool.write(&mut queue, |out| out.extend_from_slice(b"ef"));
        pool.write(&mut queue, |out| out.extend_from_slice(b"gh"));
        assert_eq!(queue.bytes(), 8);
        assert_eq!(drain(&mut pool, &mut queue), [b"abcdefgh"]);
        assert!(queue.is_empty() && pool.len() == 0);
    }

    /// A large frame is sent from where it is, not copied into a gathered buffer.
    #[test]
    fn large_frames_are_not_copied() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        let large = Bytes::from(vec![7; 2 * GATHER_BYTES]);
        pool.push(&mut queue, &large);
        pool.push(&mut queue, &Bytes::from_static(b"small"));
        match pool.take(&mut queue) {
            Some(SendData::Shared(bytes)) => assert_eq!(bytes.as_ptr(), large.as_ptr()),
            other => panic!("{other:?}"),
        }
        assert!(queue.has_waiting());
    }

    /// Clearing forgets what waits and leaves what is in flight counted.
    #[test]
    fn clearing_leaves_what_is_in_flight() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        pool.write(&mut queue, |out| out.extend_from_slice(b"in flight"));
        let data = pool.take(&mut queue).expect("something");
        pool.push(&mut queue, &Bytes::from_static(b"waiting"));
        pool.clear(&mut queue);
        assert_eq!(queue.bytes(), data.len());
        assert!(!queue.has_waiting() && pool.len() == 0);
    }

    /// Buffers that grew in a burst are not kept.
    #[test]
    fn large_buffers_are_given_back() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        pool.write(&mut queue, |out| out.resize(10 * GATHER_BYTES, 0));
        drain(&mut pool, &mut queue);
        assert!(pool.spare.is_empty());
    }
}
