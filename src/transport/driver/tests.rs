//! The driver against an endpoint that only writes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

/// Wants to write these pieces, one after the other, and wakes the driver for none of them.
struct Pieces(Mutex<Vec<usize>>);

impl Endpoint for Pieces {
    fn turn(&self, turn: Turn<'_>) -> Next {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.output.is_empty()
            && let Some(len) = pieces.pop()
        {
            turn.output.put(&vec![7; len]);
        }
        Next { deadline: None, read: true, finished: false }
    }
}

/// The socket takes the last of a backlog in the same pass in which the endpoint was not yet allowed to hand over more.
#[tokio::test(start_paused = true)]
async fn what_gathers_behind_a_full_socket_is_asked_for() {
    let (ours, mut theirs) = Stream::pipe();
    let (backlog, rest) = (300 * 1024, 1000);
    let driver = tokio::spawn(drive(ours, Arc::new(Pieces(Mutex::new(vec![rest, backlog])))));
    let mut received = vec![0; backlog + rest];
    let read = tokio::time::timeout(Duration::from_secs(1), theirs.read_exact(&mut received)).await;
    assert_eq!(read.unwrap().unwrap(), backlog + rest);
    driver.abort();
}
