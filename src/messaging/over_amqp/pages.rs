//! The messages of one channel that are on their way, in the order of their delivery tags.
//!
//! They stand on pages, each of which is let go as a whole and used again: so a message stays where it was entered, and is not moved.
//!
//! ```text
//!   full:  1 … 31 │ 32 … 63      filling: 64 65 66
//! ```

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use tokio::time::Sleep;

use crate::message::{SharedProperties, Target};

/// So many messages stand on a page: the first one's tag can be divided by this.
const PAGE: u64 = 32;

/// Whether this is the last tag of a page.
#[inline]
pub(super) fn ends_page(tag: u64) -> bool {
    tag % PAGE == PAGE - 1
}

/// Of somebody who has to wait. Most never do.
pub(super) type Timer = Pin<Box<Sleep>>;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) payload: Option<Bytes>,
    pub(super) properties: SharedProperties,
    /// Without one, the message is not there any more.
    pub(super) target: Option<Target>,
    /// By when it is to be confirmed, in milliseconds.
    pub(super) until: u64,
    /// Of somebody who waits.
    pub(super) timer: Option<Timer>,
}

impl Flight {
    const GONE: Self = Self { payload: None, properties: SharedProperties::NONE, target: None, until: 0, timer: None };
}

#[derive(Debug)]
pub(super) struct Page {
    /// The tag of the first message that was entered here.
    first: u64,
    /// The tag behind the last one.
    end: u64,
    /// How many of them are not there any more.
    gone: u64,
    flights: Box<[Flight; PAGE as usize]>,
}

impl Default for Page {
    fn default() -> Self {
        Self { first: 0, end: 0, gone: 0, flights: Box::new([const { Flight::GONE }; PAGE as usize]) }
    }
}

impl Page {
    #[inline]
    fn place(&mut self, tag: u64) -> Option<&mut Flight> {
        self.flights.get_mut((tag % PAGE) as usize)
    }

    fn get(&mut self, tag: u64) -> Option<&mut Flight> {
        let was_entered = (self.first..self.end).contains(&tag);
        self.place(tag).filter(|flight| was_entered && flight.target.is_some())
    }

    fn is_empty(&self) -> bool {
        self.end - self.first == self.gone
    }

    /// Drops what stands here.
    pub(super) fn clear(&mut self) {
        for tag in self.first..self.end {
            if let Some(flight) = self.place(tag) {
                *flight = Flight::GONE;
            }
        }
        (self.first, self.gone) = (self.end, 0);
    }
}

/// Each page in here has messages that are still there, but for the last.
#[derive(Debug, Default)]
pub(super) struct Pages {
    full: VecDeque<Page>,
    filling: Page,
}

impl Pages {
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.filling.is_empty()
    }

    /// The place for the message with this tag, which is higher than all before. An empty page is taken from `spare` when it is needed.
    #[inline]
    pub(super) fn enter(&mut self, tag: u64, spare: &mut Vec<Page>) -> Option<&mut Flight> {
        if tag.is_multiple_of(PAGE) || tag != self.filling.end {
            self.turn(tag, spare);
        }
        self.filling.end = tag + 1;
        self.filling.place(tag)
    }

    #[inline(never)]
    fn turn(&mut self, tag: u64, spare: &mut Vec<Page>) {
        if !self.filling.is_empty() {
            self.full.push_back(std::mem::replace(&mut self.filling, spare.pop().unwrap_or_default()));
        }
        (self.filling.first, self.filling.gone) = (tag, 0);
    }

    /// A message that is still there.
    pub(super) fn get(&mut self, tag: u64) -> Option<&mut Flight> {
        self.page(tag)?.1.get(tag)
    }

    /// The page for this tag, and where it stands, unless it is the last.
    fn page(&mut self, tag: u64) -> Option<(Option<usize>, &mut Page)> {
        if tag >= self.filling.first {
            return Some((None, &mut self.filling));
        }
        let at = self.full.partition_point(|page| page.end <= tag);
        Some((Some(at), self.full.get_mut(at)?))
    }

    /// Takes a message out; and its page, if that is empty now.
    pub(super) fn take(&mut self, tag: u64) -> Option<(Flight, Option<Page>)> {
        let (at, page) = self.page(tag)?;
        let flight = std::mem::replace(page.get(tag)?, Flight::GONE);
        page.gone += 1;
        let empty = at.filter(|_| page.is_empty());
        Some((flight, empty.and_then(|at| self.full.remove(at))))
    }

    /// Lets go of all pages at the front whose messages are over: they go to `done`.
    pub(super) fn sweep(&mut self, is_over: impl Fn(u64) -> bool, spare: &mut Vec<Page>, done: &mut Vec<Page>) {
        while let Some(page) = self.full.front()
            && is_over(page.end - 1)
        {
            done.extend(self.full.pop_front());
        }
        let end = self.filling.end;
        if self.full.is_empty() && !self.filling.is_empty() && is_over(end - 1) {
            done.push(std::mem::replace(&mut self.filling, spare.pop().unwrap_or_default()));
            (self.filling.first, self.filling.end) = (end, end);
        }
    }

    /// The tags of all messages that are still there.
    pub(super) fn tags(&self) -> impl Iterator<Item = u64> {
        let pages = self.full.iter().chain([&self.filling]);
        pages.flat_map(|page| {
            let flights = page.flights.iter().skip((page.first % PAGE) as usize);
            let there = (page.first..page.end).zip(flights).filter(|(_, flight)| flight.target.is_some());
            there.map(|(tag, _)| tag)
        })
    }

    /// How many places are taken, by messages that are still there or not.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.full.len() * PAGE as usize + (self.filling.end - self.filling.first) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn enter(pages: &mut Pages, tag: u64, spare: &mut Vec<Page>) {
        let place = pages.enter(tag, spare).unwrap();
        assert!(place.target.is_none() && place.payload.is_none(), "{tag} has a place of its own");
        (place.target, place.until) = (Some(Target::queue("q")), tag);
    }

    /// Whatever is entered, taken out and let go in whatever order: it agrees with a set of tags, and no page is kept for nobody.
    #[test]
    fn agrees_with_a_set() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut pages, mut spare, mut model) = (Pages::default(), Vec::new(), BTreeSet::new());
        let mut next = 1;
        for _ in 0..20_000 {
            match random.u32(..10) {
                0..=4 => {
                    for _ in 0..random.u32(1..40) {
                        enter(&mut pages, next, &mut spare);
                        model.insert(next);
                        next += 1;
                    }
                }
                5..=7 => {
                    // Mostly one that is there.
                    let tag = model.first().map_or(next, |first| random.u64(*first..=next));
                    let taken = pages.take(tag);
                    assert_eq!(taken.is_some(), model.remove(&tag), "{tag}");
                    let Some((flight, page)) = taken else { continue };
                    assert_eq!(flight.until, tag);
                    spare.extend(page);
                }
                8 => {
                    let watermark = random.u64(next.saturating_sub(100)..=next);
                    let mut done = Vec::new();
                    pages.sweep(|tag| tag < watermark, &mut spare, &mut done);
                    let let_go: Vec<_> = done.iter().flat_map(|page| page.first..page.end).collect();
                    model.retain(|tag| !let_go.contains(tag));
                    assert!(let_go.iter().all(|tag| *tag < watermark));
                    assert!(model.first().is_none_or(|first| *first + PAGE > watermark), "all that can be let go is");
                    done.iter_mut().for_each(Page::clear);
                    spare.append(&mut done);
                }
                _ => {
                    let tag = random.u64(..=next);
                    assert_eq!(pages.get(tag).map(|flight| flight.until), model.get(&tag).copied());
                }
            }
            spare.truncate(3);
            assert_eq!(pages.is_empty(), model.is_empty());
            assert!(pages.full.iter().all(|page| !page.is_empty()));
            if random.u32(..100) == 0 {
                assert!(pages.tags().eq(model.iter().copied()));
            }
        }
    }

    #[test]
    fn what_stays_behind_keeps_its_own_page_only() {
        let (mut pages, mut spare) = (Pages::default(), Vec::new());
        for tag in 1..10_000 {
            enter(&mut pages, tag, &mut spare);
            if tag != 5 {
                spare.extend(pages.take(tag).and_then(|(_, page)| page));
            }
        }
        assert!(pages.tags().eq([5]) && pages.places() <= 2 * PAGE as usize, "{} places", pages.places());
    }
}
