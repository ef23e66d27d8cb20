//! Octets that are wrong wherever they come, with the code that whoever receives them answers with.

use leveret::codec::method::{basic, connection, queue};
use leveret::codec::{FieldTable, Frame, UncheckedFrame};

use crate::peer::{body, header, method, octets};

/// Tables in a table, as deep as it is long.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![1, b'k', b'F'];
        outer.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        outer.extend(table);
        table = outer;
    }
    table
}

/// A method of which only the table is of interest: `ids`, the octets before it, and its entries behind `length`.
fn with_table(number: u16, before: &[u8], length: u32, entries: &[u8]) -> Vec<u8> {
    let payload = [before, &length.to_be_bytes(), entries].concat();
    written(&UncheckedFrame::new(1, number, payload))
}

pub(crate) fn written(frame: &UncheckedFrame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.write_unchecked(&mut out);
    out
}

/// Wrong on every connection: what it is, the octets, and the code that a client answers with, and the broker.
pub(crate) fn of_frames() -> Vec<(&'static str, Vec<u8>, u16, u16)> {
    let frame = |kind, number, payload: &'static [u8]| UncheckedFrame::new(kind, number, payload);
    let ok = || frame(1, 0, &[0, 10, 0, 51]);
    vec![
        ("a frame of type 0", written(&frame(0, 0, b"")), 501, 501),
        ("a frame of type 4", written(&frame(4, 0, b"")), 501, 501),
        ("a frame of type 9", written(&frame(9, 0, b"")), 501, 501),
        ("a frame of type 255", written(&frame(255, 1, b"x")), 501, 501),
        ("a frame that ends in 0xCD", written(&UncheckedFrame { end: 0xCD, ..ok() }), 501, 501),
        ("a frame that ends in 0", written(&UncheckedFrame { end: 0, ..ok() }), 501, 501),
        ("a frame whose size is one too small", written(&UncheckedFrame { size: Some(3), ..ok() }), 501, 501),
        ("a frame of 4 GiB", written(&UncheckedFrame { size: Some(u32::MAX), ..ok() }), 501, 501),
        ("a frame of 2 GiB", written(&UncheckedFrame { size: Some(1 << 31), ..ok() }), 501, 501),
        ("a frame one octet too large", vec![1, 0, 0, 0, 1, 0xff, 0xf9], 501, 501),
        ("a heartbeat on a channel", written(&frame(8, 1, b"")), 501, 501),
        ("a heartbeat with a payload", written(&frame(8, 0, b"!")), 501, 501),
        ("a method frame of no octets", written(&frame(1, 0, b"")), 501, 501),
        ("a method frame of one octet", written(&frame(1, 0, b"\0")), 501, 501),
        ("a method frame of three octets", written(&frame(1, 0, &[0, 10, 0])), 501, 501),
        ("a method of no class", written(&frame(1, 0, &[0, 99, 0, 10])), 503, 540),
        ("an unknown method", written(&frame(1, 0, &[0, 10, 0, 99])), 503, 540),
        ("a close that is cut short", written(&frame(1, 0, &[0, 10, 0, 50, 0, 200, 5, b'x'])), 501, 501),
        ("text", b"Hello, I would like to speak AMQP with you.\r\n".to_vec(), 501, 501),
        ("0xFF, and nothing else", vec![0xff; 1000], 501, 501),
    ]
}

/// Tables that are none, in `start-ok` or in `start`: what it is, the octets, the code.
pub(crate) fn of_tables(before: &[u8], number: u16) -> Vec<(&'static str, Vec<u8>, u16)> {
    let (deep, deeper) = (nested(33), nested(5000));
    let length = |entries: &[u8]| u32::try_from(entries.len()).unwrap();
    let table = |entries: &[u8]| with_table(number, before, length(entries), entries);
    vec![
        ("a table of 33 levels", table(&deep), 502),
        ("a table of 5000 levels", table(&deeper), 502),
        ("a table that is longer than its frame", with_table(number, before, 1000, b"\x01kV"), 501),
        ("a table of 4 GiB", with_table(number, before, u32::MAX, b"\x01kV"), 501),
        ("a table with the tag U", table(b"\x01kU\0\0"), 502),
        ("a table with the tag 0", table(b"\x01k\0"), 502),
        ("a table whose string is longer than it", table(b"\x01kS\0\0\0\x09x"), 501),
        ("a table whose array is of 2 GiB", table(b"\x01kA\x80\0\0\0"), 501),
        ("a table whose table is of 4 GiB", table(b"\x01kF\xff\xff\xff\xff"), 501),
        ("a table whose name is longer than it", table(b"\xffk"), 501),
        ("a table that ends behind a name", table(b"\x01k"), 501),
        ("a table that ends in a number", table(b"\x01kl\0\0\0"), 501),
    ]
}

/// What may not stand on channel 0 of an open connection.
pub(crate) fn of_channel_zero() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a content header on channel 0", header(0, 1)),
        ("a body on channel 0", body(0, b"x")),
        ("a method of basic on channel 0", method(0, basic::QosOk {})),
        ("a method of queue on channel 0", method(0, queue::PurgeOk::default())),
    ]
}

/// Methods of the connection at a time when none of them is due, but for `due`.
pub(crate) fn of_the_handshake(due: &str, from_server: bool) -> Vec<(String, Vec<u8>)> {
    let server: [(&str, leveret::codec::Method); 7] = [
        ("connection.start", crate::peer::start().into()),
        ("connection.secure", connection::Secure::default().into()),
        ("connection.tune", crate::peer::TUNE.into()),
        ("connection.open-ok", connection::OpenOk::default().into()),
        ("connection.blocked", connection::Blocked::default().into()),
        ("connection.unblocked", connection::Unblocked {}.into()),
        ("connection.update-secret-ok", connection::UpdateSecretOk {}.into()),
    ];
    let client: [(&str, leveret::codec::Method); 5] = [
        ("connection.start-ok", connection::StartOk::default().into()),
        ("connection.secure-ok", connection::SecureOk::default().into()),
        ("connection.tune-ok", connection::TuneOk { frame_max: 8192, channel_max: 1, heartbeat: 0 }.into()),
        ("connection.open", connection::Open { virtual_host: "/".into(), ..Default::default() }.into()),
        ("connection.update-secret", connection::UpdateSecret::default().into()),
    ];
    let all = if from_server { server.to_vec() } else { client.to_vec() };
    all.into_iter()
        .filter(|(name, _)| *name != due)
        .map(|(name, said)| (format!("{name} where {due} is due"), method(0, said)))
        .collect()
}

/// A start-ok whose client properties are this table.
pub(crate) fn start_ok(table: FieldTable) -> connection::StartOk {
    connection::StartOk {
        client_properties: table,
        mechanism: "PLAIN".into(),
        response: "\0guest\0guest".into(),
        locale: "en_US".into(),
    }
}

/// Heartbeats, as many as asked for.
pub(crate) fn heartbeats(count: usize) -> Vec<u8> {
    octets(&[Frame::Heartbeat]).repeat(count)
}
