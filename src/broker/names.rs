//! Names that the broker gives: queues, consumers, places for answers.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::codec::ShortString;

/// A source of names that nobody guesses twice.
#[derive(Debug, Default)]
pub(super) struct Names {
    keys: [RandomState; 2],
    given: u64,
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Names {
    /// A prefix with 22 letters behind it, as RabbitMQ's names have.
    pub(super) fn fresh(&mut self, prefix: &str) -> ShortString {
        self.given += 1;
        let [a, b] = &self.keys;
        let mut bits = u128::from(a.hash_one(self.given)) << 64 | u128::from(b.hash_one(self.given));
        let mut name = String::from(prefix);
        for _ in 0..22 {
            let at = usize::try_from(bits & 63).unwrap_or(0);
            name.push(LETTERS.get(at).copied().map_or('A', char::from));
            bits >>= 6;
        }
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c123_names_look_like_rabbitmqs_and_differ() {
        let mut names = Names::default();
        let (one, other) = (names.fresh("amq.gen-"), names.fresh("amq.gen-"));
        assert_eq!(one.len(), "amq.gen-eEZ4QJTCjSwIbiUQx6wMlg".len());
        assert_ne!(one, other);
    }
}
