//! Octets and values: the files in `spec/vectors/` against the codec.

use std::collections::BTreeSet;

use bytes::Bytes;
use leveret::codec::{
    ContentHeader, DecodeError, DecodeErrorKind, FieldTable, Frame, MAX_DEPTH, Method, Properties, ProtocolHeader,
    RawProperties, method,
};

use super::{assert_same, lines, read};

const ROOM: usize = 4096 - 8;

/// An entry of a file: its first line, its octets, its value.
struct Vector {
    line: usize,
    name: String,
    octets: Bytes,
    value: String,
}

fn octets(text: &str) -> Bytes {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(16 * pair[0] + pair[1]).unwrap()).collect()
}

fn vectors(file: &str) -> Vec<Vector> {
    let text = read(&format!("spec/vectors/{file}"));
    let all: Vec<(usize, &str)> = lines(&text).collect();
    let entry = |entry: &[(usize, &str)]| {
        let [(line, name), (_, hex), (_, value)] = entry else { panic!("{file}: {entry:?} is cut short") };
        assert!(!name.starts_with(' ') && hex.starts_with(' ') && value.starts_with(' '), "{file}:{line}: {name}");
        Vector { line: *line, name: (*name).to_owned(), octets: octets(hex), value: value.trim().to_owned() }
    };
    all.chunks(3).map(entry).collect()
}

/// How a method is written in the files: without the class's name and its own before it.
fn shown(method: &Method) -> String {
    let text = format!("{method:?}");
    let (_, rest) = text.split_once('(').unwrap();
    let (_, rest) = rest.split_once('(').unwrap();
    rest.strip_suffix("))").unwrap().to_owned()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

/// Octets that were cut off are missed where they were: the error points to a value that began, and says what is there of it.
fn check_cut<T: std::fmt::Debug>(name: &str, cut: usize, decoded: Result<T, DecodeError>, wrong: &mut Vec<String>) {
    let sound = decoded.as_ref().is_err_and(|error| match *error.kind() {
        DecodeErrorKind::Truncated { needed, available } => needed > available && error.offset() + available <= cut,
        _ => false,
    });
    if !sound {
        wrong.push(format!("{name}, cut at {cut}: {decoded:?}"));
    }
}

#[test]
fn every_method_has_vectors_that_decode_encode_and_cannot_be_cut() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for Vector { line, name, octets, value } in vectors("methods") {
        match Method::decode(&octets) {
            Err(error) => wrong.push(format!("{line}: {name}: {error}")),
            Ok(method) => {
                if method.info().name != name || shown(&method) != value {
                    wrong.push(format!("{line}: {name} {value} is read as {} {}", method.info().name, shown(&method)));
                }
                let written = encoded(|out| method.encode(out).unwrap());
                if written != octets {
                    wrong.push(format!("{line}: {name} is written as {written:02x?}"));
                }
            }
        }
        for cut in 0..octets.len() {
            check_cut(&name, cut, Method::decode(&octets.slice(..cut)), &mut wrong);
        }
        seen.insert(name);
    }
    for info in method::ALL.iter().copied().flatten() {
        if !seen.remove(info.name) {
            wrong.push(format!("{} has no vector", info.name));
        }
    }
    wrong.extend(seen.into_iter().map(|name| format!("{name} is no method")));
    assert_same(&wrong);
}

/// Each property's octets and value are in the file; all 16 384 combinations are put together here.
#[test]
fn every_combination_of_properties_decodes_and_encodes() {
    let all = vectors("properties");
    let mut wrong = Vec::new();
    let names: Vec<String> = Properties::ALL.iter().map(|info| format!("{} {}", info.name, info.bit)).collect();
    assert_eq!(all.iter().map(|vector| vector.name.clone()).collect::<Vec<_>>(), names);
    let field = |vector: &Vector| match vector.name.split_once(' ').unwrap().0 {
        "type" => "kind".to_owned(),
        name => name.replace('-', "_"),
    };
    for chosen in 0..1_usize << all.len() {
        let is_chosen = |at: usize| chosen >> at & 1 == 1;
        let flags: u16 = (0..all.len()).filter(|at| is_chosen(*at)).map(|at| 1 << Properties::ALL[at].bit).sum();
        let mut octets = flags.to_be_bytes().to_vec();
        let mut fields = Vec::new();
        for (at, vector) in all.iter().enumerate() {
            if is_chosen(at) {
                octets.extend_from_slice(&vector.octets);
                fields.push(format!("{}: Some({})", field(vector), vector.value));
            } else {
                fields.push(format!("{}: None", field(vector)));
            }
        }
        let expected = format!("Properties {{ {} }}", fields.join(", "));
        match RawProperties::new(Bytes::copy_from_slice(&octets)).decode() {
            Err(error) => wrong.push(format!("{chosen:014b}: {error}")),
            Ok(properties) => {
                let written = encoded(|out| properties.encode(out).unwrap());
                if format!("{properties:?}") != expected || written != octets {
                    wrong.push(format!("{chosen:014b}: {properties:?}, written as {written:02x?}"));
                }
            }
        }
        if chosen.count_ones() <= 2 || chosen + 1 == 1 << all.len() {
            for cut in 0..octets.len() {
                let cut_off = Bytes::copy_from_slice(&octets[..cut]);
                check_cut(&format!("{chosen:014b}"), cut, RawProperties::new(cut_off).decode(), &mut wrong);
            }
        }
    }
    assert_same(&wrong);
}

#[test]
fn every_field_type_has_vectors() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for Vector { line, name, octets, value } in vectors("fields") {
        match FieldTable::decode(&octets) {
            Err(error) => wrong.push(format!("{line}: {name}: {error}")),
            Ok(table) => {
                if format!("{table:?}") != format!("{{\"k\": {value}}}") {
                    wrong.push(format!("{line}: {name}: {value} is read as {table:?}"));
                }
                let written = encoded(|out| table.encode(out).unwrap());
                if written[4..] != octets {
                    wrong.push(format!("{line}: {name} is written as {written:02x?}"));
                }
            }
        }
        for cut in 1..octets.len() {
            check_cut(&name, cut, FieldTable::decode(&octets.slice(..cut)), &mut wrong);
        }
        seen.insert(name);
    }
    let types = read("spec/field-types");
    let written = lines(&types).filter(|(_, line)| line.contains(" written ")).map(|(_, line)| line[..1].to_owned());
    assert_eq!(seen, written.collect());
    assert_same(&wrong);
}

#[test]
fn every_kind_of_frame_has_vectors() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for Vector { line, name, octets, value } in vectors("frames") {
        let mut rest = octets.clone();
        match Frame::decode(&mut rest, ROOM) {
            Ok(Some(frame)) if rest.is_empty() => {
                let written = encoded(|out| frame.encode(out, ROOM).unwrap());
                if format!("{frame:?}") != value || written != octets {
                    wrong.push(format!("{line}: {name}: {frame:?}, written as {written:02x?}"));
                }
            }
            other => wrong.push(format!("{line}: {name}: {other:?}")),
        }
        for cut in 0..octets.len() {
            let decoded = Frame::decode(&mut octets.slice(..cut), ROOM);
            if decoded != Ok(None) {
                wrong.push(format!("{line}: {name}, cut at {cut}: {decoded:?}"));
            }
        }
        seen.insert(name);
    }
    assert_eq!(seen, ["body", "header", "heartbeat", "method"].map(str::to_owned).into());
    assert_same(&wrong);
}

#[test]
fn what_is_broken_fails_with_its_error_at_its_offset() {
    let mut wrong = Vec::new();
    let mut kinds = BTreeSet::new();
    for Vector { line, name, octets, value } in vectors("broken") {
        let (reader, _) = name.split_once(": ").unwrap();
        let error = match reader {
            "frame" => Frame::decode(&mut octets.clone(), ROOM).err(),
            "method" => Method::decode(&octets).err(),
            "header" => ContentHeader::decode(&octets).err(),
            "properties" => RawProperties::new(octets).decode().err(),
            "table" => FieldTable::decode(&octets).err(),
            "protocol-header" => ProtocolHeader::decode(octets.as_ref().try_into().unwrap()).err(),
            other => panic!("{line}: nothing reads {other}"),
        };
        let found = error.map(|error| format!("{:?} at {}", error.kind(), error.offset()));
        if found.as_ref() != Some(&value) {
            wrong.push(format!("{line}: {name}: {found:?} and not {value}"));
        }
        kinds.insert(value.split([' ', '(']).next().unwrap().to_owned());
    }
    assert_same(&wrong);
    // TooDeep is put together below: by hand it would be long.
    let all = ["BadHeartbeat", "ContentClass", "FrameEnd", "FrameTooLarge", "NotAProtocolHeader", "Truncated"];
    assert_eq!(
        kinds,
        all.into_iter().chain(["UnknownFieldType", "UnknownFrameType", "UnknownMethod"]).map(str::to_owned).collect()
    );
}

/// c68
#[test]
fn a_table_may_be_as_deep_as_the_limit_and_no_deeper() {
    let nested = |depth: usize| {
        (1..depth).fold(b"\x01kV".to_vec(), |inner, _| {
            [b"\x01kF".as_slice(), &u32::try_from(inner.len()).unwrap().to_be_bytes(), &inner].concat()
        })
    };
    assert!(FieldTable::decode(&nested(MAX_DEPTH).into()).is_ok());
    let error = FieldTable::decode(&nested(MAX_DEPTH + 1).into()).unwrap_err();
    // Each level takes seven octets; the tag of the one too many stands behind its name.
    assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::TooDeep, (MAX_DEPTH - 1) * 7 + 2));
}

/// Frames that a RabbitMQ has said (`captured`): each is read, has the name it had, and is written with the same octets.
#[test]
fn what_rabbitmq_says_is_read_and_written_the_same() {
    let (mut wrong, mut names) = (Vec::new(), BTreeSet::new());
    for Vector { line, name, octets, value } in vectors("rabbitmq-3.10") {
        let mut rest = octets.clone();
        match Frame::decode(&mut rest, 131_072) {
            Ok(Some(frame)) if rest.is_empty() => {
                let written = encoded(|out| frame.encode(out, 131_072).unwrap());
                if super::captured::name_of(&frame) != name || format!("{frame:?}") != value || written != octets {
                    wrong.push(format!("{line}: {name}: {frame:?}, written as {written:02x?}"));
                }
            }
            other => wrong.push(format!("{line}: {name}: {other:?}")),
        }
        names.insert(name);
    }
    assert_same(&wrong);
    assert!(names.len() > 35, "{names:?}");
}
