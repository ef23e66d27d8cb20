//! From a mail server to a queue: which verdict each fate gets, and a stream of JSON lines that is never lost and never fills the memory.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly, and so do their helpers"
)]

#[macro_use]
#[path = "shared/running.rs"]
mod running;
#[path = "shared/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leveret::amqp::{Channel, Connection};
use leveret::messaging::{Client, ClientState, Sender, Target};
use leveret::registry::{Registry, RegistryConfig};
use leveret::relay::{Class, Record, Relay, RelayConfig, RelayError, Verdict};
use tokio::io::{AsyncWriteExt, BufReader};

use crate::running::{PATIENCE, until, within};
use crate::servers::{Server, against_rabbitmq};

/// The queues `q` and `other`, and a channel to look at them.
async fn prepared(server: &Server) -> Channel {
    let connection = within("a connection", Connection::open(&server.url)).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare("q").await.unwrap();
    channel.queue_declare("other").await.unwrap();
    channel
}

/// A registry with the entries `fast` and `slow`, which differ in their timeouts.
fn registry(server: &Server) -> Registry {
    let names = format!(
        "[connections]\nmq = \"{}\"\n[outgoing.slow]\nconnection = \"mq\"\n[outgoing.fast]\nconnection = \"mq\"\ntimeout = \"200ms\"",
        server.url
    );
    Registry::from_config(toml::from_str::<RegistryConfig>(&names).unwrap()).unwrap()
}

fn relay(server: &Server, routes: &str) -> Relay {
    Relay::new(registry(server), toml::from_str::<RelayConfig>(routes).unwrap()).unwrap()
}

/// By the field `to` of a record: a queue, or an exchange that is not there.
const BY_TO: &str = r#"
    retry_first = "5ms"

    [[routes]]
    when = { to = "missing" }
    outgoing = "slow"
    exchange = "missing"

    [[routes]]
    when = { to = "*" }
    outgoing = "slow"
    queue = "{to}"
"#;

/// The same over the entry that does not wait long.
const FAST: &str = r#"
    retry_first = "5ms"
    routes = [{ name = "all", outgoing = "fast", queue = "{to}" }]
"#;

/// Delivers until a record is accepted: from then on the entry has its channel, and what it sends leaves at once, however busy the machine is.
async fn warm(relay: &Relay) {
    until("a record to be accepted", async || relay.deliver(&record("other")).await.class == Class::Accepted).await;
}

fn record(to: &str) -> Record {
    Record::new("x").field("to", to)
}

/// From now on the entry waits as long as it takes: what fails then fails for another reason than a machine that is busy.
fn be_patient(relay: &Relay) {
    relay.registry().edit_outgoing("fast", |outgoing| outgoing.timeout = PATIENCE).unwrap();
}

async fn verdict(relay: &Relay, record: &Record) -> (u16, Class) {
    let verdict = within("a verdict", relay.deliver(record)).await;
    (verdict.code, verdict.class)
}

/// The message ids in a queue, and how often each of them is there.
async fn ids(channel: &Channel, queue: &str) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    while let Some(got) = channel.basic_get(queue).no_ack().await.unwrap() {
        let id = got.message.properties().unwrap().message_id.unwrap().to_string();
        *ids.entry(id).or_default() += 1;
    }
    ids
}

// ---------------------------------------------------------------------------------------------------------- one record

on_every_server! {
    async fn kl1_kl2_kl3_every_fate_has_its_code(server: Server) {
        let channel = prepared(server).await;
        let relay = relay(server, BY_TO);
        assert_eq!(verdict(&relay, &record("q").id("7")).await, (250, Class::Accepted));
        assert_eq!(ids(&channel, "q").await, BTreeMap::from([("7".into(), 1)]));

        let returned = within("a verdict", relay.deliver(&record("nowhere"))).await;
        assert_eq!((returned.code, returned.class), (550, Class::Refused));
        assert!(returned.text.contains("312") || returned.text.contains("NO_ROUTE"), "{returned}");
        let missing = within("a verdict", relay.deliver(&record("missing"))).await;
        assert_eq!((missing.code, missing.class), (550, Class::Refused), "{missing}");
        assert!(missing.text.contains("404"), "{missing}");
        assert_eq!(verdict(&relay, &Record::new("x")).await, (550, Class::Refused), "no route");
        assert_eq!(verdict(&relay, &record(&"x".repeat(256))).await, (550, Class::Refused), "no name is so long");

        // The operator's affairs are no reason to lose mail.
        relay.registry().deactivate("slow").unwrap();
        assert_eq!(verdict(&relay, &record("q")).await, (451, Class::Retry));
        relay.registry().activate("slow").unwrap();
        drop(
            relay.registry().set_connection("mq", Client::builder("amqp://guest:wrong@127.0.0.1:1/%2f").unwrap()).unwrap(),
        );
        relay.registry().edit_outgoing("slow", |outgoing| outgoing.timeout = Duration::from_millis(50)).unwrap();
        assert_eq!(verdict(&relay, &record("q")).await, (451, Class::Retry), "nobody listens there");
        relay.registry().edit_outgoing("slow", |outgoing| outgoing.timeout = PATIENCE).unwrap();
        relay.registry().set_connection("mq", Client::builder(&server.url).unwrap()).unwrap();
        assert_eq!(verdict(&relay, &record("q")).await, (250, Class::Accepted));
        relay.registry().remove_outgoing("slow").unwrap();
        assert_eq!(verdict(&relay, &record("q")).await, (451, Class::Retry));
        within("closing", relay.registry().close_within(PATIENCE)).await;
        assert_eq!(verdict(&relay, &record("q")).await, (421, Class::Retry));
    }

    /// A route that does not fit its entry's transport is the operator's mistake, and no reason to bounce mail.
    async fn kl3_a_topic_over_amqp_is_kept(server: Server) {
        prepared(server).await;
        let relay = relay(server, "routes = [{ outgoing = \"slow\", topic = \"mail\", key = \"{to}\" }]");
        let verdict = within("a verdict", relay.deliver(&record("q"))).await;
        assert_eq!((verdict.code, verdict.class), (451, Class::Retry), "{verdict}");
    }
}

on_its_own! {
    async fn kl3_a_server_that_takes_no_messages_is_tried_again() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let relay = relay(&server, FAST);
        warm(&relay).await;
        server.in_the_box().block("low on memory");
        // Written before the client hears of it, the message might arrive all the same.
        let client = relay.registry().client("mq").unwrap();
        until("the client hears of it", async || client.state() == ClientState::Blocked).await;
        assert_eq!(verdict(&relay, &record("q").id("later")).await, (451, Class::Retry));
        be_patient(&relay);
        server.in_the_box().unblock();
        within("it takes messages again", async {
            while verdict(&relay, &record("q").id("later")).await != (250, Class::Accepted) {}
        })
        .await;
        assert_eq!(ids(&channel, "q").await.get("later"), Some(&1), "what was not sent is not there twice");
    }

    /// What may have arrived comes twice, and the id says so.
    async fn kl5_what_is_unknown_is_tried_again_with_the_same_id() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let relay = relay(&server, FAST);
        let record = record("q").id("spool-1");
        warm(&relay).await;
        server.in_the_box().hold_confirms(true);
        assert_eq!(verdict(&relay, &record).await, (451, Class::Retry));
        server.in_the_box().hold_confirms(false);
        be_patient(&relay);
        assert_eq!(verdict(&relay, &record).await, (250, Class::Accepted));
        assert_eq!(ids(&channel, "q").await, BTreeMap::from([("spool-1".into(), 2)]));
    }
}

on_every_server! {
    /// A missing exchange closes the channel for all that is on it; only those are refused whose fault it was.
    async fn kl4_the_culprits_of_a_batch_are_found(server: Server) {
        let channel = prepared(server).await;
        let relay = relay(server, BY_TO);
        let to = |at: usize| if at % 5 == 3 { "missing" } else { "q" };
        let records: Vec<_> = (0..20).map(|at| record(to(at)).id(at.to_string())).collect();
        let verdicts = within("verdicts", relay.deliver_batch(&records)).await;
        let codes: Vec<_> = verdicts.iter().map(|verdict| verdict.code).collect();
        let expected: Vec<_> = (0..20).map(|at| if to(at) == "missing" { 550 } else { 250 }).collect();
        assert_eq!(codes, expected, "{verdicts:?}");
        let arrived: BTreeSet<_> = ids(&channel, "q").await.into_keys().collect();
        assert_eq!(arrived, (0..20).filter(|at| to(*at) == "q").map(|at| at.to_string()).collect());
        assert!(relay.deliver_batch([]).await.is_empty());
    }
}

on_its_own! {
    /// Once one of them gets no answer alone, the others are not tried: each of them would wait as long.
    async fn kl4_looking_for_culprits_does_not_take_for_ever() {
        let server = Server::broker().await;
        prepared(&server).await;
        let routes = "[[routes]]\nwhen = { to = \"missing\" }\noutgoing = \"fast\"\nexchange = \"missing\"\n";
        let relay = relay(&server, &format!("{routes}[[routes]]\noutgoing = \"fast\"\nqueue = \"{{to}}\""));
        warm(&relay).await;
        server.in_the_box().hold_confirms(true);
        let records: Vec<_> = ["q", "missing", "q", "missing"].map(record).into();
        // The server may take longer than the entry waits to say that there is a culprit, and then none is looked for.
        until("verdicts of those not tried alone", async || {
            let verdicts = within("verdicts", relay.deliver_batch(&records)).await;
            assert_eq!(verdicts.iter().map(|verdict| verdict.code).collect::<Vec<_>>(), [451; 4], "{verdicts:?}");
            verdicts[3].text.contains("404")
        })
        .await;
        // With an answer, they are found.
        server.in_the_box().hold_confirms(false);
        be_patient(&relay);
        let verdicts = within("verdicts", relay.deliver_batch(&records)).await;
        assert_eq!(verdicts.iter().map(|verdict| verdict.code).collect::<Vec<_>>(), [250, 550, 250, 550], "{verdicts:?}");
    }

    async fn kl4_one_verdict_for_a_whole_batch() {
        let server = Server::broker().await;
        prepared(&server).await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let sender = client.sender().build().unwrap();
        let batch = async |sender: &Sender, queues: &[&str]| {
            Verdict::of_batch(&sender.send_batch(queues.iter().map(|queue| (Target::queue(*queue), "x"))).await)
        };
        assert_eq!(within("a batch", batch(&sender, &["q", "other"])).await.to_string(), "250 accepted 2");
        let refused = within("a batch", batch(&sender, &["q", "nowhere", "nowhere"])).await;
        assert_eq!(refused.code, 550);
        assert!(refused.text.starts_with("2 of 3 not accepted; number 1: "), "{refused}");
        server.in_the_box().hold_confirms(true);
        let hurried = sender.with_timeout(Duration::from_millis(200));
        let unknown = within("a batch", batch(&hurried, &["nowhere", "q"])).await;
        assert_eq!((unknown.code, unknown.class), (451, Class::Retry), "{unknown}");
        assert_eq!(Verdict::of_batch(&sender.send_batch(Vec::<(Target, &str)>::new()).await).code, 250);
    }
}

on_every_server! {
    async fn a_relay_that_cannot_work_is_refused(server: Server) {
        prepared(server).await;
        let refused = |routes: &str| {
            let config = toml::from_str::<RelayConfig>(routes).unwrap();
            Relay::new(registry(server), config).unwrap_err()
        };
        assert!(matches!(refused("routes = [{ outgoing = \"x\" }]"), RelayError::Registry { at: 0, .. }));
        let error = refused("routes = [{ outgoing = \"slow\", queue = \"q\" }, { outgoing = \"slow\" }]");
        assert!(matches!(error, RelayError::Registry { at: 1, .. }) && error.to_string().contains("where"), "{error}");
        let error = refused("routes = [{ outgoing = \"slow\", queue = \"{\" }]");
        assert!(matches!(error, RelayError::Route { at: 0, .. }), "{error}");
    }
}

// ------------------------------------------------------------------------------------------------------------ a stream

on_every_server! {
    async fn kl7_a_stream_is_told_of_line_by_line(server: Server) {
        let channel = prepared(server).await;
        let relay = relay(server, &format!("max_line = 100\nunrouted = \"drop\"\nbatch = 7\n{BY_TO}"));
        let mut input = String::new();
        for at in 0..200 {
            let to = ["q", "other", "nowhere", "missing"][at % 4];
            input.push_str(&format!("{{\"to\": \"{to}\", \"n\": {at}}}\n"));
        }
        input.push_str("\r\n{\"to\": \n[1]\n{\"from\": 1}\n");
        input.push_str(&format!("{{\"to\": \"{}\"}}\n{{\"to\": \"q\"}}", "x".repeat(100)));
        let mut told = BTreeMap::new();
        let each = |fate: leveret::relay::Fate<'_>| {
            assert_eq!(told.insert(fate.line, fate.verdict.code), None, "told of twice: line {}", fate.line);
        };
        let report = within("the stream", relay.run(input.as_bytes(), each)).await.unwrap();
        for line in 1..=200 {
            assert_eq!(told[&line], if line % 4 < 3 && line % 4 > 0 { 250 } else { 550 }, "line {line}");
        }
        assert_eq!(
            (201..=206).map(|line| told.get(&line).copied()).collect::<Vec<_>>(),
            [None, Some(550), Some(550), Some(250), Some(552), Some(250)]
        );
        assert_eq!(report.to_string(), "205 lines: 102 accepted, 103 refused, 0 deferred; 0 retries");
        assert!(!report.is_clean());
        assert_eq!(report.routes["slow"].accepted, 101);
        assert_eq!((ids(&channel, "q").await.len(), ids(&channel, "other").await.len()), (51, 50));
    }
}

on_its_own! {
    /// Confirms come only after the first attempt has been given up: tried again, with the same ids.
    async fn kl5_a_stream_tries_again_and_then_gives_up() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let stubborn = relay(&server, &format!("attempts = 100\n{FAST}"));
        let input = "{\"to\": \"q\"}\n".repeat(10);

        warm(&stubborn).await;
        server.in_the_box().hold_confirms(true);
        let release = async {
            // All of the second attempt are there, or some of it.
            let arrived = async || channel.queue_declare("q").passive(true).await.unwrap().message_count();
            until("a second attempt", async || arrived().await >= 15).await;
            server.in_the_box().hold_confirms(false);
        };
        let run = stubborn.run(input.as_bytes(), |fate| assert!(fate.attempts > 1));
        let (report, ()) = tokio::join!(within("the stream", run), release);
        let report = report.unwrap();
        assert_eq!((report.accepted, report.deferred), (10, 0), "{report}");
        assert!(report.retries >= 10, "{report}");
        let ids = ids(&channel, "q").await;
        assert_eq!(ids.len(), 10, "ten ids");
        assert!(ids.values().all(|times| *times >= 2), "{ids:?}");

        let relay = relay(&server, &format!("attempts = 3\n{FAST}"));
        server.in_the_box().hold_confirms(true);
        let mut deferred = 0;
        let each = |fate: leveret::relay::Fate<'_>| {
            assert_eq!((fate.verdict.code, fate.attempts), (451, 3));
            deferred += 1;
        };
        let report = within("the stream", relay.run(input.as_bytes(), each)).await.unwrap();
        assert_eq!((report.deferred, report.retries, deferred), (10, 20, 10), "{report}");
    }

    /// Nothing is accepted, so everything that is read stays in memory until its attempts are used up: the writer has to wait.
    async fn kl8_a_stream_that_is_faster_than_the_server_waits() {
        let server = Server::broker().await;
        const LINES: u64 = 60;
        prepared(&server).await;
        let relay = relay(&server, &format!("attempts = 2\nmax_pending = 10\nbatch = 5\n{FAST}"));
        relay.registry().edit_outgoing("fast", |outgoing| outgoing.timeout = Duration::from_millis(50)).unwrap();
        server.in_the_box().block("low on memory");
        let (mut writer, reader) = tokio::io::duplex(32);
        let written = Arc::new(AtomicU64::new(0));
        let writing = tokio::spawn({
            let written = Arc::clone(&written);
            async move {
                for _ in 0..LINES {
                    writer.write_all(b"{\"to\": \"q\"}\n").await.unwrap();
                    written.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let (mut told, mut most) = (0, 0);
        let each = |_: leveret::relay::Fate<'_>| {
            most = most.max(written.load(Ordering::SeqCst) - told);
            told += 1;
        };
        let report = within("the stream", relay.run(BufReader::with_capacity(32, reader), each)).await.unwrap();
        within("the writer", writing).await.unwrap();
        assert_eq!((report.lines, report.deferred), (LINES, LINES), "{report}");
        // Ten in memory, and some in the pipe and the reader: 64 octets of 12 each.
        assert!((5..=10 + 6).contains(&most), "{most} were in memory or on their way");
    }
}

on_every_server! {
    /// "As long as it takes" is a time like any other.
    async fn times_that_are_longer_than_any_program_do_not_overflow(server: Server) {
        prepared(server).await;
        let relay = relay(server, &format!("batch_wait = 1e19\n{BY_TO}"));
        let report = within("the stream", relay.run(&b"{\"to\": \"q\"}\n"[..], |_| {})).await.unwrap();
        assert_eq!(report.accepted, 1, "{report}");
    }

    async fn a_stream_that_breaks_off_is_an_error_after_what_was_read(server: Server) {
        let channel = prepared(server).await;
        let relay = relay(server, BY_TO);
        struct Breaks(&'static [u8]);
        impl tokio::io::AsyncRead for Breaks {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                if self.0.is_empty() {
                    return std::task::Poll::Ready(Err(std::io::Error::other("broken")));
                }
                buffer.put_slice(std::mem::take(&mut self.0));
                std::task::Poll::Ready(Ok(()))
            }
        }
        let input = BufReader::new(Breaks(b"{\"to\": \"q\"}\n{\"to\": \"q\"}\n"));
        let mut told = 0;
        let error = within("the stream", relay.run(input, |_| told += 1)).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), told), ("broken", 2));
        assert_eq!(ids(&channel, "q").await.len(), 2);
    }
}

/// Each record waits for itself: one that is due is not held up by another that came later and is due later.
#[tokio::test(start_paused = true)]
async fn each_record_is_tried_again_when_it_is_due() {
    let names =
        "connections = { mq = \"amqp://127.0.0.1:1\" }\noutgoing = { off = { connection = \"mq\", active = false } }";
    let registry = Registry::from_config(toml::from_str::<RegistryConfig>(names).unwrap()).unwrap();
    let routes =
        "attempts = 2\nretry_first = 100\nretry_longest = 100\nroutes = [{ outgoing = \"off\", queue = \"q\" }]";
    let relay = Relay::new(registry, toml::from_str::<RelayConfig>(routes).unwrap()).unwrap();
    let input = "{}\n".repeat(50);
    let begin = tokio::time::Instant::now();
    let mut told = Vec::new();
    let report =
        relay.run(BufReader::new(input.as_bytes()), |fate| told.push((fate.line, begin.elapsed()))).await.unwrap();
    assert_eq!((report.deferred, report.retries, told.len()), (50, 50, 50));
    let times: BTreeSet<Duration> = told.iter().map(|(_, time)| *time).collect();
    assert!(times.len() >= 20, "the waits are shortened by chance, and here many are the same: {times:?}");
    assert!(times.iter().all(|time| (50_000..101_000).contains(&time.as_millis())), "{times:?}");
}

/// What is done with takes no memory any more: however little there may be, everything gets through.
#[test]
fn as_many_as_there_are_get_through_little_memory() {
    let (tell, told) = std::sync::mpsc::channel();
    // In a thread of its own: whoever counts wrongly does not wait but go round and round.
    std::thread::spawn(move || {
        let names = "connections = { mq = \"amqp://127.0.0.1:1\" }\noutgoing = { off = { connection = \"mq\", active = false } }";
        let registry = Registry::from_config(toml::from_str::<RegistryConfig>(names).unwrap()).unwrap();
        let routes = "attempts = 1\nmax_pending_bytes = 1\nroutes = [{ outgoing = \"off\", queue = \"q\" }]";
        let relay = Relay::new(registry, toml::from_str::<RelayConfig>(routes).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let input = "{}\n".repeat(50);
        let report = runtime.block_on(relay.run(BufReader::new(input.as_bytes()), |_| {})).unwrap();
        tell.send(report.deferred).unwrap();
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(50));
}
