//! Bytes that wait to be sent, of all connections of a shard.
//!
//! The queue of a connection is a head, a tail and a number of bytes; the nodes are in a pool of the
//! shard. An empty queue has no nodes, and the memory of a burst is freed.

use bytes::Bytes;

use crate::pool::{NONE, Pool};
use crate::ring::SendData;

/// The queue of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendQueue {
    head: u32,
    tail: u32,
    /// Bytes queued and being sent.
    bytes: u32,
}

impl Default for SendQueue {
    fn default() -> Self {
        SendQueue { head: NONE, tail: NONE, bytes: 0 }
    }
}

impl SendQueue {
    /// Bytes queued and being sent.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether nothing is queued and nothing is being sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether a piece waits to be taken.
    pub(crate) fn has_waiting(&self) -> bool {
        self.head != NONE
    }

    /// Counts a piece that was taken with the bytes that it now has, instead of those that were queued.
    pub(crate) fn replace(&mut self, queued: u32, sealed: u32) {
        self.bytes = self.bytes - queued + sealed;
    }

    /// Takes bytes off the count that have been sent, or never will be.
    pub(crate) fn done(&mut self, bytes: u32) {
        self.bytes -= bytes;
    }
}

struct Node {
    data: SendData,
    next: u32,
}

/// The nodes of all queues, and spare buffers.
#[derive(Default)]
pub(crate) struct SendPool {
    nodes: Pool<Node>,
    spare: Vec<Vec<u8>>,
}

/// Small pieces are gathered in one buffer up to this size. Larger ones are sent without a copy.
pub(crate) const GATHER_BYTES: usize = 16 * 1024;
/// Buffers kept for the next writes, about as many as a turn fills. The others are freed.
const SPARE_BUFFERS: usize = 32;

impl SendPool {
    /// Queues shared bytes.
    pub(crate) fn push(&mut self, queue: &mut SendQueue, frame: &Bytes) {
        self.append(queue, SendData::Shared(frame.clone()));
        queue.bytes += frame.len() as u32;
    }

    /// Queues the bytes that `write` appends to the queue's last buffer, or to a new one.
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

    #[inline]
    fn append(&mut self, queue: &mut SendQueue, data: SendData) {
        let node = self.nodes.insert(Node { data, next: NONE });
        match queue.tail {
            NONE => queue.head = node,
            tail => self.nodes.get_mut(tail).next = node,
        }
        queue.tail = node;
    }

    /// Takes the next piece to send. Small pieces are gathered into one.
    #[inline]
    pub(crate) fn take(&mut self, queue: &mut SendQueue) -> Option<SendData> {
        let first = self.unlink(queue)?;
        if queue.head == NONE || first.bytes().len() >= GATHER_BYTES {
            return Some(first);
        }
        Some(self.gather(first, queue))
    }

    /// Gathers the first piece and those behind it, up to [`GATHER_BYTES`].
    #[cold]
    fn gather(&mut self, first: SendData, queue: &mut SendQueue) -> SendData {
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
        SendData::Own(gathered)
    }

    #[inline]
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

    /// Drops the queued pieces. A piece that is being sent stays until its completion.
    pub(crate) fn clear(&mut self, queue: &mut SendQueue) {
        while let Some(data) = self.unlink(queue) {
            queue.bytes -= data.len();
            self.recycle(data);
        }
    }

    /// Keeps the buffer of a sent piece for the next write, unless it has grown large.
    pub(crate) fn recycle(&mut self, data: SendData) {
        let SendData::Own(mut buffer) = data else { return };
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() <= GATHER_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// How many pieces are queued.
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

    /// Bytes are sent in the order they were queued, by whichever method, and all are counted.
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

    /// A large frame is not copied into a gathered buffer.
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

    /// Clearing drops queued pieces, and the piece that is being sent stays counted.
    #[test]
    fn clearing_leaves_the_piece_in_flight() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        pool.write(&mut queue, |out| out.extend_from_slice(b"in flight"));
        let data = pool.take(&mut queue).expect("something");
        pool.push(&mut queue, &Bytes::from_static(b"waiting"));
        pool.clear(&mut queue);
        assert_eq!(queue.bytes(), data.len());
        assert!(!queue.has_waiting() && pool.len() == 0);
    }

    /// Buffers that have grown in a burst are freed.
    #[test]
    fn large_buffers_are_freed() {
        let (mut pool, mut queue) = (SendPool::default(), SendQueue::default());
        pool.write(&mut queue, |out| out.resize(10 * GATHER_BYTES, 0));
        drain(&mut pool, &mut queue);
        assert!(pool.spare.is_empty());
    }
}
