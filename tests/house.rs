//! The rules of the house, read off the sources: every file says what it is for, rooms use each other one way, codec and
//! protocol have no I/O and no clock, no file grows too large, nothing is left for later.
//!
//! The sources are split into tokens, so that comments and strings are not taken for code; `tests.rs` files, folders named
//! `tests` and whatever stands behind `#[cfg(test)]` do not count as code of a room.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, and which others each of them may use. Whoever adds a room adds its arrows here.
const ROOMS: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("wakes", &[]),
    ("error", &["codec"]),
    ("protocol", &["codec", "error", "wakes"]),
    ("transport", &["protocol", "codec", "error"]),
    ("amqp", &["transport", "protocol", "codec", "error"]),
    ("message", &["codec", "error"]),
    ("kafka", &["message", "codec", "error", "wakes"]),
    ("messaging", &["amqp", "kafka", "message", "codec", "error", "wakes"]),
    ("guide", &[]),
    ("registry", &["messaging", "amqp", "error"]),
    ("relay", &["registry", "messaging", "amqp", "error"]),
    ("broker", &["codec", "protocol", "transport", "error", "wakes"]),
    // Programs have what everybody has: the public API.
    ("bin", &[]),
];

/// Rooms that know bytes and values, and an instant that is handed in.
const PURE_ROOMS: &[&str] = &["codec", "protocol"];

/// What those rooms do not touch, as it stands in a path.
const IMPURE: &[&[&str]] =
    &[&["tokio"], &["std", "net"], &["core", "net"], &["std", "thread"], &["Instant", "now"], &["SystemTime"]];

const MOST_LINES: usize = 600;

/// How a waker would be replaced, and so dropped, where it is kept: behind a lock, most likely.
const REPLACED_WAKERS: &[&[&str]] = &[
    &["clone_from", "(", "waker"],
    &["clone_from", "(", "cx", ".", "waker"],
    &["Some", "(", "waker", ".", "clone"],
    &["Some", "(", "cx", ".", "waker"],
];

const MACROS_FOR_LATER: &[&str] = &["todo", "unimplemented", "dbg"];

// Put together here, so that this file does not break its own rule.
const WORDS_FOR_LATER: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

// ------------------------------------------------------------------------------------------------- the house as it is

#[test]
fn the_sources_keep_the_rules() {
    let mut broken = Vec::new();
    let sources = sources("src");
    assert!(sources.len() > 10, "the sources were not found");
    for (name, text) in &sources {
        broken.extend(check_source(name, text));
    }
    for (name, text) in self::sources("tests") {
        broken.extend(bare_ignores(&name, &tokens(&text)));
    }
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

/// Every `.rs` file under a folder of the package, its name with forward slashes and relative to the package.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

// ------------------------------------------------------------------------------------------------------- the rules

/// Every broken rule of one file under `src/`, as `file:line: what and why`.
fn check_source(name: &str, text: &str) -> Vec<String> {
    let all = tokens(text);
    let (code, test_lines) = without_tests(&all);
    let mut broken = Vec::new();
    let mut rule = |line: usize, message: String| broken.push(format!("{name}:{line}: {message}"));

    if !text.starts_with("//!") {
        rule(1, "the first line says what the file is for: `//! ...`".to_owned());
    }
    for (at, line) in text.lines().enumerate() {
        for word in WORDS_FOR_LATER.iter().filter(|word| line.contains(**word)) {
            rule(at + 1, format!("`{word}`: do it, or write down elsewhere what is to be done"));
        }
    }
    for at in 0..all.len() {
        let (here, line) = (&all[at].text, all[at].line);
        if MACROS_FOR_LATER.contains(&here.as_str()) && is(&all, at + 1, "!") {
            rule(line, format!("`{here}!` is not for finished code"));
        }
        if here == "allow" && is(&all, at + 1, "(") && in_attribute(&all, at) {
            rule(line, "`#[allow(...)]`: use `#[expect(..., reason = \"...\")]`".to_owned());
        }
    }
    let module = module_path(name);
    if !is_test_file(name) && module != ["wakes"] {
        for at in 0..code.len() {
            if REPLACED_WAKERS
                .iter()
                .any(|form| form.iter().enumerate().all(|(ahead, text)| is(&code, at + ahead, text)))
            {
                rule(code[at].line, "a waker is kept by `wakes::keep`, and dropped without the lock".to_owned());
            }
        }
    }
    if !is_test_file(name) {
        let lines = text.lines().count() - test_lines;
        if lines > MOST_LINES {
            rule(lines, format!("{lines} lines without its tests, more than {MOST_LINES}: split the file"));
        }
        match module.first() {
            None => rooms_of_the_front_door(&code, &mut rule),
            Some(room) => paths_of_a_room(room, &module, &code, &mut rule),
        }
    }
    broken.extend(bare_ignores(name, &all));
    broken
}

fn arrows(room: &str) -> Option<&'static [&'static str]> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, arrows)| *arrows)
}

/// lib.rs may use every room; each that it declares must be known.
fn rooms_of_the_front_door(code: &[Token], rule: &mut impl FnMut(usize, String)) {
    for at in 0..code.len() {
        if code[at].text == "mod" && code[at].depth == 0 && code.len() > at + 1 && arrows(&code[at + 1].text).is_none()
        {
            rule(code[at].line, format!("room `{}` has no arrows in tests/house.rs", code[at + 1].text));
        }
    }
}

fn paths_of_a_room(room: &str, module: &[String], code: &[Token], rule: &mut impl FnMut(usize, String)) {
    let Some(arrows) = arrows(room) else {
        return rule(1, format!("room `{room}` has no arrows in tests/house.rs"));
    };
    for path in paths(code) {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        if let Some(used) = used_room(&segments, module.len() + path.inline_modules) {
            let known = ROOMS.iter().any(|(name, _)| *name == used);
            if !known {
                rule(path.line, format!("`{}`: name the room, `{used}` is none", segments.join("::")));
            } else if used != room && !arrows.contains(&used) {
                rule(path.line, format!("`{}`: {room} may not use {used}", segments.join("::")));
            }
        }
        if PURE_ROOMS.contains(&room) {
            let impure = IMPURE.iter().find(|impure| segments.windows(impure.len()).any(|part| part == **impure));
            if let Some(impure) = impure {
                rule(path.line, format!("`{}`: {room} has no I/O and no clock", impure.join("::")));
            }
        }
    }
}

/// What stands behind the crate's root in a path, when the path goes there; `depth` is that of the module it stands in.
fn used_room<'a>(segments: &[&'a str], depth: usize) -> Option<&'a str> {
    let segments = if segments.first() == Some(&"self") { &segments[1..] } else { segments };
    let supers = segments.iter().take_while(|segment| **segment == "super").count();
    match *segments.first()? {
        "crate" => segments.get(1).copied(),
        "super" if supers >= depth => segments.get(supers).copied(),
        _ => None,
    }
}

fn bare_ignores(name: &str, all: &[Token]) -> Vec<String> {
    let bare = |at: &usize| ["#", "[", "ignore", "]"].iter().enumerate().all(|(ahead, text)| is(all, at + ahead, text));
    let message = |at: usize| format!("{name}:{}: `#[ignore]` without a reason", all[at].line);
    (0..all.len()).filter(bare).map(message).collect()
}

/// The module a file is: `src/codec/method/mod.rs` and `src/codec/method.rs` are `codec::method`, `src/lib.rs` is nothing.
fn module_path(name: &str) -> Vec<String> {
    let path = name.strip_prefix("src/").unwrap_or(name).trim_end_matches(".rs");
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

// ------------------------------------------------------------------------------------------------------- the scanner

/// A word, a number, or a sign; strings, characters and lifetimes stand as `""`, so that nothing is read into them.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
    /// Braces that are open around it.
    depth: usize,
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line, mut depth) = (Vec::new(), 0, 1, 0_usize);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let start = at;
        let next = chars.get(at + 1).copied();
        let text = match chars[at] {
            c if c.is_whitespace() => {
                at += 1;
                None
            }
            '/' if next == Some('/') => {
                at = find(&chars, at, |c| c == '\n');
                None
            }
            '/' if next == Some('*') => {
                at = end_of_block_comment(&chars, at);
                None
            }
            '"' => {
                at = end_of_string(&chars, at);
                Some("\"\"".to_owned())
            }
            '\'' => {
                // A character ends in a quote; a lifetime or a label does not.
                at = match next {
                    Some('\\') => find(&chars, at + 3, |c| c == '\'') + 1,
                    Some(_) if chars.get(at + 2) == Some(&'\'') => at + 3,
                    _ => find(&chars, at + 1, |c| !word(c)),
                };
                Some("\"\"".to_owned())
            }
            c if word(c) => {
                at = find(&chars, at, |c| !word(c));
                let text: String = chars[start..at].iter().collect();
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                let raw = matches!(text.as_str(), "r" | "br" | "cr") && chars.get(at + hashes) == Some(&'"');
                if raw {
                    at = end_of_raw_string(&chars, at + hashes + 1, hashes);
                    Some("\"\"".to_owned())
                } else {
                    Some(text)
                }
            }
            ':' if next == Some(':') => {
                at += 2;
                Some("::".to_owned())
            }
            c => {
                at += 1;
                Some(c.to_string())
            }
        };
        if let Some(text) = text {
            depth = if text == "}" { depth.saturating_sub(1) } else { depth };
            let opens = usize::from(text == "{");
            tokens.push(Token { text, line, depth });
            depth += opens;
        }
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|at| wanted(chars[*at])).unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut open = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (open, at) = (open + 1, at + 2),
            ('*', Some('/')) => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

fn end_of_string(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn end_of_raw_string(chars: &[char], mut at: usize, hashes: usize) -> usize {
    let ends = |at: usize| chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    while at < chars.len() && !ends(at) {
        at += 1;
    }
    at + 1 + hashes
}

/// Whether a token stands inside of `#[...]` or `#![...]`.
fn in_attribute(tokens: &[Token], at: usize) -> bool {
    let mut open = 0;
    for before in (0..at).rev() {
        match tokens[before].text.as_str() {
            "]" => open += 1,
            "[" if open == 0 => {
                let sign = if before > 0 && is(tokens, before - 1, "!") { 2 } else { 1 };
                return before >= sign && is(tokens, before - sign, "#");
            }
            "[" => open -= 1,
            ";" | "{" | "}" => return false,
            _ => {}
        }
    }
    false
}

/// The tokens outside of items behind `#[cfg(test)]` or `#[cfg(all(test, ...))]`, and how many lines those items take.
fn without_tests(all: &[Token]) -> (Vec<Token>, usize) {
    let (mut code, mut lines, mut at) = (Vec::new(), BTreeSet::new(), 0);
    while at < all.len() {
        let starts = |texts: &[&str]| texts.iter().enumerate().all(|(ahead, text)| is(all, at + ahead, text));
        if starts(&["#", "[", "cfg", "(", "test", ")"]) || starts(&["#", "[", "cfg", "(", "all", "(", "test"]) {
            let end = end_of_item(all, at);
            lines.extend(all[at].line..=all[end - 1].line);
            at = end;
        } else {
            code.push(all[at].clone());
            at += 1;
        }
    }
    (code, lines.len())
}

/// Behind the `;` or the `}` that ends the item whose first token this is.
fn end_of_item(all: &[Token], start: usize) -> usize {
    let (mut open, depth) = (0_usize, all[start].depth);
    for (at, token) in all.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" => open += 1,
            ")" | "]" => open = open.saturating_sub(1),
            ";" if open == 0 && token.depth == depth => return at + 1,
            "}" if token.depth == depth => return at + 1,
            "}" if token.depth < depth => return at,
            _ => {}
        }
    }
    all.len()
}

/// A path that is used, groups resolved: `use a::{b, c::d}` is `a::b` and `a::c::d`.
#[derive(Debug, PartialEq)]
struct UsedPath {
    segments: Vec<String>,
    line: usize,
    /// `mod name { ... }` around it, within the file.
    inline_modules: usize,
}

fn paths(code: &[Token]) -> Vec<UsedPath> {
    let (mut found, mut at, mut modules) = (Vec::new(), 0, Vec::new());
    while at < code.len() {
        let token = &code[at];
        if token.text == "mod" && is(code, at + 2, "{") {
            modules.push(token.depth);
            at += 3;
        } else if token.text == "}" {
            modules.pop_if(|depth| *depth == token.depth);
            at += 1;
        } else if is_word(&token.text) {
            at = read_path(code, at, &[], modules.len(), &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text == "*" || text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Reads one path with its groups, adds what it names behind `before`, and returns where it ends.
fn read_path(
    code: &[Token],
    mut at: usize,
    before: &[String],
    inline_modules: usize,
    found: &mut Vec<UsedPath>,
) -> usize {
    let mut segments = before.to_vec();
    let line = code[at].line;
    loop {
        segments.push(code[at].text.clone());
        at += 1;
        if !is(code, at, "::") {
            break;
        }
        at += 1;
        if is(code, at, "{") {
            at += 1;
            while at < code.len() && !is(code, at, "}") {
                at = match is_word(&code[at].text) {
                    true => read_path(code, at, &segments, inline_modules, found),
                    false => at + 1,
                };
            }
            return at + 1;
        }
        if !code.get(at).is_some_and(|token| is_word(&token.text)) {
            break;
        }
    }
    found.push(UsedPath { segments, line, inline_modules });
    // `as name` in a group names nothing that is used.
    if !before.is_empty() && is(code, at, "as") { at + 2 } else { at }
}

// ------------------------------------------------------------------------------------- the scanner can say no, and yes

fn broken(name: &str, text: &str) -> Vec<String> {
    check_source(name, &format!("//! A file.\n{text}"))
}

#[track_caller]
fn assert_broken(name: &str, text: &str, line: usize, part: &str) {
    let broken = broken(name, text);
    let expected = format!("{name}:{line}: ");
    assert!(broken.len() == 1 && broken[0].starts_with(&expected) && broken[0].contains(part), "{text}\n{broken:?}");
}

#[track_caller]
fn assert_kept(name: &str, text: &str) {
    assert_eq!(broken(name, text), Vec::<String>::new(), "{text}");
}

#[test]
fn a_file_without_its_first_line_is_found() {
    assert_eq!(check_source("src/codec/a.rs", "use x::y;\n").len(), 1);
    assert_eq!(check_source("src/codec/tests.rs", "\n//! Late.\n").len(), 1);
}

#[test]
fn arrows_the_wrong_way_are_found() {
    for (name, text, line) in [
        ("src/codec/a.rs", "use crate::protocol::X;", 2),
        ("src/codec/a.rs", "\nfn f() -> crate::error::Error { g() }", 3),
        ("src/codec/a.rs", "use crate::{codec::X,\n error::Error};", 3),
        ("src/codec/a.rs", "use super::super::error::Error;", 2),
        ("src/codec/mod.rs", "use super::error::Error;", 2),
        ("src/codec/mod.rs", "use self::super::error::Error;", 2),
        ("src/codec/method/a.rs", "use super::super::super::{codec::X, error as e};", 2),
        ("src/codec/a.rs", "mod inner { use super::super::super::error::E; }", 2),
        ("src/error.rs", "use super::protocol::X;", 2),
        ("src/error.rs", "use crate::protocol;", 2),
        ("src/protocol/a.rs", "use crate::transport::X;", 2),
        ("src/transport/a.rs", "use crate::amqp::X;", 2),
        ("src/broker/a/b.rs", "macro_rules! m { () => { $crate::amqp::X } }", 2),
        ("src/broker/a/b.rs", "fn f(x: Vec<crate::amqp::X>) {}", 2),
        ("src/amqp/a.rs", "use crate::{self as it, broker::X};", 2),
    ] {
        let broken = broken(name, text);
        let found = broken.iter().any(|b| b.starts_with(&format!("{name}:{line}: ")) && b.contains("may not use"));
        assert!(found, "{text}\n{broken:?}");
    }
}

#[test]
fn arrows_the_right_way_are_kept() {
    for (name, text) in [
        ("src/codec/a.rs", "use super::b; use crate::codec::c; pub(crate) use d::e; pub(super) fn f() {}"),
        ("src/codec/method/a.rs", "use super::super::wire; use crate::codec::{X, wire::{Y, Z}};"),
        ("src/codec/a.rs", "mod inner { use super::super::wire; }\nuse super::wire;"),
        ("src/protocol/mod.rs", "use super::codec::X; use super::error::Error; use crate::codec::*;"),
        ("src/broker/a.rs", "use crate::{codec, protocol::server::X, transport, error};"),
        ("src/codec/a.rs", "// use crate::error;\n/* crate::error /* super::super::error */ */ /// [`crate::amqp::X`]"),
        (
            "src/codec/a.rs",
            "const A: &str = \"crate::amqp\"; const B: &str = r#\"\"crate::amqp\"#; const C: char = '\"';",
        ),
        ("src/codec/a.rs", "fn f<'a>(x: &'a u8) -> char { '\\'' }"),
        ("src/codec/a.rs", "#[cfg(test)]\nmod tests { use crate::error::Error; fn f() { if x {} } }"),
        ("src/codec/a.rs", "#[cfg(test)]\nuse crate::error::Error;\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;"),
        ("src/codec/tests.rs", "use crate::error::Error; use tokio::net;"),
        ("src/codec/a/tests/b.rs", "use crate::error::Error;"),
    ] {
        assert_kept(name, text);
    }
}

#[test]
fn code_behind_a_test_is_code_again() {
    assert_broken(
        "src/codec/a.rs",
        "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::error::E;",
        4,
        "may not use error",
    );
    assert_broken("src/codec/a.rs", "#[cfg(test)]\nuse a::{b, c};\nuse crate::error::E;", 4, "may not use error");
    assert_broken("src/codec/a.rs", "/* \" */ const A: &str = \"\\\"\";\nuse crate::error::E;", 3, "may not use error");
    assert_broken("src/codec/a.rs", "const A: &str = \"two\nlines\";\nuse crate::error::E;", 4, "may not use error");
    assert_broken("src/codec/a.rs", "const A: char = '\\u{7b}';\nuse crate::error::E;", 3, "may not use error");
    assert_broken("src/codec/a.rs", "#[cfg(not(test))]\nuse crate::error::E;", 3, "may not use error");
}

#[test]
fn rooms_that_are_not_in_the_table_are_found() {
    assert_broken("src/lib.rs", "pub mod codec;\npub mod cellar;", 3, "room `cellar` has no arrows");
    assert_broken("src/cellar/a.rs", "", 1, "room `cellar` has no arrows");
    assert_broken("src/cellar.rs", "", 1, "room `cellar` has no arrows");
    assert_broken("src/codec/a.rs", "use crate::Error;", 2, "name the room, `Error` is none");
    assert_broken("src/amqp/a.rs", "use crate::*;", 2, "name the room, `*` is none");
    assert_broken("src/amqp/mod.rs", "use super::*;", 2, "name the room, `*` is none");
    assert_kept("src/lib.rs", "pub mod codec;\nmod error;\npub use error::Error;\nmod amqp { mod inner {} }");
}

#[test]
fn io_and_clocks_in_pure_rooms_are_found() {
    for text in [
        "use tokio::sync::Mutex;",
        "use std::net::IpAddr;",
        "use std::{fmt, net::IpAddr};",
        "use std::{thread};",
        "fn f() { std::thread::spawn(g); }",
        "fn f() { let now = Instant::now(); }",
        "fn f() { let now = std::time::Instant::now; }",
        "use std::time::{Duration, SystemTime};",
        "fn f() -> SystemTime { g() }",
    ] {
        assert_broken("src/codec/a.rs", text, 2, "no I/O and no clock");
        assert_broken("src/protocol/a.rs", text, 2, "no I/O and no clock");
        assert_kept("src/transport/a.rs", text);
    }
    assert_kept("src/protocol/a.rs", "use std::time::{Duration, Instant}; fn f(now: Instant) { now.now(); } // tokio");
    assert_kept("src/protocol/a.rs", "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }");
}

#[test]
fn files_that_are_too_long_are_found() {
    let lines = |count: usize| "fn f() {}\n".repeat(count);
    assert_kept("src/codec/a.rs", &lines(MOST_LINES - 1));
    assert_broken("src/codec/a.rs", &lines(MOST_LINES), MOST_LINES + 1, "split the file");
    let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(MOST_LINES - 1), lines(MOST_LINES));
    assert_kept("src/codec/a.rs", &with_tests);
    assert_broken("src/codec/a.rs", &format!("{with_tests}fn g() {{}}\n"), MOST_LINES + 1, "split the file");
    assert_kept("src/codec/tests.rs", &lines(2 * MOST_LINES));
}

#[test]
fn what_is_left_for_later_is_found() {
    for name in MACROS_FOR_LATER {
        assert_broken("src/codec/a.rs", &format!("fn f() {{\n {name}!() }}"), 3, "not for finished code");
        assert_kept("src/codec/a.rs", &format!("fn {name}() {{}} // {name}!()"));
    }
    for word in WORDS_FOR_LATER {
        assert_broken("src/codec/a.rs", &format!("// {word}: more"), 2, word);
    }
    assert_broken("src/codec/a.rs", "#[test]\n#[ignore]\nfn f() {}", 3, "without a reason");
    assert_kept("src/codec/a.rs", "#[test]\n#[ignore = \"needs RabbitMQ\"]\nfn f() {}");
    for allow in ["#[allow(dead_code)]", "#![allow(dead_code)]", "#[cfg_attr(x, allow(dead_code))]"] {
        assert_broken("src/codec/a.rs", &format!("{allow}\nfn f() {{}}"), 2, "use `#[expect");
        assert_broken("src/codec/tests.rs", &format!("{allow}\nfn f() {{}}"), 2, "use `#[expect");
    }
    assert_kept("src/codec/a.rs", "#[expect(dead_code, reason = \"x\")]\nfn f(x: [u8; 2]) { allow(x[0]); }");
}

#[test]
fn wakers_that_are_replaced_in_their_place_are_found() {
    for form in ["old.clone_from(waker);", "old.clone_from(cx.waker());"] {
        assert_broken("src/codec/a.rs", &format!("fn f() {{\n {form} }}"), 3, "wakes::keep");
    }
    for form in ["*place = Some(waker.clone());", "place = Some(cx.waker().clone());"] {
        assert_broken("src/codec/a.rs", &format!("fn f() {{\n {form} }}"), 3, "wakes::keep");
        assert_kept("src/wakes.rs", &format!("fn f() {{ {form} }}"));
        assert_kept("src/codec/a.rs", &format!("#[cfg(test)]\nmod tests {{ fn f() {{ {form} }} }}"));
    }
    assert_kept("src/codec/a.rs", "fn f() { queue.push_back((next, waker.clone())); }");
}

#[test]
fn groups_are_resolved_into_paths() {
    let code = tokens("use a::{self, b::{c, d as e}, f::*};\nx::<y::Z>::g();");
    let read: Vec<String> = paths(&code).iter().map(|path| path.segments.join("::")).collect();
    assert_eq!(read, ["use", "a::self", "a::b::c", "a::b::d", "a::f::*", "x", "y::Z", "g"]);
}
