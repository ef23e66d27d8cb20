//! What the fuzz targets for the machines assert. It stands here so that `cargo test` can replay their seeds; nobody else calls it.
//!
//! Every function takes any octets, and a time to begin at, for this room has no clock. It returns when the machines did what
//! they promise, and panics when they did not: that is how a fuzzer learns of it.
//!
//! * [`client_bytes`], [`server_bytes`]: octets from the peer, whole and in pieces. Both come to the same; everybody who waits
//!   is woken when it is over; what is answered is no more than what came.
//! * [`client_operations`]: what a program asks for, what a server answers and what it should not, in any order.
//! * [`server_operations`]: the same for a server and its owner.
//! * [`pair`]: client and server connected. Whatever both may do, neither finds a fault with the other, and messages arrive as they
//!   were sent.

mod bytes;
mod operations;
mod owner;
mod session;
mod waiting;
mod words;

pub use self::bytes::{client_bytes, server_bytes};
pub use operations::{client_operations, pair};
pub use owner::server_operations;

use ::bytes::Bytes;
#[cfg(test)]
pub(super) use waiting::Bell;

use crate::codec::method::MethodInfo;
use crate::codec::{Frame, Method};

/// The octets of frames that are known to be in order.
fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        assert_eq!(frame.encode(&mut out, usize::MAX), Ok(()));
    }
    out
}

/// A method all of whose fields are zero or empty.
fn blank(class: u16, method: u16) -> Option<Method> {
    let mut payload = vec![0; 64];
    payload.get_mut(..2)?.copy_from_slice(&class.to_be_bytes());
    payload.get_mut(2..4)?.copy_from_slice(&method.to_be_bytes());
    Method::decode(&Bytes::from(payload)).ok()
}

/// The first of the methods that answer a request.
fn blank_reply(request: MethodInfo) -> Option<Method> {
    blank(request.class_id, *request.replies.first()?)
}
