//! The broker in the box, talked to in frames.
//!
//! What it says is compared as a transcript, a line per method or message; [`raw`] says how a line reads.

mod consuming;
mod control;
mod dead_letters;
mod errors;
mod keeping;
mod limits;
mod publishing;
mod raw;
mod replies;
mod routing;
mod scripts;
mod settling;
mod topology;
mod transactions;
