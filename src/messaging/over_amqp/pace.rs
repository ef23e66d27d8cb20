//! When those who have lost their connection try again: all receivers of a client together, so that a hundred of them do not
//! knock a hundred times as often as one.

use std::sync::{Mutex, MutexGuard, PoisonError};

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

    /// Something that stood was lost: the next try is due at once.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        *state = State { number: state.number + 1, failed: 0, due: None };
    }

    /// The try of this number has come to nothing, or what came of it did not last. Whoever says so first is believed; the
    /// others have tried the same.
    pub(super) fn failed(&self, number: u64, backoff: Backoff) {
        let mut state = self.lock();
        if state.number == number {
            // Without a time for what the clock cannot count, which `Backoff` does not let happen.
            let due = Instant::now().checked_add(backoff.wait(state.failed));
            *state = State { number: number + 1, failed: state.failed.saturating_add(1), due };
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
        pace.begin();
        let (first, due) = pace.next();
        assert_eq!(due, None, "the first try is made at once");
        for _ in 0..100 {
            pace.failed(first, backoff);
        }
        let (second, due) = pace.next();
        assert_eq!(second, first + 1, "a hundred failures of one try are one");
        assert!(due.unwrap() - Instant::now() <= backoff.first);
        for _ in 0..20 {
            pace.failed(pace.next().0, backoff);
        }
        let wait = pace.next().1.unwrap() - Instant::now();
        assert!(wait <= backoff.longest && wait >= backoff.longest / 2, "{wait:?}");
        // After something that stood, it begins anew.
        pace.begin();
        pace.failed(pace.next().0, backoff);
        assert!(pace.next().1.unwrap() - Instant::now() <= Duration::from_millis(100));
    }
}
