//! What a server can do to the client, and how each of it ends for the program.

use std::pin::Pin;
use std::time::Duration;

use leveret::amqp::{Connection, ConnectionBuilder};
use leveret::codec::method::{basic, channel, confirm, connection, queue, tx};
use leveret::codec::{ContentHeader, FieldTable, Frame, Method, RawProperties, UncheckedFrame};
use leveret::error::{Error, ErrorKind};
use leveret::messaging::{Client, Target};
use leveret::transport::Stream;
use tokio::time::Instant;

use crate::faults::{self, written};
use crate::peer::{Peer, TUNE, body, header, method, octets, start};
use crate::{MEMORY, run};

/// What the program does, and waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    /// Connects, and does nothing.
    Connects,
    OpensChannel,
    /// With a channel: declares a queue.
    Declares,
    Gets,
    /// Consumes, and waits for a message.
    Consumes,
    /// Consumes, looks at nothing, and waits for the end.
    Sleeps,
    /// Consumes, leaves the consumer, and waits for the end.
    Leaves,
    /// Consumes, looks at nothing for a while, and closes the channel and the connection.
    SleepsAndCloses,
    /// Publishes, and waits for the confirm.
    Publishes,
    ClosesChannel,
    ClosesConnection,
}

impl Program {
    /// What a server is asked for last, before it attacks.
    fn asks(self) -> &'static str {
        match self {
            Self::Connects => "connection.open",
            Self::OpensChannel => "channel.open",
            Self::Declares => "queue.declare",
            Self::Gets => "basic.get",
            Self::Consumes | Self::Sleeps | Self::Leaves | Self::SleepsAndCloses => "basic.consume",
            Self::Publishes => "basic.publish",
            Self::ClosesChannel => "channel.close",
            Self::ClosesConnection => "connection.close",
        }
    }

    async fn run(self, builder: ConnectionBuilder, stream: Stream) -> Result<(), Error> {
        let connection = builder.open_with(stream).await?;
        if self == Self::Connects {
            return connection.closed().await;
        }
        if self == Self::ClosesConnection {
            return connection.close().await;
        }
        let channel = connection.open_channel().await?;
        match self {
            Self::Connects | Self::ClosesConnection => {}
            Self::OpensChannel => return connection.closed().await,
            Self::Declares => drop(channel.queue_declare("q").await?),
            Self::Gets => drop(channel.basic_get("q").await?),
            Self::Consumes => {
                let mut consumer = channel.basic_consume("q").consumer_tag("tag").await?;
                while let Some(delivery) = consumer.next().await {
                    delivery?.ack()?;
                }
            }
            Self::Sleeps => {
                let _consumer = channel.basic_consume("q").consumer_tag("tag").no_ack().await?;
                return connection.closed().await;
            }
            Self::Leaves => {
                drop(channel.basic_consume("q").consumer_tag("tag").await?);
                return connection.closed().await;
            }
            Self::SleepsAndCloses => {
                let _consumer = channel.basic_consume("q").consumer_tag("tag").no_ack().await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                channel.close().await?;
            }
            Self::Publishes => {
                channel.confirm_select().await?;
                channel.basic_publish("", "q", "body").mandatory(true).await?.await?.accepted()?;
            }
            Self::ClosesChannel => channel.close().await?,
        }
        connection.close().await
    }
}

type Script = fn(&mut Peer) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

/// What a server does when it is asked.
enum Attack {
    /// Says this, and then nothing.
    Says(Vec<u8>),
    /// Says this, and hangs up.
    Leaves(Vec<u8>),
    /// Says this, and then does what is asked of it.
    Serves(Vec<u8>),
    Does(Script),
}

/// How it ends for the program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Fine,
    Fails(ErrorKind),
    /// The server closed something, with this code.
    Closed(ErrorKind, u16),
}

pub(crate) struct Case {
    name: String,
    program: Program,
    /// Where in the handshake it begins; empty for behind it.
    due: &'static str,
    attack: Attack,
    end: End,
    /// What is said to the server at last, in `connection.close`.
    told: Option<u16>,
    /// How long it may take, by the clock of the case.
    within: Duration,
    memory: u64,
    builder: fn(ConnectionBuilder) -> ConnectionBuilder,
}

impl Case {
    fn new(name: impl Into<String>, program: Program, attack: Attack, end: End) -> Self {
        Self {
            name: name.into(),
            program,
            due: "",
            attack,
            end,
            told: None,
            within: Duration::from_secs(21),
            memory: MEMORY,
            builder: |builder| builder,
        }
    }

    fn due(self, due: &'static str) -> Self {
        Self { due, ..self }
    }

    fn told(self, code: u16) -> Self {
        Self { told: Some(code), ..self }
    }

    fn within(self, seconds: u64) -> Self {
        Self { within: Duration::from_secs(seconds), ..self }
    }

    fn memory(self, memory: u64) -> Self {
        Self { memory, ..self }
    }

    fn with(self, builder: fn(ConnectionBuilder) -> ConnectionBuilder) -> Self {
        Self { builder, ..self }
    }
}

use Attack::{Does, Leaves, Says, Serves};
use End::{Closed, Fails, Fine};
use ErrorKind::{
    Auth, Cancelled, ChannelClosed, ConnectionClosed, Handshake, Heartbeat, Io, MessageTooLarge, Nacked, Protocol,
    Returned, Timeout, Tls, Unsupported,
};
use Program::{ClosesChannel, ClosesConnection, Connects, Consumes, Declares, Gets, OpensChannel, Publishes, Sleeps};

const STEPS: [&str; 3] = ["connection.start", "connection.tune", "connection.open-ok"];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = first_words();
    cases.extend(handshakes());
    cases.extend(limits());
    cases.extend(frames());
    cases.extend(channels());
    cases.extend(content());
    cases.extend(confirms());
    cases.extend(closes());
    cases.extend(floods());
    cases
}

/// What is not AMQP 0-9-1 at all.
fn first_words() -> Vec<Case> {
    let case = |name: &str, said: &[u8], kind| {
        Case::new(name, Connects, Says(said.to_vec()), Fails(kind)).due("connection.start")
    };
    let amqp = |name, said, kind| case(name, said, kind).told(503);
    vec![
        case("TLS: an alert", b"\x15\x03\x03\x00\x02\x02\x46", Tls),
        case("TLS: a handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Tls),
        case("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", Unsupported),
        case("AMQP 0-8", b"AMQP\x01\x01\x08\x00", Unsupported),
        case("AMQP 0-9", b"AMQP\x00\x00\x09\x00", Unsupported),
        case("AMQP 1.0", b"AMQP\x00\x01\x00\x00", Unsupported),
        case("AMQP 1.0 with SASL", b"AMQP\x03\x01\x00\x00", Unsupported),
        case("its own header, the same version", b"AMQP\x00\x00\x09\x01", Unsupported),
        case("half a header", b"AMQP\x00", Timeout),
        case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", Protocol),
        case("SMTP", b"220 mail.example ESMTP\r\n", Protocol),
        amqp("AMQP 0-10 in start", &method(0, connection::Start { version_minor: 10, ..start() }), Unsupported),
        amqp(
            "AMQP 1-0 in start",
            &method(0, connection::Start { version_major: 1, version_minor: 0, ..start() }),
            Unsupported,
        ),
        amqp("no mechanism at all", &method(0, connection::Start { mechanisms: "".into(), ..start() }), Auth),
        amqp(
            "a mechanism in which PLAIN is a part",
            &method(0, connection::Start { mechanisms: "XPLAIN PLAINX".into(), ..start() }),
            Auth,
        ),
        amqp(
            "mechanisms that are not text",
            &method(0, connection::Start { mechanisms: vec![0xff; 100].into(), ..start() }),
            Auth,
        ),
    ]
}

fn handshakes() -> Vec<Case> {
    let mut cases = Vec::new();
    // What the end of the stream means at each step.
    for (due, kind) in STEPS.into_iter().zip([Handshake, Auth, Handshake]) {
        let case =
            |name: &str, attack, end| Case::new(format!("{name} where {due} is due"), Connects, attack, end).due(due);
        // Until start has come the server may be of another protocol, which would make nothing of it.
        let not_at_first = |case: Case, code| if due == STEPS[0] { case } else { case.told(code) };
        cases.push(case("silence", Says(vec![]), Fails(Timeout)));
        cases.push(case("the end", Leaves(vec![]), Fails(kind)));
        cases.push(case("half a frame", Says(vec![1, 0, 0, 0]), Fails(Timeout)));
        cases.push(case("half a frame and the end", Leaves(vec![1, 0, 0, 0]), Fails(kind)));
        cases.push(case("heartbeats and nothing else", Says(faults::heartbeats(1000)), Fails(Timeout)));
        let close =
            |reply_code| method(0, connection::Close { reply_code, reply_text: "no".into(), ..Default::default() });
        cases.push(case("close with 320", Says(close(320)), Closed(ConnectionClosed, 320)));
        cases.push(case("close with 403", Says(close(403)), Closed(Auth, 403)));
        let not_allowed = if due == STEPS[1] { Auth } else { ConnectionClosed };
        cases.push(case("close with 530", Says(close(530)), Closed(not_allowed, 530)));
        cases.push(case("close-ok", Says(method(0, connection::CloseOk {})), Fails(Protocol)).told(503));
        for (name, said) in faults::of_the_handshake(due, true) {
            // A challenge where tune is due is right, as far as that goes; PLAIN has no answer to it.
            let kind = if (due, name.starts_with("connection.secure ")) == (STEPS[1], true) { Auth } else { Protocol };
            cases.push(Case::new(name, Connects, Says(said), Fails(kind)).due(due).told(503));
        }
        for (name, said) in faults::of_the_handshake(due, false) {
            cases.push(Case::new(name, Connects, Says(said), Fails(Protocol)).due(due).told(503));
        }
        for (name, said, code, _) in faults::of_frames() {
            // The handshake's frames have 8192 octets at most, or what was asked for.
            cases.push(not_at_first(case(name, Says(said), Fails(Protocol)), code));
        }
        for (name, said) in faults::of_channel_zero() {
            cases.push(not_at_first(case(name, Says(said), Fails(Protocol)), 503));
        }
        cases.push(not_at_first(
            case("a method of a channel", Says(method(1, channel::OpenOk::default())), Fails(Protocol)),
            504,
        ));
        cases.push(not_at_first(case("a message", Says(method(1, basic::Deliver::default())), Fails(Protocol)), 504));
    }
    for (name, said, _) in faults::of_tables(&[0, 10, 0, 10, 0, 9], 0) {
        cases.push(Case::new(format!("start with {name}"), Connects, Says(said), Fails(Protocol)).due(STEPS[0]));
    }
    // One octet every five seconds.
    cases.push(
        Case::new("start, an octet at a time", Connects, Does(|peer| Box::pin(drip(peer))), Fails(Timeout))
            .due(STEPS[0]),
    );
    cases.push(
        Case::new("challenges for ever", Connects, Does(|peer| Box::pin(challenge(peer))), Fails(Auth))
            .due(STEPS[1])
            .told(503),
    );
    cases
}

async fn drip(peer: &mut Peer) {
    for octet in method(0, start()) {
        if !peer.raw(&[octet]).await {
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn challenge(peer: &mut Peer) {
    while peer.send(0, connection::Secure { challenge: "again".into() }).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What a server may propose in tune, and what it then does.
fn limits() -> Vec<Case> {
    let case = |name: &str, tune: connection::Tune, end| {
        let said = [method(0, tune), method(0, connection::OpenOk::default())].concat();
        Case::new(name, ClosesConnection, Does(|_| Box::pin(async {})), end)
            .due("connection.tune")
            .with_attack(if end == Fine { Serves(said) } else { Says(said) })
    };
    let told = |case: Case| case.told(503);
    vec![
        case("frame_max 0", connection::Tune { frame_max: 0, ..TUNE }, Fine),
        told(case("frame_max 1", connection::Tune { frame_max: 1, ..TUNE }, Fails(Protocol))),
        told(case("frame_max 7", connection::Tune { frame_max: 7, ..TUNE }, Fails(Protocol))),
        told(case("frame_max 4095", connection::Tune { frame_max: 4095, ..TUNE }, Fails(Protocol))),
        case("frame_max 4096", connection::Tune { frame_max: 4096, ..TUNE }, Fine),
        case("frame_max of 4 GiB", connection::Tune { frame_max: u32::MAX, ..TUNE }, Fine),
        case("channel_max 0", connection::Tune { channel_max: 0, ..TUNE }, Fine),
        case("channel_max 1", connection::Tune { channel_max: 1, ..TUNE }, Fine),
        case("channel_max 65535", connection::Tune { channel_max: u16::MAX, ..TUNE }, Fine),
        case("heartbeat 0", connection::Tune { heartbeat: 0, ..TUNE }, Fine),
        case("heartbeat 1", connection::Tune { heartbeat: 1, ..TUNE }, Fine),
        case("heartbeat 65535", connection::Tune { heartbeat: u16::MAX, ..TUNE }, Fine),
        Case::new(
            "silence behind heartbeat 1",
            Connects,
            Says(
                [method(0, connection::Tune { heartbeat: 1, ..TUNE }), method(0, connection::OpenOk::default())]
                    .concat(),
            ),
            Fails(Heartbeat),
        )
        .due("connection.tune")
        .within(3),
        Case::new("silence for ever", Connects, Says(vec![]), Fails(Heartbeat)).within(121),
    ]
}

impl Case {
    fn with_attack(self, attack: Attack) -> Self {
        Self { attack, ..self }
    }
}

/// Broken frames on an open connection, while a program waits for an answer.
fn frames() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, said, code, _) in faults::of_frames() {
        // No frame of the handshake's kind is too large by one here: the limit is that of tune.
        let said = if name.contains("one octet too large") { vec![1, 0, 0, 0, 1, 0xff, 0xf9] } else { said };
        cases.push(Case::new(name, Declares, Says(said), Fails(Protocol)).told(code));
    }
    for (name, said) in faults::of_channel_zero() {
        cases.push(Case::new(name, Declares, Says(said), Fails(Protocol)).told(503));
    }
    for (name, said, code) in faults::of_tables(&[0, 10, 0, 10, 0, 9], 0) {
        cases.push(Case::new(format!("a second start with {name}"), Declares, Says(said), Fails(Protocol)).told(code));
    }
    for (name, said) in faults::of_the_handshake("nothing", true) {
        let end = if name.contains("blocked") { Fails(Timeout) } else { Fails(Protocol) };
        let case = Case::new(name, Declares, Says(said), end);
        cases.push(if end == Fails(Protocol) { case.told(503) } else { case });
    }
    cases.push(Case::new("the end", Declares, Leaves(vec![]), Fails(Io)));
    cases.push(Case::new("half a frame and the end", Declares, Leaves(vec![1, 0, 1]), Fails(Io)));
    cases.push(Case::new("silence", Declares, Says(vec![]), Fails(Timeout)));
    cases
}

fn channels() -> Vec<Case> {
    let fails =
        |name: &str, program, said: Vec<u8>, code| Case::new(name, program, Says(said), Fails(Protocol)).told(code);
    let wrong: Vec<(&str, Method)> = vec![
        ("queue.purge-ok", queue::PurgeOk::default().into()),
        ("queue.bind-ok", queue::BindOk {}.into()),
        ("basic.get-empty", basic::GetEmpty::default().into()),
        ("basic.qos-ok", basic::QosOk {}.into()),
        ("basic.recover-ok", basic::RecoverOk {}.into()),
        ("confirm.select-ok", confirm::SelectOk {}.into()),
        ("tx.commit-ok", tx::CommitOk {}.into()),
        ("channel.open-ok", channel::OpenOk::default().into()),
        ("channel.close-ok", channel::CloseOk {}.into()),
        ("channel.flow-ok", channel::FlowOk { active: true }.into()),
        ("basic.consume-ok", basic::ConsumeOk { consumer_tag: "x".into() }.into()),
        ("basic.cancel-ok", basic::CancelOk { consumer_tag: "x".into() }.into()),
        ("a client's queue.declare", queue::Declare::default().into()),
        ("a client's channel.open", channel::Open::default().into()),
        ("a client's basic.reject", basic::Reject::default().into()),
    ];
    let mut cases: Vec<Case> = wrong
        .into_iter()
        .map(|(name, said)| fails(&format!("{name} in place of declare-ok"), Declares, method(1, said), 503))
        .collect();
    let connection_class: [(&str, Method); 3] = [
        ("connection.blocked on a channel", connection::Blocked::default().into()),
        ("connection.open-ok on a channel", connection::OpenOk::default().into()),
        ("connection.close on a channel", connection::Close::default().into()),
    ];
    cases.extend(connection_class.into_iter().map(|(name, said)| fails(name, Declares, method(1, said), 503)));
    let declared = || method(1, queue::DeclareOk { queue: "q".into(), ..Default::default() });
    cases.extend([
        fails("a method on a channel that was never open", Declares, method(9, queue::PurgeOk::default()), 504),
        fails("a method on channel 65535", Declares, method(65535, queue::PurgeOk::default()), 504),
        fails("a body on a channel that was never open", Declares, body(9, b"x"), 504),
        fails("channel.close on a channel that was never open", Declares, method(9, channel::Close::default()), 504),
        fails("channel.close twice", Declares, [close_channel(404), method(1, channel::OpenOk::default())].concat(), 0)
            .ends(Closed(ChannelClosed, 404)),
        fails("declare-ok twice", Declares, [declared(), declared()].concat(), 503).ends(Fails(Protocol)),
        fails("open-ok twice", OpensChannel, method(1, channel::OpenOk::default()).repeat(2), 503),
        Case::new("open-ok that never comes", OpensChannel, Says(vec![]), Fails(Timeout)),
        Case::new(
            "channel.close in place of open-ok",
            OpensChannel,
            Says(close_channel(504)),
            Closed(ChannelClosed, 504),
        ),
        Case::new(
            "connection.close in place of open-ok",
            OpensChannel,
            Says(close_connection(530)),
            Closed(ConnectionClosed, 530),
        ),
        Case::new(
            "get-empty in place of nothing",
            Gets,
            Says(method(1, basic::GetEmpty::default()).repeat(2)),
            Fails(Protocol),
        )
        .told(503),
        Case::new(
            "consume-ok for another consumer",
            Consumes,
            Says(method(1, basic::ConsumeOk { consumer_tag: "x".into() })),
            Fails(Protocol),
        )
        .told(503),
        Case::new(
            "cancel where consume-ok is due",
            Consumes,
            Says(method(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: true })),
            Fails(Timeout),
        ),
        Case::new(
            "a consumer is cancelled",
            Consumes,
            Says([consumed(), method(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: true })].concat()),
            Fails(Cancelled),
        ),
        Case::new("a name of 255 octets that is not text", Declares, Does(|peer| Box::pin(strange_name(peer))), Fine),
    ]);
    cases
}

async fn strange_name(peer: &mut Peer) {
    peer.send(1, queue::DeclareOk { queue: bytes::Bytes::from(vec![0xff; 255]).into(), ..Default::default() }).await;
    peer.serve().await;
}

impl Case {
    fn ends(self, end: End) -> Self {
        let told = self.told.filter(|_| end == Fails(Protocol));
        Self { end, told, ..self }
    }
}

fn close_channel(reply_code: u16) -> Vec<u8> {
    method(1, channel::Close { reply_code, reply_text: "no".into(), ..Default::default() })
}

fn close_connection(reply_code: u16) -> Vec<u8> {
    method(0, connection::Close { reply_code, reply_text: "no".into(), ..Default::default() })
}

fn consumed() -> Vec<u8> {
    method(1, basic::ConsumeOk { consumer_tag: "tag".into() })
}

fn deliver(tag: &str, delivery_tag: u64) -> Vec<u8> {
    method(1, basic::Deliver { consumer_tag: tag.into(), delivery_tag, ..Default::default() })
}

/// Messages that are none.
fn content() -> Vec<Case> {
    let case = |name: &str, said: &[&[u8]], code| {
        Case::new(name, Consumes, Says([consumed(), said.concat()].concat()), Fails(Protocol)).told(code)
    };
    let deliver = || deliver("tag", 1);
    let of_class = |class: u8| written(&UncheckedFrame::new(2, 1, vec![0, class, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]));
    let got = || method(1, basic::GetOk::default());
    let broken_headers = || {
        let properties = RawProperties::new(bytes::Bytes::from_static(b"\x20\0\0\0\0\x03\x01kQ"));
        octets(&[Frame::Header(1, ContentHeader { body_size: 1, properties })])
    };
    let mut cases = vec![
        case("a header without a method", &[&header(1, 1)], 505),
        case("a body without a method", &[&body(1, b"x")], 505),
        case("a body without a header", &[&deliver(), &body(1, b"x")], 505),
        case("two headers", &[&deliver(), &header(1, 1), &header(1, 1)], 505),
        case("a body behind an empty message", &[&deliver(), &header(1, 0), &body(1, b"x")], 505),
        case("a body longer than announced", &[&deliver(), &header(1, 3), &body(1, b"four")], 501),
        case(
            "a body longer than announced, at its second frame",
            &[&deliver(), &header(1, 3), &body(1, b"12"), &body(1, b"34")],
            501,
        ),
        case("a body shorter than announced", &[&deliver(), &header(1, 3), &body(1, b"12"), &deliver()], 505),
        case("a delivery in the middle of another", &[&deliver(), &deliver()], 505),
        case("a method in the middle of a message", &[&deliver(), &header(1, 3), &method(1, basic::QosOk {})], 505),
        case("a return in the middle of a delivery", &[&deliver(), &method(1, basic::Return::default())], 505),
        case("a header of another class", &[&deliver(), &of_class(50)], 501),
        case("a header of class 0", &[&deliver(), &of_class(0)], 501),
        case(
            "a header of 13 octets",
            &[&deliver(), &written(&UncheckedFrame::new(2, 1, vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))],
            501,
        ),
        case("an empty header", &[&deliver(), &written(&UncheckedFrame::new(2, 1, ""))], 501),
        case("a delivery for an unknown consumer", &[&self::deliver("who?", 1), &header(1, 0)], 503),
        case("a delivery that is cut short", &[&written(&UncheckedFrame::new(1, 1, &b"\0\x3c\0\x3c\x03ta"[..]))], 501),
        Case::new(
            "get-ok without a message",
            Gets,
            Says([got(), method(1, basic::GetEmpty::default())].concat()),
            Fails(Protocol),
        )
        .told(505),
        Case::new(
            "get-ok whose body does not end",
            Gets,
            Says([got(), header(1, 100), body(1, b"x")].concat()),
            Fails(Timeout),
        ),
        Case::new("a message for nobody", Declares, Says([got(), header(1, 0)].concat()), Fails(Protocol)).told(503),
        Case::new(
            "a message with broken headers",
            Consumes,
            Says([consumed(), deliver(), broken_headers(), body(1, b"x"), close_channel(404)].concat()),
            Closed(ChannelClosed, 404),
        ),
        Case::new(
            "the end in the middle of a message",
            Consumes,
            Leaves([consumed(), deliver(), header(1, 9), body(1, b"x")].concat()),
            Fails(Io),
        ),
        Case::new(
            "close in the middle of a message",
            Consumes,
            Says([consumed(), deliver(), header(1, 9), close_channel(404)].concat()),
            Closed(ChannelClosed, 404),
        ),
        Case::new("empty body frames for ever", Consumes, Does(|peer| Box::pin(empty_bodies(peer))), Fails(Heartbeat))
            .within(200),
    ];
    for (name, size) in [("2^64-1", u64::MAX), ("2^63", 1 << 63), ("128 MiB and one", 128 * 1024 * 1024 + 1)] {
        let said = [consumed(), deliver(), header(1, size)].concat();
        cases.push(
            Case::new(format!("a body of {name} octets"), Consumes, Says(said), Fails(MessageTooLarge)).told(311),
        );
    }
    // As large as is allowed, and then nothing comes: no room was made for it.
    let said = [consumed(), deliver(), header(1, 128 * 1024 * 1024), body(1, b"x")].concat();
    cases.push(Case::new("a body of 128 MiB that does not come", Consumes, Leaves(said), Fails(Io)));
    let small =
        |name: &str, said: Vec<u8>, end| Case::new(name, Consumes, Says(said), end).with(|it| it.max_message_size(10));
    cases.push(
        small("a body over the limit by one", [consumed(), deliver(), header(1, 11)].concat(), Fails(MessageTooLarge))
            .told(311),
    );
    cases.push(small(
        "a body at the limit",
        [consumed(), deliver(), header(1, 10), body(1, &[1; 10]), close_channel(404)].concat(),
        Closed(ChannelClosed, 404),
    ));
    cases
}

/// Says that a message is coming, and then frames without anything in them, for a minute; then nothing.
async fn empty_bodies(peer: &mut Peer) {
    peer.raw(&[consumed(), deliver("tag", 1), header(1, 1)].concat()).await;
    for _ in 0..60 {
        peer.raw(&body(1, b"").repeat(1000)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    peer.listen().await;
}

fn confirms() -> Vec<Case> {
    let ack = |delivery_tag, multiple| method(1, basic::Ack { delivery_tag, multiple });
    let nack = |delivery_tag, multiple| method(1, basic::Nack { delivery_tag, multiple, requeue: false });
    let fails = |name: &str, said| Case::new(name, Publishes, Says(said), Fails(Protocol)).told(503);
    let returned = |key: &str| {
        let returned = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            routing_key: key.into(),
            ..Default::default()
        };
        [method(1, returned), header(1, 4), body(1, b"body")].concat()
    };
    vec![
        fails("an ack for a tag that was never used", ack(2, false)),
        fails("an ack for all up to a tag that was never used", ack(2, true)),
        fails("an ack for tag 0", ack(0, false)),
        fails("an ack for tag 2^64-1", ack(u64::MAX, true)),
        fails("a nack for a tag that was never used", nack(7, false)),
        fails("a nack for tag 0", nack(0, false)),
        fails("an ack that is cut short", written(&UncheckedFrame::new(1, 1, &b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01"[..])))
            .told(501),
        Case::new("a nack for all", Publishes, Says(nack(0, true)), Fails(Nacked)),
        Case::new("a nack a million times over", Publishes, Does(|peer| Box::pin(nacks(peer))), Fails(Nacked)),
        Case::new("a nack and then an ack", Publishes, Says([nack(1, false), ack(1, false)].concat()), Fails(Nacked)),
        Case::new(
            "a return and then an ack",
            Publishes,
            Says([returned("q"), ack(1, false)].concat()),
            Fails(Returned),
        ),
        Case::new(
            "the return of something else, and an ack",
            Publishes,
            Does(|peer| Box::pin(foreign_return(peer))),
            Fine,
        ),
        fails("an ack where nothing is confirmed", ack(1, false)).by(Declares),
        Case::new("channel.close in place of an ack", Publishes, Says(close_channel(404)), Closed(ChannelClosed, 404)),
        Case::new(
            "connection.close in place of an ack",
            Publishes,
            Says(close_connection(320)),
            Closed(ConnectionClosed, 320),
        ),
        Case::new("the end in place of an ack", Publishes, Leaves(vec![]), Fails(Io)),
        Case::new("silence in place of an ack", Publishes, Says(vec![]), Fails(Heartbeat)).within(125),
    ]
}

impl Case {
    fn by(self, program: Program) -> Self {
        Self { program, ..self }
    }
}

async fn nacks(peer: &mut Peer) {
    let thousand = method(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).repeat(1000);
    for _ in 0..1000 {
        if !peer.raw(&thousand).await {
            return;
        }
    }
}

async fn foreign_return(peer: &mut Peer) {
    let returned = basic::Return { routing_key: "elsewhere".into(), ..Default::default() };
    peer.raw(&[method(1, returned), header(1, 1), body(1, b"x")].concat()).await;
    peer.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    peer.serve().await;
}

/// Goodbyes of all kinds.
fn closes() -> Vec<Case> {
    let mut cases: Vec<Case> = [200, 311, 320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541, 0, 65535]
        .into_iter()
        .map(|code| {
            let said = close_connection(code);
            Case::new(format!("connection.close {code}"), Declares, Says(said), Closed(ConnectionClosed, code))
        })
        .collect();
    cases.extend([0, 200, 312, 404, 406, 541, 65535].map(|code| {
        Case::new(format!("channel.close {code}"), Declares, Says(close_channel(code)), Closed(ChannelClosed, code))
    }));
    let strange = connection::Close {
        reply_code: 320,
        reply_text: bytes::Bytes::from(vec![0xfe; 255]).into(),
        class_id: u16::MAX,
        method_id: u16::MAX,
    };
    cases.extend([
        Case::new(
            "connection.close whose text is none",
            Declares,
            Says(method(0, strange)),
            Closed(ConnectionClosed, 320),
        ),
        Case::new(
            "connection.close, a hundred times",
            Declares,
            Says(close_connection(320).repeat(100)),
            Closed(ConnectionClosed, 320),
        ),
        Case::new(
            "connection.close and the end",
            Declares,
            Leaves(close_connection(320)),
            Closed(ConnectionClosed, 320),
        ),
        Case::new("channel.close and then the end", Declares, Leaves(close_channel(404)), Closed(ChannelClosed, 404)),
        Case::new("close-ok that never comes, of a channel", ClosesChannel, Says(vec![]), Fails(Timeout)),
        Case::new("close-ok that never comes, of the connection", ClosesConnection, Says(vec![]), Fails(Timeout)),
        Case::new("the end in place of close-ok", ClosesConnection, Leaves(vec![]), Fine),
        Case::new(
            "crossing closes of the connection, and the end",
            ClosesConnection,
            Leaves(close_connection(320)),
            Fine,
        ),
        Case::new(
            "crossing closes of the connection, and silence",
            ClosesConnection,
            Says(close_connection(320)),
            Fails(Timeout),
        ),
        Case::new(
            "crossing closes of the connection",
            ClosesConnection,
            Says([close_connection(320), method(0, connection::CloseOk {})].concat()),
            Fine,
        ),
        Case::new("crossing closes of a channel", ClosesChannel, Does(|peer| Box::pin(crossing(peer))), Fine),
        Case::new(
            "deliveries behind our close",
            ClosesConnection,
            Says([deliver("x", 1), header(1, 2), body(1, b"12"), method(0, connection::CloseOk {})].concat()),
            Fine,
        ),
        Case::new("nonsense behind our close", ClosesConnection, Says(vec![0xff; 100]), Fine),
        Case::new("heartbeats in place of close-ok", ClosesConnection, Says(faults::heartbeats(100)), Fails(Timeout)),
    ]);
    cases
}

async fn crossing(peer: &mut Peer) {
    peer.raw(&close_channel(404)).await;
    peer.until("channel.close-ok").await;
    peer.send(1, channel::CloseOk {}).await;
    peer.serve().await;
}

/// Too much of what is allowed.
fn floods() -> Vec<Case> {
    let flood = |name: &str, program, script, end| Case::new(name, program, Does(script), end).within(200);
    vec![
        flood("flow, a million times, by one who does not read", Sleeps, |peer| Box::pin(flows(peer)), Fails(Io))
            .memory(8 * MEMORY),
        flood(
            "flow for ever, by one who does not read and stays",
            Sleeps,
            |peer| Box::pin(flows_for_ever(peer)),
            Fails(Heartbeat),
        )
        .within(125)
        .memory(4 * MEMORY),
        flood("cancels of nobody, by one who does not read", Sleeps, |peer| Box::pin(cancels(peer)), Fails(Io))
            .memory(8 * MEMORY),
        flood("empty deliveries for a consumer who sleeps", Sleeps, |peer| Box::pin(empty_deliveries(peer)), Fails(Io))
            .memory(4 * MEMORY)
            .with(|builder| builder.max_buffered(1024 * 1024)),
        flood(
            "deliveries of 64 KiB for a consumer who sleeps",
            Sleeps,
            |peer| Box::pin(large_deliveries(peer)),
            Fails(Io),
        )
        .memory(4 * MEMORY)
        .with(|builder| builder.max_buffered(1024 * 1024)),
        flood(
            "deliveries that are acked, by one who does not read and stays",
            Consumes,
            |peer| Box::pin(deliveries_for_ever(peer)),
            Fails(Heartbeat),
        )
        .within(130)
        .memory(4 * MEMORY)
        .with(|builder| builder.max_buffered(64 * 1024)),
        flood(
            "deliveries for a consumer who has left, by one who does not read and stays",
            Program::Leaves,
            |peer| Box::pin(deliveries_for_ever(peer)),
            Fails(Heartbeat),
        )
        .within(130)
        .memory(4 * MEMORY)
        .with(|builder| builder.max_buffered(64 * 1024)),
        Case::new(
            "more deliveries than there is room for, and then the consumer closes",
            Program::SleepsAndCloses,
            Serves(
                [consumed(), [deliver("tag", 1), header(1, 1000), body(1, &[7; 1000])].concat().repeat(200)].concat(),
            ),
            Fine,
        )
        .with(|builder| builder.max_buffered(20_000)),
        flood("returns that nobody asked for", Sleeps, |peer| Box::pin(returns(peer)), Fails(Io))
            .memory(4 * MEMORY)
            .with(|builder| builder.max_buffered(1024 * 1024)),
        flood("blocked and unblocked, for ever", Sleeps, |peer| Box::pin(blocks(peer)), Fails(Io)),
        flood("heartbeats, a million", Sleeps, |peer| Box::pin(heartbeats(peer)), Fails(Io)),
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

async fn flows(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    repeat(peer, &method(1, channel::Flow { active: true }).repeat(1000), 1000).await;
}

async fn flows_for_ever(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    let flows = method(1, channel::Flow { active: true }).repeat(1000);
    while peer.raw(&flows).await {}
}

async fn cancels(peer: &mut Peer) {
    let cancel = basic::Cancel { consumer_tag: "x".repeat(255).into(), no_wait: false };
    peer.raw(&consumed()).await;
    repeat(peer, &method(1, cancel).repeat(100), 1000).await;
}

async fn empty_deliveries(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    repeat(peer, &[deliver("tag", 1), header(1, 0)].concat().repeat(1000), 200).await;
}

async fn deliveries_for_ever(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    repeat(peer, &[deliver("tag", 1), header(1, 1), body(1, b"x")].concat().repeat(1000), 500).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
}

async fn large_deliveries(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    repeat(peer, &[deliver("tag", 1), header(1, 65_536), body(1, &vec![7; 65_536])].concat(), 500).await;
}

async fn returns(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    let returned = basic::Return { reply_code: 312, ..Default::default() };
    repeat(peer, &[method(1, returned), header(1, 65_536), body(1, &vec![7; 65_536])].concat(), 500).await;
}

async fn blocks(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    let blocked = method(0, connection::Blocked { reason: "x".repeat(255).into() });
    repeat(peer, &[blocked, method(0, connection::Unblocked {})].concat().repeat(100), 1000).await;
}

async fn heartbeats(peer: &mut Peer) {
    peer.raw(&consumed()).await;
    repeat(peer, &faults::heartbeats(1000), 1000).await;
}

// ------------------------------------------------------------------------------------------------------------- the judge

async fn server(mut peer: Peer, due: &'static str, asks: &'static str, attack: Attack) -> Vec<String> {
    peer.shake_hands_until(due).await;
    if due.is_empty() && asks != "connection.open" {
        peer.until(asks).await;
    }
    match attack {
        Says(said) => {
            peer.raw(&said).await;
            peer.listen().await
        }
        Leaves(said) => {
            peer.raw(&said).await;
            Vec::new()
        }
        Serves(said) => {
            peer.raw(&said).await;
            peer.serve().await;
            Vec::new()
        }
        Does(script) => {
            script(&mut peer).await;
            Vec::new()
        }
    }
}

/// Runs a case. What is not as it should be, in words.
fn judge(case: Case) -> Option<String> {
    let Case { name, program, due, attack, end, told, within, memory, builder } = case;
    let listens = matches!(attack, Says(_));
    let (outcome, took, peak) = run(async move {
        let (ours, theirs) = Stream::pipe();
        let server = tokio::spawn(server(Peer::new(theirs), due, program.asks(), attack));
        let builder = builder(Connection::builder("amqp://villain").unwrap());
        let begun = Instant::now();
        let result = program.run(builder, ours).await;
        let took = begun.elapsed();
        (result, took, server.await.unwrap())
    });
    let Some((result, took, heard)) = outcome else { return Some(format!("{name}: hangs ({took:?})")) };
    let found = match &result {
        Ok(()) => Fine,
        Err(error) => match error.reply_code() {
            Some(code) if error.kind() != Returned => Closed(error.kind(), code.0),
            _ => Fails(error.kind()),
        },
    };
    let close = heard.iter().find_map(|said| said.strip_prefix("connection.close ")).and_then(|code| code.parse().ok());
    let close = close.filter(|code: &u16| *code != 200);
    let mut wrong = Vec::new();
    if found != end {
        wrong.push(format!("ends as {found:?} and not as {end:?} ({result:?})"));
    }
    if listens && close != told.filter(|code| *code != 0) {
        wrong.push(format!("tells the server {close:?} and not {told:?}"));
    }
    wrong.extend(crate::beyond((took, within), (peak, memory)));
    (!wrong.is_empty()).then(|| format!("{name} ({program:?}): {}", wrong.join("; ")))
}

#[test]
fn a_hostile_server_is_survived() {
    crate::assert_none(&cases().into_iter().filter_map(judge).collect::<Vec<_>>());
}

/// A server that confirms on one channel of a sender and not on the other: what it has confirmed is let go, though nobody waits for any
/// of it, and what came first is of unknown outcome for ever.
#[test]
fn a_channel_without_confirms_does_not_hold_what_others_have_confirmed() {
    let (sent, _, peak) = run(async {
        let (ours, theirs) = Stream::pipe();
        let mut peer = Peer::new(theirs);
        let server = async {
            peer.shake_hands_until("").await;
            let mut tag = 0;
            while let Some(frame) = peer.frame().await {
                match frame {
                    Frame::Method(2, Method::Basic(basic::Method::Publish(_))) => {
                        tag += 1;
                        peer.send(2, basic::Ack { delivery_tag: tag, multiple: false }).await;
                    }
                    Frame::Method(number, method) => peer.grant(number, method).await,
                    _ => {}
                }
            }
        };
        let client = async {
            let client = Client::builder("amqp://villain").unwrap().connect_with(ours).await.unwrap();
            let sender = client.sender().channels(2).max_in_flight(8).timeout(Duration::from_secs(1)).build().unwrap();
            let mut sent = 0;
            for _ in 0..2000 {
                let pending = sender.send_pipelined(Target::queue("q"), vec![7; 5000]).await;
                sent += u32::from(pending.is_ok());
            }
            sent
        };
        tokio::select! {
            sent = client => sent,
            () = server => panic!("the client has gone"),
        }
    });
    assert_eq!(sent, Some(1004), "all on the one channel, and what fits the other's window");
    assert!(peak < MEMORY, "{peak} octets");
}

/// A server that is always too late: consumers that were given up leave nothing behind, once it has answered.
#[test]
fn consumers_that_are_given_up_leave_nothing_behind() {
    let (given_up, _, peak) = run(async {
        let (ours, theirs) = Stream::pipe();
        let mut peer = Peer::new(theirs);
        let server = async {
            peer.shake_hands_until("").await;
            while let Some(frame) = peer.frame().await {
                match frame {
                    Frame::Method(_, Method::Basic(basic::Method::Qos(_))) => {}
                    Frame::Method(number, Method::Basic(basic::Method::Consume(consume))) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        peer.send(number, basic::QosOk {}).await;
                        peer.send(number, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await;
                    }
                    Frame::Method(number, Method::Basic(basic::Method::Cancel(cancel))) => {
                        peer.send(number, basic::CancelOk { consumer_tag: cancel.consumer_tag }).await;
                    }
                    Frame::Method(number, method) => peer.grant(number, method).await,
                    _ => {}
                }
            }
        };
        let client = async {
            let connection = Connection::builder("amqp://villain").unwrap().open_with(ours).await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            for _ in 0..4000 {
                let error = channel.basic_consume("q").deadline(Duration::from_millis(1)).await.unwrap_err();
                assert_eq!(error.kind(), Timeout);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = client => {}
            () = server => panic!("the client has gone"),
        }
    });
    assert!(given_up.is_some() && peak < MEMORY / 2, "{peak} octets");
}

/// The reply to a caller who has left is nobody's, and the next caller gets his own.
#[test]
fn a_reply_after_the_caller_left_is_nobodys() {
    let (names, ..) = run(async {
        let (ours, theirs) = Stream::pipe();
        let mut peer = Peer::new(theirs);
        let server = async {
            peer.shake_hands_until("").await;
            peer.until("queue.declare").await;
            peer.until("queue.declare").await;
            for name in ["late", "right"] {
                peer.send(1, queue::DeclareOk { queue: name.into(), ..Default::default() }).await;
            }
        };
        let client = async {
            let connection = Connection::builder("amqp://villain").unwrap().open_with(ours).await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            let error = channel.queue_declare("late").deadline(Duration::from_secs(1)).await.unwrap_err();
            let queue = channel.queue_declare("right").await.unwrap();
            (error.kind(), queue.name().to_string())
        };
        tokio::join!(client, server).0
    });
    assert_eq!(names, Some((Timeout, "right".into())));
}

/// A table that says nothing wrong, and is the largest that fits: it is read, and costs a multiple of its size at most.
#[test]
fn a_table_bomb_costs_a_multiple_of_its_size() {
    let entries: FieldTable = (0..1300).map(|at| (format!("{at:04}"), leveret::codec::FieldValue::Void)).collect();
    let said = method(0, connection::Start { server_properties: entries, ..start() });
    assert!(said.len() < 8192);
    let (outcome, _, peak) = run(async move {
        let (ours, theirs) = Stream::pipe();
        let server = tokio::spawn(server(Peer::new(theirs), "connection.start", "", Leaves(said)));
        let result = Connects.run(Connection::builder("amqp://villain").unwrap(), ours).await;
        server.await.unwrap();
        result.unwrap_err().kind()
    });
    assert_eq!(outcome, Some(Auth), "the server hangs up where tune is due");
    assert!(peak < MEMORY, "{peak} octets");
}
