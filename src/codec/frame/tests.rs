//! Holds frames against octets written by hand: cut anywhere, too large, wrongly ended, and what may not be written.

use super::*;
use crate::codec::method::{basic, channel, queue};
use crate::codec::{FieldTable, RawProperties};

const LIMIT: usize = 4096 - FRAME_OVERHEAD;

/// channel.open on channel 3; a content header of five octets with priority 9; a body; a heartbeat.
fn samples() -> [(&'static [u8], Frame); 4] {
    let properties = RawProperties::new(Bytes::from_static(&[0x08, 0, 9]));
    [
        (b"\x01\0\x03\0\0\0\x05\0\x14\0\x0a\0\xce", Frame::Method(3, channel::Open::default().into())),
        (
            b"\x02\0\x03\0\0\0\x0f\0\x3c\0\0\0\0\0\0\0\0\0\x05\x08\0\x09\xce",
            Frame::Header(3, ContentHeader { body_size: 5, properties }),
        ),
        (b"\x03\xff\xff\0\0\0\x05hello\xce", Frame::Body(65_535, Bytes::from_static(b"hello"))),
        (b"\x08\0\0\0\0\0\0\xce", Frame::Heartbeat),
    ]
}

fn decode(octets: &[u8]) -> Result<Option<Frame>, DecodeError> {
    Frame::decode(&mut Bytes::copy_from_slice(octets), LIMIT)
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out, LIMIT).unwrap();
    out
}

/// c23, c24: the four types, both ways.
#[test]
fn c23_frames_read_and_write_the_octets_of_the_specification() {
    for (octets, frame) in samples() {
        assert_eq!(encoded(&frame), octets);
        assert_eq!(decode(octets), Ok(Some(frame)));
    }
}

/// c34: TCP cuts where it likes. No prefix is a frame, none is an error, and what follows is left alone.
#[test]
fn c34_a_frame_cut_anywhere_is_none_and_then_the_frame() {
    for (octets, frame) in samples() {
        for cut in 0..octets.len() {
            let mut buffer = Bytes::copy_from_slice(&octets[..cut]);
            assert_eq!(RawFrame::split(&buffer, LIMIT), Ok(None), "{frame:?} cut at {cut}");
            assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(None), "{frame:?} cut at {cut}");
            assert_eq!(buffer.len(), cut, "nothing is taken before the frame is whole");
        }
        let mut buffer = Bytes::from([octets, b"\x08rest"].concat());
        assert_eq!(RawFrame::split(&buffer, LIMIT).unwrap().unwrap().wire_len(), octets.len());
        assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(Some(frame)));
        assert_eq!(buffer, b"\x08rest"[..]);
    }
}

/// c34: frames in one buffer come out one after the other.
#[test]
fn c34_frames_stand_back_to_back() {
    let (octets, frames): (Vec<_>, Vec<_>) = samples().into_iter().unzip();
    let mut buffer = Bytes::from(octets.concat());
    for frame in frames {
        assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(Some(frame)));
    }
    assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(None));
}

/// c23: the octet behind the payload is checked, whatever the payload says.
#[test]
fn c23_a_wrong_end_octet_is_an_error() {
    for (octets, _) in samples() {
        let mut octets = octets.to_vec();
        *octets.last_mut().unwrap() = 0xCD;
        let error = decode(&octets).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::FrameEnd(0xCD), octets.len() - 1));
        assert_eq!(RawFrame::split(&octets, LIMIT), Err(error));
    }
}

/// c24: a heartbeat is 8; the 4 of the printed grammar is as unknown as any other, and known to be so by its first octet.
#[test]
fn c24_unknown_types_are_errors_at_once() {
    for octet in (0..=255).filter(|octet| ![1, 2, 3, 8].contains(octet)) {
        for octets in [&[octet][..], &[octet, 0, 0, 0, 0, 0, 0], &[octet, 0, 0, 0, 0, 0, 0, 0xCE]] {
            let error = decode(octets).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::UnknownFrameType(octet), 0));
        }
    }
}

/// c25, c27: the limit is the payload's, and a larger one is refused with the head alone, before anything is made room for.
#[test]
fn c25_a_frame_over_the_limit_is_refused_before_its_payload_arrives() {
    let head = |kind, size| frame_head(kind, 1, u32::try_from(size).unwrap());
    for kind in [FrameType::Method, FrameType::Header, FrameType::Body] {
        assert_eq!(RawFrame::split(&head(kind, LIMIT), LIMIT), Ok(None));
        let error = RawFrame::split(&head(kind, LIMIT + 1), LIMIT).unwrap_err();
        assert_eq!(*error.kind(), DecodeErrorKind::FrameTooLarge { size: LIMIT + 1, limit: LIMIT });
        assert_eq!((error.what(), error.offset()), ("frame size", 3));
    }
    let largest = Frame::Body(1, Bytes::from(vec![7; LIMIT]));
    let octets = encoded(&largest);
    assert_eq!((octets.len(), decode(&octets)), (4096, Ok(Some(largest))));
}

/// c28: without a limit a frame of 4 GiB is only a promise: nothing is allocated for it, more octets are waited for.
#[test]
fn c28_a_size_without_a_limit_is_waited_for() {
    let head = frame_head(FrameType::Body, 1, u32::MAX);
    let mut buffer = Bytes::copy_from_slice(&head);
    assert_eq!(Frame::decode(&mut buffer, usize::MAX), Ok(None));
    assert_eq!(buffer, head[..]);
}

/// c37: type 8, channel 0, nothing in it: eight octets.
#[test]
fn c37_a_heartbeat_is_eight_octets() {
    assert_eq!(Frame::HEARTBEAT, [8, 0, 0, 0, 0, 0, 0, 0xCE]);
    assert_eq!(encoded(&Frame::Heartbeat), Frame::HEARTBEAT);
}

/// c38: a heartbeat on a channel, or with something in it.
#[test]
fn c38_other_heartbeats_are_errors() {
    for octets in
        [&b"\x08\0\x01\0\0\0\0\xce"[..], b"\x08\x01\0\0\0\0\0\xce", b"\x08\0\0\0\0\0\x01x\xce", b"\x08\0\0\0\0\0\x01"]
    {
        let error = decode(octets).unwrap_err();
        assert_eq!((error.kind(), error.what()), (&DecodeErrorKind::BadHeartbeat, "heartbeat"));
    }
}

/// c26, c76: a method or a header that does not fit is refused here and not by the server, and leaves no half of it behind.
#[test]
fn c26_what_does_not_fit_is_not_written() {
    let table = FieldTable::new().with("k", "x".repeat(LIMIT));
    let method = queue::Declare { arguments: table.clone(), ..Default::default() };
    let mut properties = Vec::new();
    crate::codec::Properties { headers: Some(table), ..Default::default() }.encode(&mut properties).unwrap();
    let header = ContentHeader { body_size: 0, properties: RawProperties::new(properties.into()) };
    for (frame, what, size) in [
        (Frame::Method(1, method.into()), "queue.declare", LIMIT + 19),
        (Frame::Header(1, header), "content header", LIMIT + 25),
        (Frame::Body(1, Bytes::from(vec![0; LIMIT + 1])), "body frame", LIMIT + 1),
    ] {
        let mut out = b"before".to_vec();
        let error = frame.encode(&mut out, LIMIT).unwrap_err();
        assert_eq!(*error.kind(), EncodeErrorKind::FrameTooLarge { size, limit: LIMIT });
        assert_eq!((error.what(), &out[..]), (what, &b"before"[..]));
        assert!(frame.encode(&mut out, size).is_ok());
    }
}

/// c26, c61, c68: nor does a value that cannot be written leave anything behind.
#[test]
fn c26_an_error_in_a_field_leaves_the_buffer_as_it_was() {
    let deep = (0..40).fold(FieldTable::new(), |inner, _| FieldTable::new().with("k", inner));
    for method in [
        Method::from(basic::Publish {
            exchange: "e".into(),
            routing_key: "k".repeat(256).into(),
            ..Default::default()
        }),
        queue::Declare { arguments: deep, ..Default::default() }.into(),
    ] {
        let mut out = b"before".to_vec();
        assert!(Frame::Method(1, method).encode(&mut out, LIMIT).is_err());
        assert_eq!(out, b"before");
    }
}

/// c35: a method frame of 0 to 3 octets is well formed as a frame and too short as a method.
#[test]
fn c35_an_undersized_method_frame_is_truncated() {
    for size in 0..4u8 {
        let octets = [&[1, 0, 0, 0, 0, 0, size], &b"\0\x0a\0"[..usize::from(size)], &[0xCE]].concat();
        assert!(RawFrame::split(&octets, LIMIT).unwrap().is_some());
        assert!(matches!(decode(&octets).unwrap_err().kind(), DecodeErrorKind::Truncated { .. }));
    }
}

/// c36: octets behind a method's last field are stepped over, and the next frame is found.
#[test]
fn c36_trailing_octets_do_not_move_the_next_frame() {
    let mut buffer = Bytes::from([&b"\x01\0\x03\0\0\0\x08\0\x14\0\x0a\0abc\xce"[..], &Frame::HEARTBEAT].concat());
    assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(Some(Frame::Method(3, channel::Open::default().into()))));
    assert_eq!(Frame::decode(&mut buffer, LIMIT), Ok(Some(Frame::Heartbeat)));
}

/// c84, c86: an empty body frame is a frame.
#[test]
fn c86_a_body_frame_may_be_empty() {
    assert_eq!(decode(b"\x03\0\x01\0\0\0\0\xce"), Ok(Some(Frame::Body(1, Bytes::new()))));
}

/// A frame whose payload is broken is not taken off the buffer.
#[test]
fn a_broken_payload_stays_in_the_buffer() {
    let octets = b"\x01\0\x01\0\0\0\x04\0\x0b\0\x0a\xce";
    let mut buffer = Bytes::from_static(octets);
    let error = Frame::decode(&mut buffer, LIMIT).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::UnknownMethod { class: 11, method: 10 });
    assert_eq!(buffer, octets[..]);
}

/// The payload of a frame is shared with the buffer.
#[test]
fn a_body_is_a_slice_of_the_input() {
    let mut buffer = Bytes::from_static(b"\x03\0\x01\0\0\0\x02hi\xce");
    let payload = buffer[7..].as_ptr();
    let Ok(Some(Frame::Body(1, body))) = Frame::decode(&mut buffer, LIMIT) else { panic!("no body") };
    assert_eq!(body.as_ptr(), payload);
}
