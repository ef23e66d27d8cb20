//! When those who have lost their connection try again: all receivers of a client together, so that a hundred of them do not
//! knock a hundred times as often as one.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::message::Backoff;

#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The next try's.
    number: u64,
    /// How many have come to nothing in a row.
    failed: u32,
    /// When the next one is due; `None` for at once.
    due: Option<Instant>,
    /// What was lost before the first of them.
    lost: Option<Arc<AtomicBool>>,
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next try: its number, and when it is due, unless that is at once.
    pub(super) fn next(&self) -> (u64, Option<Instant>) {
        let state = self.lock();
        (state.number, state.due)
    }

    /// Something that stood was lost, of which this is the sign: the next try is due at once. Others may have lost the same, and
    /// have begun already.
    pub(super) fn begin(&self, lost: &Arc<AtomicBool>) {
        let mut state = self.lock();
        if !state.lost.as_ref().is_some_and(|known| Arc::ptr_eq(known, lost)) {
            *state = State { number: state.number + 1, failed: 0, due: None, lost: Some(Arc::clone(lost)) };
        }
    }

    /// The try of this number has come to nothing, or what came of it did not last. Whoever says so first is believed; the
    /// others have tried the same.
    pub(super) fn failed(&self, number: u64, backoff: Backoff) {
        let mut state = self.lock();
        if state.number == number {
            state.number += 1;
            // What the clock cannot count `Backoff` does not let happen.
            state.due = Instant::now().checked_add(backoff.wait(state.failed));
            state.failed = state.failed.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_try_together_wait_together() {
        let (pace, backoff) = (Pace::default(), Backoff::default());
        let lost = Arc::new(AtomicBool::new(true));
        pace.begin(&lost);
        let (first, due) = pace.next();
        assert_eq!(due, None, "the first try is made at once");
        for _ in 0..100 {
            pace.failed(first, backoff);
        }
        pace.begin(&lost);
        let (second, due) = pace.next();
        assert_eq!(second, first + 1, "a hundred failures of one try are one, and so are two who have lost the same");
        assert!(due.unwrap() - Instant::now() <= backoff.first);
        for _ in 0..20 {
            pace.failed(pace.next().0, backoff);
        }
        let wait = pace.next().1.unwrap() - Instant::now();
        assert!(wait <= backoff.longest && wait >= backoff.longest / 2, "{wait:?}");
        // After something that stood, it begins anew.
        pace.begin(&Arc::new(AtomicBool::new(true)));
        pace.failed(pace.next().0, backoff);
        assert!(pace.next().1.unwrap() - Instant::now() <= Duration::from_millis(100));
    }
}
