//! Hostile peers, as tables: a server that attacks the client, and a client that attacks the broker.
//!
//! Each case says where the peer begins to misbehave, what it does, and how that ends: with the documented error for the program
//! (or the documented code for the client), within its deadline, in bounded memory, and with the process alive. The clock is
//! tokio's paused one: silence costs no time, and what would last for ever is noticed. Octets go through pipes in memory, and
//! everything runs on the test's own thread, whose allocations are counted.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod against_broker;
mod against_client;
mod faults;
mod peer;

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

/// What a case may hold at most, unless it says otherwise: the pipe and the buffers of both sides are in it.
const MEMORY: u64 = 2 * 1024 * 1024;

/// Longer than any deadline. A case that is not over by then hangs.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Runs a case on a clock of its own. Returns what came of it, how long it took by that clock, and the most memory it held.
fn run<T: Send>(case: impl Future<Output = T>) -> (Option<T>, Duration, u64) {
    let mut result = (None, Duration::ZERO);
    let counted = allocation_counter::measure(|| {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        result = runtime.block_on(async {
            let begun = Instant::now();
            let result = tokio::time::timeout(FOR_EVER, case).await;
            (result.ok(), begun.elapsed())
        });
    });
    (result.0, result.1, counted.bytes_max)
}

/// What a case took of time and of memory beyond what it may: each figure with its limit.
fn beyond((took, within): (Duration, Duration), (peak, memory): (u64, u64)) -> impl Iterator<Item = String> {
    let late = (took > within).then(|| format!("takes {took:?}, more than {within:?}"));
    late.into_iter().chain((peak > memory).then(|| format!("holds {peak} octets, more than {memory}")))
}

/// Fails with all cases that were judged wrong.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Fewer than these would mean that a table has got lost.
#[test]
fn there_are_many_cases() {
    let counts = (against_client::cases().len(), against_broker::cases().len());
    assert!(counts.0 >= 250 && counts.1 >= 150, "{counts:?}");
}
