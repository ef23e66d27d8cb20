//! Deliveries that came close together, in one piece of memory.
//!
//! Messages are copied together, up to a few KiB or a few messages: so there is less than one allocation for each, and whoever
//! keeps one of them for long keeps little else alive. A message whose body stayed where it was read has a batch to itself.

use bytes::Bytes;

use crate::protocol::{Content, Layout};

/// The memory that messages share,
const SHARED: usize = 4096;
/// or room for so many, where that is more: a batch takes three allocations.
const AT_LEAST: usize = 4;

/// What a message takes beside its octets. Without it the limit to what is kept would be none for messages without a body.
const EACH: usize = size_of::<Delivered>() + size_of::<Batch>();

/// Messages that were delivered to a consumer one after the other.
#[derive(Debug, Default)]
pub struct Batch {
    memory: Vec<u8>,
    delivered: Vec<Delivered>,
    /// Octets of bodies that are not in `memory`.
    apart: usize,
}

/// A message that was delivered to a consumer; its octets are in its [`Batch`].
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The delivery tag, unique on its channel.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Where the message stands in the batch's memory.
    pub layout: Layout,
    /// The body, where it is not in the batch's memory.
    pub apart: Option<Box<Bytes>>,
}

impl Batch {
    fn for_messages_of(len: usize) -> Self {
        let memory = SHARED.max(AT_LEAST * len);
        Self { memory: Vec::with_capacity(memory), delivered: Vec::with_capacity(memory / len.max(64)), apart: 0 }
    }

    /// Puts a message into the last batch of a queue, or into a new one. Returns how much [`len`](Self::len) grows.
    #[inline]
    pub(crate) fn push(
        queue: &mut std::collections::VecDeque<Self>,
        (delivery_tag, redelivered): (u64, bool),
        [address, properties, body]: [&[u8]; 3],
    ) -> usize {
        let len = address.len() + properties.len() + body.len();
        let room = |batch: &Self| batch.memory.capacity() - batch.memory.len() >= len;
        if !queue.back().is_some_and(room) {
            queue.push_back(Self::for_messages_of(len));
        }
        if let Some(batch) = queue.back_mut() {
            let layout = Layout::append(&mut batch.memory, address, properties, body);
            batch.delivered.push(Delivered { delivery_tag, redelivered, layout, apart: None });
        }
        len + EACH
    }

    /// A message that was put together from several reads, or whose body is apart: a batch of its own.
    pub(crate) fn of(delivery_tag: u64, redelivered: bool, content: Content) -> Self {
        let Content { memory, layout, apart } = content;
        let apart_len = apart.as_ref().map_or(0, |body| body.len());
        let delivered = vec![Delivered { delivery_tag, redelivered, layout, apart }];
        Self { memory: memory.into_vec(), delivered, apart: apart_len }
    }

    /// Octets that the batch holds, and what the messages take beside them.
    pub fn len(&self) -> usize {
        self.memory.len() + self.apart + self.delivered.len() * EACH
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty()
    }

    /// The messages.
    pub fn delivered(&self) -> &[Delivered] {
        &self.delivered
    }

    /// The memory, without what was not needed of it, and the messages that stand in it.
    pub fn into_parts(self) -> (Box<[u8]>, Vec<Delivered>) {
        (self.memory.into_boxed_slice(), self.delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn queue_of(bodies: &[usize]) -> VecDeque<Batch> {
        let mut queue = VecDeque::new();
        for (tag, body) in (1..).zip(bodies) {
            Batch::push(&mut queue, (tag, false), [b"\x01e\x01k", b"\0\0", &vec![7; *body]]);
        }
        queue
    }

    #[test]
    fn messages_share_a_few_kib_or_four_of_them_do() {
        let queue = queue_of(&[100; 100]);
        assert!(queue.len() > 1 && queue.len() < 5, "{}", queue.len());
        assert!(queue.iter().all(|batch| batch.memory.capacity() == SHARED));
        assert_eq!(queue_of(&[5000; 8]).len(), 2);
    }

    /// Whoever keeps one small message keeps no more than that.
    #[test]
    fn a_batch_that_is_not_full_gives_back_the_rest() {
        for batch in queue_of(&[0, 10]) {
            let len = batch.len() - 2 * EACH;
            let (memory, delivered) = batch.into_parts();
            assert_eq!((memory.len(), delivered.len()), (len, 2));
            assert_eq!(delivered[1].layout.body(&memory), [7; 10]);
            assert_eq!(delivered[1].layout.address(&memory), ("e".into(), "k".into()));
        }
    }
}
