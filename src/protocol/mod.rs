//! The rule book: what both sides of a connection may say, and when. No sockets, no clock, no tasks.
//!
//! A *machine* is one side of one connection. [`client::Connection`] and [`server::Connection`] are driven the same way,
//! by somebody who owns a socket or by a test that owns two machines:
//!
//! * **bytes in**: `feed` takes what has arrived, in pieces of any size, and acts on every whole frame in it;
//! * **bytes out**: whatever is to be sent gathers in an [`OutBuffer`], which the owner swaps for an empty one and writes;
//! * **time** is an argument: `timeout` says when the machine wants to be called again at the latest, `handle_timeout` is
//!   that call. A machine never asks for the time itself;
//! * **the end**: `terminate` tells the machine that the stream is gone. Everybody who waits is answered.
//!
//! Machines answer those who wait through [`std::task::Waker`]s. Those to be woken, and those that are not needed any more, gather in
//! [`Wakes`] while the machine works; its owner takes them out, and wakes and drops them when the machine's lock has been released.

pub mod client;
mod content;
mod heartbeat;
mod outbound;
pub mod server;

#[cfg(feature = "arbitrary")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::wakes::Wakes;
pub use content::{Ahead, Content, Layout};
pub(crate) use content::{Assembler, ContentError, Incoming, KEEP_IN_PLACE_FROM, Whole};
pub(crate) use heartbeat::Heartbeat;
pub use outbound::{Body, OutBuffer};

#[cfg(test)]
mod tests;
