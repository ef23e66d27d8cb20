//! The README says what is so: its feature table, Rust version and licence are those of Cargo.toml, what it points to is
//! there, and its example of a test is the one below.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

#[test]
fn the_feature_table_is_that_of_the_manifest() {
    let features = section(MANIFEST, "[features]");
    let values: BTreeMap<&str, Vec<&str>> = features.iter().map(|line| entry(line)).collect();
    let rows: BTreeMap<&str, Vec<&str>> = README
        .lines()
        .skip_while(|line| *line != "## Features")
        .filter(|line| line.starts_with("| `"))
        .take_while(|line| !line.contains("src/"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [feature, rest @ ..] = cells.as_slice() else { panic!("{line}") };
            (feature.trim_matches('`'), rest.to_vec())
        })
        .collect();
    let names: BTreeSet<&str> = values.keys().copied().filter(|name| *name != "default").collect();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), names, "the features");

    for (feature, cells) in &rows {
        let [what, dependencies, default] = cells.as_slice() else { panic!("{feature}: {cells:?}") };
        let listed: BTreeSet<&str> = dependencies.split(", ").filter(|name| !name.is_empty()).collect();
        let needs = values.get(feature).unwrap();
        let wanted: BTreeSet<&str> = needs.iter().filter_map(|need| need.strip_prefix("dep:")).collect();
        assert_eq!(listed, wanted, "the dependencies of {feature}");
        for other in needs.iter().filter(|need| !need.starts_with("dep:") && !need.contains('/')) {
            assert!(what.contains(&format!("switches on `{other}`")), "{feature} switches on {other}: {what}");
        }
        let defaults = values.get("default").unwrap();
        let expected = if defaults.contains(feature) {
            "yes".to_owned()
        } else {
            let through = defaults.iter().find(|other| values.get(*other).is_some_and(|needs| needs.contains(feature)));
            through.map_or_else(|| "no".to_owned(), |other| format!("through `{other}`"))
        };
        assert_eq!(*default, expected, "whether {feature} is on by default");
    }

    let always: BTreeSet<&str> = section(MANIFEST, "[dependencies]")
        .iter()
        .filter(|line| !line.contains("optional = true"))
        .map(|line| entry(line).0)
        .collect();
    assert_eq!(always, BTreeSet::from(["bytes", "nom"]));
    assert!(README.contains("on bytes and nom alone"));
}

#[test]
fn rust_version_and_licence_are_those_of_the_manifest() {
    let package = section(MANIFEST, "[package]");
    let value = |key: &str| {
        let line = package.iter().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split('"').nth(1).unwrap()
    };
    assert!(README.contains(&format!("Rust {} or later (edition {})", value("rust-version"), value("edition"))));
    assert_eq!(value("license"), "MIT OR Apache-2.0");
    assert!(README.contains("[MIT](LICENSE-MIT) or [Apache-2.0](LICENSE-APACHE)"));
    // Before 1.0 the second number is the one that tells versions apart.
    let version = value("version").rsplit_once('.').unwrap().0;
    assert!(README.contains(&format!("leveret = {{ version = \"{version}\", features = [\"broker\"] }}")));
}

/// Links, `path`, and `path::name_of_a_test`.
#[test]
fn what_it_points_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(link.starts_with("https://") || root.join(link).exists(), "the link to {link}");
        seen += 1;
    }
    for code in README.split('`').skip(1).step_by(2) {
        let (path, test) = code.split_once("::").unwrap_or((code, ""));
        if ["src/", "tests/", "fuzz/", ".ci/"].iter().any(|folder| path.starts_with(folder)) {
            assert!(root.join(path).exists(), "{path}");
            if !test.is_empty() {
                let text = fs::read_to_string(root.join(path)).unwrap();
                assert!(text.contains(&format!("fn {test}(")), "{code}");
            }
            seen += 1;
        }
        if let Some(example) = code.strip_prefix("cargo run --example ") {
            assert!(root.join("examples").join(format!("{example}.rs")).exists(), "{code}");
        }
    }
    assert!(seen > 15, "the links were not found");
}

#[test]
fn every_example_and_every_room_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, form) in [("examples", "`NAME`"), ("src", "(src/NAME)")] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = if folder == "examples" { name.trim_end_matches(".rs") } else { &name };
            if !["common", "lib.rs", "quickstart"].contains(&name) {
                assert!(README.contains(&form.replace("NAME", name)), "{folder}/{name}");
            }
        }
    }
}

#[test]
fn it_is_short() {
    assert!(README.lines().count() <= 180, "nobody reads that much");
    assert!(README.lines().take(20).any(|line| line.starts_with("```rust")), "the first program comes late");
}

// The example of a test in the README, word for word.

#[tokio::test]
async fn an_order_arrives() -> Result<(), Box<dyn std::error::Error>> {
    let broker = leveret::broker::Broker::start().await?;
    let connection = leveret::amqp::Connection::open(&broker.url()).await?; // hand the URL to your program instead

    let channel = connection.open_channel().await?;
    channel.queue_declare("orders").await?;
    channel.confirm_select().await?;
    channel.basic_publish("", "orders", "one hare").await?.await?.accepted()?;

    let order = channel.basic_get("orders").no_ack().await?.ok_or("no order")?;
    assert_eq!(order.body(), b"one hare");
    broker.shutdown().await;
    Ok(())
}

#[test]
fn its_example_of_a_test_is_the_one_above() {
    let (_, rest) = README.split_once("```rust,ignore\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert!(example.starts_with("#[tokio::test]\n"), "{example}");
    assert!(include_str!("readme.rs").contains(example), "{example}");
}

// ----------------------------------------------------------------------------------------------------------- the tools

/// The entries of one section of the manifest, without comments.
fn section<'a>(manifest: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('['));
    let entries: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(!entries.is_empty(), "{heading}");
    entries
}

/// `name = ["a", "b"]`; of values that are something else, only the strings.
fn entry(line: &str) -> (&str, Vec<&str>) {
    let (name, value) = line.split_once(" = ").unwrap();
    (name, value.split('"').skip(1).step_by(2).collect())
}
