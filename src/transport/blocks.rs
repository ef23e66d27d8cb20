//! The memory that a connection reads into, block by block. The bodies of large messages stay in a block; once all of them have
//! been dropped it is read into again, because the pages of fresh memory cost more than copying what comes into them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::BytesMut;

use crate::protocol::Ahead;

/// The size of a block: small for a connection that gets little, and twice as large after each read that fills its room.
const SIZE: RangeInclusive<usize> = 8 * 1024..=512 * 1024;
/// A block is left when less than this part of it is free.
const LEAST_ROOM: usize = 8;
/// For so many octets of a body there is room before they have come; for more, when as many have come.
const AHEAD: usize = 1024 * 1024 + 4096;
/// Octets of blocks that are remembered while messages may be in them.
const REMEMBERED: usize = 8 * 1024 * 1024;

/// What was read, and the room for more.
pub(super) struct Blocks {
    /// What was read and not consumed yet, in the block at hand.
    pub(super) input: BytesMut,
    /// How large the next block is.
    size: usize,
    /// The size of the one at hand.
    at_hand: usize,
    /// The blocks before it, the oldest first: each an empty part that keeps the whole, and its size.
    left: VecDeque<(BytesMut, usize)>,
    /// Blocks were changed since somebody last asked.
    busy: bool,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { input: BytesMut::new(), size: *SIZE.start(), at_hand: 0, left: VecDeque::new(), busy: false }
    }

    /// Sees to it that there is room to read into behind what there is, for what is known to come if that is not too much.
    pub(super) fn make_room(&mut self, ahead: Ahead) {
        if !self.is_used_up(ahead) {
            return;
        }
        self.busy = true;
        let (len, least) = (self.input.len(), self.least_room(ahead));
        let room = self.size.saturating_sub(len).max(least).max(ahead.together.min(len.max(AHEAD)));
        if self.input.try_reclaim(room) {
            return;
        }
        let mut block = self.take_back(len + room).unwrap_or_else(|| BytesMut::with_capacity(len + room));
        block.extend_from_slice(&self.input);
        let mut full = std::mem::replace(&mut self.input, block);
        let size = std::mem::replace(&mut self.at_hand, self.input.capacity());
        // One that has become too small, or was never large enough for a body to stay in it, is of no use.
        if size >= self.size && self.is_large() {
            full.clear();
            self.remember(full, size);
        }
    }

    /// Whether there is too little room, so that there has to be another block.
    pub(super) fn is_used_up(&self, ahead: Ahead) -> bool {
        self.input.capacity() - self.input.len() < self.least_room(ahead)
    }

    fn least_room(&self, ahead: Ahead) -> usize {
        let together = if ahead.together <= AHEAD { ahead.together } else { 0 };
        together.max(ahead.stop.min(AHEAD)).max(self.size / LEAST_ROOM)
    }

    /// Octets were read: all that there was room for, perhaps.
    pub(super) fn filled(&mut self) {
        if self.input.len() == self.input.capacity() {
            self.size = (2 * self.size).min(*SIZE.end());
        }
    }

    /// A block of this size at least that nobody holds any more: the last one that was left, which is the most likely to be in the
    /// processor's cache.
    fn take_back(&mut self, size: usize) -> Option<BytesMut> {
        let at = self.left.iter_mut().rposition(|(block, _)| block.try_reclaim(size))?;
        self.left.remove(at).map(|(block, _)| block)
    }

    fn remember(&mut self, block: BytesMut, size: usize) {
        self.left.push_back((block, size));
        while self.left.iter().map(|(_, size)| size).sum::<usize>() > REMEMBERED {
            self.left.pop_front();
        }
    }

    /// Whether there is more memory than a quiet connection should have.
    pub(super) fn is_large(&self) -> bool {
        self.size > *SIZE.start()
    }

    /// Gives the memory back if nothing has happened since the last call. What is in it of a message that is not whole stays.
    pub(super) fn give_back(&mut self) {
        if !std::mem::take(&mut self.busy) {
            self.left.clear();
            self.size = *SIZE.start();
            self.input = BytesMut::from(&*self.input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the room, as a read does.
    fn fill(blocks: &mut Blocks) {
        blocks.make_room(Ahead::default());
        blocks.input.resize(blocks.input.capacity(), 7);
        blocks.filled();
    }

    /// Blocks of the full size that are full, each with the message in it.
    fn grown() -> Blocks {
        let mut blocks = Blocks::new();
        while blocks.size < *SIZE.end() {
            fill(&mut blocks);
            blocks.input.clear();
        }
        blocks
    }

    fn address(blocks: &Blocks) -> usize {
        blocks.input.as_ptr().addr()
    }

    #[test]
    fn a_block_whose_messages_were_dropped_is_read_into_again() {
        let mut blocks = grown();
        let mut addresses = Vec::new();
        let mut held = VecDeque::new();
        for _ in 0..100 {
            fill(&mut blocks);
            addresses.push(address(&blocks));
            held.push_back(blocks.input.split().freeze());
            if held.len() > 5 {
                held.pop_front();
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        assert!(addresses.len() <= 8, "{} blocks", addresses.len());
        assert!(held.iter().all(|message| message.iter().all(|octet| *octet == 7)));
    }

    /// One message that is kept for long is in the way of nothing but its own block.
    #[test]
    fn a_block_in_which_there_is_a_message_is_left_alone() {
        let mut blocks = grown();
        fill(&mut blocks);
        let kept = blocks.input.split_to(100).freeze();
        blocks.input.clear();
        let mut addresses = Vec::new();
        for _ in 0..100 {
            fill(&mut blocks);
            addresses.push(address(&blocks));
            blocks.input.fill(8);
            drop(blocks.input.split());
        }
        assert!(!addresses.contains(&kept.as_ptr().addr()) && *kept == [7; 100]);
        addresses.sort_unstable();
        addresses.dedup();
        assert!(addresses.len() <= 3, "{} blocks", addresses.len());
    }

    #[test]
    fn no_more_is_remembered_than_is_allowed() {
        let mut blocks = grown();
        let mut held = Vec::new();
        for _ in 0..100 {
            fill(&mut blocks);
            held.push(blocks.input.split().freeze());
        }
        assert!(blocks.left.iter().map(|(_, size)| size).sum::<usize>() <= REMEMBERED);
    }

    #[test]
    fn what_is_known_to_come_has_room_within_measure() {
        for (together, room) in
            [(0, 8 * 1024), (300_000, 300_000), (AHEAD, AHEAD), (AHEAD + 1, AHEAD), (usize::MAX, AHEAD)]
        {
            let mut blocks = Blocks::new();
            blocks.make_room(Ahead { stop: 1, together });
            assert_eq!(blocks.input.capacity(), room, "{together}");
        }
        let mut blocks = Blocks::new();
        blocks.input.resize(3 * AHEAD, 0);
        blocks.make_room(Ahead { stop: 1, together: usize::MAX });
        assert_eq!(blocks.input.capacity(), 6 * AHEAD, "as much again as has come");
    }

    /// It is given back only when two looks in a row found it unused; what has come of a message stays.
    #[test]
    fn a_connection_that_is_quiet_gives_its_memory_back() {
        let mut blocks = grown();
        fill(&mut blocks);
        blocks.input.truncate(10);
        assert!(blocks.is_large());
        blocks.give_back();
        assert!(blocks.is_large(), "it was used since");
        blocks.give_back();
        assert!(!blocks.is_large() && blocks.left.is_empty());
        assert_eq!((&*blocks.input, blocks.input.capacity()), (&[7; 10][..], 10));
    }
}
