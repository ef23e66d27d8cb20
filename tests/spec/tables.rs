//! Methods, properties, field types, reply codes and limits: the files in `spec/` against the tables in Rust.

use std::collections::BTreeMap;

use bytes::Bytes;
use leveret::amqp::Config;
use leveret::codec::method::{self, MethodInfo, Sender};
use leveret::codec::{
    ContentHeader, DecodeErrorKind, FRAME_OVERHEAD, FieldTable, FieldType, FieldValue, Frame, FrameType, MAX_DEPTH,
    Properties, ProtocolHeader, ReplyCode,
};
use leveret::protocol::client::{FRAME_MIN, INITIAL_FRAME_MAX};

use super::{assert_same, lines, read};

/// Where a field's name in Rust is not the protocol's with underscores: method, field, name in Rust.
const OTHER_NAMES: &[(&str, &str, &str)] = &[
    // A word of the language.
    ("exchange.declare", "type", "kind"),
];

fn type_name(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Bit => "bit",
        FieldType::Octet => "octet",
        FieldType::Short => "short",
        FieldType::Long => "long",
        FieldType::LongLong => "longlong",
        FieldType::ShortStr => "shortstr",
        FieldType::LongStr => "longstr",
        FieldType::Table => "table",
        FieldType::Timestamp => "timestamp",
    }
}

// ----------------------------------------------------------------------------------------------------------- methods

/// A method, as either book has it.
#[derive(Debug, PartialEq)]
struct Entry {
    ids: (u16, u16),
    sender: String,
    content: bool,
    replies: Vec<u16>,
    /// Name in Rust, and type.
    fields: Vec<(String, String)>,
}

/// What the file says that Rust has no place for.
#[derive(Default)]
struct Marks {
    rabbitmq: usize,
    renamed: usize,
}

fn methods(text: &str) -> (BTreeMap<String, Entry>, Marks) {
    let mut methods: BTreeMap<String, Entry> = BTreeMap::new();
    let mut replies: Vec<(String, Vec<String>)> = Vec::new();
    let mut marks = Marks::default();
    let (mut class, mut method) = ((String::new(), 0), String::new());
    for (number, line) in lines(text) {
        let wrong = |what: &str| -> ! { panic!("spec/methods:{number}: {what}: {line}") };
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let [field, kind, ref note @ ..] = words[..] else { wrong("a field is a name and a type") };
            match note {
                [] => {}
                ["printed:", _] => marks.renamed += 1,
                _ => wrong("what stands behind a type is `printed: NAME`"),
            }
            let other = OTHER_NAMES.iter().find(|other| (other.0, other.1) == (method.as_str(), field));
            let name = other.map_or_else(|| field.replace('-', "_"), |other| other.2.to_owned());
            let Some(entry) = methods.get_mut(&method) else { wrong("a field without a method") };
            entry.fields.push((name, kind.to_owned()));
        } else if let ["class", name, id] = words[..] {
            class = (name.to_owned(), id.parse().unwrap());
        } else {
            let (head, answers) = line.split_once(" -> ").unwrap_or((line, ""));
            let (head, flags) = head.split_once(", ").unwrap_or((head, ""));
            let [name, id, sender] = head.split_whitespace().collect::<Vec<_>>()[..] else {
                wrong("a method is a name, an id and a sender")
            };
            let mut entry = Entry {
                ids: (class.1, id.parse().unwrap()),
                sender: match sender {
                    "client/both" | "server/both" => "both",
                    "client" | "server" | "both" => sender,
                    _ => wrong("a sender is `client`, `server`, `both`, `client/both` or `server/both`"),
                }
                .to_owned(),
                content: false,
                replies: Vec::new(),
                fields: Vec::new(),
            };
            for flag in flags.split(", ").filter(|flag| !flag.is_empty()) {
                match flag {
                    "content" => entry.content = true,
                    "rabbitmq" => marks.rabbitmq += 1,
                    _ => wrong("a mark is `content` or `rabbitmq`"),
                }
            }
            method = format!("{}.{name}", class.0);
            let answers = answers.split(" | ").filter(|answer| !answer.is_empty());
            replies.push((method.clone(), answers.map(|answer| format!("{}.{answer}", class.0)).collect()));
            if methods.insert(method.clone(), entry).is_some() {
                wrong("stands twice");
            }
        }
    }
    for (method, answers) in replies {
        let ids = answers.iter().map(|answer| match methods.get(answer) {
            Some(entry) => entry.ids.1,
            None => panic!("spec/methods: {method} is answered by {answer}, which is not there"),
        });
        let ids = ids.collect();
        methods.get_mut(&method).unwrap().replies = ids;
    }
    (methods, marks)
}

fn entry(info: &MethodInfo) -> Entry {
    let sender = match info.sender {
        Sender::Client => "client",
        Sender::Server => "server",
        Sender::Both => "both",
    };
    Entry {
        ids: (info.class_id, info.method_id),
        sender: sender.to_owned(),
        content: info.has_content,
        replies: info.replies.to_vec(),
        fields: info.fields.iter().map(|(name, kind)| ((*name).to_owned(), type_name(*kind).to_owned())).collect(),
    }
}

/// Everything that two books of methods do not have alike.
fn differences(spec: &BTreeMap<String, Entry>, infos: &[MethodInfo]) -> Vec<String> {
    let mut found = Vec::new();
    for info in infos {
        let rust = entry(info);
        let Some(spec) = spec.get(info.name) else {
            found.push(format!("{}: in Rust, not in spec/methods", info.name));
            continue;
        };
        let mut compare = |what: &str, spec: String, rust: String| {
            if spec != rust {
                found.push(format!("{}: {what}: spec/methods has {spec}, Rust has {rust}", info.name));
            }
        };
        compare("ids", format!("{:?}", spec.ids), format!("{:?}", rust.ids));
        compare("sender", spec.sender.clone(), rust.sender);
        compare("content", spec.content.to_string(), rust.content.to_string());
        compare("replies", format!("{:?}", spec.replies), format!("{:?}", rust.replies));
        for at in 0..spec.fields.len().max(rust.fields.len()) {
            let show = |field: Option<&(String, String)>| match field {
                Some((name, kind)) => format!("{name} {kind}"),
                None => "nothing".to_owned(),
            };
            compare(&format!("field {}", at + 1), show(spec.fields.get(at)), show(rust.fields.get(at)));
        }
    }
    for name in spec.keys().filter(|name| !infos.iter().any(|info| info.name == **name)) {
        found.push(format!("{name}: in spec/methods, not in Rust"));
    }
    found
}

fn rust_methods() -> Vec<MethodInfo> {
    method::ALL.iter().copied().flatten().copied().collect()
}

/// c89, c119, c132, c133, c134: and whatever else the rules say of a method's fields and ids.
#[test]
fn methods_are_the_same() {
    let (spec, marks) = methods(&read("spec/methods"));
    let rust = rust_methods();
    assert_same(&differences(&spec, &rust));
    assert_eq!((spec.len(), rust.len()), (66, 66));
    assert_eq!(marks.rabbitmq, 13, "methods that are RabbitMQ's");
    assert_eq!(marks.renamed, 2, "fields that the printed specification calls reserved");
}

/// The comparison sees each kind of difference, on either side.
#[test]
fn a_difference_of_methods_is_found() {
    let text = read("spec/methods");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        differences(&methods(&text.replacen(from, to, 1)).0, &rust_methods())
    };
    for (from, to, words) in [
        ("get-empty 72 server\n", "get-empty 73 server\n", "ids: spec/methods has (60, 73), Rust has (60, 72)"),
        ("qos-ok 11 server\n", "qos-ok 11 both\n", "basic.qos-ok: sender: spec/methods has both, Rust has server"),
        ("deliver 60 server, content\n", "deliver 60 server\n", "basic.deliver: content"),
        ("-> get-ok | get-empty", "-> get-ok", "basic.get: replies: spec/methods has [71], Rust has [71, 72]"),
        (
            "    no-local            bit\n",
            "",
            "basic.consume: field 4: spec/methods has no_ack bit, Rust has no_local bit",
        ),
        ("prefetch-size       long", "prefetch-size       short", "field 1: spec/methods has prefetch_size short"),
        ("reject 90 client\n", "refuse 90 client\n", "basic.reject: in Rust, not in spec/methods"),
        ("reject 90 client\n", "refuse 90 client\n", "basic.refuse: in spec/methods, not in Rust"),
    ] {
        let found = changed(from, to);
        assert!(found.iter().any(|line| line.contains(words)), "{words} is not among {found:#?}");
    }
}

/// Names that differ by more than a hyphen are still in both books.
#[test]
fn exceptions_of_names_are_needed() {
    let rust = rust_methods();
    for (method, field, name) in OTHER_NAMES {
        let info = rust.iter().find(|info| info.name == *method).unwrap();
        assert!(info.fields.iter().any(|(known, _)| known == name), "{method}.{name}");
        assert!(!info.fields.iter().any(|(known, _)| known == field), "{method}.{field} has its own name");
    }
}

/// Where two lists that have their order differ, line by line.
fn in_order(file: &str, spec: &[String], rust: &[String]) -> Vec<String> {
    let show = |line: Option<&String>| line.map_or("nothing", String::as_str).to_owned();
    let lines = (0..spec.len().max(rust.len())).map(|at| (at + 1, show(spec.get(at)), show(rust.get(at))));
    let different = lines.filter(|(_, spec, rust)| spec != rust);
    different.map(|(at, spec, rust)| format!("{at}: {file} has {spec}, Rust has {rust}")).collect()
}

// -------------------------------------------------------------------------------------------------------- properties

/// c81
#[test]
fn properties_are_the_same() {
    let text = read("spec/properties");
    let spec: Vec<String> =
        lines(&text).map(|(_, line)| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    let rust: Vec<String> =
        Properties::ALL.iter().map(|info| format!("{} {} {}", info.bit, info.name, type_name(info.kind))).collect();
    assert_same(&in_order("spec/properties", &spec, &rust));
    assert_eq!(spec.len(), 14);
}

/// What the wire does with a property that Rust has under its bit: the flag, and as many octets as its type says.
#[test]
fn a_property_sets_its_flag() {
    for (_, line) in lines(&read("spec/properties")) {
        let [bit, name, kind, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let properties = Properties::new();
        let properties = match name {
            "content-type" => properties.content_type("x"),
            "content-encoding" => properties.content_encoding("x"),
            "headers" => properties.headers(FieldTable::new()),
            "delivery-mode" => properties.delivery_mode(1u8),
            "priority" => properties.priority(1u8),
            "correlation-id" => properties.correlation_id("x"),
            "reply-to" => properties.reply_to("x"),
            "expiration" => properties.expiration("x"),
            "message-id" => properties.message_id("x"),
            "timestamp" => properties.timestamp(1u64),
            "type" => properties.kind("x"),
            "user-id" => properties.user_id("x"),
            "app-id" => properties.app_id("x"),
            "cluster-id" => properties.cluster_id("x"),
            _ => panic!("{name} is not in Rust"),
        };
        let value: &[u8] = match kind {
            "shortstr" => b"\x01x",
            "octet" => b"\x01",
            "timestamp" => b"\0\0\0\0\0\0\0\x01",
            "table" => b"\0\0\0\0",
            _ => panic!("{kind} is not the type of a property"),
        };
        let mut octets = Vec::new();
        properties.encode(&mut octets).unwrap();
        let flags = 1u16 << bit.parse::<u16>().unwrap();
        assert_eq!(octets, [&flags.to_be_bytes()[..], value].concat(), "{name}");
    }
}

// ------------------------------------------------------------------------------------------------------- field types

/// The specification's name for what a value is.
fn value_name(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Bool(_) => "boolean",
        FieldValue::I8(_) => "short-short-int",
        FieldValue::U8(_) => "short-short-uint",
        FieldValue::I16(_) => "short-int",
        FieldValue::U16(_) => "short-uint",
        FieldValue::I32(_) => "long-int",
        FieldValue::U32(_) => "long-uint",
        FieldValue::I64(_) => "long-long-int",
        FieldValue::F32(_) => "float",
        FieldValue::F64(_) => "double",
        FieldValue::Decimal { .. } => "decimal",
        FieldValue::LongString(_) => "long-string",
        FieldValue::Array(_) => "field-array",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Table(_) => "field-table",
        FieldValue::Void => "void",
        FieldValue::ByteArray(_) => "byte-array",
        _ => panic!("{value:?} is not in spec/field-types: add it there, and its name here"),
    }
}

/// The entries of a table with one nameless value.
fn decode_value(octets: &[u8]) -> Result<FieldValue, DecodeErrorKind> {
    let table = FieldTable::decode(&Bytes::from([&[0], octets].concat())).map_err(|error| error.kind().clone())?;
    Ok(table.get("").unwrap().clone())
}

/// Tag and value, as they are written.
fn encode_value(value: FieldValue) -> Vec<u8> {
    let mut octets = Vec::new();
    FieldTable::new().with("", value).encode(&mut octets).unwrap();
    octets.split_off(5)
}

/// c69 to c73, all 256 tags: those that the file has are read as it says and written or not as it says, the others are refused.
#[test]
fn field_types_are_the_same() {
    let text = read("spec/field-types");
    let mut spec: BTreeMap<u8, (&str, &str, &str)> = BTreeMap::new();
    for (number, line) in lines(&text) {
        let [tag, fate, size, meaning, _printed] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("spec/field-types:{number}: five columns: {line}")
        };
        assert_eq!(tag.len(), 1, "spec/field-types:{number}: {line}");
        assert!(spec.insert(tag.as_bytes()[0], (fate, size, meaning)).is_none(), "spec/field-types:{number}: twice");
    }
    let mut found = Vec::new();
    let mut written = Vec::new();
    for tag in 0..=u8::MAX {
        let shown = char::from(tag);
        let Some(&(fate, size, meaning)) = spec.get(&tag).filter(|(fate, ..)| *fate != "refused") else {
            if decode_value(&[tag]) != Err(DecodeErrorKind::UnknownFieldType(tag)) {
                found.push(format!("{shown:?} is read in Rust, spec/field-types refuses it or does not have it"));
            }
            continue;
        };
        let rest = match size {
            "32+n" => vec![0; 4],
            size => vec![0xff; size.parse().unwrap()],
        };
        let octets = [&[tag], &rest[..]].concat();
        let value = match decode_value(&octets) {
            Ok(value) => value,
            Err(error) => {
                found.push(format!("{shown:?} with {size} octets is not read in Rust: {error:?}"));
                continue;
            }
        };
        if value_name(&value) != meaning {
            found.push(format!("{shown:?}: spec/field-types has {meaning}, Rust has {}", value_name(&value)));
        }
        if let Some(number) = value.as_i64() {
            let unsigned = (1i128 << (8 * rest.len())) - 1;
            let expected = if meaning.ends_with("uint") { unsigned } else { -1 };
            if i128::from(number) != expected {
                found.push(format!("{shown:?} of all ones is {number}, as a {meaning} it is {expected}"));
            }
        }
        if !rest.is_empty() && decode_value(&octets[..rest.len()]).is_ok() {
            found.push(format!("{shown:?} is read with less than {size} octets"));
        }
        let again = encode_value(value);
        match fate {
            "written" if again[0] == tag && again.len() == octets.len() => written.push(meaning),
            "read" if again[0] != tag => {}
            _ => found.push(format!("{shown:?} is to be {fate}, and is written as {again:?}")),
        }
    }
    assert_same(&found);
    assert_eq!(written.len(), 17, "each kind of value is written in one way: {written:?}");
}

// ------------------------------------------------------------------------------------------- reply codes and limits

#[test]
fn reply_codes_are_the_same() {
    let text = read("spec/reply-codes");
    let spec: Vec<String> = lines(&text)
        .map(|(number, line)| {
            let [code, name, closes, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("spec/reply-codes:{number}: {line}")
            };
            assert!(matches!(closes, "none" | "soft" | "hard"), "spec/reply-codes:{number}: {line}");
            let closes = if closes == "hard" { "hard" } else { "not hard" };
            format!("{code} {} {closes}", name.to_uppercase().replace('-', "_"))
        })
        .collect();
    let closes = |hard: bool| if hard { "hard" } else { "not hard" };
    let rust: Vec<String> =
        ReplyCode::ALL.iter().map(|(code, name, hard)| format!("{} {name} {}", code.0, closes(*hard))).collect();
    assert_same(&in_order("spec/reply-codes", &spec, &rust));
}

/// What Rust does where the file has a number.
fn limit(name: &str) -> Option<u64> {
    let header = ProtocolHeader::AMQP_0_9_1.to_bytes();
    let body = |payload: &[u8]| {
        let mut out = Vec::new();
        Frame::Body(1, Bytes::copy_from_slice(payload)).encode(&mut out, 16).unwrap();
        out
    };
    let longest = || {
        let fits = |length: usize| Properties::new().app_id("x".repeat(length)).encode(&mut Vec::new()).is_ok();
        (0..1000).take_while(|length| fits(*length)).last().unwrap()
    };
    let class = || {
        let mut out = Vec::new();
        ContentHeader::default().encode(&mut out);
        u16::from_be_bytes([out[0], out[1]])
    };
    Some(match name {
        "protocol-major" => header[5].into(),
        "protocol-minor" => header[6].into(),
        "protocol-revision" => header[7].into(),
        "protocol-header-octets" => header.len() as u64,
        "port" => Config::new().default_port().into(),
        "tls-port" => Config::from_url("amqps://localhost").unwrap().default_port().into(),
        "frame-method" => FrameType::Method as u64,
        "frame-header" => FrameType::Header as u64,
        "frame-body" => FrameType::Body as u64,
        "frame-heartbeat" => Frame::HEARTBEAT[0].into(),
        "frame-end" => (*body(b"x").last().unwrap()).into(),
        "frame-overhead" => {
            assert_eq!(body(b"xyz").len(), 3 + FRAME_OVERHEAD);
            FRAME_OVERHEAD as u64
        }
        "frame-min-size" => FRAME_MIN.into(),
        "initial-frame-max" => INITIAL_FRAME_MAX.into(),
        "content-class" => class().into(),
        "short-string-max" => longest() as u64,
        "table-depth-max" => MAX_DEPTH as u64,
        _ => return None,
    })
}

/// c15, c16, c24, c37, c61, c68
#[test]
fn limits_are_the_same() {
    let mut found = Vec::new();
    for (number, line) in lines(&read("spec/limits")) {
        let [name, value, whose] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("spec/limits:{number}: {line}")
        };
        assert!(matches!(whose, "printed" | "rabbitmq" | "own"), "spec/limits:{number}: {line}");
        match limit(name) {
            None => found.push(format!("{name}: nothing in Rust is looked at")),
            Some(rust) if rust.to_string() == value => {}
            Some(rust) => found.push(format!("{name}: spec/limits has {value}, Rust has {rust}")),
        }
    }
    assert_same(&found);
}
