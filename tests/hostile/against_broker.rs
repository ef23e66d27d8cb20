//! What a client can do to the broker, and how each of it ends: with the code that RabbitMQ closes with, and the broker serving
//! others as before.

use std::pin::Pin;
use std::time::Duration;

use leveret::amqp::Connection;
use leveret::broker::Broker;
use leveret::codec::method::{basic, channel, confirm, connection, exchange, queue};
use leveret::codec::{FieldTable, Frame, Method, ProtocolHeader, UncheckedFrame};

use crate::faults::{self, written};
use crate::peer::{Peer, body, header, method, octets};
use crate::{MEMORY, run};

/// How far the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Step {
    Nothing,
    Header,
    StartOk,
    TuneOk,
    Open,
    /// With channel 1 open.
    Channel,
}

type Script = fn(&mut Peer) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

enum Attack {
    Says(Vec<u8>),
    Leaves(Vec<u8>),
    Does(Script),
}

pub(crate) struct Case {
    name: String,
    behind: Step,
    attack: Attack,
    /// What the broker says to it, the last of it.
    answers: Vec<String>,
    within: Duration,
    memory: u64,
}

use Attack::{Does, Leaves, Says};
use Step::{Channel, Header, Nothing, Open, StartOk, TuneOk};

/// Until the broker closes the socket of one who has been told to go and does not answer.
const PATIENCE: u64 = 31;

fn case(name: impl Into<String>, behind: Step, said: Vec<u8>, answers: &[&str]) -> Case {
    Case {
        name: name.into(),
        behind,
        attack: Says(said),
        answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        within: Duration::from_secs(PATIENCE),
        memory: MEMORY,
    }
}

fn close(code: u16) -> String {
    format!("connection.close {code}")
}

impl Case {
    fn within(self, seconds: u64) -> Self {
        Self { within: Duration::from_secs(seconds), ..self }
    }

    fn memory(self, memory: u64) -> Self {
        Self { memory, ..self }
    }

    fn does(self, script: Script) -> Self {
        Self { attack: Does(script), ..self }
    }

    fn leaves(self) -> Self {
        let attack = match self.attack {
            Says(said) => Leaves(said),
            other => other,
        };
        Self { attack, ..self }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = first_words();
    cases.extend(handshakes());
    cases.extend(frames());
    cases.extend(channels());
    cases.extend(content());
    cases.extend(settling());
    cases.extend(floods());
    cases
}

/// What is no AMQP 0-9-1 is answered with the header of what is, and the end.
fn first_words() -> Vec<Case> {
    let foreign = |name: &str, said: &[u8]| case(name, Nothing, said.to_vec(), &[]).does_not_count().within(1);
    vec![
        foreign("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        foreign("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
        foreign("AMQP 0-8", b"AMQP\x01\x01\x08\x00"),
        foreign("AMQP 0-9", b"AMQP\x00\x00\x09\x00"),
        foreign("AMQP 0-10", b"AMQP\x01\x01\x00\x0a"),
        foreign("AMQP 1.0", b"AMQP\x00\x01\x00\x00"),
        foreign("zeroes", &[0; 100]),
        case("silence", Nothing, vec![], &[]).within(11),
        case("half a header", Nothing, b"AMQP\x00".to_vec(), &[]).within(11),
        case("half a header, and the end", Nothing, b"AMQP\x00".to_vec(), &[]).leaves(),
        case("a header, an octet at a time", Nothing, vec![], &[]).does(|peer| Box::pin(drip(peer))).within(30),
        case("silence behind the header", Header, vec![], &[]).within(11),
        case("silence behind start-ok", StartOk, vec![], &[]).within(11),
        case("silence behind tune-ok", TuneOk, vec![], &[]).within(11),
        case("heartbeats in place of start-ok", Header, faults::heartbeats(1000), &[]).within(11),
    ]
}

impl Case {
    /// The answer is eight octets, which are no frame.
    fn does_not_count(self) -> Self {
        Self { answers: vec![String::from("AMQP 0-9-1")], ..self }
    }
}

/// One octet of the header every three seconds: the time for the handshake runs out.
async fn drip(peer: &mut Peer) {
    for octet in ProtocolHeader::AMQP_0_9_1.to_bytes() {
        peer.raw(&[octet]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

fn start_ok(mechanism: &str, response: &'static [u8]) -> Vec<u8> {
    let response = bytes::Bytes::from_static(response);
    method(0, connection::StartOk { mechanism: mechanism.into(), response, ..faults::start_ok(capabilities()) })
}

fn capabilities() -> FieldTable {
    FieldTable::new().with("capabilities", FieldTable::new().with("authentication_failure_close", true))
}

fn handshakes() -> Vec<Case> {
    let tune = |channel_max, frame_max, heartbeat| method(0, connection::TuneOk { channel_max, frame_max, heartbeat });
    let open = |name: &str| method(0, connection::Open { virtual_host: name.into(), ..Default::default() });
    let close = |code| [close(code)];
    let refused = |name: &str, behind, said, code| {
        let [close] = close(code);
        case(name, behind, said, &[&close])
    };
    let mut cases = vec![
        refused("a wrong password", Header, start_ok("PLAIN", b"\0guest\0wrong"), 403),
        refused("nobody's name", Header, start_ok("PLAIN", b"\0nobody\0guest"), 403),
        case("a mechanism that is not offered", Header, start_ok("EXTERNAL", b""), &[]),
        case("a mechanism of no name", Header, start_ok("", b""), &[]),
        case("PLAIN without a password", Header, start_ok("PLAIN", b"guest"), &[]),
        case("PLAIN with too many parts", Header, start_ok("PLAIN", b"\0a\0b\0c"), &[]),
        case("AMQPLAIN that is no table", Header, start_ok("AMQPLAIN", b"\x05LOGINS\xff\xff\xff\xff"), &[]),
        refused("channel_max over what was proposed", StartOk, tune(u16::MAX, 131_072, 60), 530),
        refused("channel_max 0", StartOk, tune(0, 131_072, 60), 530),
        refused("frame_max over what was proposed", StartOk, tune(2047, 131_073, 60), 530),
        refused("frame_max of 4 GiB", StartOk, tune(2047, u32::MAX, 60), 530),
        refused("frame_max 0", StartOk, tune(2047, 0, 60), 530),
        refused("frame_max 1", StartOk, tune(2047, 1, 60), 530),
        refused("frame_max 4096", StartOk, tune(2047, 4096, 60), 530),
        refused("an unknown virtual host", TuneOk, open("elsewhere"), 530),
        refused("the virtual host without a name", TuneOk, open(""), 530),
        case(
            "heartbeat 1, and silence",
            StartOk,
            [tune(2047, 131_072, 1), open("/")].concat(),
            &["connection.open-ok"],
        )
        .within(3),
        case("close before start-ok", Header, method(0, connection::Close::default()), &["connection.close-ok"])
            .within(1),
        case("close before tune-ok", StartOk, method(0, connection::Close::default()), &["connection.close-ok"])
            .within(1),
        case("close before open", TuneOk, method(0, connection::Close::default()), &["connection.close-ok"]).within(1),
        refused("a channel before the connection is open", TuneOk, method(1, channel::Open::default()), 505),
        refused("content before the connection is open", TuneOk, body(1, b"x"), 505),
    ];
    let steps = [(Header, "connection.start-ok"), (StartOk, "connection.tune-ok"), (TuneOk, "connection.open")];
    for (behind, due) in steps {
        // Who is not logged in is left without a word.
        let [told] = close(504);
        let answers: &[&str] = if behind == Header { &[] } else { &[&told] };
        for (name, said) in
            faults::of_the_handshake(due, false).into_iter().chain(faults::of_the_handshake("nothing", true))
        {
            cases.push(case(format!("{name}, {due} was due"), behind, said, answers));
        }
        for (name, said, _, code) in faults::of_frames() {
            let [told] = close(code);
            let answers: &[&str] = if behind == Header { &[] } else { &[&told] };
            cases.push(case(format!("{name} where {due} is due"), behind, said, answers));
        }
    }
    for (name, said, _) in faults::of_tables(&[0, 10, 0, 11], 0) {
        cases.push(case(format!("start-ok with {name}"), Header, said, &[]));
    }
    cases
}

fn frames() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, said, _, code) in faults::of_frames() {
        let close = close(code);
        // A frame that cannot be understood is the end; one that can, and means nothing, is answered and waited for.
        cases.push(case(name, Channel, said, &[&close]));
    }
    for (name, said) in faults::of_channel_zero() {
        let code = if name.starts_with("a method") { 504 } else { 505 };
        cases.push(case(name, Channel, said, &[&close(code)]));
    }
    for (name, said) in faults::of_the_handshake("connection.update-secret", false) {
        cases.push(case(name, Channel, said, &[&close(504)]));
    }
    for (name, said, code) in faults::of_tables(&[0, 50, 0, 10, 0, 0, 1, b'q', 0], 1) {
        cases.push(case(format!("queue.declare with {name}"), Channel, said, &[&close(code)]));
    }
    cases
}

fn publish(exchange: &str) -> Vec<u8> {
    method(1, basic::Publish { exchange: exchange.into(), routing_key: "q".into(), ..Default::default() })
}

fn channels() -> Vec<Case> {
    let hard = |name: &str, said: Vec<u8>, code| case(name, Channel, said, &[&close(code)]);
    let soft = |name: &str, said: Vec<u8>, code: u16| {
        case(name, Channel, said, &[&format!("1 channel.close {code}")]).within(130)
    };
    let server: [(&str, Method); 6] = [
        ("queue.declare-ok", queue::DeclareOk::default().into()),
        ("basic.deliver", basic::Deliver::default().into()),
        ("basic.get-empty", basic::GetEmpty::default().into()),
        ("basic.return", basic::Return::default().into()),
        ("channel.open-ok", channel::OpenOk::default().into()),
        ("channel.close-ok", channel::CloseOk {}.into()),
    ];
    let mut cases: Vec<Case> =
        server.into_iter().map(|(name, said)| hard(&format!("a server's {name}"), method(1, said), 503)).collect();
    let args = |name: &str, value: &str| queue::Declare {
        queue: "q".into(),
        arguments: FieldTable::new().with(name, value),
        ..Default::default()
    };
    cases.extend([
        hard("a method on a channel that is not open", method(9, queue::Declare::default()), 504),
        hard("a method on channel 65535", method(65535, queue::Declare::default()), 504),
        hard("a second channel.open", method(1, channel::Open::default()), 504),
        hard("a connection method on a channel", method(1, connection::Open::default()), 503),
        hard("connection.close on a channel", method(1, connection::Close::default()), 503),
        hard("channel.close on a channel that is not open", method(9, channel::Close::default()), 504),
        hard("a consumer's tag twice", [declare(), consume(), consume()].concat(), 530),
        hard("a prefetch in octets", method(1, basic::Qos { prefetch_size: 1, ..Default::default() }), 540),
        hard("recover without requeue", method(1, basic::Recover { requeue: false }), 540),
        hard("channel.flow of a client", method(1, channel::Flow { active: false }), 540),
        hard(
            "an exchange of no known type",
            method(1, exchange::Declare { exchange: "e".into(), kind: "magic".into(), ..Default::default() }),
            503,
        ),
        soft(
            "a queue that is not there",
            method(1, queue::Bind { queue: "none".into(), exchange: "amq.direct".into(), ..Default::default() }),
            404,
        ),
        soft("no queue was declared before", method(1, basic::Get::default()), 404),
        soft("a reserved name", method(1, queue::Declare { queue: "amq.mine".into(), ..Default::default() }), 403),
        soft("the default exchange is deleted", method(1, exchange::Delete::default()), 403),
        soft("an argument of the wrong type", method(1, args("x-message-ttl", "60000")), 406),
        soft("to commit what was not begun", method(1, leveret::codec::method::tx::Commit {}), 406),
        soft(
            "confirms and then a transaction",
            [method(1, confirm::Select::default()), method(1, leveret::codec::method::tx::Select {})].concat(),
            406,
        )
        .last("1 confirm.select-ok"),
    ]);
    // All the channels there are, and one more.
    let many: Vec<u8> = (2..=2048).flat_map(|number| method(number, channel::Open::default())).collect();
    cases.push(case("a channel more than allowed", Channel, many, &[&close(530)]).only_last().memory(4 * MEMORY));
    cases
}

impl Case {
    /// What is said before.
    fn last(self, before: &str) -> Self {
        Self { answers: [vec![before.to_owned()], self.answers].concat(), ..self }
    }

    /// Whatever is said before.
    fn only_last(self) -> Self {
        Self { answers: [vec![String::from("...")], self.answers].concat(), ..self }
    }
}

fn declare() -> Vec<u8> {
    method(1, queue::Declare { queue: "q".into(), no_wait: true, ..Default::default() })
}

fn consume() -> Vec<u8> {
    method(1, basic::Consume { queue: "q".into(), consumer_tag: "tag".into(), no_wait: true, ..Default::default() })
}

fn content() -> Vec<Case> {
    let hard = |name: &str, said: &[&[u8]], code| case(name, Channel, said.concat(), &[&close(code)]);
    let of_class = |class: u8| written(&UncheckedFrame::new(2, 1, vec![0, class, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]));
    let publish = || publish("");
    let soft = |name: &str, said: &[&[u8]], code: u16| {
        case(name, Channel, said.concat(), &[&format!("1 channel.close {code}")]).within(130)
    };
    vec![
        hard("a header without a method", &[&header(1, 1)], 505),
        hard("a body without a method", &[&body(1, b"x")], 505),
        hard("a body without a header", &[&publish(), &body(1, b"x")], 505),
        hard("two headers", &[&publish(), &header(1, 1), &header(1, 1)], 505),
        hard("a body behind an empty message", &[&publish(), &header(1, 0), &body(1, b"x")], 505),
        hard("a body longer than announced", &[&publish(), &header(1, 3), &body(1, b"four")], 501),
        hard("a body shorter than announced", &[&publish(), &header(1, 3), &body(1, b"12"), &publish()], 505),
        hard("a publish in the middle of another", &[&publish(), &publish()], 505),
        hard(
            "a method in the middle of a message",
            &[&publish(), &header(1, 3), &method(1, basic::Qos::default())],
            505,
        ),
        hard("a header of class 50", &[&publish(), &of_class(50)], 505),
        hard("an empty header", &[&publish(), &written(&UncheckedFrame::new(2, 1, ""))], 501),
        hard(
            "a publish that is cut short",
            &[&written(&UncheckedFrame::new(1, 1, &b"\0\x3c\0\x28\0\0\x09e"[..]))],
            501,
        ),
        hard("content on channel 0", &[&header(0, 1)], 505),
        hard("content on a channel that is not open", &[&header(9, 1)], 505),
        hard("immediate", &[&method(1, basic::Publish { immediate: true, ..Default::default() }), &header(1, 0)], 540),
        soft("a body of 2^64-1 octets", &[&publish(), &header(1, u64::MAX)], 406),
        soft("a body one octet too large", &[&publish(), &header(1, 128 * 1024 * 1024 + 1)], 406),
        soft("an exchange that is not there", &[&self::publish("none"), &header(1, 0)], 404),
        soft(
            "an expiration that is no number",
            &[&publish(), &octets(&[Frame::Header(1, with_property(b"\x01\0\x04soon"))])],
            406,
        ),
        soft(
            "somebody else's user id",
            &[&publish(), &octets(&[Frame::Header(1, with_property(b"\0\x10\x04root"))])],
            406,
        ),
        case(
            "a body of 128 MiB that does not come",
            Channel,
            [publish(), header(1, 128 * 1024 * 1024), body(1, b"x")].concat(),
            &[],
        )
        .leaves(),
        case("the end in the middle of a message", Channel, [publish(), header(1, 9), body(1, b"x")].concat(), &[])
            .leaves(),
        case("the end in the middle of a frame", Channel, publish().into_iter().take(9).collect(), &[]).leaves(),
        case("silence in the middle of a message", Channel, [publish(), header(1, 9)].concat(), &[]).within(121),
        case(
            "close in the middle of a message",
            Channel,
            [publish(), header(1, 9), method(0, connection::Close::default())].concat(),
            &["connection.close-ok"],
        ),
    ]
}

fn with_property(octets: &'static [u8]) -> leveret::codec::ContentHeader {
    let properties = leveret::codec::RawProperties::new(bytes::Bytes::from_static(octets));
    leveret::codec::ContentHeader { body_size: 0, properties }
}

fn settling() -> Vec<Case> {
    let soft = |name: &str, said: Vec<u8>| case(name, Channel, said, &["1 channel.close 406"]).within(130);
    let ack = |delivery_tag, multiple| method(1, basic::Ack { delivery_tag, multiple });
    let consumed = || [declare(), consume()].concat();
    vec![
        soft("an ack for a tag that was never used", ack(1, false)),
        soft("an ack for tag 2^64-1", ack(u64::MAX, false)),
        soft("an ack for all up to a tag that was never used", ack(7, true)),
        soft("an ack for tag 0", ack(0, false)),
        soft(
            "a nack for a tag that was never used",
            method(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }),
        ),
        soft("a reject for a tag that was never used", method(1, basic::Reject { delivery_tag: 1, requeue: true })),
        soft(
            "an ack of what was acked",
            [
                declare(),
                publish(""),
                header(1, 0),
                method(1, basic::Get { queue: "q".into(), ..Default::default() }),
                ack(1, false),
                ack(1, false),
            ]
            .concat(),
        )
        .last("1 header")
        .last("1 basic.get-ok"),
        case("an ack for all that there are, which is none", Channel, ack(0, true), &[]).within(121),
        case("close twice", Channel, method(0, connection::Close::default()).repeat(2), &["connection.close-ok"]),
        case(
            "close, and then more",
            Channel,
            [method(0, connection::Close::default()), publish(""), vec![0xff; 100]].concat(),
            &["connection.close-ok"],
        ),
        case(
            "a channel closed twice",
            Channel,
            method(1, channel::Close::default()).repeat(2),
            &["1 channel.close-ok", "connection.close 504"],
        ),
        case("a consumer and then silence", Channel, consumed(), &[]).within(121),
    ]
}

/// Too much of what is allowed, by clients who do not read the answers.
fn floods() -> Vec<Case> {
    let flood = |name: &str, script| case(name, Channel, vec![], &[]).does(script).within(300).memory(2 * MEMORY);
    vec![
        flood("requests, and no answer is read", |peer| Box::pin(requests(peer))),
        flood("nacks of the same message for ever", |peer| Box::pin(nacks(peer))),
        flood("returns, and none is read", |peer| Box::pin(returns(peer))),
        flood("channels opened and closed for ever", |peer| Box::pin(channel_churn(peer))),
        flood("heartbeats, a million", |peer| Box::pin(heartbeats(peer))),
        flood("empty body frames for ever", |peer| Box::pin(empty_bodies(peer))),
    ]
}

/// Says the same again and again, as long as it is taken within a second; then hangs up.
async fn repeat(peer: &mut Peer, said: &[u8], times: usize) {
    for _ in 0..times {
        match tokio::time::timeout(Duration::from_secs(1), peer.raw(said)).await {
            Ok(true) => {}
            _ => return,
        }
    }
}

async fn requests(peer: &mut Peer) {
    repeat(peer, &method(1, queue::Declare { queue: "q".into(), ..Default::default() }).repeat(1000), 1000).await;
}

async fn nacks(peer: &mut Peer) {
    peer.raw(&[declare(), consume(), publish(""), header(1, 0)].concat()).await;
    for delivery_tag in 1..100_000 {
        if !peer.raw(&method(1, basic::Nack { delivery_tag, multiple: true, requeue: true })).await {
            return;
        }
        // Each comes back at once.
        for _ in 0..2 {
            if peer.frame().await.is_none() {
                return;
            }
        }
    }
}

async fn returns(peer: &mut Peer) {
    let publish = basic::Publish { routing_key: "nowhere".into(), mandatory: true, ..Default::default() };
    repeat(peer, &[method(1, publish), header(1, 1000), body(1, &[7; 1000])].concat().repeat(100), 1000).await;
}

async fn channel_churn(peer: &mut Peer) {
    let both = [method(2, channel::Open::default()), method(2, channel::Close::default())].concat();
    repeat(peer, &both.repeat(1000), 100).await;
}

async fn heartbeats(peer: &mut Peer) {
    repeat(peer, &faults::heartbeats(1000), 1000).await;
}

async fn empty_bodies(peer: &mut Peer) {
    peer.raw(&[publish(""), header(1, 1)].concat()).await;
    repeat(peer, &body(1, b"").repeat(1000), 1000).await;
}

// ------------------------------------------------------------------------------------------------------------- the judge

async fn behave(peer: &mut Peer, until: Step) {
    if until >= Header {
        peer.raw(&ProtocolHeader::AMQP_0_9_1.to_bytes()).await;
        peer.until("connection.start").await;
    }
    if until >= StartOk {
        peer.send(0, faults::start_ok(capabilities())).await;
        peer.until("connection.tune").await;
    }
    if until >= TuneOk {
        peer.send(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }).await;
    }
    if until >= Open {
        peer.send(0, connection::Open { virtual_host: "/".into(), ..Default::default() }).await;
        peer.until("connection.open-ok").await;
    }
    if until >= Channel {
        peer.send(1, channel::Open::default()).await;
        peer.until("channel.open-ok").await;
    }
}

/// Runs a case. What is not as it should be, in words.
fn judge(case: Case) -> Option<String> {
    let Case { name, behind, attack, answers, within, memory } = case;
    let outcome = run(async move {
        let broker = Broker::builder().bind("127.0.0.1:0").await.unwrap();
        let mut peer = Peer::new(broker.connect());
        behave(&mut peer, behind).await;
        let heard = match attack {
            Says(said) => {
                peer.raw(&said).await;
                peer.listen().await
            }
            Leaves(said) => {
                peer.raw(&said).await;
                Vec::new()
            }
            Does(script) => {
                script(&mut peer).await;
                Vec::new()
            }
        };
        drop(peer);
        // Others are served as before.
        let connection = Connection::builder(&broker.url()).unwrap().open_with(broker.connect()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare("").exclusive(true).await.unwrap();
        assert_eq!(queue.message_count(), 0);
        connection.close().await.unwrap();
        heard
    });
    let (Some(heard), took, peak) = outcome else { return Some(format!("{name}: hangs")) };
    let mut wrong = Vec::new();
    let same = match answers.split_first() {
        Some((first, rest)) if first == "..." => heard.ends_with(rest),
        _ => heard == answers,
    };
    if !same {
        let heard = heard.get(heard.len().saturating_sub(5)..).unwrap_or_default();
        wrong.push(format!("the broker says {heard:?} and not {answers:?}"));
    }
    wrong.extend(crate::beyond((took, within), (peak, memory)));
    (!wrong.is_empty()).then(|| format!("{name} (behind {behind:?}): {}", wrong.join("; ")))
}

#[test]
fn a_hostile_client_is_survived() {
    crate::assert_none(&cases().into_iter().filter_map(judge).collect::<Vec<_>>());
}
