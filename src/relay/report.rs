//! What became of a stream.

use std::collections::BTreeMap;
use std::fmt;

use super::verdict::Class;

/// What became of the lines of a stream: `lines = accepted + refused + deferred`, once it has ended. Empty lines do not count.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// How many lines there were.
    pub lines: u64,
    /// The server has them.
    pub accepted: u64,
    /// They would be refused again; those that are no records among them.
    pub refused: u64,
    /// Their attempts are used up, and they may be accepted some other time.
    pub deferred: u64,
    /// How often a record was tried again.
    pub retries: u64,
    /// The same by the names of the routes.
    pub routes: BTreeMap<String, RouteCounts>,
}

/// What became of the records of one route.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// The server has them.
    pub accepted: u64,
    /// They would be refused again.
    pub refused: u64,
    /// Their attempts are used up.
    pub deferred: u64,
}

impl RelayReport {
    /// Whether the server has all of them.
    pub fn is_clean(&self) -> bool {
        self.accepted == self.lines
    }

    pub(super) fn count(&mut self, route: Option<&str>, class: Class) {
        let all = match class {
            Class::Accepted => &mut self.accepted,
            Class::Refused => &mut self.refused,
            Class::Retry => &mut self.deferred,
        };
        *all += 1;
        let Some(route) = route else { return };
        if !self.routes.contains_key(route) {
            self.routes.insert(route.to_owned(), RouteCounts::default());
        }
        if let Some(counts) = self.routes.get_mut(route) {
            let one = match class {
                Class::Accepted => &mut counts.accepted,
                Class::Refused => &mut counts.refused,
                Class::Retry => &mut counts.deferred,
            };
            *one += 1;
        }
    }
}

impl fmt::Display for RelayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, accepted, refused, deferred, retries, .. } = self;
        write!(f, "{lines} lines: {accepted} accepted, {refused} refused, {deferred} deferred; {retries} retries")
    }
}
