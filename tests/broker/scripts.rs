//! Scripts: every moment, every act, and the text.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly, and so may its helpers")]

use std::time::Duration;

use leveret::broker::{Act, Broker, ConfirmOrder, Moment, Script};
use leveret::codec::method::{basic, channel, confirm, connection, queue};
use leveret::codec::{Frame, Properties, ProtocolHeader};
use leveret::transport::Stream;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::raw::{MAX_PAYLOAD, PATIENCE, Raw, capabilities, content, mandatory, publish};

fn script(text: &str) -> Script {
    text.parse().unwrap()
}

/// A broker whose first connection has this script, and that connection.
async fn start(text: &str) -> (Broker, Raw) {
    let broker = Broker::start().await.unwrap();
    broker.script([script(text)]);
    let client = Raw::open(&broker).await;
    (broker, client)
}

async fn confirming(text: &str) -> (Broker, Raw) {
    let (broker, mut client) = start(text).await;
    client.send(1, confirm::Select { no_wait: false }).await;
    client.says(["confirm.select-ok"]).await;
    client.declare("q").await;
    (broker, client)
}

/// How many messages are in a queue, asked for by somebody else.
async fn count(broker: &Broker, queue: &str) -> u32 {
    let mut other = Raw::open(broker).await;
    other.send(1, queue::Declare { queue: queue.into(), ..Default::default() }).await;
    let line = other.next().await;
    line.split(' ').nth(2).unwrap().parse().unwrap()
}

// ------------------------------------------------------------------------------------------------------------ octets

/// A whole life in one piece: what a client says, with the place behind its message to the queue, which may be its own.
fn conversation(exclusive: bool) -> (Vec<u8>, usize) {
    let mut said = ProtocolHeader::AMQP_0_9_1.to_bytes().to_vec();
    let mut say = |frames: &[Frame]| {
        for frame in frames {
            frame.encode(&mut said, MAX_PAYLOAD).unwrap();
        }
        said.len()
    };
    let response = "\0guest\0guest".into();
    let login = connection::StartOk {
        client_properties: capabilities(),
        mechanism: "PLAIN".into(),
        response,
        locale: "en_US".into(),
    };
    say(&[
        Frame::Method(0, login.into()),
        Frame::Method(0, connection::TuneOk { channel_max: 9, frame_max: 131_072, heartbeat: 0 }.into()),
        Frame::Method(0, connection::Open { virtual_host: "/".into(), ..Default::default() }.into()),
        Frame::Method(1, channel::Open::default().into()),
        Frame::Method(1, confirm::Select { no_wait: false }.into()),
        Frame::Method(1, queue::Declare { queue: "q".into(), exclusive, ..Default::default() }.into()),
    ]);
    let published = say(&content(1, publish("", "q"), &Properties::new(), b"body"));
    say(&content(1, mandatory("", "nowhere"), &Properties::new(), b"back"));
    say(&[Frame::Method(0, connection::Close::default().into())]);
    (said, published)
}

/// Says everything at once, and hears everything until the end.
async fn hear(mut stream: Stream, said: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    timeout(PATIENCE, async {
        // It may be closed before everything is said.
        let _ = stream.write_all(said).await;
        let _ = stream.read_to_end(&mut heard).await;
    })
    .await
    .unwrap();
    heard
}

async fn over_tcp(broker: &Broker) -> Stream {
    Stream::tcp(TcpStream::connect(broker.local_addr()).await.unwrap()).unwrap()
}

/// The places behind each frame.
fn frame_ends(octets: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while let Some(head) = octets.get(at..at + 7) {
        at += 8 + u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        ends.push(at);
    }
    ends
}

#[tokio::test]
async fn what_is_sent_ends_at_any_octet() {
    let (said, _) = conversation(true);
    let broker = Broker::start().await.unwrap();
    let whole = hear(broker.connect(), &said).await;
    assert_eq!(whole, hear(over_tcp(&broker).await, &said).await);
    for count in 0..=whole.len() {
        broker.script([Script::new().at(Moment::Sent(count as u64), Act::Cut)]);
        let stream = if count % 3 == 0 { over_tcp(&broker).await } else { broker.connect() };
        assert_eq!(hear(stream, &said).await, whole[..count], "{count}");
    }
    for (count, end) in frame_ends(&whole).into_iter().enumerate() {
        broker.script([Script::new().at(Moment::FrameSent(count as u64), Act::Cut)]);
        assert_eq!(hear(broker.connect(), &said).await, whole[..end], "{count} frames");
    }
}

/// The same octets in pieces, however they are cut: nothing is lost, and nothing twice.
#[tokio::test]
async fn stalls_of_no_length_change_nothing() {
    let (said, _) = conversation(true);
    let broker = Broker::start().await.unwrap();
    let whole = hear(broker.connect(), &said).await;
    let mut everywhere = Script::new();
    for count in 0..1000 {
        everywhere = everywhere
            .at(Moment::Sent(count), Act::StallWriting(Some(Duration::ZERO)))
            .at(Moment::Received(count), Act::StallReading(Some(Duration::ZERO)));
    }
    broker.script([everywhere.clone(), everywhere]);
    assert_eq!(hear(broker.connect(), &said).await, whole);
    assert_eq!(hear(over_tcp(&broker).await, &said).await, whole);
}

#[tokio::test]
async fn what_is_received_ends_at_any_octet() {
    let (said, published) = conversation(false);
    for at in (0..=said.len()).filter(|at| at.abs_diff(published) < 3 || at % 10 == 0) {
        let broker = Broker::start().await.unwrap();
        broker.script([Script::new().at(Moment::Received(at as u64), Act::Cut)]);
        hear(if at % 3 == 0 { over_tcp(&broker).await } else { broker.connect() }, &said).await;
        assert_eq!(count(&broker, "q").await, u32::from(at >= published), "{at}");
    }
    let frames = frame_ends(&said[8..]).len() as u64 - 1;
    for at in 0..=frames {
        let broker = Broker::start().await.unwrap();
        broker.script([Script::new().at(Moment::FrameReceived(at), Act::Cut)]);
        hear(broker.connect(), &said).await;
        // Method, header and body are the frames 7 to 9.
        assert_eq!(count(&broker, "q").await, u32::from(at >= 9), "{at} frames");
    }
}

#[tokio::test]
async fn octets_of_ones_own() {
    let (said, _) = conversation(true);
    let broker = Broker::start().await.unwrap();
    let whole = hear(broker.connect(), &said).await;
    let ends = frame_ends(&whole);
    // Right there, even within a frame.
    broker.script([script("sent 3: send 616263; sent 3: send 64")]);
    assert_eq!(hear(broker.connect(), &said).await, [&whole[..3], b"abcd", &whole[3..]].concat());
    broker.script([script("frame sent 2: send ffff; sent 0: send 00")]);
    let expected = [b"\0", &whole[..ends[2]], b"\xff\xff", &whole[ends[2]..]].concat();
    assert_eq!(hear(broker.connect(), &said).await, expected);

    let (_broker, mut client) = start("published 1: send 08 00 00 00 00 00 00 ce; sent 100000: cut").await;
    client.publish("", "q", "1").await;
    client.says(["heartbeat"]).await;
    client.is_quiet().await;
}

// ------------------------------------------------------------------------------------------------------------- stalls

#[tokio::test(start_paused = true)]
async fn answers_come_late() {
    // open, channel.open and their answers are the third and the fourth.
    let (_broker, mut client) = start("frame sent 4: stall writing 300ms").await;
    let before = Instant::now();
    client.is_quiet().await;
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_millis(310), "{waited:?}");
    let before = Instant::now();
    client.is_quiet().await;
    assert!(before.elapsed() < Duration::from_millis(10), "once");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_is_read_late() {
    let (broker, mut client) = start("frame received 5: stall reading 300ms").await;
    client.declare("q").await;
    client.publish("", "q", "1").await;
    assert_eq!(count(&broker, "q").await, 0);
    let before = Instant::now();
    client.is_quiet().await;
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(count(&broker, "q").await, 1);
}

/// Not even an answer to `connection.close` comes, and the end of a deaf and mute connection is not heard; the broker's own end ends it.
#[tokio::test]
async fn stalled_for_ever() {
    let (broker, mut client) = start("frame sent 4: stall writing").await;
    client.send(0, connection::Close::default()).await;
    assert_eq!(count(&broker, "q").await, 0);
    client.hears_nothing().await;
    drop(broker);
    client.says(["end"]).await;
}

/// It neither reads nor writes, but once it has ended what comes yet is taken, and forgotten: the client would not hear of the end otherwise.
#[tokio::test(start_paused = true)]
async fn a_stalled_connection_that_has_ended_takes_what_comes() {
    let (broker, mut client) = start("frame sent 4: stall writing; frame sent 4: stall reading").await;
    broker.close_connections(320, "CONNECTION_FORCED");
    tokio::time::sleep(Duration::from_secs(31)).await;
    client.raw(&vec![0; 1024 * 1024]).await;
}

// -------------------------------------------------------------------------------------------------- closing, cancelling

#[tokio::test]
async fn a_connection_is_closed_with_any_code() {
    let (_broker, mut client) = confirming(r#"published 2: close connection 599 "because""#).await;
    client.publish("", "q", "1").await;
    client.says(["ack 1"]).await;
    client.publish("", "q", "2").await;
    client.says(["ack 2", "connection closed: 599 because (0.0)", "end"]).await;
}

#[tokio::test]
async fn channels_are_closed_with_any_code() {
    let (_broker, mut client) = start(r#"frame received 6: close channels 406 "PRECONDITION_FAILED - \"no\"""#).await;
    client.open_channel(2).await;
    client.send(1, basic::Qos::default()).await;
    let closed = "channel closed: 406 PRECONDITION_FAILED - \"no\" (0.0)";
    client.says(["basic.qos-ok", closed, &format!("2: {closed}")]).await;
    client.open_channel(1).await;
    client.is_quiet().await;
}

#[tokio::test]
async fn consumers_are_cancelled() {
    let (_broker, mut client) = start("delivered 2: cancel consumers").await;
    client.declare("q").await;
    for tag in ["b", "a"] {
        client.consume(1, "q", tag).await;
    }
    client.publish("", "q", "1").await;
    client.publish("", "q", "2").await;
    client.says(["deliver b 1 /q 1", "deliver a 2 /q 2", "cancel a no-wait", "cancel b no-wait"]).await;
    client.counts("q", 0, 0).await;
    client.ack(1, 2, true).await;
    client.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn blocked_for_a_time() {
    let (broker, mut client) = confirming(r#"published 1: block "low" 1s"#).await;
    client.publish("", "q", "1").await;
    client.says(["blocked low", "ack 1"]).await;
    let before = Instant::now();
    client.publish("", "q", "2").await;
    assert_eq!(count(&broker, "q").await, 1, "others are not blocked");
    client.says(["connection.unblocked", "ack 2"]).await;
    assert!(before.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn blocked_until_somebody_unblocks() {
    let (broker, mut client) = confirming(r#"frame received 6: block "low""#).await;
    client.says(["blocked low"]).await;
    client.publish("", "q", "1").await;
    assert_eq!(count(&broker, "q").await, 0);
    broker.unblock();
    client.says(["connection.unblocked", "ack 1"]).await;
}

// ---------------------------------------------------------------------------------------------------------- messages

#[tokio::test]
async fn messages_are_refused() {
    let (broker, mut client) = confirming("published 2: nack; published 3: return; published 4: cut").await;
    client.publish("", "q", "1").await;
    client.says(["ack 1"]).await;
    client.publish("", "q", "2").await;
    client.says(["nack 2"]).await;
    client.publish_with(1, mandatory("", "q"), &Properties::new(), b"3").await;
    client.says(["return 312 NO_ROUTE /q 3", "ack 3"]).await;
    client.publish("", "q", "4").await;
    client.says(["end"]).await;
    assert_eq!(count(&broker, "q").await, 2, "the fourth was taken, and not confirmed");
}

/// At a moment that is not a message's, the next one is meant.
#[tokio::test]
async fn the_next_message() {
    let (broker, mut client) = confirming("frame received 5: return; sent 0: lose confirm").await;
    client.publish_with(1, mandatory("", "q"), &Properties::new(), b"1").await;
    client.says(["return 312 NO_ROUTE /q 1"]).await;
    client.publish("", "q", "2").await;
    client.says(["ack 2"]).await;
    assert_eq!(count(&broker, "q").await, 1);
}

/// Which no `multiple` confirm covers, either.
#[tokio::test(start_paused = true)]
async fn confirms_are_lost_and_late() {
    let (broker, mut client) =
        confirming("published 2: lose confirm; published 4: delay confirm 50ms; published 5: nack; published 5: delay confirm 20ms")
            .await;
    let messages: Vec<Frame> =
        (1..=6).flat_map(|n: u8| content(1, publish("", "q"), &Properties::new(), &[b'0' + n])).collect();
    client.frames(&messages).await;
    let before = Instant::now();
    client.says(["ack 1", "ack 3", "ack 6", "nack 5", "ack 4"]).await;
    assert!(before.elapsed() >= Duration::from_millis(50));
    client.is_quiet().await;
    assert_eq!(count(&broker, "q").await, 5);
    client.publish("", "q", "7").await;
    client.says(["ack 7"]).await;
}

#[tokio::test]
async fn confirms_are_put_in_order() {
    let messages: Vec<Frame> =
        (1..=4).flat_map(|n: u8| content(1, publish("", "q"), &Properties::new(), &[b'0' + n])).collect();
    for (order, expected) in [
        (ConfirmOrder::Together, &["ack 2 multiple", "nack 3", "ack 4"][..]),
        (ConfirmOrder::Singly, &["ack 1", "ack 2", "nack 3", "ack 4"]),
        (ConfirmOrder::Reversed, &["ack 4", "nack 3", "ack 2", "ack 1"]),
        (ConfirmOrder::Shuffled(3), &[]),
    ] {
        let script = Script::new().at(Moment::Received(0), Act::Confirm(order)).at(Moment::Published(3), Act::Nack);
        let (_broker, mut client) = confirming(&script.to_string()).await;
        client.frames(&messages).await;
        if order == ConfirmOrder::Shuffled(3) {
            let mut heard = Vec::new();
            for _ in 0..4 {
                heard.push(client.next().await);
            }
            assert_eq!(heard, ["nack 3", "ack 4", "ack 1", "ack 2"], "the same in every run");
        }
        client.says(expected).await;
        client.is_quiet().await;
    }
}

// ------------------------------------------------------------------------------------------------------- who gets which

#[tokio::test]
async fn connections_get_scripts_in_order() {
    let broker = Broker::builder().script(script("sent 1: cut")).start().await.unwrap();
    broker.script([script("sent 2: cut"), Script::new()]);
    broker.script([script("sent 4: cut")]);
    let (said, _) = conversation(true);
    let mut lengths = Vec::new();
    for _ in 0..5 {
        lengths.push(hear(broker.connect(), &said).await.len());
    }
    let whole = lengths[1];
    assert_eq!(lengths, [2, whole, 4, 1, 1]);
    assert!(whole > 500);
}

// -------------------------------------------------------------------------------------------------------------- the text

fn times() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        Just(None),
        Just(Some(Duration::MAX)),
        (0u64..3, prop_oneof![0u32..3, Just(500_000), Just(20_000_000), Just(999_999_999)])
            .prop_map(|(seconds, nanos)| Some(Duration::new(seconds, nanos))),
    ]
}

fn moments() -> impl Strategy<Value = Moment> {
    (0..6, prop_oneof![0u64..500, Just(u64::MAX)]).prop_map(|(kind, count)| match kind {
        0 => Moment::Received(count),
        1 => Moment::Sent(count),
        2 => Moment::FrameReceived(count),
        3 => Moment::FrameSent(count),
        4 => Moment::Published(count),
        _ => Moment::Delivered(count),
    })
}

fn acts() -> impl Strategy<Value = Act> {
    let text = || prop_oneof!["[a-z \"\\\\;:#\n\r\té]{0,20}", ".{0,300}"];
    let order = prop_oneof![
        Just(ConfirmOrder::Together),
        Just(ConfirmOrder::Singly),
        Just(ConfirmOrder::Reversed),
        any::<u64>().prop_map(ConfirmOrder::Shuffled),
    ];
    prop_oneof![
        Just(Act::Cut),
        times().prop_map(Act::StallReading),
        times().prop_map(Act::StallWriting),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|octets| Act::Send(octets.into())),
        (any::<u16>(), text()).prop_map(|(code, text)| Act::CloseConnection { code, text }),
        (any::<u16>(), text()).prop_map(|(code, text)| Act::CloseChannels { code, text }),
        Just(Act::CancelConsumers),
        (text(), times()).prop_map(|(reason, time)| Act::Block { reason, time }),
        Just(Act::Nack),
        Just(Act::Return),
        Just(Act::LoseConfirm),
        times().prop_map(|time| Act::DelayConfirm(time.unwrap_or_default())),
        order.prop_map(Act::Confirm),
    ]
}

fn scripts() -> impl Strategy<Value = Script> {
    proptest::collection::vec((moments(), acts()), 0..12)
        .prop_map(|steps| steps.into_iter().fold(Script::new(), |script, (moment, act)| script.at(moment, act)))
}

proptest! {
    #[test]
    fn a_script_that_is_printed_can_be_read(script in scripts()) {
        let text = script.to_string();
        prop_assert_eq!(text.parse(), Ok(script.clone()));
        prop_assert!(!text.contains('\n'), "it is one line");
        let lines: String = script.steps().iter().map(|(moment, act)| format!("\t{moment} : {act} \r\n")).collect();
        prop_assert_eq!(lines.parse(), Ok(script));
    }

    #[test]
    fn any_text_is_a_script_or_an_error_with_its_place(text in "[a-z0-9 :;\"\\\\\n]{0,40}|.{0,40}") {
        if let Err(error) = text.parse::<Script>() {
            prop_assert!(text.is_char_boundary(error.position()), "{}", error);
        }
    }

    /// Whatever the script, the broker serves others, and lets go of whom it does not serve.
    #[test]
    fn any_script_can_be_played(script in scripts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let broker = Broker::start().await.unwrap();
            broker.script([script]);
            let mut stream = broker.connect();
            let (said, _) = conversation(true);
            let mut heard = Vec::new();
            let _ = stream.write_all(&said).await;
            let _ = timeout(Duration::from_secs(100), stream.read_to_end(&mut heard)).await;
            assert_eq!(count(&broker, "another").await, 0);
            broker.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap();
        });
    }
}

#[test]
fn what_is_wrong_with_a_text_and_where() {
    for (text, position, expected) in [
        ("publish 3: nack", 0, "a moment: `received`, `sent`, `frame`, `published` or `delivered`"),
        ("frame 3: cut", 6, "`received` or `sent`"),
        ("sent: cut", 4, "a number"),
        ("sent 99999999999999999999: cut", 5, "a number"),
        ("sent 3 cut", 7, "`:`"),
        (
            "sent 3: cut; sent 4: explode",
            21,
            "an act: `cut`, `stall`, `send`, `close`, `cancel`, `block`, `nack`, `return`, `lose`, `delay` or `confirm`",
        ),
        ("sent 3: cut cut", 12, "the end of the step: `;` or a new line"),
        ("sent 3: stall writing 5", 23, "`ns`, `us`, `ms` or `s`"),
        ("sent 3: stall writing 99999999999999999999s", 22, "a time that is not as long"),
        ("sent 3: delay confirm", 21, "a time, as `20ms`"),
        ("sent 3: close connection 70000 \"\"", 25, "a reply code"),
        ("sent 3: close connection 320", 28, "a text in quotes"),
        ("sent 3: block \"low", 18, "the quote that ends the text"),
        ("sent 3: block \"\\x\"", 15, "one of `\\\"`, `\\\\`, `\\n` and `\\r` where there is a backslash"),
        ("sent 3: send 012", 15, "pairs of hexadecimal digits"),
        ("sent 3: confirm wildly", 16, "`together`, `singly`, `reversed` or `shuffled`"),
    ] {
        let error = text.parse::<Script>().unwrap_err();
        assert_eq!(
            (error.position(), error.to_string()),
            (position, format!("script, octet {position}: expected {expected}"))
        );
    }
    assert_eq!(" ;\n; ".parse(), Ok(Script::new()));
}

#[test]
fn a_seed_stands_for_a_script() {
    let first = Script::seeded(1);
    assert_eq!(first.to_string(), r#"delivered 1: nack; sent 48: block "low on memory" 14ms"#);
    let all: Vec<Script> = (0..500).map(Script::seeded).collect();
    assert!(
        all.iter()
            .all(|script| (1..=4).contains(&script.steps().len()) && script.to_string().parse().as_ref() == Ok(script))
    );
    // Of every kind there are some.
    let words = [
        "cut",
        "stall reading",
        "stall writing",
        "send",
        "close connection",
        "close channels",
        "cancel",
        "block",
        "nack",
        "return",
        "lose",
        "delay",
        "confirm ",
    ];
    for word in words {
        assert!(all.iter().any(|script| script.to_string().contains(word)), "{word}");
    }
}
