//! `spec/conformance.md` against the sources: every rule has a row, every row a file and tests that are there, or a reason; and no test
//! that carries a rule's number in its name is missing from the rule's row.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{assert_same, read};

const RULES: u32 = 144;

/// How a reason begins for a row that has no code or no test.
const REASONS: [&str; 2] = ["does not apply: ", "not there yet: "];

struct Row {
    number: u32,
    rule: String,
    files: Vec<String>,
    tests: Vec<String>,
    note: String,
}

fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, rule, files, tests, note] = cells[..] else { panic!("five cells: {line}") };
        let Ok(number) = number.parse() else { continue };
        let (files, tests) = (in_backticks(files), in_backticks(tests));
        rows.push(Row { number, rule: rule.to_owned(), files, tests, note: note.to_owned() });
    }
    rows
}

pub(super) fn in_backticks(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A test of the sources: which rules it says it is about, in its name, its comments, or its code.
#[derive(Debug, Default)]
pub(super) struct Test {
    named: Vec<u32>,
    said: Vec<u32>,
}

/// Every test in `src/` and `tests/` by its name.
pub(super) fn tests() -> BTreeMap<String, Test> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: BTreeMap<String, Test> = BTreeMap::new();
    for file in ["src", "tests"].iter().flat_map(|folder| files(&root.join(folder))) {
        let text = fs::read_to_string(&file).unwrap();
        for (name, chunk) in tests_of(&text) {
            let test = found.entry(name.to_owned()).or_default();
            test.named.extend(numbers_in_name(name));
            test.said.extend(numbers_in(&chunk));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    nested.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Name and text of each test of a file: a function with a test's attribute, or one inside of a macro that makes tests
/// (`on_every_server! {`, `proptest! {`). The text begins with the comments above and ends where the next function's begin.
fn tests_of(text: &str) -> Vec<(&str, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut in_macro = false;
    let mut starts: Vec<(usize, Option<&str>)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let begins = line.trim_start();
        in_macro = match *line {
            "}" => false,
            line => in_macro || line.starts_with("on_") && line.ends_with("! {"),
        };
        let Some(name) = function_name(begins) else { continue };
        let above = |line: &&&str| line.trim_start().starts_with("///") || line.trim_start().starts_with("#[");
        let head = lines[..at].iter().rev().take_while(above).count();
        let is_test = |line: &&str| ["#[test]", "#[tokio::test"].iter().any(|mark| line.trim_start().starts_with(mark));
        let test = in_macro && line.starts_with("    async fn ") || lines[at - head..at].iter().any(is_test);
        starts.push((at - head, test.then_some(name)));
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([lines.len()]);
    let chunks = starts.iter().zip(ends).map(|((start, name), end)| (*name, lines[*start..end].join("\n")));
    chunks.filter_map(|(name, chunk)| Some((name?, chunk))).collect()
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    line.split(|char: char| !char.is_alphanumeric() && char != '_').next()
}

/// The 11 and the 19 of `c11_c19_who_may_come_in`.
fn numbers_in_name(name: &str) -> Vec<u32> {
    let parts = name.split('_').map_while(|part| part.strip_prefix('c')?.parse().ok());
    parts.collect()
}

/// The numbers of the words like c25, and of all that lie in between where it says c23 to c31.
fn numbers_in(text: &str) -> Vec<u32> {
    let words = text.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut numbers: Vec<u32> = Vec::new();
    let mut before = ["", ""];
    for word in words {
        match (word.strip_prefix('c').and_then(|digits| digits.parse().ok()), before) {
            (Some(last), [first, "to"]) if first.starts_with('c') => {
                numbers.extend(numbers.last().map_or(last, |first| first + 1)..=last);
            }
            (Some(number), _) => numbers.push(number),
            (None, _) => {}
        }
        before = [before[1], word];
    }
    numbers
}

fn wrong(rows: &[Row], tests: &BTreeMap<String, Test>) -> Vec<String> {
    let mut wrong = Vec::new();
    for number in 1..=RULES {
        let count = rows.iter().filter(|row| row.number == number).count();
        if count != 1 {
            wrong.push(format!("rule {number} has {count} rows"));
        }
    }
    for Row { number, rule, files, tests: shown, note } in rows {
        let mut row = |message: String| wrong.push(format!("rule {number}: {message}"));
        if !(1..=RULES).contains(number) || rule.is_empty() {
            row("there is no such rule, or it is not said".to_owned());
        }
        let reason = REASONS.iter().any(|reason| note.strip_prefix(reason).is_some_and(|rest| rest.len() > 10));
        if (files.is_empty() || shown.is_empty()) && !reason {
            row(format!("without a file or without a test, and without a reason that begins with one of {REASONS:?}"));
        }
        for file in files {
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file() {
                row(format!("there is no file {file}"));
            }
        }
        for name in shown {
            match tests.get(name) {
                None => row(format!("there is no test {name}")),
                Some(test) if !test.named.contains(number) && !test.said.contains(number) => {
                    row(format!("{name} does not say that it is about c{number}"));
                }
                Some(_) => {}
            }
        }
        for (name, test) in tests {
            if test.named.contains(number) && !shown.contains(name) {
                row(format!("its test {name} is not in its row"));
            }
        }
    }
    for (name, test) in tests {
        for number in test.named.iter().filter(|number| !rows.iter().any(|row| row.number == **number)) {
            wrong.push(format!("{name}: there is no rule {number}"));
        }
    }
    wrong
}

#[test]
fn every_rule_has_its_row() {
    let (rows, tests) = (rows(&read("spec/conformance.md")), tests());
    assert!(tests.len() > 300, "only {} tests were found", tests.len());
    assert_same(&wrong(&rows, &tests));
}

#[test]
fn a_row_that_says_too_much_or_too_little_is_found() {
    let text = read("spec/conformance.md");
    let tests = tests();
    let found = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        wrong(&rows(&text.replace(from, to)), &tests).join("\n")
    };
    for (from, to, words) in [
        ("\n| 37 |", "\n| 38 |", "rule 37 has 0 rows\nrule 38 has 2 rows"),
        ("\n| 144 |", "\n| 145 |", "rule 145: there is no such rule"),
        ("src/protocol/heartbeat.rs", "src/protocol/heart.rs", "rule 39: there is no file src/protocol/heart.rs"),
        ("`c132_exchange_unbind_ok_is_51`", "`gone`", "rule 132: there is no test gone"),
        ("`c132_exchange_unbind_ok_is_51`", "", "rule 132: its test c132_exchange_unbind_ok_is_51 is not in its row"),
        (
            "`c70_a_decimal_keeps_its_bits`",
            "`c34_frames_stand_back_to_back`",
            "rule 70: c34_frames_stand_back_to_back does not say",
        ),
        ("not there yet: ", "later: ", "rule 135: without a file or without a test, and without a reason"),
    ] {
        let found = found(from, to);
        assert!(found.contains(words), "{words} is not in:\n{found}");
    }
}

#[test]
fn tests_are_read_off_the_sources() {
    let text = "\
        /// c1, c3 to c5\n#[test]\nfn c7_c8_a() {\n    b(\"c9\");\n}\n\n\
        fn helper_c10() {}\n\n\
        on_every_server! {\n    /// c11\n    async fn x(server: &Server) {\n    }\n}\n\
        impl P {\n    async fn c12_no_test() {}\n}\n";
    let found: Vec<_> = tests_of(text).into_iter().map(|(name, chunk)| (name, numbers_in(&chunk))).collect();
    // `c7_c8_a` as a whole is read by its name.
    assert_eq!(found, [("c7_c8_a", vec![1, 3, 4, 5, 7, 8, 9]), ("x", vec![11])]);
    assert_eq!(numbers_in_name("c11_c19_who_may_come_in"), [11, 19]);
    assert_eq!(numbers_in_name("a_c1"), [0; 0]);
}
