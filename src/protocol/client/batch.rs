//! Deliveries that came close together, in one piece of memory.
//!
//! Messages are copied together, up to a few KiB or a few messages: so there is less than one allocation for each, and whoever
//! keeps one of them for long keeps little else alive. A message whose body stayed where it was read has a batch to itself.

use bytes::Bytes;

use crate::protocol::{Content, Layout};

/// The memory that messages share,
const SHARED: usize = 4096;
/// or room for so many, where that is more: a batch takes four allocations.
const AT_LEAST: usize = 5;

/// What a message takes beside its octets. Without it the limit to what is kept would be none for messages without a body.
const EACH: usize = size_of::<Delivered>() + size_of::<Batch>();

/// Messages that were delivered to a consumer one after the other.
#[derive(Debug, Default)]
pub struct Batch {
    memory: Vec<u8>,
    delivered: Vec<Delivered>,
    /// The body of the only message, where it is not in `memory`.
    apart: Option<Box<Bytes>>,
}

/// A message that was delivered to a consumer; its octets are in its [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// The delivery tag, unique on its channel.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Where the message stands in the batch's memory.
    pub layout: Layout,
}

/// What stands at a place where no message does.
static NOTHING: Delivered = Delivered { delivery_tag: 0, redelivered: false, layout: Layout::EMPTY };

impl Batch {
    fn for_messages_of(len: usize) -> Self {
        let memory = SHARED.max(AT_LEAST * len);
        Self { memory: Vec::with_capacity(memory), delivered: Vec::with_capacity(memory / len.max(64)), apart: None }
    }

    /// Puts a message into the last batch of a queue, or into a new one. Returns how much [`len`](Self::len) grows.
    #[inline(always)] // as a call: 2 % more instructions for a small delivery with its ack
    pub(crate) fn push(
        queue: &mut std::collections::VecDeque<Self>,
        tag: (u64, bool),
        parts @ [address, properties, body]: [&[u8]; 3],
    ) -> usize {
        let len = address.len() + properties.len() + body.len();
        if queue.back().is_none_or(|batch| batch.memory.capacity() - batch.memory.len() < len) {
            queue.push_back(Self::for_messages_of(len));
        }
        if let Some(batch) = queue.back_mut() {
            batch.add(tag, parts);
        }
        len + EACH
    }

    #[inline(always)] // as a call: 4 % more instructions for a small delivery with its ack
    fn add(&mut self, (delivery_tag, redelivered): (u64, bool), [address, properties, body]: [&[u8]; 3]) {
        let layout = Layout::append(&mut self.memory, address, properties, body);
        // Not `push`, which is not inlined here: what was just put on the stack in small pieces would be read back in large ones,
        // for which the processor waits.
        self.delivered.extend_from_slice(&[Delivered { delivery_tag, redelivered, layout }]);
    }

    /// A message that was put together from several reads, or whose body is apart: a batch of its own.
    pub(crate) fn of(delivery_tag: u64, redelivered: bool, content: Content) -> Self {
        let Content { memory, layout, apart } = content;
        Self { memory: memory.into_vec(), delivered: vec![Delivered { delivery_tag, redelivered, layout }], apart }
    }

    /// Octets that the batch holds, and what the messages take beside them.
    pub fn len(&self) -> usize {
        let apart = self.apart.as_ref().map_or(0, |body| body.len());
        self.memory.len() + apart + self.delivered.len() * EACH
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty()
    }

    /// The messages.
    pub fn delivered(&self) -> &[Delivered] {
        &self.delivered
    }

    /// The message at this place.
    #[inline]
    pub fn at(&self, place: usize) -> &Delivered {
        self.delivered.get(place).unwrap_or(&NOTHING)
    }

    /// The octets in which the messages stand.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The body of the only message, where it stayed where it was read.
    pub fn apart(&self) -> Option<&Bytes> {
        self.apart.as_deref()
    }

    /// The body of one of the messages.
    pub fn body(&self, of: Delivered) -> &[u8] {
        match &self.apart {
            None => of.layout.body(&self.memory),
            Some(body) => body,
        }
    }

    /// Gives back the memory that was not needed. Nothing can be added without an allocation any more.
    pub fn seal(&mut self) {
        self.memory.shrink_to_fit();
        self.delivered.shrink_to_fit();
    }

    /// The message at this place in memory of its own, if its octets are all here.
    pub fn single(&self, place: usize) -> Option<Single> {
        let Delivered { redelivered, layout, .. } = *self.at(place);
        let (octets, layout) = self.apart.is_none().then(|| layout.alone(&self.memory))?;
        let (properties_at, body_at) = layout.starts();
        Some(Single { octets, body_at, properties_at, redelivered })
    }

    /// The message at this place in a batch of its own.
    pub fn alone(&self, place: usize) -> Self {
        let Delivered { delivery_tag, redelivered, layout } = *self.at(place);
        let (memory, layout) = layout.alone(&self.memory);
        Self::of(delivery_tag, redelivered, Content { memory, layout, apart: self.apart.clone() })
    }
}

/// A small message in memory of its own. There may be many that are kept, so there is nothing beside its octets that could be spared.
#[derive(Debug)]
pub struct Single {
    octets: Box<[u8]>,
    body_at: u32,
    properties_at: u16,
    /// It may have been delivered before.
    pub redelivered: bool,
}

impl Single {
    /// Where the message stands in its memory.
    pub fn layout(&self) -> Layout {
        Layout::of_all(&self.octets, self.properties_at, self.body_at)
    }

    /// The octets in which it stands.
    pub fn memory(&self) -> &[u8] {
        &self.octets
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
    fn messages_share_a_few_kib_or_five_of_them_do() {
        let queue = queue_of(&[100; 100]);
        assert!(queue.len() > 1 && queue.len() < 5, "{}", queue.len());
        assert!(queue.iter().all(|batch| batch.memory.capacity() == SHARED));
        assert_eq!(queue_of(&[5000; 8]).len(), 2);
    }

    /// Whoever keeps one small message keeps no more than that.
    #[test]
    fn a_batch_that_is_not_full_gives_back_the_rest() {
        for mut batch in queue_of(&[0, 10]) {
            batch.seal();
            assert_eq!((batch.memory.capacity(), batch.delivered.capacity()), (batch.len() - 2 * EACH, 2));
            assert_eq!(batch.at(1).layout.body(batch.memory()), [7; 10]);
            assert_eq!(batch.at(1).layout.address(batch.memory()), ("e".into(), "k".into()));
        }
    }

    #[test]
    fn a_message_alone_is_the_same_message() {
        let queue = queue_of(&[3, 10]);
        let batch = &queue[0];
        let alone = batch.alone(1);
        assert_eq!((alone.at(0).delivery_tag, alone.delivered().len()), (2, 1));
        assert_eq!(alone.at(0).layout.body(alone.memory()), [7; 10]);
        assert_eq!(alone.at(0).layout.address(alone.memory()), ("e".into(), "k".into()));
        assert!(alone.len() < batch.len());
        let single = batch.single(1).unwrap();
        assert_eq!(single.layout().body(single.memory()), [7; 10]);
        assert_eq!(single.layout().address(single.memory()), ("e".into(), "k".into()));
        assert_eq!(size_of::<Single>(), 24, "with its counters 40, as much as an allocation of 48 octets holds");
    }

    #[test]
    fn where_no_message_stands_is_an_empty_one() {
        let batch = Batch::default();
        assert_eq!((batch.at(7).delivery_tag, batch.at(7).layout.body(batch.memory())), (0, &[][..]));
    }
}
