//! `spec/systems.md` against the sources: every row of the systems is there, and names tests that are there, or says why it has none.

use std::collections::{BTreeMap, BTreeSet};

use super::conformance::{in_backticks, tests};
use super::{assert_same, read};

/// The rows of each system: a prefix and the numbers.
const ROWS: &[(&str, &[(u32, u32)])] = &[
    ("KA", &[(1, 7)]),
    ("KB", &[(1, 13)]),
    ("KK", &[(1, 5)]),
    ("KL", &[(1, 8)]),
    ("Z", &[(1, 20)]),
    ("U", &[(1, 8), (10, 22), (30, 44), (50, 55)]),
];

const SCENARIOS: u32 = 12;

/// What a row without a test says in its note.
const REASONS: [&str; 2] = ["left out", "to come"];

/// What is wrong with the rows.
fn wrong(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
    let mut differences = Vec::new();
    for line in
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row") && !line.starts_with("| scen"))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (row, shown_by, note) = match cells[..] {
            [row, _, _, shown_by, note] => (row, shown_by, note),
            [row, _, shown_by] => (row, shown_by, shown_by),
            _ => panic!("three or five cells: {line}"),
        };
        *found.entry(row.to_owned()).or_default() += 1;
        let named = in_backticks(shown_by);
        for name in named.iter().filter(|name| !tests.contains(*name)) {
            differences.push(format!("{row}: there is no test `{name}`"));
        }
        if named.is_empty() && !REASONS.iter().any(|reason| note.contains(reason)) {
            differences.push(format!("{row}: neither a test nor a reason"));
        }
        shown.extend(named.into_iter().map(|name| (row.to_owned(), name)));
    }
    let systems = ROWS.iter().flat_map(|(prefix, ranges)| {
        ranges.iter().flat_map(move |(first, last)| (*first..=*last).map(move |number| format!("{prefix}{number}")))
    });
    let expected: BTreeSet<String> = systems.chain((1..=SCENARIOS).map(|number| number.to_string())).collect();
    differences.extend(expected.iter().filter(|row| !found.contains_key(*row)).map(|row| format!("{row} is missing")));
    differences
        .extend(found.iter().filter(|(row, _)| !expected.contains(*row)).map(|(row, _)| format!("what is {row}?")));
    differences.extend(found.iter().filter(|(_, times)| **times > 1).map(|(row, _)| format!("{row} is there twice")));
    for name in tests {
        let left_out = rows_in_name(name).into_iter().filter(|row| !shown.contains(&(row.clone(), name.clone())));
        differences.extend(left_out.map(|row| format!("{row}: its test `{name}` is not in it")));
    }
    differences
}

/// The rows that a test begins its name with: KA1 and KA3 of `ka1_ka3_an_example`.
fn rows_in_name(name: &str) -> Vec<String> {
    let row = |word: &str| {
        let (prefix, number) = word.split_at(word.find(|char: char| char.is_ascii_digit())?);
        let prefix = prefix.to_ascii_uppercase();
        let known = ROWS.iter().any(|(known, _)| **known == prefix);
        (known && number.parse::<u32>().is_ok()).then(|| format!("{prefix}{number}"))
    };
    name.split('_').map_while(row).collect()
}

fn names() -> BTreeSet<String> {
    tests().into_keys().collect()
}

#[test]
fn every_row_of_the_systems_is_shown_or_has_its_reason() {
    assert_same(&wrong(&read("spec/systems.md"), &names()));
}

#[test]
fn a_row_that_says_too_much_or_too_little_is_found() {
    let (text, names) = (read("spec/systems.md"), names());
    let found = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        wrong(&text.replace(from, to), &names).join("\n")
    };
    for (from, to, words) in [
        ("\n| KL7 |", "\n| KL6 |", "KL7 is missing"),
        ("\n| KL7 |", "\n| KL6 |", "KL6 is there twice"),
        ("\n| Z20 |", "\n| Z21 |", "what is Z21?"),
        ("\n| 12 |", "\n| 13 |", "12 is missing"),
        ("`kl7_a_stream_is_told_of_line_by_line`", "`gone`", "KL7: there is no test `gone`"),
        (
            ", `kl7_a_stream_is_told_of_line_by_line`",
            "",
            "KL7: its test `kl7_a_stream_is_told_of_line_by_line` is not in it",
        ),
        ("left out: 0-9-1 has none", "some day", "U6: neither a test nor a reason"),
    ] {
        let found = found(from, to);
        assert!(found.contains(words), "{words} is not in:\n{found}");
    }
    assert_eq!(rows_in_name("ka1_ka3_an_example_of_kb1"), ["KA1", "KA3"]);
    assert_eq!(rows_in_name("c7_kb1"), [""; 0]);
}

/// A test that is called a scenario is in the scenario's row.
#[test]
fn every_scenario_is_in_its_row() {
    let text = read("spec/systems.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("## Acceptance")).collect::<Vec<_>>().join("\n");
    let missing = tests().into_keys().filter(|name| name.starts_with("scenario_"));
    let missing: Vec<String> = missing.filter(|name| !rows.contains(&format!("`{name}`"))).collect();
    assert_same(&missing);
}
