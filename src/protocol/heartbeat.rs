//! When to send a heartbeat, and when to give the peer up (§4.2.7).

use std::time::{Duration, Instant};

/// The heartbeats of one side of a connection.
///
/// Any octet counts as a sign of life in both directions (c39, c41), so a busy connection sends no heartbeats at all.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    /// `None` when heartbeats are off.
    interval: Option<Duration>,
    last_sent: Instant,
    last_received: Instant,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Nothing was sent for half an interval.
    Send,
    /// Nothing was received for two intervals.
    PeerIsDead,
}

impl Heartbeat {
    /// No heartbeats until an interval is agreed.
    pub(crate) fn new(now: Instant) -> Self {
        Self { interval: None, last_sent: now, last_received: now }
    }

    /// Begins with the negotiated interval; 0 seconds means none.
    pub(crate) fn start(&mut self, seconds: u16, now: Instant) {
        self.interval = (seconds != 0).then(|| Duration::from_secs(seconds.into()));
        self.last_sent = now;
        self.last_received = now;
    }

    pub(crate) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(crate) fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// When [`due`](Self::due) has to be asked again at the latest.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let interval = self.interval?;
        Some((self.last_sent + interval / 2).min(self.last_received + interval * 2))
    }

    pub(crate) fn due(&self, now: Instant) -> Due {
        let Some(interval) = self.interval else { return Due::Nothing };
        if now >= self.last_received + interval * 2 {
            Due::PeerIsDead
        } else if now >= self.last_sent + interval / 2 {
            Due::Send
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// c39, c40
    #[test]
    fn sends_after_half_an_interval_and_gives_up_after_two() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.timeout(), None);
        heartbeat.start(10, start);
        assert_eq!(heartbeat.timeout(), Some(at(5)));
        assert_eq!(heartbeat.due(at(4)), Due::Nothing);
        assert_eq!(heartbeat.due(at(5)), Due::Send);
        heartbeat.sent(at(19));
        assert_eq!(heartbeat.timeout(), Some(at(20)));
        assert_eq!(heartbeat.due(at(20)), Due::PeerIsDead);
        heartbeat.received(at(19));
        assert_eq!(heartbeat.due(at(20)), Due::Nothing);
    }
}
