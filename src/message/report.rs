//! What became of many messages: of a batch, of a flush, of what was on its way when something was closed.

use std::fmt;

use super::{Cargo, Message, Receipt, SendError, Target};
use crate::error::{Error, Outcome};

/// What became of the messages of a batch: one result for each, in the order in which they were handed in.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
#[must_use = "some of the messages may not have been accepted"]
pub struct BatchReport {
    /// One for each message, in the order of the input.
    pub results: Vec<Result<Receipt, SendError>>,
}

impl BatchReport {
    pub(crate) fn new(results: Vec<Result<Receipt, SendError>>) -> Self {
        Self { results }
    }

    /// The messages that were not accepted: their places in the input, counted from 0, and why.
    pub fn failed(&self) -> impl Iterator<Item = (usize, &SendError)> {
        self.results.iter().enumerate().filter_map(|(at, result)| Some((at, result.as_ref().err()?)))
    }

    /// Whether every message was accepted.
    pub fn is_ok(&self) -> bool {
        self.results.iter().all(Result::is_ok)
    }

    /// How many messages there were.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// The receipts, if every message was accepted.
    ///
    /// # Errors
    ///
    /// At least one was not.
    pub fn into_result(self) -> Result<Vec<Receipt>, BatchError> {
        if self.is_ok() { Ok(self.results.into_iter().flatten().collect()) } else { Err(BatchError(self)) }
    }
}

impl IntoIterator for BatchReport {
    type Item = Result<Receipt, SendError>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}

/// Not every message of a batch was accepted.
#[derive(Clone, Debug)]
pub struct BatchError(BatchReport);

impl BatchError {
    /// What became of each.
    pub fn report(&self) -> &BatchReport {
        &self.0
    }

    /// What became of each.
    pub fn into_report(self) -> BatchReport {
        self.0
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut failed = self.0.failed();
        let Some((at, first)) = failed.next() else { return f.write_str("every message was accepted") };
        write!(
            f,
            "{} of {} messages were not accepted; the first, number {at}: {first}",
            failed.count() + 1,
            self.0.len()
        )
    }
}

impl std::error::Error for BatchError {}

/// What was still on its way when a client or a sender was closed: the messages are handed back.
///
/// Who awaits one of them is told as well; the report is for those that nobody awaits.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct CloseReport {
    /// Never left: sending them again cannot duplicate them.
    pub unsent: Vec<Unsent>,
    /// Handed over, and not confirmed within the deadline: the server may have them.
    pub unconfirmed: Vec<Unsent>,
    /// The server has not agreed to the end in time; the socket was closed all the same.
    pub error: Option<Error>,
}

impl CloseReport {
    /// Whether everything had been confirmed, and the server agreed to the end.
    pub fn is_clean(&self) -> bool {
        self.unsent.is_empty() && self.unconfirmed.is_empty() && self.error.is_none()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.unsent.append(&mut other.unsent);
        self.unconfirmed.append(&mut other.unconfirmed);
        self.error = self.error.take().or(other.error);
    }
}

/// A message that was still on its way when its sender was closed.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Unsent {
    /// Where it was to go.
    pub target: Target,
    /// The message, as it was after defaults and hooks.
    pub message: Message,
    /// `NotSent` or `Unknown`.
    pub outcome: Outcome,
}

impl Unsent {
    pub(crate) fn new(cargo: Cargo, outcome: Outcome) -> Self {
        let Cargo { target, message } = cargo;
        Self { target, message, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_report_names_those_that_failed_by_their_place() {
        let ok = || Ok(Receipt::amqp(1, 1));
        let report = BatchReport::new(vec![ok(), Err(SendError::new(Error::new(ErrorKind::Nacked, "no"))), ok()]);
        assert!(!report.is_ok());
        assert_eq!(report.failed().map(|(at, error)| (at, error.kind())).collect::<Vec<_>>(), [(1, ErrorKind::Nacked)]);
        let error = report.into_result().unwrap_err();
        assert_eq!(error.to_string(), "1 of 3 messages were not accepted; the first, number 1: no");
        assert_eq!(BatchReport::new(vec![ok(), ok()]).into_result().unwrap().len(), 2);
        assert!(BatchReport::default().is_ok());
    }
}
