//! Messages in every shape of frames, against a model that knows nothing but what may follow what.

use proptest::prelude::*;

use super::*;
use crate::codec::{ContentHeader, Properties};

const MAX_BODY: u64 = 40_000;

/// What comes for a channel.
#[derive(Clone, Debug)]
enum Came {
    Method {
        exchange: &'static str,
        routing_key: &'static str,
    },
    Header {
        size: u64,
        message_id: Option<&'static str>,
    },
    Body {
        length: usize,
        in_place: bool,
    },
    /// Not a header at all.
    Broken,
    Reset,
}

fn came() -> impl Strategy<Value = Came> {
    let name = prop::sample::select(vec!["", "a", "a longer name"]);
    let length = prop::sample::select(vec![0, 1, 5, 16_384, 20_000]);
    prop_oneof![
        3 => (name.clone(), name).prop_map(|(exchange, routing_key)| Came::Method { exchange, routing_key }),
        3 => (prop::sample::select(vec![0, 1, 5, 6, 10, 16_384, 20_000, MAX_BODY, MAX_BODY + 1, u64::MAX]), any::<bool>())
            .prop_map(|(size, id)| Came::Header { size, message_id: id.then_some("id") }),
        6 => (length, any::<bool>()).prop_map(|(length, in_place)| Came::Body { length, in_place }),
        1 => Just(Came::Broken),
        1 => Just(Came::Reset),
    ]
}

fn header(size: u64, message_id: Option<&str>) -> (Vec<u8>, Properties) {
    let properties = Properties { message_id: message_id.map(Into::into), ..Properties::default() };
    let mut octets = Vec::new();
    ContentHeader::write(&mut octets, size, Some(&properties)).unwrap();
    (octets, properties)
}

fn address(exchange: &str, routing_key: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for part in [exchange, routing_key] {
        octets.push(u8::try_from(part.len()).unwrap());
        octets.extend_from_slice(part.as_bytes());
    }
    octets
}

/// What an assembler has said, in memory of its own.
fn kept<M>(found: Result<Option<(M, Whole<'_>)>, ContentError>) -> Result<Option<(M, Content)>, ContentError> {
    Ok(found?.map(|(method, whole)| (method, whole.into_content())))
}

/// What the model has of the message that is under way.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Model {
    #[default]
    Idle,
    Header {
        serial: u32,
        exchange: &'static str,
        routing_key: &'static str,
    },
    Body {
        serial: u32,
        exchange: &'static str,
        routing_key: &'static str,
        properties: Properties,
        body: Vec<u8>,
        size: u64,
    },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes, in whatever order: the messages are those whose frames came in order and made up what was announced, and
    /// everything else is an error with its code.
    #[test]
    fn agrees_with_a_list(all in prop::collection::vec(came(), 0..30)) {
        let mut assembler = Assembler::new();
        let mut model = Model::default();
        for (serial, came) in (0_u32..).zip(all) {
            let octet = u8::try_from(serial).unwrap();
            let (found, expected) = match came {
                Came::Method { exchange, routing_key } => {
                    prop_assert_eq!(assembler.is_idle(), matches!(model, Model::Idle));
                    if !assembler.is_idle() {
                        // Whoever owns it refuses the method.
                        continue;
                    }
                    assembler.begin(serial, &address(exchange, routing_key));
                    model = Model::Header { serial, exchange, routing_key };
                    continue;
                }
                Came::Reset => {
                    assembler.reset();
                    model = Model::Idle;
                    continue;
                }
                Came::Broken => {
                    let found = kept(assembler.header(b"\0\x3c", MAX_BODY));
                    let expected = match std::mem::take(&mut model) {
                        Model::Header { .. } => Err(ReplyCode::FRAME_ERROR),
                        _ => Err(ReplyCode::UNEXPECTED_FRAME),
                    };
                    (found, expected)
                }
                Came::Header { size, message_id } => {
                    let (octets, properties) = header(size, message_id);
                    let found = kept(assembler.header(&octets, MAX_BODY));
                    let expected = match std::mem::take(&mut model) {
                        Model::Header { .. } if size > MAX_BODY => Err(ReplyCode::CONTENT_TOO_LARGE),
                        Model::Header { serial, exchange, routing_key } if size == 0 => {
                            Ok(Some((serial, exchange, routing_key, properties, Vec::new())))
                        }
                        Model::Header { serial, exchange, routing_key } => {
                            model = Model::Body { serial, exchange, routing_key, properties, body: Vec::new(), size };
                            Ok(None)
                        }
                        _ => Err(ReplyCode::UNEXPECTED_FRAME),
                    };
                    (found, expected)
                }
                Came::Body { length, in_place } => {
                    let octets = vec![octet; length];
                    let payload = match in_place {
                        true => Incoming::Kept(octets.clone().into()),
                        false => Incoming::Borrowed(&octets),
                    };
                    let found = kept(assembler.body(payload));
                    let expected = match std::mem::take(&mut model) {
                        Model::Body { serial, exchange, routing_key, properties, mut body, size } => {
                            body.extend_from_slice(&octets);
                            match size.cmp(&(body.len() as u64)) {
                                std::cmp::Ordering::Less => Err(ReplyCode::FRAME_ERROR),
                                std::cmp::Ordering::Equal => Ok(Some((serial, exchange, routing_key, properties, body))),
                                std::cmp::Ordering::Greater => {
                                    model = Model::Body { serial, exchange, routing_key, properties, body, size };
                                    Ok(None)
                                }
                            }
                        }
                        _ => Err(ReplyCode::UNEXPECTED_FRAME),
                    };
                    (found, expected)
                }
            };
            match (found, expected) {
                (Ok(None), Ok(None)) => {}
                (Err(error), Err(code)) => prop_assert_eq!(error.reply_code(), code),
                (Ok(Some((serial, content))), Ok(Some(expected))) => {
                    let address = (content.exchange().to_string(), content.routing_key().to_string());
                    prop_assert_eq!((serial, address), (expected.0, (expected.1.to_owned(), expected.2.to_owned())));
                    prop_assert_eq!(content.properties().decode(), Ok(expected.3));
                    prop_assert!(content.body() == expected.4);
                    prop_assert!(content.clone().into_body() == expected.4);
                    prop_assert!(content.len() >= expected.4.len());
                }
                (found, expected) => prop_assert!(false, "{:?} and not {:?}", found, expected),
            }
        }
    }
}

/// What came of a message that went wrong is no part of the next.
#[test]
fn nothing_is_left_of_a_message_that_went_wrong() {
    let mut assembler = Assembler::new();
    let body = |assembler: &mut Assembler<u32>, octets| kept(assembler.body(Incoming::Borrowed(octets)));
    assembler.begin(1, &address("", ""));
    assembler.header(&header(10, None).0, MAX_BODY).unwrap();
    assert_eq!(body(&mut assembler, b"first"), Ok(None));
    assert_eq!(body(&mut assembler, b"too much"), Err(ContentError::Overflow));
    assembler.begin(2, &address("", ""));
    assembler.header(&header(6, None).0, MAX_BODY).unwrap();
    let (serial, content) = body(&mut assembler, b"second").unwrap().unwrap();
    assert_eq!((serial, content.body()), (2, &b"second"[..]));
}

/// A body in many pieces has memory for what has come several times over, and in the end for itself.
#[test]
fn memory_grows_with_what_has_come_of_a_body() {
    let mut assembler = Assembler::new();
    for size in [100_000_u64, 10_000] {
        assembler.begin(1, &address("", ""));
        assembler.header(&header(size, None).0, size).unwrap();
        let mut whole = None;
        for came in 1..=size / 1000 {
            assert!(whole.is_none());
            whole = kept(assembler.body(Incoming::Borrowed(&[7; 1000]))).unwrap();
            let most = (came * 1000 * GROWTH).min(size) as usize;
            assert!(assembler.body.capacity() <= most, "{} octets for {most}", assembler.body.capacity());
        }
        let (_, content) = whole.unwrap();
        assert!(content.body() == vec![7; size as usize]);
        assert_eq!(content.apart.is_some(), size as usize >= KEEP_IN_PLACE_FROM);
    }
}
