//! Publisher confirms of one channel: a ring indexed by delivery tag.
//!
//! ```text
//!   tags      1 .. base-1              base ...................................... next-1
//!           all settled            [slot] [slot] [slot]            without a slot
//!           acked, unless `kept`   waiting, forgotten, or          waiting
//!                                  settled out of order
//! ```
//!
//! A publish takes the next tag, and nothing else: only a message that is settled out of order, or that nobody waits for, makes the
//! ring grow up to its slot. The front of the ring moves over every slot that is settled, so a plain ack
//! costs nothing to remember: a tag below `base` that is not in `kept` was acked. What is more than a plain ack (a nack,
//! a message that came back) is kept until its future asks, or until that future is dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use super::wakers::{Place, WakerQueue};
use crate::codec::{ReplyCode, ShortString};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::Content;
use crate::wakes::{Wakes, replace};

/// What the server said about a published message.
///
/// A server's no is a value here and not an error: look at it, or let [`accepted`](Self::accepted) make an error of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a message may have been refused or returned; `accepted()?` makes an error of that"]
pub enum Confirmation {
    /// The server has taken responsibility (`basic.ack`). A mandatory message that no queue took is acked too, and has been
    /// returned.
    Ack(Option<Box<Returned>>),
    /// The server has not taken responsibility (`basic.nack`). With what had been returned of the message before; a server that says no first
    /// and returns the message behind that, as Apache Qpid does, returns it to nobody in particular.
    Nack(Option<Box<Returned>>),
    /// The channel is not in confirm mode: nobody will ever know.
    NotRequested,
}

impl Confirmation {
    /// `Ok` if the server has taken responsibility for the message and routed it.
    ///
    /// # Errors
    ///
    /// `Returned`, with the server's code and text, when no queue took it; `Nacked`; both with the outcome `Refused`.
    /// `InvalidArgument` with the outcome `Unknown` on a channel without confirms, where nobody knows.
    pub fn accepted(self) -> Result<(), Error> {
        match self {
            Self::Ack(None) => Ok(()),
            Self::Ack(Some(returned)) => Err(Error::returned(returned.reply_code, returned.reply_text.as_bytes())),
            Self::Nack(_) => {
                let error = Error::new(ErrorKind::Nacked, "the server did not take responsibility for the message");
                Err(error.with_outcome(Outcome::Refused))
            }
            Self::NotRequested => {
                let message = "nobody knows what became of the message: confirm_select was not called on its channel";
                Err(Error::new(ErrorKind::InvalidArgument, message).with_outcome(Outcome::Unknown))
            }
        }
    }
}

/// A message that the server gave back (`basic.return`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    pub(crate) reply_code: ReplyCode,
    pub(crate) reply_text: ShortString,
    pub(crate) content: Content,
}

/// Acks below this tag are known without a lock; 0 while something is kept that is more than a plain ack.
#[derive(Clone, Debug, Default)]
pub struct Watermark(Arc<AtomicU64>);

impl Watermark {
    /// Whether the message with this tag is known to be acked and not returned.
    #[inline]
    pub fn has_passed(&self, tag: u64) -> bool {
        tag < self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct Confirms {
    /// The tag of the first slot.
    base: u64,
    /// The tag of the message that is published next.
    next: u64,
    slots: VecDeque<Slot>,
    /// Who is to be woken when a message is settled, in the order of tags, in which they mostly come and go. Beside the slots,
    /// because most messages are settled before anybody asks.
    watchers: VecDeque<(u64, Waker)>,
    /// Settled, and more than a plain ack.
    kept: HashMap<u64, Confirmation>,
    /// Mandatory publishes in the order of their tags, some of them settled already.
    mandatory: VecDeque<Mandatory>,
    /// What has come back of messages that are not settled yet.
    returned: BTreeMap<u64, Box<Returned>>,
    /// The tag behind the last one that was returned: returns come in the order of publishing (c93).
    returned_up_to: u64,
    /// Those who wait until everything up to a tag is settled,
    drains: WakerQueue,
    /// and the lowest such tag.
    drain: u64,
    /// Publishers who wait for the window.
    pub(crate) waiting: WakerQueue,
    window: usize,
    watermark: Watermark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Waiting,
    /// The future is gone.
    Unwatched,
    Acked,
    Nacked,
}

/// Mandatory publishes with tags from the first to the last, all of them of the same look.
#[derive(Debug)]
struct Mandatory {
    first: u64,
    last: u64,
    look: Look,
}

/// By what a mandatory message is recognised when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It carries its tag.
    Stamped,
    /// See [`fingerprint`].
    Fingerprint(u64),
}

impl Confirms {
    pub(crate) fn new(window: usize, watermark: Watermark) -> Self {
        Self {
            base: 1,
            next: 1,
            slots: VecDeque::new(),
            watchers: VecDeque::new(),
            kept: HashMap::new(),
            mandatory: VecDeque::new(),
            returned: BTreeMap::new(),
            returned_up_to: 0,
            drains: WakerQueue::default(),
            drain: 0,
            waiting: WakerQueue::default(),
            window: window.max(1),
            watermark,
        }
    }

    /// Whether as many messages are unsettled as may be.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.outstanding() >= self.window
    }

    /// How many messages are not settled yet.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        // Messages that are not settled have been in memory at one time or another, so their number fits.
        (self.next - self.base) as usize
    }

    /// The tag of the message that is published next.
    #[inline]
    pub(crate) fn next_tag(&self) -> u64 {
        self.next
    }

    /// A message was published: its tag.
    #[inline]
    pub(crate) fn publish(&mut self, mandatory: Option<Look>) -> u64 {
        let tag = self.next;
        self.next += 1;
        if let Some(look) = mandatory {
            match self.mandatory.back_mut() {
                Some(same) if same.last + 1 == tag && same.look == look => same.last = tag,
                _ => self.mandatory.push_back(Mandatory { first: tag, last: tag, look }),
            }
        }
        tag
    }

    /// `basic.ack` or `basic.nack`. Returns whether the tag was ever given out.
    pub(crate) fn settle(&mut self, tag: u64, multiple: bool, ack: bool, wakes: &mut Wakes) -> bool {
        if tag >= self.next || (tag == 0 && !multiple) {
            return false;
        }
        let last = if tag == 0 { self.next - 1 } else { tag };
        if ack && (multiple || last == self.base) && self.returned.is_empty() {
            self.ack_all_up_to(last, wakes);
        } else {
            let first = if multiple { self.base } else { last.max(self.base) };
            for tag in first..=last {
                self.settle_one(tag, ack, wakes);
            }
        }
        self.advance();
        if !self.drains.is_empty() && self.is_drained(self.drain) {
            // Who waits for more says so again.
            self.drains.wake_all(wakes);
        }
        if !self.is_full() {
            let room = self.window - self.outstanding();
            self.waiting.wake(room, wakes);
        }
        true
    }

    /// The common case, the oldest ones: nothing to remember of any of them.
    fn ack_all_up_to(&mut self, last: u64, wakes: &mut Wakes) {
        while self.watchers.front().is_some_and(|(tag, _)| *tag <= last) {
            wakes.wake(self.watchers.pop_front().map(|(_, waker)| waker));
        }
        if last >= self.base {
            let count = usize::try_from(last + 1 - self.base).unwrap_or(usize::MAX);
            self.slots.drain(..count.min(self.slots.len()));
            self.base = last + 1;
        }
    }

    fn settle_one(&mut self, tag: u64, ack: bool, wakes: &mut Wakes) {
        let returned = self.take_returned(tag);
        let watched = match self.slot(tag) {
            Some(Slot::Waiting) => true,
            Some(Slot::Unwatched) => false,
            // Settled twice: the first word counts.
            Some(Slot::Acked | Slot::Nacked) | None => return,
        };
        wakes.wake(self.unwatch(tag));
        self.set(tag, if ack || !watched { Slot::Acked } else { Slot::Nacked });
        if watched && (returned.is_some() || !ack) {
            let confirmation = if ack { Confirmation::Ack(returned) } else { Confirmation::Nack(returned) };
            self.kept.insert(tag, confirmation);
        }
    }

    /// Moves the front over everything that is settled.
    fn advance(&mut self) {
        while matches!(self.slots.front(), Some(Slot::Acked | Slot::Nacked)) {
            self.slots.pop_front();
            self.base += 1;
        }
        // What came back has been taken when its message was settled.
        while self.mandatory.front().is_some_and(|mandatory| mandatory.last < self.base) {
            self.mandatory.pop_front();
        }
        self.show_watermark();
    }

    /// Whether everything up to this tag is settled.
    pub(crate) fn is_drained(&self, tag: u64) -> bool {
        tag < self.base
    }

    /// Wakes this one when everything up to this tag is settled, or before.
    pub(crate) fn await_drained(&mut self, tag: u64, place: &mut Option<Place>, waker: &Waker, wakes: &mut Wakes) {
        self.drain = if self.drains.is_empty() { tag } else { self.drain.min(tag) };
        self.drains.wait(place, waker, wakes);
    }

    /// Somebody no longer waits for that.
    pub(crate) fn leave_drains(&mut self, place: Place, wakes: &mut Wakes) {
        self.drains.leave(place, wakes);
    }

    fn show_watermark(&self) {
        let watermark = if self.kept.is_empty() { self.base } else { 0 };
        self.watermark.0.store(watermark, Ordering::Release);
    }

    /// What came back of a message that is not settled yet.
    pub(crate) fn came_back(&self, tag: u64) -> Option<&Returned> {
        self.returned.get(&tag).map(Box::as_ref)
    }

    /// The same, to be told once.
    pub(crate) fn take_returned(&mut self, tag: u64) -> Option<Box<Returned>> {
        if self.returned.is_empty() { None } else { self.returned.remove(&tag) }
    }

    /// `basic.return`: belongs to the publish of that stamp, or without one to the oldest mandatory publish of the same look
    /// that nothing is known of yet. Gives the message back when there is none.
    pub(crate) fn returned(
        &mut self,
        stamp: Option<u64>,
        fingerprint: u64,
        returned: Box<Returned>,
    ) -> Option<Box<Returned>> {
        let waits = |tag: &u64| {
            matches!(self.slot(*tag), Some(Slot::Waiting | Slot::Unwatched)) && !self.returned.contains_key(tag)
        };
        let fits = |one: &&Mandatory| match one.look {
            Look::Fingerprint(look) => look == fingerprint,
            // A server has lost the stamp: better a wrong one than none.
            Look::Stamped => stamp.is_none(),
        };
        // A stamp that somebody else has put on a message says nothing of one that was sent without.
        let is_stamped = |tag: &u64| {
            let at = self.mandatory.partition_point(|one| one.last < *tag);
            self.mandatory.get(at).is_some_and(|one| one.first <= *tag && one.look == Look::Stamped)
        };
        let stamped = stamp.filter(|tag| is_stamped(tag) && waits(tag));
        let first_from = |from: u64| {
            let behind = self.mandatory.partition_point(|one| one.last < from);
            let fitting = self.mandatory.range(behind..).filter(fits);
            fitting.flat_map(|one| one.first.max(from)..=one.last).find(waits)
        };
        // A server that returns in another order than that of publishing is understood too.
        let found = stamped.or_else(|| first_from(self.returned_up_to)).or_else(|| first_from(self.base));
        match found {
            Some(tag) => {
                self.returned.insert(tag, returned);
                self.returned_up_to = self.returned_up_to.max(tag + 1);
                None
            }
            None => Some(returned),
        }
    }

    /// What became of a message, once it is known. A kept confirmation can be taken once.
    pub(crate) fn take(&mut self, tag: u64) -> Option<Confirmation> {
        // Asking an empty map costs a hash as well.
        if !self.kept.is_empty()
            && let Some(confirmation) = self.kept.remove(&tag)
        {
            self.show_watermark();
            return Some(confirmation);
        }
        if tag < self.base {
            return Some(Confirmation::Ack(None));
        }
        match self.slot(tag) {
            Some(Slot::Acked) => return Some(Confirmation::Ack(None)),
            Some(Slot::Nacked) => return Some(Confirmation::Nack(None)),
            Some(Slot::Unwatched) => self.set(tag, Slot::Waiting),
            Some(Slot::Waiting) | None => {}
        }
        None
    }

    /// Wakes this one when it is known.
    pub(crate) fn watch(&mut self, tag: u64, waker: &Waker, wakes: &mut Wakes) {
        if self.watchers.back().is_none_or(|(last, _)| *last < tag) {
            self.watchers.push_back((tag, waker.clone()));
        } else {
            self.watch_again(tag, waker, wakes);
        }
    }

    /// For the second time, or out of order.
    #[cold]
    fn watch_again(&mut self, tag: u64, waker: &Waker, wakes: &mut Wakes) {
        match self.watchers.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                if let Some((_, old)) = self.watchers.get_mut(at) {
                    wakes.drop_later(replace(old, waker));
                }
            }
            Err(at) => self.watchers.insert(at, (tag, waker.clone())),
        }
    }

    fn unwatch(&mut self, tag: u64) -> Option<Waker> {
        let at = self.watchers.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.watchers.remove(at).map(|(_, waker)| waker)
    }

    /// Whether the server has said what became of a message.
    pub(crate) fn is_settled(&self, tag: u64) -> bool {
        tag < self.base || matches!(self.slot(tag), Some(Slot::Acked | Slot::Nacked))
    }

    /// The same, or it has been returned.
    pub(crate) fn is_answered(&self, tag: u64) -> bool {
        self.is_settled(tag) || self.returned.contains_key(&tag)
    }

    /// What is known of a message that was published, and not all before it is settled.
    fn slot(&self, tag: u64) -> Option<Slot> {
        if tag >= self.next {
            return None;
        }
        let at = usize::try_from(tag.checked_sub(self.base)?).ok()?;
        Some(self.slots.get(at).copied().unwrap_or(Slot::Waiting))
    }

    fn set(&mut self, tag: u64, slot: Slot) {
        let Some(at) = tag.checked_sub(self.base).and_then(|at| usize::try_from(at).ok()) else { return };
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Slot::Waiting);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }

    /// The future is dropped: nothing more has to be remembered for it.
    pub(crate) fn forget(&mut self, tag: u64, wakes: &mut Wakes) {
        if !self.kept.is_empty() && self.kept.remove(&tag).is_some() {
            self.show_watermark();
        }
        match self.slot(tag) {
            Some(Slot::Waiting) => {
                self.set(tag, Slot::Unwatched);
                wakes.drop_later(self.unwatch(tag));
            }
            Some(Slot::Nacked) => self.set(tag, Slot::Acked),
            _ => {}
        }
    }

    /// Wakes everybody: no more confirms will come.
    pub(crate) fn wake_all(&mut self, wakes: &mut Wakes) {
        wakes.wake(self.watchers.drain(..).map(|(_, waker)| waker));
        self.drains.wake_all(wakes);
        self.waiting.wake_all(wakes);
    }
}

/// By what a returned message is recognised: address, length and both ends of the body. Properties are left out, because
/// a server may write them anew.
pub(crate) fn fingerprint(exchange: &[u8], routing_key: &[u8], body: &[u8]) -> u64 {
    const EDGE: usize = 64;
    let tail = body.get(body.len().saturating_sub(EDGE)..).unwrap_or_default();
    let mut hash = 0u64;
    for part in [exchange, routing_key, body.get(..EDGE).unwrap_or(body), tail] {
        hash = mix(hash, part.len() as u64);
        for word in part.chunks(8) {
            let mut octets = [0; 8];
            octets.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            hash = mix(hash, u64::from_ne_bytes(octets));
        }
    }
    mix(hash, body.len() as u64)
}

fn mix(hash: u64, word: u64) -> u64 {
    // 2^64 divided by the golden ratio; only the spread matters, nobody attacks his own connection.
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests;
