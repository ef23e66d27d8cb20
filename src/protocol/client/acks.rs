//! Acks that are coalesced: which deliveries of a channel are settled, and which acks wait to be sent.
//!
//! An ack with `multiple` settles everything that the server has delivered on the channel up to its tag, whoever got it. So it may
//! only be sent where all of that is settled, or is just being acked; and its own tag must be one of the latter, because a server knows
//! nothing of tags that were settled before (406).
//!
//! ```text
//! tags   1 2 3 4 5 6 7 8 9
//!        s s s a a h a h h      s settled, a acked and not sent, h held by the program
//!            │   │   └ apart: sent by itself, or with the run once 6 is acked
//!            │   └ settled, run: one ack for 4 and 5
//!            └ sent
//! ```

use super::requests::{Settle, settle_frame};
use crate::protocol::OutBuffer;

/// So many acks wait behind a delivery that the program holds; further ones are sent at once.
const MOST_APART: usize = 256;

/// Where so many deliveries came after one that the program still holds (64 in a word, 128 KiB in all), nothing is coalesced any more.
const MOST_WORDS: usize = 1 << 14;

/// The deliveries of one channel, all of its consumers and of `basic.get` together.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Everything up to this tag is settled, or its ack waits.
    settled: u64,
    /// The tag of the next delivery; 0 before the first.
    next: u64,
    /// The first tag for which `words` has no bit.
    room: u64,
    /// A bit for each tag between `settled` and `next`: 1 for settled. A ring whose length is a power of two; all other bits are 0.
    words: Vec<u64>,
    /// How many bits are 1.
    ahead: usize,
    /// The highest tag up to `settled` whose ack waits,
    run: u64,
    /// and how many do.
    waiting: usize,
    /// Acks that wait for tags that were not next to `settled` when they came, in the order in which they came.
    apart: Vec<u64>,
    /// What is settled is not known any more: each ack is sent by itself.
    lost: bool,
    /// It is among those whose acks are sent when the driver takes the output.
    pub(crate) listed: bool,
}

impl Acks {
    /// A delivery came, which counts as settled already with `no_ack`.
    #[inline]
    pub(crate) fn delivered(&mut self, tag: u64, no_ack: bool) {
        if tag != self.next || tag >= self.room {
            self.unexpected(tag);
        }
        if !self.lost {
            self.next = tag + 1;
            if no_ack {
                self.settle(tag);
            }
        }
    }

    /// The first one, or one for which there is no room.
    #[cold]
    fn unexpected(&mut self, tag: u64) {
        if self.next == 0 {
            // Whatever came before was asked for without acks.
            (self.settled, self.next) = (tag.saturating_sub(1), tag);
        }
        // Servers count. With one that does not, nobody knows what is between two tags.
        self.lost |= tag != self.next || tag == 0 || tag == u64::MAX || !self.has_room(tag);
    }

    /// The program settles a delivery: notes it, and sends the acks that have to come before. Returns whether it is an ack that waits
    /// itself; otherwise it is to be sent now.
    pub(crate) fn note(&mut self, tag: u64, how: Settle, channel: u16, to: (&mut OutBuffer, &mut usize)) -> bool {
        match how {
            Settle::CoalescedAck => return self.ack(tag),
            // It may overtake other acks.
            Settle::Ack { multiple: false } => self.settle(tag),
            Settle::Nack { multiple: false, .. } | Settle::Reject { .. } => {
                *to.1 += self.send(channel, to.0);
                self.settle(tag);
            }
            Settle::Ack { multiple: true } | Settle::Nack { multiple: true, .. } => {
                *to.1 += self.send(channel, to.0);
                self.settle_up_to(tag);
            }
        }
        false
    }

    /// The program acks a delivery. Returns whether the ack waits; if not it is to be sent at once.
    #[inline]
    pub(crate) fn ack(&mut self, tag: u64) -> bool {
        if tag <= self.settled || tag >= self.next || self.lost {
            return false;
        }
        if tag == self.settled + 1 {
            (self.settled, self.run) = (tag, tag);
            self.waiting += 1;
            self.advance();
            return true;
        }
        self.ack_apart(tag)
    }

    fn ack_apart(&mut self, tag: u64) -> bool {
        // One that is acked a second time is the server's to judge.
        let waits = self.mark(tag) && self.apart.len() < MOST_APART;
        if waits {
            self.apart.push(tag);
        }
        waits
    }

    /// A delivery was settled by itself, and whoever did that says so to the server.
    pub(crate) fn settle(&mut self, tag: u64) {
        if tag > self.settled && tag < self.next {
            self.mark(tag);
            self.advance();
        }
    }

    /// The same for every delivery up to this one, or all of them for 0.
    pub(crate) fn settle_up_to(&mut self, tag: u64) {
        let last = self.next.saturating_sub(1);
        let tag = if tag == 0 { last } else { tag.min(last) };
        while self.settled < tag {
            self.settled += 1;
            self.clear(self.settled);
        }
        self.advance();
    }

    /// From now on each ack is sent by itself. Those that wait must have been sent.
    pub(crate) fn give_up(&mut self) {
        self.lost = true;
    }

    /// Whether acks wait.
    #[inline]
    pub(crate) fn wait(&self) -> bool {
        self.waiting > 0 || !self.apart.is_empty()
    }

    /// Sends the acks that wait. Returns the octets.
    pub(crate) fn send(&mut self, channel: u16, out: &mut OutBuffer) -> usize {
        let before = out.len();
        for tag in self.apart.drain(..) {
            if tag <= self.settled {
                self.run = self.run.max(tag);
                self.waiting += 1;
            } else {
                out.put(&settle_frame(channel, tag, Settle::Ack { multiple: false }));
            }
        }
        match (std::mem::take(&mut self.waiting), std::mem::take(&mut self.run)) {
            (0, _) => {}
            (waiting, tag) => out.put(&settle_frame(channel, tag, Settle::Ack { multiple: waiting > 1 })),
        }
        out.len() - before
    }

    /// Moves `settled` over what is settled next to it.
    #[inline]
    fn advance(&mut self) {
        while self.ahead > 0 && self.clear(self.settled + 1) {
            self.settled += 1;
        }
    }

    /// Sets the bit of a tag. Returns whether it was not set.
    fn mark(&mut self, tag: u64) -> bool {
        let at = self.at(tag);
        match self.words.get_mut(at) {
            Some(word) if *word >> (tag % 64) & 1 == 0 => {
                *word |= 1 << (tag % 64);
                self.ahead += 1;
                true
            }
            _ => false,
        }
    }

    /// The other way round.
    fn clear(&mut self, tag: u64) -> bool {
        let at = self.at(tag);
        match self.words.get_mut(at) {
            Some(word) if *word >> (tag % 64) & 1 == 1 => {
                *word &= !(1 << (tag % 64));
                self.ahead -= 1;
                true
            }
            _ => false,
        }
    }

    /// The place of the word that has the bit of this tag.
    fn at(&self, tag: u64) -> usize {
        (tag / 64) as usize & self.words.len().wrapping_sub(1)
    }

    /// Whether there is a bit for every tag behind `settled` up to this one.
    fn has_room(&mut self, tag: u64) -> bool {
        let first = (self.settled + 1) / 64;
        while (tag / 64) - first >= self.words.len() as u64 {
            let len = (2 * self.words.len()).max(4);
            if len > MOST_WORDS {
                return false;
            }
            let mut grown = Self { words: vec![0; len], ..Self::default() };
            for word in first..first + self.words.len() as u64 {
                let (from, to) = (self.at(word * 64), grown.at(word * 64));
                if let (Some(from), Some(to)) = (self.words.get(from), grown.words.get_mut(to)) {
                    *to = *from;
                }
            }
            self.words = grown.words;
        }
        self.room = (first + self.words.len() as u64).saturating_mul(64);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Tags and `multiple` of the acks that wait.
    fn sent(acks: &mut Acks) -> Vec<(u64, bool)> {
        let mut out = OutBuffer::new();
        acks.send(1, &mut out);
        let tag = |frame: &[u8]| u64::from_be_bytes(frame[11..19].try_into().unwrap());
        out.to_vec().chunks(21).map(|frame| (tag(frame), frame[19] == 1)).collect()
    }

    /// The memory has an end, and behind it every ack is sent by itself.
    #[test]
    fn a_delivery_that_is_held_for_very_long_ends_the_coalescing() {
        let mut acks = Acks::default();
        for tag in 1..=MOST_WORDS as u64 * 64 + 64 {
            acks.delivered(tag, false);
            assert!(tag == 1 || acks.ack(tag) != acks.lost, "{tag}");
            assert!(acks.lost || tag == 1 || sent(&mut acks) == [(tag, false)]);
        }
        assert!(acks.lost && acks.words.len() == MOST_WORDS);
        assert!(!acks.ack(1) && !acks.wait());
    }

    #[test]
    fn what_waits_behind_a_held_delivery_is_little() {
        let mut acks = Acks::default();
        (1..=1000).for_each(|tag| acks.delivered(tag, false));
        let waiting = (2..=1000).filter(|tag| acks.ack(*tag)).count();
        assert_eq!((waiting, acks.apart.len()), (MOST_APART, MOST_APART));
        assert!(acks.ack(1), "all that was behind it is settled");
        assert_eq!(sent(&mut acks), [(2 + MOST_APART as u64 - 1, true)]);
        assert_eq!((acks.settled, acks.ahead), (1000, 0));
    }

    #[test]
    fn no_tag_is_too_large() {
        let mut acks = Acks::default();
        for tag in [u64::MAX - 2, u64::MAX - 1] {
            acks.delivered(tag, false);
            assert!(acks.ack(tag) && !acks.ack(tag) && !acks.ack(0));
        }
        assert_eq!(sent(&mut acks), [(u64::MAX - 1, true)]);
        acks.delivered(u64::MAX, false);
        assert!(acks.lost && !acks.ack(u64::MAX));
        let mut acks = Acks::default();
        acks.delivered(0, false);
        assert!(acks.lost);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        /// Many deliveries, of which up to a few hundred are held, and acked in any order.
        #[test]
        fn agrees_with_a_set(all in prop::collection::vec(any::<(u16, u8)>(), 5000), most in 1..600usize) {
            let (mut acks, mut held, mut unsettled) = (Acks::default(), BTreeSet::new(), BTreeSet::new());
            let mut last = 0;
            for (which, dice) in all {
                if dice < 120 && held.len() < most || held.is_empty() {
                    last += 1;
                    acks.delivered(last, dice < 10);
                    if dice >= 10 {
                        held.insert(last);
                        unsettled.insert(last);
                    }
                } else {
                    // Mostly one of the oldest.
                    let at = if dice < 250 { usize::from(which) % 8 } else { usize::from(which) % most };
                    let tag = held.iter().nth(at).or_else(|| held.first()).copied().unwrap();
                    held.remove(&tag);
                    if !acks.ack(tag) {
                        prop_assert!(unsettled.remove(&tag));
                    }
                }
                if dice % 32 == 0 {
                    for (tag, multiple) in sent(&mut acks) {
                        prop_assert!(unsettled.remove(&tag));
                        unsettled.retain(|other| !multiple || *other > tag);
                    }
                    prop_assert_eq!(&unsettled, &held);
                }
            }
        }
    }
}
