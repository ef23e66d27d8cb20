//! A message on its way, and where it is to go.

use super::{Message, SendError, Target};
use crate::codec::ShortString;
use crate::error::{Error, Outcome};

/// A message and its target. It is large, so it is handed on by reference and moved only once: to where it waits for its confirm.
#[derive(Clone, Debug)]
pub(crate) struct Cargo {
    pub(crate) target: Target,
    pub(crate) message: Message,
}

impl Cargo {
    pub(crate) fn new(target: Target, message: Message) -> Self {
        Self { target, message }
    }

    /// Takes it, and leaves nothing of meaning.
    pub(crate) fn take(&mut self) -> Self {
        let nowhere = Target::queue(ShortString::from_static(""));
        Self { target: std::mem::replace(&mut self.target, nowhere), message: std::mem::take(&mut self.message) }
    }

    /// It was not sent, for this reason.
    pub(crate) fn refuse(&mut self, error: Error) -> SendError {
        SendError::new(error.with_outcome(Outcome::NotSent)).with_message(self.take())
    }
}
