//! The second book: what `spec/` says of the protocol is held against the crate, in both directions.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails loudly")]

mod captured;
mod conformance;
mod systems;
mod tables;
mod transitions;
mod vectors;

use std::fs;
use std::path::Path;

/// A file of the package.
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a file under `spec/` with their numbers, without comments and empty ones.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Fails with everything that is different, not with the first of it.
fn assert_same(differences: &[String]) {
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
