//! What a change took out of use, until nothing of it is on its way.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::settings::Outgoing;
use crate::messaging::{Client, CloseReport, Sender};

/// The senders and connections that a change of the registry took out of use. New messages do not take them any more; those that
/// were begun with them end with them.
///
/// Dropping it is fine: each connection closes in the background after its last user.
#[derive(Default)]
pub struct Retired {
    pub(super) senders: Vec<Last>,
    pub(super) clients: Vec<Client>,
    /// Kept until the registry is not locked any more: a name in them may have an owner, whose `drop` is code of the program's.
    pub(super) settings: Vec<Outgoing>,
}

/// The senders of an entry that nobody takes any more; the receiver ends when the last who had taken them is done.
pub(super) struct Last {
    pub(super) senders: [Sender; 2],
    pub(super) users: mpsc::Receiver<Infallible>,
}

impl Retired {
    /// How many messages are handed over and not confirmed yet.
    pub fn in_flight(&self) -> usize {
        self.senders.iter().flat_map(|last| &last.senders).map(Sender::in_flight).sum()
    }

    /// Waits until everything that was begun has been confirmed, and closes what is not needed any more. After `deadline` it is
    /// closed all the same, and what was not confirmed is handed back in the report; who waits for it is told as well.
    ///
    /// It takes at most `deadline`, and one second more where a server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the rest to end in the background.
    pub async fn close_within(self, deadline: Duration) -> CloseReport {
        // Deadlines that are longer than any program are no reason to overflow.
        let until = Instant::now() + deadline.min(Duration::from_secs(1 << 30));
        let left = || until.saturating_duration_since(Instant::now());
        let mut report = CloseReport::default();
        for Last { senders, mut users } in self.senders {
            // Nobody sends anything here; the channel ends with the last user.
            let _ = tokio::time::timeout_at(until, users.recv()).await;
            for sender in senders {
                report.append(sender.with_timeout(left()).close().await);
            }
        }
        for client in self.clients {
            report.append(client.close_within(left()).await);
        }
        report
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.senders.append(&mut other.senders);
        self.clients.append(&mut other.clients);
        self.settings.append(&mut other.settings);
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
