//! The targets of messages on their way: each is kept once, however many messages go there.

use std::collections::HashMap;

use crate::codec::ShortString;
use crate::message::Target;

#[derive(Debug, Default)]
pub(super) struct Targets {
    known: Vec<Known>,
    /// Places in `known` that can be used again.
    free: Vec<u32>,
    places: HashMap<Target, u32>,
    /// The target of the last message: most likely that of the next one, so it stays.
    last: u32,
}

#[derive(Debug)]
struct Known {
    target: Target,
    /// How many messages go there.
    messages: usize,
}

/// A target that is not needed any more. It is dropped where no lock is held: a name may have an owner with code of its own.
pub(super) type Unneeded = Option<Box<Target>>;

impl Targets {
    /// A message goes there. Returns the target's place.
    pub(super) fn enter(&mut self, target: &Target) -> (u32, Unneeded) {
        let place = self.last as usize;
        if let Some(last) = self.known.get_mut(place).filter(|last| last.target == *target) {
            last.messages += 1;
            return (self.last, None);
        }
        self.enter_another(target)
    }

    #[cold]
    fn enter_another(&mut self, target: &Target) -> (u32, Unneeded) {
        let before = self.last;
        self.last = match self.places.get(target) {
            Some(place) => *place,
            None => self.add(target.clone()),
        };
        if let Some(known) = self.known.get_mut(self.last as usize) {
            known.messages += 1;
        }
        (self.last, self.remove_if_unneeded(before))
    }

    fn add(&mut self, target: Target) -> u32 {
        let known = Known { target: target.clone(), messages: 0 };
        let place = match self.free.pop() {
            Some(place) => place,
            None => u32::try_from(self.known.len()).unwrap_or(u32::MAX),
        };
        match self.known.get_mut(place as usize) {
            Some(free) => *free = known,
            None => self.known.push(known),
        }
        self.places.insert(target, place);
        place
    }

    /// The target at this place.
    pub(super) fn get(&self, place: u32) -> Option<&Target> {
        self.known.get(place as usize).map(|known| &known.target)
    }

    /// One message less goes there.
    pub(super) fn leave(&mut self, place: u32) -> Unneeded {
        let known = self.known.get_mut(place as usize)?;
        known.messages = known.messages.saturating_sub(1);
        if known.messages > 0 || place == self.last { None } else { self.remove_if_unneeded(place) }
    }

    #[cold]
    fn remove_if_unneeded(&mut self, place: u32) -> Unneeded {
        let known = self.known.get_mut(place as usize).filter(|known| known.messages == 0 && place != self.last)?;
        let target = std::mem::replace(&mut known.target, Target::queue(ShortString::from_static("")));
        let (target, _) = self.places.remove_entry(&target)?;
        self.free.push(place);
        Some(Box::new(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_kept_as_long_as_messages_go_there() {
        let (a, b) = (Target::queue("a"), Target::exchange("x", "b"));
        let mut targets = Targets::default();
        let (first, _) = targets.enter(&a);
        assert_eq!(targets.enter(&a), (first, None), "the same again");
        let (second, unneeded) = targets.enter(&b);
        assert!(second != first && unneeded.is_none(), "messages go to a still");
        assert_eq!(targets.enter(&a.clone().mandatory(false)).0, 2, "that is another one");
        assert_eq!((targets.get(first), targets.get(second)), (Some(&a), Some(&b)));
        assert_eq!(targets.leave(first), None);
        assert_eq!(targets.leave(first), Some(Box::new(a.clone())));
        // The last one stays for the next message, and goes when that has another target.
        assert_eq!(targets.leave(2), None);
        assert_eq!(targets.enter(&b).1, Some(Box::new(a.mandatory(false))));
        assert_eq!((targets.known.len(), targets.free.len(), targets.places.len()), (3, 2, 1));
    }

    #[test]
    fn ever_new_targets_take_no_more_room() {
        let mut targets = Targets::default();
        for n in 0..1000 {
            let (place, _) = targets.enter(&Target::queue(n.to_string()));
            targets.leave(place);
        }
        assert_eq!((targets.known.len(), targets.places.len()), (2, 1));
    }
}
