//! What is wrong with something a client did: the code, the words and the method of a close.

use crate::codec::{DecodeError, DecodeErrorKind, ReplyCode, ShortString};
use crate::error::{Error, ErrorKind};

/// A reason to close a channel or a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reply code; it decides whether a channel or the connection is closed.
    pub code: ReplyCode,
    /// The words, without the code's name.
    pub text: String,
    /// Class and method at fault, or zeroes.
    pub method: (u16, u16),
}

impl Fault {
    /// A fault of no particular method.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), method: (0, 0) }
    }

    /// The same, with the method that is to blame.
    #[must_use]
    pub fn of(mut self, class: u16, method: u16) -> Self {
        self.method = (class, method);
        self
    }

    /// The text as RabbitMQ writes it: `NOT_FOUND - no queue 'x' in vhost '/'`, cut to what the wire can carry.
    pub(crate) fn reply_text(&self) -> ShortString {
        match self.code.name() {
            Some(name) => reply_text(&format!("{name} - {}", self.text)),
            None => reply_text(&self.text),
        }
    }
}

/// A text cut, between characters, to the 255 octets of a short string.
pub(crate) fn reply_text(text: &str) -> ShortString {
    let end = (0..=text.len().min(255)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

impl From<&DecodeError> for Fault {
    fn from(error: &DecodeError) -> Self {
        let code = match error.kind() {
            DecodeErrorKind::UnknownFieldType(_) | DecodeErrorKind::TooDeep => ReplyCode::SYNTAX_ERROR,
            DecodeErrorKind::UnknownMethod { .. } => ReplyCode::NOT_IMPLEMENTED,
            _ => ReplyCode::FRAME_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&Fault> for Error {
    fn from(fault: &Fault) -> Self {
        Self::new(ErrorKind::Protocol, format!("closed the client's connection: {} {}", fault.code.0, fault.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c53_a_long_text_is_cut_between_characters() {
        let fault = Fault::new(ReplyCode::NOT_FOUND, "é".repeat(200));
        let text = fault.reply_text();
        assert!(text.to_str().unwrap().starts_with("NOT_FOUND - éé"));
        assert!((254..=255).contains(&text.len()));
    }
}
