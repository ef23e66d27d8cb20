//! Chance that repeats itself: the same for the same seed, whatever the platform and the version of a crate.

/// splitmix64
#[derive(Clone, Debug)]
pub(in crate::broker) struct Dice(u64);

impl Dice {
    pub(in crate::broker) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`, which is not 0.
    pub(in crate::broker) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(in crate::broker) fn shuffle<T>(&mut self, values: &mut [T]) {
        for upper in (1..values.len()).rev() {
            let lower = self.below(upper as u64 + 1);
            values.swap(upper, usize::try_from(lower).unwrap_or(upper));
        }
    }
}
