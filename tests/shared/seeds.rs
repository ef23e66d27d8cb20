//! One test, many seeds: each with a broker in the box that does wrong by chance. Shared by the tests of the client and those of the facade.
//!
//! A seed that fails is printed, with the scripts of its connections. `LEVERET_SEED=N` plays that one again, and no other;
//! `LEVERET_SEEDS=N` plays so many instead of two hundred.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use leveret::broker::{Broker, Script};

/// So many seeds a plain `cargo test` plays.
const SEEDS: u64 = 200;
/// So many at a time.
const TOGETHER: usize = 100;
/// So long one of them may take.
const LIMIT: Duration = Duration::from_secs(60);
/// So many connections are disturbed; later ones are served.
const SCRIPTS: u64 = 6;

/// The scripts of one seed's connections.
pub(crate) fn scripts(seed: u64) -> impl Iterator<Item = Script> {
    (0..SCRIPTS).map(move |n| Script::seeded(seed.wrapping_mul(SCRIPTS).wrapping_add(n)))
}

/// From now on the broker does what the seed says, on new connections.
pub(crate) fn disturb(broker: &Broker, seed: u64) {
    broker.script(scripts(seed));
}

/// Plays a test with every seed, and gives its results. The test's error says what is wrong.
pub(crate) async fn on_every_seed<T, F: Future<Output = Result<T, String>>>(test: impl Fn(u64) -> F) -> Vec<T> {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let seeds = match number("LEVERET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LEVERET_SEEDS").unwrap_or(SEEDS),
    };
    let (mut results, mut wrong) = (Vec::new(), Vec::new());
    let mut played = stream::iter(seeds)
        .map(|seed| {
            let begun = Instant::now();
            let whole = tokio::time::timeout(LIMIT, test(seed));
            let caught = std::panic::AssertUnwindSafe(whole).catch_unwind();
            caught.map(move |result| (seed, begun, result))
        })
        .buffer_unordered(TOGETHER);
    while let Some((seed, begun, result)) = played.next().await {
        let error = match result {
            Ok(Ok(Ok(result))) => {
                results.push(result);
                continue;
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => format!("it did not end within {} s", LIMIT.as_secs()),
            Err(_) => "it panicked".to_owned(),
        };
        let scripts: Vec<String> = scripts(seed).map(|script| format!("    {script}")).collect();
        wrong.push(format!("LEVERET_SEED={seed}, after {:?}: {error}\n{}", begun.elapsed(), scripts.join("\n")));
    }
    assert!(wrong.is_empty(), "{} seeds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    results
}
