//! Which deliveries of a partition were accepted: an offset is stored only when everything before it was.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::member::Consumer;
use super::{failure, lock};
use crate::error::{Error, ErrorKind, Result};

/// One partition, from its assignment to its revocation.
///
/// Kafka keeps one offset for each partition of a group: where to go on. So a delivery that is never accepted holds back the
/// offset; when another member takes over, or this one comes again, it is delivered again, and everything behind it.
pub(super) struct Tracker {
    topic: String,
    partition: i32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Delivered, and neither accepted nor left.
    open: BTreeSet<i64>,
    /// The first that was left without being accepted. What was left behind it needs not be remembered.
    left: Option<i64>,
    /// Behind the last that was delivered.
    end: i64,
    /// What was stored last.
    stored: Option<i64>,
    /// Everything before this was settled at once.
    settled: i64,
    revoked: bool,
}

impl State {
    /// Where to go on: the first that was not accepted.
    fn next(&self) -> i64 {
        let open = self.open.first().copied().unwrap_or(self.end);
        self.left.map_or(open, |left| left.min(open)).min(self.end)
    }
}

impl Tracker {
    pub(super) fn new(topic: &str, partition: i32) -> Arc<Self> {
        Arc::new(Self { topic: topic.to_owned(), partition, state: Mutex::default() })
    }

    pub(super) fn delivered(&self, offset: i64) {
        let mut state = lock(&self.state);
        state.open.insert(offset);
        state.end = state.end.max(offset.saturating_add(1));
    }

    /// The partition is somebody else's.
    pub(super) fn revoke(&self) {
        lock(&self.state).revoked = true;
    }

    pub(super) fn is_revoked(&self) -> bool {
        lock(&self.state).revoked
    }

    pub(super) fn is_settled(&self, offset: i64) -> bool {
        offset < lock(&self.state).settled
    }

    /// A delivery was dropped without a word.
    pub(super) fn leave(&self, offset: i64) {
        let mut state = lock(&self.state);
        if state.open.remove(&offset) {
            state.left = Some(state.left.map_or(offset, |left| left.min(offset)));
        }
    }

    /// # Errors
    ///
    /// `Stale`: the partition was revoked, or this was settled with a later one.
    pub(super) fn accept(&self, offset: i64, consumer: &Consumer) -> Result<()> {
        self.settle(consumer, |state| {
            state.open.remove(&offset);
            offset < state.settled
        })
    }

    /// Accepts everything up to this one.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub(super) fn accept_up_to(&self, offset: i64, consumer: &Consumer) -> Result<()> {
        self.settle(consumer, |state| {
            let stale = offset < state.settled;
            state.settled = state.settled.max(offset.saturating_add(1));
            state.open = state.open.split_off(&state.settled);
            state.left = state.left.filter(|left| *left > offset);
            stale
        })
    }

    fn settle(&self, consumer: &Consumer, settle: impl FnOnce(&mut State) -> bool) -> Result<()> {
        let mut state = lock(&self.state);
        if state.revoked {
            let message = "the partition belongs to another member of the group now; nothing was stored";
            return Err(Error::new(ErrorKind::Stale, message));
        }
        if settle(&mut state) {
            return Err(Error::new(ErrorKind::Stale, "the delivery is settled already; nothing was stored"));
        }
        let next = state.next();
        if state.stored.is_some_and(|stored| stored >= next) {
            return Ok(());
        }
        // Storing is a note in librdkafka's memory. The lock is held, so that a lower offset is never stored behind a higher one.
        let mut offsets = TopicPartitionList::new();
        let stored = offsets
            .add_partition_offset(&self.topic, self.partition, Offset::Offset(next))
            .and_then(|()| consumer.store_offsets(&offsets));
        match stored {
            Ok(()) => {
                state.stored = Some(next);
                Ok(())
            }
            Err(error) => {
                let message = "the offset could not be stored; the partition may belong to another member of the group";
                Err(Error::because(ErrorKind::Stale, message, &failure::general("librdkafka", error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivered 5 to 9, some of them removed or left.
    fn next(accepted: &[i64], left: &[i64]) -> i64 {
        let tracker = Tracker::new("t", 0);
        (5..10).for_each(|offset| tracker.delivered(offset));
        left.iter().for_each(|offset| tracker.leave(*offset));
        let mut state = lock(&tracker.state);
        state.open.retain(|offset| !accepted.contains(offset));
        state.next()
    }

    #[test]
    fn an_offset_is_stored_only_when_everything_before_it_was_accepted() {
        assert_eq!(next(&[], &[]), 5);
        assert_eq!(next(&[5], &[]), 6);
        assert_eq!(next(&[6, 7, 8, 9], &[]), 5);
        assert_eq!(next(&[9, 7, 5, 6], &[]), 8);
        assert_eq!(next(&[5, 6, 7, 8, 9], &[]), 10);
        assert_eq!(next(&[5, 6, 8, 9], &[7]), 7);
        assert_eq!(next(&[5], &[9, 7, 8, 6]), 6);
    }

    #[test]
    fn offsets_that_are_not_there_hold_nothing_back() {
        // Compacted topics and transactions leave gaps.
        let tracker = Tracker::new("t", 0);
        [3, 7, 20].iter().for_each(|offset| tracker.delivered(*offset));
        let mut state = lock(&tracker.state);
        state.open.remove(&3);
        assert_eq!(state.next(), 7);
        state.open.remove(&7);
        state.open.remove(&20);
        assert_eq!(state.next(), 21);
    }
}
