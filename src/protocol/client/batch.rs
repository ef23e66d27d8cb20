//! Deliveries that came close together, in one piece of memory.
//!
//! Messages are copied together, up to a few KiB or a few messages: so there is less than one allocation for each, and whoever
//! keeps one of them for long keeps little else alive. Those whose bodies stayed where they were read are together, too, up to what
//! one block of input holds: whoever keeps one of them keeps its block in any case.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::{Content, Incoming, KEEP_IN_PLACE_FROM, Layout, Whole};

/// The memory that messages share,
const SHARED: usize = 4096;
/// or room for so many, where that is more: a batch takes four allocations.
const AT_LEAST: usize = 5;
/// Octets of bodies that stayed where they were read, in one batch: those of one message, or so many.
const IN_PLACE: usize = 512 * 1024;

/// What a message takes beside its octets. Without it the limit to what is kept would be none for messages without a body.
const EACH: usize = size_of::<Delivered>() + size_of::<Batch>();

/// Messages that were delivered to a consumer one after the other.
#[derive(Debug, Default)]
pub struct Batch {
    memory: Vec<u8>,
    delivered: Vec<Delivered>,
    /// The bodies, where they are not in `memory`: those of all messages, or none.
    apart: Vec<Bytes>,
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
        Self {
            memory: Vec::with_capacity(memory),
            delivered: Vec::with_capacity(memory / len.max(64)),
            apart: Vec::new(),
        }
    }

    fn for_bodies_of(len: usize, head: usize) -> Self {
        let count = (IN_PLACE / len.max(1)).clamp(1, IN_PLACE / KEEP_IN_PLACE_FROM);
        let memory = Vec::with_capacity(count * head);
        Self { memory, delivered: Vec::with_capacity(count), apart: Vec::with_capacity(count) }
    }

    /// Puts a message that has come in several pieces, or whose body stayed where it was read, into the last batch of a queue, or into a
    /// new one. Returns how much [`len`](Self::len) grows.
    pub(crate) fn push_whole(queue: &mut VecDeque<Self>, tag: (u64, bool), whole: Whole<'_>) -> usize {
        let [address, properties] = whole.head;
        let body = match whole.body {
            Incoming::Borrowed(body) => return Self::push(queue, tag, [address, properties, body]),
            Incoming::Kept(body) if body.len() < KEEP_IN_PLACE_FROM => {
                return Self::push(queue, tag, [address, properties, &body]);
            }
            Incoming::Kept(body) => body,
        };
        let (head, len) = (address.len() + properties.len(), body.len());
        if queue.back().is_none_or(|batch| batch.apart.is_empty() || batch.apart_len() + len > IN_PLACE) {
            queue.push_back(Self::for_bodies_of(len, head));
        }
        if let Some(batch) = queue.back_mut() {
            batch.add(tag, [address, properties, &[]]);
            batch.apart.push(body);
        }
        head + len + EACH
    }

    /// Puts a message into the last batch of a queue, or into a new one. Returns how much [`len`](Self::len) grows.
    #[inline(always)] // as a call: 2 % more instructions for a small delivery with its ack
    pub(crate) fn push(
        queue: &mut VecDeque<Self>,
        tag: (u64, bool),
        parts @ [address, properties, body]: [&[u8]; 3],
    ) -> usize {
        let len = address.len() + properties.len() + body.len();
        if queue
            .back()
            .is_none_or(|batch| !batch.apart.is_empty() || batch.memory.capacity() - batch.memory.len() < len)
        {
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

    /// A message in a batch of its own.
    pub(crate) fn of(delivery_tag: u64, redelivered: bool, content: Content) -> Self {
        let Content { memory, layout, apart } = content;
        let delivered = vec![Delivered { delivery_tag, redelivered, layout }];
        Self { memory: memory.into_vec(), delivered, apart: apart.map_or_else(Vec::new, |body| vec![*body]) }
    }

    /// Octets that the batch holds, and what the messages take beside them.
    pub fn len(&self) -> usize {
        self.memory.len() + self.apart_len() + self.delivered.len() * EACH
    }

    fn apart_len(&self) -> usize {
        self.apart.iter().map(Bytes::len).sum()
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

    /// The body of the message at this place, where it stayed where it was read.
    #[inline]
    pub fn apart(&self, place: usize) -> Option<&Bytes> {
        self.apart.get(place)
    }

    /// The body of the message at this place.
    pub fn body(&self, place: usize) -> &[u8] {
        match self.apart(place) {
            None => self.at(place).layout.body(&self.memory),
            Some(body) => body,
        }
    }

    /// Gives back the memory that was not needed, where it is not next to nothing beside the bodies. Nothing can be added without an
    /// allocation any more.
    pub fn seal(&mut self) {
        if self.apart.is_empty() {
            self.memory.shrink_to_fit();
            self.delivered.shrink_to_fit();
        }
    }

    /// The message at this place in memory of its own, if its octets are all here.
    pub fn single(&self, place: usize) -> Option<Single> {
        let Delivered { redelivered, layout, .. } = *self.at(place);
        let (octets, layout) = self.apart.is_empty().then(|| layout.alone(&self.memory))?;
        let (properties_at, body_at) = layout.starts();
        Some(Single { octets, body_at, properties_at, redelivered })
    }

    /// The message at this place in a batch of its own.
    pub fn alone(&self, place: usize) -> Self {
        let Delivered { delivery_tag, redelivered, layout } = *self.at(place);
        let (memory, layout) = layout.alone(&self.memory);
        let apart = self.apart(place).cloned().map(Box::new);
        Self::of(delivery_tag, redelivered, Content { memory, layout, apart })
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

    /// Bodies that stayed where they were read are together as long as a block would hold them, and with no others.
    #[test]
    fn large_messages_share_what_names_them() {
        let mut queue = VecDeque::new();
        let mut buffered = 0;
        for (tag, body) in (1..).zip([64, 64, 400, 1, 64, 2000, 2000, 1, 1]) {
            let body = Incoming::Kept(vec![tag as u8; body * 1024].into());
            buffered += Batch::push_whole(&mut queue, (tag, false), Whole { head: [b"\x01e\x01k", b"\0\0"], body });
        }
        let tags = |batch: &Batch| batch.delivered.iter().map(|one| one.delivery_tag).collect::<Vec<_>>();
        let all: Vec<Vec<u64>> = queue.iter().map(tags).collect();
        assert_eq!(all, [vec![1, 2], vec![3], vec![4], vec![5], vec![6], vec![7], vec![8, 9]]);
        assert_eq!(buffered, queue.iter().map(Batch::len).sum::<usize>());
        for batch in &mut queue {
            batch.seal();
            for (place, one) in batch.delivered().iter().enumerate() {
                assert!(batch.body(place).iter().all(|octet| u64::from(*octet) == one.delivery_tag));
                assert_eq!(one.layout.address(batch.memory()), ("e".into(), "k".into()));
                let alone = batch.alone(place);
                assert!(alone.body(0) == batch.body(place) && alone.delivered().len() == 1);
                assert_eq!(batch.single(place).is_some(), batch.apart(place).is_none());
            }
        }
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
