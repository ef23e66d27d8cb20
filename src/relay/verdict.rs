//! What a mail server is told.

use std::fmt;

use crate::error::{ErrorKind, Outcome};
use crate::messaging::{BatchReport, Receipt, SendError, Status};
use crate::registry::RegistryError;

/// What the host does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It is done: the message is the server's now.
    Accepted,
    /// It keeps the message and tries again later, with the same message id.
    Retry,
    /// It gives up: the same message would be refused again.
    Refused,
}

/// What became of a message, as a mail server understands it: a reply code and one line of text.
///
/// The [room's documentation](crate::relay) has the table of codes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a message that was not accepted is still the host's"]
pub struct Verdict {
    /// What the host does with the message. It follows from the code.
    pub class: Class,
    /// A reply code of SMTP: 250, 421, 451, 550 or 552.
    pub code: u16,
    /// One line of printable ASCII, at most 400 octets.
    pub text: String,
}

/// Room for it in a reply of SMTP, which has 512 octets.
const LONGEST: usize = 400;

impl Verdict {
    pub(super) fn new(code: u16, text: &str) -> Self {
        let class = match code {
            200..300 => Class::Accepted,
            400..500 => Class::Retry,
            _ => Class::Refused,
        };
        let printable = |char: char| if char == ' ' || char.is_ascii_graphic() { char } else { '?' };
        Self { class, code, text: text.chars().take(LONGEST).map(printable).collect() }
    }

    /// The verdict on one send. A channel that the server closed is no verdict on the message: others may have been on it.
    pub fn of(result: Result<&Receipt, &SendError>) -> Self {
        match result {
            Ok(receipt) => Self::accepted(receipt),
            Err(error) => Self::new(code(error, false), &error.to_string()),
        }
    }

    /// The verdict on a message that was alone on its channel: when the server closes the channel for a reason that stays, the
    /// message is refused.
    pub fn of_alone(result: Result<&Receipt, &SendError>) -> Self {
        match result {
            Ok(receipt) => Self::accepted(receipt),
            Err(error) => Self::new(code(error, true), &error.to_string()),
        }
    }

    /// One verdict on all messages of a batch, for a host that cannot tell them apart (`send_batch` of KumoMTA).
    ///
    /// | in the batch | verdict | price |
    /// |---|---|---|
    /// | all accepted | 250 | |
    /// | one that may be accepted later | 451 | those that were accepted come again, with the same message ids |
    /// | otherwise: at least one was refused | 550 | those that were accepted count as refused with the host |
    pub fn of_batch(report: &BatchReport) -> Self {
        let verdict = |(at, error): (usize, &SendError)| (at, Self::of(Err(error)));
        let mut failed: Vec<_> = report.failed().map(verdict).collect();
        let count = failed.len();
        failed.sort_by_key(|(at, verdict)| (verdict.class != Class::Retry, *at));
        match failed.first() {
            None => Self::new(250, &format!("accepted {}", report.len())),
            Some((at, worst)) => {
                let text = format!("{count} of {} not accepted; number {at}: {}", report.len(), worst.text);
                Self::new(worst.code, &text)
            }
        }
    }

    pub(super) fn of_registry(result: &Result<Receipt, RegistryError>, alone: bool) -> Self {
        match result {
            Ok(receipt) => Self::accepted(receipt),
            Err(RegistryError::Send(error)) if alone => Self::of_alone(Err(error)),
            Err(RegistryError::Send(error)) => Self::of(Err(error)),
            Err(error @ RegistryError::Closed) => Self::new(421, &error.to_string()),
            // The operator's affair, and no reason to lose mail.
            Err(error) => Self::new(451, &error.to_string()),
        }
    }

    fn accepted(receipt: &Receipt) -> Self {
        Self::new(
            250,
            match receipt.status {
                Status::Accepted => "accepted",
                Status::NotRequested => "handed over, without a confirm",
            },
        )
    }

    /// Whether the message is the server's now.
    pub fn is_accepted(&self) -> bool {
        self.class == Class::Accepted
    }
}

/// The reply code for a message that was not accepted.
fn code(error: &SendError, alone: bool) -> u16 {
    match (error.kind(), error.outcome()) {
        (ErrorKind::Closed, _) => 421,
        (ErrorKind::MessageTooLarge, _) => 552,
        // The message's own fault, and the server was not asked. `Unsupported` is the route's, and no reason to lose mail.
        (ErrorKind::InvalidArgument, Outcome::NotSent) => 550,
        (ErrorKind::Nacked, _) => 451,
        (_, Outcome::Refused) if !error.is_transient() => 550,
        (ErrorKind::ChannelClosed, Outcome::Unknown) if alone && !error.is_transient() => 550,
        _ => 451,
    }
}

/// Whether a message that was alone would have told more.
pub(super) fn is_doubtful(error: &SendError) -> bool {
    error.kind() == ErrorKind::ChannelClosed && error.outcome() == Outcome::Unknown && !error.is_transient()
}

impl fmt::Display for Verdict {
    /// As a reply of SMTP, without the end of the line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn kl3_the_class_follows_from_the_code() {
        for (code, class) in [(250, Class::Accepted), (421, Class::Retry), (451, Class::Retry), (550, Class::Refused)] {
            assert_eq!(Verdict::new(code, "x").class, class);
        }
    }

    fn failed(kind: ErrorKind, outcome: Outcome) -> SendError {
        SendError::new(Error::new(kind, "no").with_outcome(outcome))
    }

    #[test]
    fn every_failure_has_its_code() {
        for (kind, outcome, code) in [
            (ErrorKind::Closed, Outcome::NotSent, 421),
            (ErrorKind::MessageTooLarge, Outcome::NotSent, 552),
            (ErrorKind::MessageTooLarge, Outcome::Refused, 552),
            (ErrorKind::InvalidArgument, Outcome::NotSent, 550),
            (ErrorKind::Returned, Outcome::Refused, 550),
            (ErrorKind::Nacked, Outcome::Refused, 451),
            (ErrorKind::Unsupported, Outcome::NotSent, 451),
            (ErrorKind::Auth, Outcome::NotSent, 451),
            (ErrorKind::Timeout, Outcome::Unknown, 451),
            (ErrorKind::Io, Outcome::Unknown, 451),
        ] {
            assert_eq!(Verdict::of(Err(&failed(kind, outcome))).code, code, "{kind:?}");
        }
        let closed = SendError::new(Error::closed_by_peer(ErrorKind::ChannelClosed, 404, b"NOT_FOUND", (60, 40)));
        assert_eq!((Verdict::of(Err(&closed)).code, Verdict::of_alone(Err(&closed)).code), (451, 550));
    }

    #[test]
    fn kl4_what_may_be_accepted_later_counts_for_the_whole_batch() {
        let (refused, later) = (failed(ErrorKind::Returned, Outcome::Refused), failed(ErrorKind::Io, Outcome::Unknown));
        for (failed, code, number) in [
            (vec![&refused, &later, &later], 451, "number 1"),
            (vec![&later, &refused], 451, "number 0"),
            (vec![&refused, &refused], 550, "number 0"),
        ] {
            let verdict = Verdict::of_batch(&BatchReport::new(failed.into_iter().cloned().map(Err).collect()));
            assert_eq!(verdict.code, code);
            assert!(verdict.text.contains(number), "{verdict}");
        }
        assert_eq!(Verdict::of_batch(&BatchReport::new(Vec::new())).code, 250);
    }

    #[test]
    fn a_text_cannot_end_the_line() {
        let verdict = Verdict::new(550, &format!("no\r\n250 ok\u{e4}{}", "x".repeat(1000)));
        assert!(verdict.text.starts_with("no??250 ok?xx"), "{verdict}");
        assert_eq!(verdict.text.len(), 400);
        assert_eq!(Verdict::new(250, "accepted").to_string(), "250 accepted");
    }
}
