//! What the fuzz targets in `fuzz/` assert. It stands here so that `cargo test` can replay their seeds; nobody else calls it.
//!
//! Every function takes any octets. It returns when the codec did what it promises, and panics when it did not: that is how
//! a fuzzer learns of it. Values are compared by what they encode to, because a NaN is not equal to itself.

use bytes::Bytes;

#[cfg(feature = "arbitrary")]
use super::UncheckedFrame;
use super::method::basic;
use super::{
    AckView, ContentHeader, DecodeError, DecodeErrorKind, DeliverView, Encoder, FRAME_OVERHEAD, FieldTable, Frame,
    FrameType, Method, Properties, RawFrame, RawProperties, frame_head, short_string, write_frame,
};

/// Small enough that a fuzzer finds the frames that are larger.
const MAX_PAYLOAD: usize = 4096 - FRAME_OVERHEAD;

/// A stream of frames: both readers agree, a prefix is no frame, and what is read is written with the same octets.
pub fn frame(data: &[u8]) {
    let mut buffer = Bytes::copy_from_slice(data);
    loop {
        let before = buffer.clone();
        match (RawFrame::split(&before, MAX_PAYLOAD), Frame::decode(&mut buffer, MAX_PAYLOAD)) {
            (Ok(Some(raw)), Ok(Some(frame))) => {
                assert_eq!(buffer, before.slice(raw.wire_len()..));
                for cut in (0..FRAME_OVERHEAD).chain([raw.wire_len() - 1]) {
                    assert_eq!(RawFrame::split(&before.slice(..cut), MAX_PAYLOAD), Ok(None));
                }
                frame_encodes(&frame, raw);
            }
            (Ok(Some(raw)), Err(error)) => {
                assert!(matches!(raw.kind, FrameType::Method | FrameType::Header), "{raw:?}: {error}");
                error_is_sound(&error, raw.payload);
                assert_eq!(buffer, before);
                buffer = before.slice(raw.wire_len()..);
            }
            (Ok(None), Ok(None)) => return assert_eq!(buffer, before),
            (Err(split), Err(decode)) => {
                error_is_sound(&split, data);
                return assert_eq!(split, decode);
            }
            (split, decode) => unreachable!("one reader says {split:?}, the other {decode:?}"),
        }
    }
}

fn frame_encodes(frame: &Frame, raw: RawFrame<'_>) {
    let payload = match frame {
        Frame::Method(_, method) => encoded_method(method),
        Frame::Header(_, header) => encoded_header(header),
        Frame::Body(..) | Frame::Heartbeat => raw.payload.to_vec(),
    };
    let mut expected = frame_head(raw.kind, raw.channel, u32::try_from(payload.len()).unwrap_or(u32::MAX)).to_vec();
    expected.extend_from_slice(&payload);
    expected.push(0xCE);

    let mut out = Vec::new();
    assert_eq!(frame.encode(&mut out, MAX_PAYLOAD), Ok(()));
    assert_eq!(out, expected);
}

/// Frames made of what the fuzzer says, legal and illegal ones: what is written is read as the same again, through the door that
/// checks and through the one that does not.
#[cfg(feature = "arbitrary")]
pub fn values(data: &[u8]) {
    let mut u = ::arbitrary::Unstructured::new(data);
    while !u.is_empty() {
        let (Ok(frame), Ok(illegal)) = (u.arbitrary::<Frame>(), u.arbitrary::<UncheckedFrame>()) else { return };
        let mut octets = Vec::new();
        assert_eq!(frame.encode(&mut octets, usize::MAX), Ok(()));
        let mut unchecked = Vec::new();
        UncheckedFrame::from(&frame).write_unchecked(&mut unchecked);
        assert_eq!(octets, unchecked);
        let mut rest = Bytes::from(octets);
        assert_eq!(Frame::decode(&mut rest, usize::MAX), Ok(Some(frame)));
        assert!(rest.is_empty());

        unchecked.clear();
        illegal.write_unchecked(&mut unchecked);
        let mut rest = Bytes::from(unchecked);
        let read = UncheckedFrame::read_unchecked(&mut rest);
        if illegal.size.is_none_or(|size| usize::try_from(size) == Ok(illegal.payload.len())) {
            assert_eq!(read, Some(UncheckedFrame { size: None, ..illegal }));
            assert!(rest.is_empty());
        }
    }
}

/// The payload of a method frame: what is read is written with the same octets but for what carries no meaning, one octet
/// less is too short, and the views that are read in place see what the decoder sees.
pub fn method(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let decoded = Method::decode(&payload);
    let view_is_whole = match data.split_first_chunk() {
        Some((&DeliverView::ID, fields)) => Some(DeliverView::parse(fields).is_ok()),
        Some((&(AckView::ACK | AckView::NACK), fields)) => Some(AckView::parse(fields).is_ok()),
        _ => None,
    };
    assert!(view_is_whole.is_none_or(|whole| whole == decoded.is_ok()), "the view and the decoder disagree");
    let method = match decoded {
        Ok(method) => method,
        Err(error) => return error_is_sound(&error, data),
    };

    let octets = encoded_method(&method);
    let same = |(&read, &written): (&u8, &u8)| {
        same_in_a_table(read, written) || (1..8).any(|bits| written == read & ((1 << bits) - 1))
    };
    assert!(octets.len() <= data.len() && data.iter().zip(&octets).all(same), "{method:?} became {octets:02x?}");

    let octets = Bytes::from(octets);
    let again = Method::decode(&octets);
    assert_eq!(again.as_ref().map(encoded_method).as_deref(), Ok(&octets[..]));
    let shorter = Method::decode(&octets.slice(..octets.len() - 1));
    assert!(shorter.is_err_and(|error| matches!(error.kind(), DecodeErrorKind::Truncated { .. })));

    if let Method::Basic(method) = &method {
        views_agree(method);
    }
}

fn encoded_method(method: &Method) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(method.encode(&mut out), Ok(()));
    out
}

fn views_agree(method: &basic::Method) {
    let mut fields = Vec::new();
    assert_eq!(method.encode(&mut Encoder::new(&mut fields)), Ok(()));
    match method {
        basic::Method::Deliver(method) => {
            let view = DeliverView::parse(&fields);
            let seen = view.as_ref().map(|view| (view.consumer_tag, view.delivery_tag, view.redelivered));
            assert_eq!(seen, Ok((method.consumer_tag.as_bytes(), method.delivery_tag, method.redelivered)));
            let address = view.ok().and_then(|view| {
                let (exchange, rest) = short_string(view.address)?;
                Some((exchange, short_string(rest)?))
            });
            let (exchange, routing_key) = (method.exchange.as_bytes(), method.routing_key.as_bytes());
            assert_eq!(address, Some((exchange, (routing_key, &[][..]))));
        }
        basic::Method::Ack(basic::Ack { delivery_tag, multiple })
        | basic::Method::Nack(basic::Nack { delivery_tag, multiple, .. }) => {
            let seen = AckView::parse(&fields).map(|view| (view.delivery_tag, view.multiple));
            assert_eq!(seen, Ok((*delivery_tag, *multiple)));
        }
        _ => {}
    }
}

/// The payload of a header frame: it is written as it came, the weight aside, and its properties survive being decoded.
pub fn content_header(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let header = match ContentHeader::decode(&payload) {
        Ok(header) => header,
        Err(error) => return error_is_sound(&error, data),
    };
    let octets = encoded_header(&header);
    let without_weight = |(at, &octet): (usize, &u8)| if matches!(at, 2 | 3) { 0 } else { octet };
    assert!(octets.iter().copied().eq(data.iter().enumerate().map(without_weight)), "{data:02x?} became {octets:02x?}");
    assert_eq!(ContentHeader::decode(&octets.into()), Ok(header.clone()));

    let raw = &header.properties;
    let without_headers = raw.decode_without_headers();
    let properties = match raw.decode() {
        Ok(properties) => properties,
        Err(error) => return error_is_sound(&error, raw.as_bytes()),
    };
    assert_eq!(without_headers, Ok(Properties { headers: None, ..properties.clone() }));

    let octets = encoded_properties(&properties);
    assert!(octets.len() <= raw.as_bytes().len());
    let canonical = RawProperties::new(octets.clone().into());
    assert_eq!(canonical.decode().as_ref().map(encoded_properties), Ok(octets));

    let (mut direct, mut framed) = (Vec::new(), Vec::new());
    let written = write_frame(&mut direct, FrameType::Header, 1, usize::MAX, "content header", |out| {
        ContentHeader::write(out, header.body_size, Some(&properties))
    });
    assert_eq!(written, Ok(()));
    let frame = Frame::Header(1, ContentHeader { body_size: header.body_size, properties: canonical });
    assert_eq!(frame.encode(&mut framed, usize::MAX), Ok(()));
    assert_eq!(direct, framed);
}

fn encoded_header(header: &ContentHeader) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(&mut out);
    out
}

fn encoded_properties(properties: &Properties) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(properties.encode(&mut out), Ok(()));
    out
}

/// The entries of a table: what is read is written with the same octets, but for `L` and the octets of true.
pub fn table(data: &[u8]) {
    let table = match FieldTable::decode(&Bytes::copy_from_slice(data)) {
        Ok(table) => table,
        Err(error) => return error_is_sound(&error, data),
    };
    let octets = encoded_table(&table);
    let same = |(&read, &written): (&u8, &u8)| same_in_a_table(read, written);
    assert!(octets.len() == data.len() && data.iter().zip(&octets).all(same), "{data:02x?} became {octets:02x?}");
    let again = FieldTable::decode(&octets.clone().into());
    assert_eq!(again.as_ref().map(encoded_table), Ok(octets));
}

/// Without the length, which is checked here.
fn encoded_table(table: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(table.encode(&mut out), Ok(()));
    let entries = out.split_off(4);
    assert_eq!(Ok(entries.len()), <[u8; 4]>::try_from(out).map(|length| u32::from_be_bytes(length) as usize));
    entries
}

/// Whether an octet of a table may be written as another: `L` as `l`, any true as 1.
fn same_in_a_table(read: u8, written: u8) -> bool {
    read == written || (read, written) == (b'L', b'l') || (read != 0 && written == 1)
}

/// An error points into what was decoded, and says more is needed than is there when it says so at all.
fn error_is_sound(error: &DecodeError, data: &[u8]) {
    assert!(error.offset() <= data.len(), "{error} in {} octets", data.len());
    if let DecodeErrorKind::Truncated { needed, available } = *error.kind() {
        assert!(needed > available && error.offset() + available <= data.len(), "{error} in {} octets", data.len());
    }
    assert!(!error.to_string().is_empty());
}
