//! Whether and how long a receiver tries to begin again when its connection was lost.

use std::time::Duration;

use super::Backoff;

/// How a receiver begins again when its connection was lost: at once, and where that fails after waits that grow.
///
/// Unless told otherwise it goes on for as long as it takes. A receiver waits for messages, however long none comes, and a server
/// that is away for the night is one more reason why none comes: giving up would leave a program that runs and receives nothing. What does not
/// pass by itself (no such queue, no permission, a refused login) ends the receiver all the same, with that error, and
/// [`idle_timeout`](crate::messaging::ReceiverBuilder::idle_timeout) goes on counting. Who would rather begin anew in a program of another
/// kind gives up [after some time](Self::give_up_after), or [does not begin again](Self::never) at all.
///
/// ```
/// use std::time::Duration;
/// use leveret::messaging::{Backoff, RecoveryPolicy};
///
/// let policy = RecoveryPolicy::default()
///     .give_up_after(Duration::from_secs(15 * 60))
///     .backoff(Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) });
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "reconnect")]
#[doc(alias = "enable_auto_recover")]
pub struct RecoveryPolicy {
    /// How long to wait between tries; the first one is made at once. A connection that is lost again before it has stood for
    /// [`longest`](Backoff::longest) counts as one more failure: a server that accepts and drops is not asked in a busy loop.
    pub backoff: Backoff,
    /// For how long it is tried in a row; without end. The try that is under way then is the last one, and takes what time connecting may
    /// take.
    pub give_up_after: Duration,
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        Self { backoff: Backoff::default(), give_up_after: Duration::MAX }
    }
}

impl RecoveryPolicy {
    /// A receiver ends with its connection.
    pub fn never() -> Self {
        Self { give_up_after: Duration::ZERO, ..Self::default() }
    }

    /// How long to wait between tries.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// For how long it is tried in a row; [`Duration::MAX`] for without end, nothing for not at all.
    #[must_use]
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = limit;
        self
    }
}
