//! The figures that were written down, and how far a count may be from them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::{fs, io};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/figures");

/// In hundredths. A hash's seed, a compiler's patch release and a processor's `memcpy` make less of a difference.
const TOLERANCE: u64 = 4;

const HEADING: &str = "\
# Instructions per message, counted by valgrind: benches/guard holds every count against its line here, and fails where it is
# more than 4 % higher. `benches/guard --write` writes the file anew.
";

/// Lines of a number and a name.
pub(crate) struct Figures(BTreeMap<String, u64>);

impl Figures {
    pub(crate) fn read() -> io::Result<Self> {
        let text = match fs::read_to_string(PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let parse = |line: &str| {
            let (number, name) = line.trim_start().split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(parse).collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    pub(crate) fn set(&mut self, name: &str, number: u64) {
        self.0.insert(name.to_owned(), number);
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        let mut text = HEADING.to_owned();
        for (name, number) in &self.0 {
            let _ = writeln!(text, "{number:>8} {name}");
        }
        fs::write(PATH, text)
    }
}

/// How a count is to be taken.
pub(crate) enum Verdict {
    AsExpected,
    /// Worth writing down.
    Better,
    Worse,
    /// Nothing is written down.
    Unknown,
}

pub(crate) fn judge(counted: u64, written: Option<u64>) -> Verdict {
    let Some(written) = written else { return Verdict::Unknown };
    if counted.abs_diff(written) * 100 <= written * TOLERANCE {
        Verdict::AsExpected
    } else if counted < written {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}
