//! Those who wait for the same thing, in the order in which they came.

use std::collections::VecDeque;
use std::task::Waker;

use crate::wakes::{Wakes, replace};

/// A place in a queue of those who wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Place(u64);

/// A queue of wakers. Who is woken has left the queue.
#[derive(Debug, Default)]
pub(crate) struct WakerQueue {
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl WakerQueue {
    /// Waits, at the place held so far or at the end.
    pub(crate) fn wait(&mut self, place: &mut Option<Place>, waker: &Waker, wakes: &mut Wakes) {
        if let Some(Place(held)) = place
            && let Ok(at) = self.waiting.binary_search_by_key(held, |(place, _)| *place)
            && let Some((_, old)) = self.waiting.get_mut(at)
        {
            wakes.drop_later(replace(old, waker));
            return;
        }
        *place = Some(Place(self.next));
        self.waiting.push_back((self.next, waker.clone()));
        self.next += 1;
    }

    /// Leaves without waiting any longer. If this one had been woken already, the next one is woken instead.
    pub(crate) fn leave(&mut self, Place(held): Place, wakes: &mut Wakes) {
        match self.waiting.binary_search_by_key(&held, |(place, _)| *place) {
            Ok(at) => wakes.drop_later(self.take(at)),
            Err(_) => self.wake(1, wakes),
        }
    }

    /// Has what was waited for, whether woken for it or come unasked.
    pub(crate) fn quit(&mut self, Place(held): &Place, wakes: &mut Wakes) {
        if let Ok(at) = self.waiting.binary_search_by_key(held, |(place, _)| *place) {
            wakes.drop_later(self.take(at));
        }
    }

    fn take(&mut self, at: usize) -> Option<Waker> {
        self.waiting.remove(at).map(|(_, waker)| waker)
    }

    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Wakes up to `count` of those who wait.
    pub(crate) fn wake(&mut self, count: usize, wakes: &mut Wakes) {
        if self.is_empty() {
            return;
        }
        let count = count.min(self.waiting.len());
        wakes.wake(self.waiting.drain(..count).map(|(_, waker)| waker));
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&mut self, wakes: &mut Wakes) {
        self.wake(usize::MAX, wakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_leaves_after_being_woken_passes_it_on() {
        let (mut queue, mut wakes) = (WakerQueue::default(), Wakes::default());
        let (mut first, mut second) = (None, None);
        queue.wait(&mut first, Waker::noop(), &mut wakes);
        queue.wait(&mut second, Waker::noop(), &mut wakes);
        queue.wake(1, &mut wakes);
        assert_eq!(wakes.woken().len(), 1);
        queue.leave(first.unwrap(), &mut wakes);
        assert_eq!(wakes.woken().len(), 2, "the second was woken in place of the first");
        queue.wait(&mut second, Waker::noop(), &mut wakes);
        queue.leave(second.unwrap(), &mut wakes);
        assert_eq!(wakes.woken().len(), 2, "one who still waits takes nobody's turn");
    }
}
