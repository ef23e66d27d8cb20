//! Deliveries as a consumer takes them over: small ones that came close together in one piece of memory, large ones one by one.
//!
//! Small messages are copied together, up to a few KiB or a few messages: so there is less than one allocation for each, and whoever
//! keeps one of them for long keeps little else alive. The body of a large one stayed where it was read; what else there is of it stands
//! in memory that is used again, so the one allocation for it is that of whoever hands it out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::protocol::{Content, Incoming, KEEP_IN_PLACE_FROM, Layout, Whole};

/// The memory that messages share,
const SHARED: usize = 4096;
/// or room for so many, where that is more: a batch takes three allocations.
const AT_LEAST: usize = 5;
/// The memory that the heads of large messages share.
const HEADS: usize = 4096;

/// What a message takes beside its octets. Without it the limit to what is kept would be none for messages without a body.
const EACH: usize = size_of::<Delivered>() + size_of::<Batch>();

/// Messages that were delivered to a consumer one after the other.
#[derive(Debug, Default)]
pub struct Batch(Kind);

#[derive(Debug)]
enum Kind {
    /// Small ones.
    Small { memory: Vec<u8>, delivered: Vec<Delivered> },
    /// One whose body stayed where it was read.
    Large { head: Bytes, delivered: Delivered, body: Bytes },
}

impl Default for Kind {
    fn default() -> Self {
        Self::Small { memory: Vec::new(), delivered: Vec::new() }
    }
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
        let delivered = Vec::with_capacity(memory / len.max(64));
        Self(Kind::Small { memory: Vec::with_capacity(memory), delivered })
    }

    /// Puts a message that has come in several pieces, or whose body stayed where it was read, into the last batch of a queue, or into a
    /// new one. Returns how much [`len`](Self::len) grows.
    pub(crate) fn push_whole(
        queue: &mut VecDeque<Self>,
        heads: &mut Heads,
        tag @ (delivery_tag, redelivered): (u64, bool),
        whole: Whole<'_>,
    ) -> usize {
        let [address, properties] = whole.head;
        let body = match whole.body {
            Incoming::Borrowed(body) => return Self::push(queue, tag, [address, properties, body]),
            Incoming::Kept(body) if body.len() < KEEP_IN_PLACE_FROM => {
                return Self::push(queue, tag, [address, properties, &body]);
            }
            Incoming::Kept(body) => body,
        };
        let (head, layout) = heads.keep(address, properties);
        let batch = Self(Kind::Large { head, delivered: Delivered { delivery_tag, redelivered, layout }, body });
        let len = batch.len();
        queue.push_back(batch);
        len
    }

    /// Puts a message into the last batch of a queue, or into a new one. Returns how much [`len`](Self::len) grows.
    #[inline(always)] // as a call: 2 % more instructions for a small delivery with its ack
    pub(crate) fn push(
        queue: &mut VecDeque<Self>,
        (delivery_tag, redelivered): (u64, bool),
        [address, properties, body]: [&[u8]; 3],
    ) -> usize {
        let len = address.len() + properties.len() + body.len();
        if queue.back().is_none_or(|batch| batch.room() < len) {
            queue.push_back(Self::for_messages_of(len));
        }
        if let Some(Self(Kind::Small { memory, delivered })) = queue.back_mut() {
            let layout = Layout::append(memory, address, properties, body);
            // Not `push`, which is not inlined here: what was just put on the stack in small pieces would be read back in large ones,
            // for which the processor waits.
            delivered.extend_from_slice(&[Delivered { delivery_tag, redelivered, layout }]);
        }
        len + EACH
    }

    /// So many octets of small messages can be added.
    #[inline]
    fn room(&self) -> usize {
        match &self.0 {
            Kind::Small { memory, .. } => memory.capacity() - memory.len(),
            Kind::Large { .. } => 0,
        }
    }

    /// A message in a batch of its own.
    pub(crate) fn of(delivery_tag: u64, redelivered: bool, content: Content) -> Self {
        let Content { memory, layout, apart } = content;
        let delivered = Delivered { delivery_tag, redelivered, layout };
        Self(match apart {
            None => Kind::Small { memory: memory.into_vec(), delivered: vec![delivered] },
            Some(body) => Kind::Large { head: memory.into(), delivered, body: *body },
        })
    }

    /// Octets that the batch holds, and what the messages take beside them.
    pub fn len(&self) -> usize {
        let octets = match &self.0 {
            Kind::Small { memory, .. } => memory.len(),
            Kind::Large { head, body, .. } => head.len() + body.len(),
        };
        octets + self.delivered().len() * EACH
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.delivered().is_empty()
    }

    /// The messages.
    pub fn delivered(&self) -> &[Delivered] {
        match &self.0 {
            Kind::Small { delivered, .. } => delivered,
            Kind::Large { delivered, .. } => std::slice::from_ref(delivered),
        }
    }

    /// The message at this place.
    #[inline]
    pub fn at(&self, place: usize) -> &Delivered {
        self.delivered().get(place).unwrap_or(&NOTHING)
    }

    /// The octets in which the messages stand.
    pub fn memory(&self) -> &[u8] {
        match &self.0 {
            Kind::Small { memory, .. } => memory,
            Kind::Large { head, .. } => head,
        }
    }

    /// The body of the message at this place, where it stayed where it was read.
    #[inline]
    pub fn apart(&self, place: usize) -> Option<&Bytes> {
        match &self.0 {
            Kind::Large { body, .. } if place == 0 => Some(body),
            Kind::Small { .. } | Kind::Large { .. } => None,
        }
    }

    /// The body of the message at this place.
    pub fn body(&self, place: usize) -> &[u8] {
        match self.apart(place) {
            None => self.at(place).layout.body(self.memory()),
            Some(body) => body,
        }
    }

    /// Gives back the memory that was not needed. Nothing can be added without an allocation any more.
    pub fn seal(&mut self) {
        if let Kind::Small { memory, delivered } = &mut self.0 {
            memory.shrink_to_fit();
            delivered.shrink_to_fit();
        }
    }

    /// The message at this place in memory of its own, if its octets are all here.
    pub fn single(&self, place: usize) -> Option<Single> {
        let Delivered { redelivered, layout, .. } = *self.at(place);
        let Kind::Small { memory, .. } = &self.0 else { return None };
        let (octets, layout) = layout.alone(memory);
        let (properties_at, body_at) = layout.starts();
        Some(Single { octets, body_at, properties_at, redelivered })
    }

    /// The message at this place in a batch of its own.
    pub fn alone(&self, place: usize) -> Self {
        let Delivered { delivery_tag, redelivered, layout } = *self.at(place);
        let (memory, layout) = layout.alone(self.memory());
        let apart = self.apart(place).cloned().map(Box::new);
        Self::of(delivery_tag, redelivered, Content { memory, layout, apart })
    }
}

/// Where exchange, routing key and properties of large messages stand. When the memory at hand is full, that of before is used again if
/// its messages have been dropped.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    at_hand: BytesMut,
    before: BytesMut,
}

impl Heads {
    fn keep(&mut self, address: &[u8], properties: &[u8]) -> (Bytes, Layout) {
        let len = address.len() + properties.len();
        let layout = Layout::of_head(address.len(), len);
        if len > HEADS {
            return ([address, properties].concat().into(), layout);
        }
        if self.at_hand.capacity() < len {
            std::mem::swap(&mut self.at_hand, &mut self.before);
            self.at_hand.reserve(HEADS);
        }
        self.at_hand.extend_from_slice(address);
        self.at_hand.extend_from_slice(properties);
        (self.at_hand.split().freeze(), layout)
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
    use std::collections::BTreeSet;

    use super::*;

    fn capacities(batch: &Batch) -> (usize, usize) {
        match &batch.0 {
            Kind::Small { memory, delivered } => (memory.capacity(), delivered.capacity()),
            Kind::Large { .. } => (0, 0),
        }
    }

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
        assert!(queue.iter().all(|batch| capacities(batch).0 == SHARED));
        assert_eq!(queue_of(&[5000; 8]).len(), 2);
    }

    /// Large messages among small ones, which have one body in several pieces among them.
    #[test]
    fn large_messages_come_one_by_one() {
        let mut queue = VecDeque::new();
        let (mut heads, mut buffered) = (Heads::default(), 0);
        for (tag, body) in (1..).zip([64, 64, 1, 1, 400, 1, 2000]) {
            let body = Incoming::Kept(vec![tag as u8; body * 1024].into());
            let whole = Whole { head: [b"\x01e\x01k", b"\0\0"], body };
            buffered += Batch::push_whole(&mut queue, &mut heads, (tag, false), whole);
        }
        let tags = |batch: &Batch| batch.delivered().iter().map(|one| one.delivery_tag).collect::<Vec<_>>();
        let all: Vec<Vec<u64>> = queue.iter().map(tags).collect();
        assert_eq!(all, [vec![1], vec![2], vec![3, 4], vec![5], vec![6], vec![7]]);
        assert_eq!(buffered, queue.iter().map(Batch::len).sum::<usize>());
        for batch in &mut queue {
            batch.seal();
            for (place, one) in batch.delivered().iter().enumerate() {
                assert!(batch.body(place).iter().all(|octet| u64::from(*octet) == one.delivery_tag));
                assert_eq!(one.layout.address(batch.memory()), ("e".into(), "k".into()));
                assert_eq!(one.layout.head(batch.memory())[1], b"\0\0");
                let alone = batch.alone(place);
                assert!(alone.body(0) == batch.body(place) && alone.delivered().len() == 1);
                assert_eq!(batch.single(place).is_some(), batch.apart(place).is_none());
            }
        }
    }

    /// Their heads are together in memory that is used again, unless a message from there is kept; a very large one is not.
    #[test]
    fn heads_of_large_messages_share_memory() {
        let mut heads = Heads::default();
        let mut addresses = BTreeSet::new();
        let mut keep = |properties: &[u8]| {
            let (head, layout) = heads.keep(b"\x01e\x01k", properties);
            assert_eq!(layout.head(&head), [b"\x01e\x01k", properties]);
            addresses.insert(head.as_ptr().addr() / HEADS);
            head
        };
        let mut last = VecDeque::new();
        for _ in 0..1000 {
            last.push_back(keep(&[7; 96]));
            if last.len() > 20 {
                last.pop_front();
            }
        }
        assert_eq!(keep(&[7; 2 * HEADS]).len(), 2 * HEADS + 4);
        assert!(addresses.len() <= 2 * 2 + 1, "{addresses:?}");
    }

    /// Whoever keeps one small message keeps no more than that.
    #[test]
    fn a_batch_that_is_not_full_gives_back_the_rest() {
        for mut batch in queue_of(&[0, 10]) {
            batch.seal();
            assert_eq!(capacities(&batch), (batch.len() - 2 * EACH, 2));
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
