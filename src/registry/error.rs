//! What can be wrong with a name, or with a message sent under it.

use std::fmt;

use crate::error::{Error, Outcome};
use crate::messaging::SendError;

/// Why nothing was sent under a name, or why the registry was not changed.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum RegistryError {
    /// There is no outgoing entry of this name.
    #[non_exhaustive]
    UnknownOutgoing {
        /// The name.
        name: String,
    },
    /// There is no connection of this name.
    #[non_exhaustive]
    UnknownConnection {
        /// The name.
        name: String,
    },
    /// The entry is there and switched off.
    #[non_exhaustive]
    Inactive {
        /// The name.
        name: String,
    },
    /// The connection cannot be removed: entries use it.
    #[non_exhaustive]
    InUse {
        /// The connection.
        name: String,
        /// The entries.
        by: Vec<String>,
    },
    /// Neither the message nor the entry says where to send to.
    #[non_exhaustive]
    NoTarget {
        /// The entry.
        name: String,
    },
    /// The settings of a connection or an entry make no sense.
    #[non_exhaustive]
    Settings {
        /// The connection or the entry.
        name: String,
        /// What is wrong with them.
        error: Error,
    },
    /// The registry was closed.
    Closed,
    /// The message was not accepted.
    Send(SendError),
}

impl RegistryError {
    /// What became of the message.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Send(error) => error.outcome(),
            _ => Outcome::NotSent,
        }
    }

    /// Whether the same message may be accepted later without anybody changing it. An entry that is switched off is thought to be
    /// switched on again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Send(error) => error.is_transient(),
            Self::Inactive { .. } => true,
            _ => false,
        }
    }

    /// What the sender said, where the message came that far.
    pub fn send_error(&self) -> Option<&SendError> {
        match self {
            Self::Send(error) => Some(error),
            _ => None,
        }
    }
}

impl From<SendError> for RegistryError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOutgoing { name } => write!(f, "there is no outgoing entry {name:?}"),
            Self::UnknownConnection { name } => write!(f, "there is no connection {name:?}"),
            Self::Inactive { name } => write!(f, "the outgoing entry {name:?} is not active"),
            Self::InUse { name, by } => write!(f, "the connection {name:?} is in use by {}", by.join(", ")),
            Self::NoTarget { name } => {
                write!(f, "neither the message nor the outgoing entry {name:?} says where to send to")
            }
            Self::Settings { name, error } => write!(f, "{name:?}: {error}"),
            Self::Closed => f.write_str("the registry was closed"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Settings { error, .. } => std::error::Error::source(error),
            Self::Send(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}
