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

#[test]
fn every_row_of_the_systems_is_shown_or_has_its_reason() {
    let (text, tests) = (read("spec/systems.md"), tests());
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
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
        for name in named.iter().filter(|name| !tests.contains_key(*name)) {
            differences.push(format!("{row}: there is no test `{name}`"));
        }
        if named.is_empty() && !REASONS.iter().any(|reason| note.contains(reason)) {
            differences.push(format!("{row}: neither a test nor a reason"));
        }
    }
    let systems = ROWS.iter().flat_map(|(prefix, ranges)| {
        ranges.iter().flat_map(move |(first, last)| (*first..=*last).map(move |number| format!("{prefix}{number}")))
    });
    let expected: BTreeSet<String> = systems.chain((1..=SCENARIOS).map(|number| number.to_string())).collect();
    differences.extend(expected.iter().filter(|row| !found.contains_key(*row)).map(|row| format!("{row} is missing")));
    differences
        .extend(found.iter().filter(|(row, _)| !expected.contains(*row)).map(|(row, _)| format!("what is {row}?")));
    differences.extend(found.iter().filter(|(_, times)| **times > 1).map(|(row, _)| format!("{row} is there twice")));
    assert_same(&differences);
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
