//! The numbers of a connection's channels: who has which, and which is given out next.
//!
//! A number is free again when the close handshake of its channel is over (c49). That is the end of it where the client closed the
//! channel. Where the server did, RabbitMQ (seen with 3.10) may send deliveries that were under way *behind* its own
//! `channel.close`, until it has read close-ok. So such a number is retired: what comes for it is ignored, and it is given
//! out again when there is no other.

use super::ChannelId;

#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Of number `index + 1`.
    slots: Vec<Number>,
    /// How often a number was retired.
    retirements: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Free,
    Taken(ChannelId),
    /// Since which retirement.
    Retired(u64),
}

impl Numbers {
    /// Who has this number.
    #[inline]
    pub(crate) fn channel(&self, number: u16) -> Option<ChannelId> {
        match self.slots.get(usize::from(number).wrapping_sub(1)) {
            Some(Number::Taken(id)) => Some(*id),
            _ => None,
        }
    }

    /// Whether what comes for this number is to be ignored.
    pub(crate) fn is_retired(&self, number: u16) -> bool {
        matches!(self.slots.get(usize::from(number).wrapping_sub(1)), Some(Number::Retired(_)))
    }

    /// The number to be given out next, if there is one up to `limit`: the lowest free one, otherwise the one that was
    /// retired first.
    pub(crate) fn next(&self, limit: u16) -> Option<u16> {
        let number = |at: usize| u16::try_from(at + 1).ok().filter(|number| *number <= limit);
        let free = self.slots.iter().position(|slot| *slot == Number::Free).unwrap_or(self.slots.len());
        number(free).or_else(|| {
            let retired = self.slots.iter().enumerate().filter_map(|(at, slot)| match slot {
                Number::Retired(since) => Some((since, at)),
                _ => None,
            });
            retired.min().and_then(|(_, at)| number(at))
        })
    }

    /// Gives a number to a channel.
    pub(crate) fn take(&mut self, number: u16, id: ChannelId) {
        let at = usize::from(number).saturating_sub(1);
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Number::Free);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Number::Taken(id);
        }
    }

    /// The channel with this number is closed; by the server, if it is to be `retired`.
    pub(crate) fn release(&mut self, number: u16, retired: bool) {
        self.retirements += u64::from(retired);
        if let Some(slot) = self.slots.get_mut(usize::from(number).wrapping_sub(1)) {
            *slot = if retired { Number::Retired(self.retirements) } else { Number::Free };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_and_at_last_the_longest_retired() {
        let mut numbers = Numbers::default();
        let take = |numbers: &mut Numbers| {
            let number = numbers.next(3)?;
            numbers.take(number, ChannelId(7));
            Some(number)
        };
        assert_eq!([1, 2, 3].map(|_| take(&mut numbers)), [Some(1), Some(2), Some(3)]);
        assert_eq!(take(&mut numbers), None);
        numbers.release(2, true);
        numbers.release(1, true);
        numbers.release(3, false);
        assert!(numbers.is_retired(1) && !numbers.is_retired(3));
        assert_eq!([3, 2, 1].map(|_| take(&mut numbers)), [Some(3), Some(2), Some(1)]);
        assert_eq!(take(&mut numbers), None);
        assert_eq!((numbers.channel(1), numbers.channel(0), numbers.channel(4)), (Some(ChannelId(7)), None, None));
    }
}
