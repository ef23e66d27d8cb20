//! No secret is shown: not in what a connection logs, not in the `Debug` of anything public, not in errors.
//!
//! One test, since the subscriber that hears everything is the process's own.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::fmt::{self, Debug, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leveret::amqp::{Config, Connection, ConnectionBuilder, Credentials, ExpiringCredentials, Sasl, Secret};
use leveret::broker::Broker;
use leveret::codec::{Method, method::connection};
use leveret::error::Error;
use leveret::messaging::{Client, ClientCache, Disposition, Source, Target};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// In everything that must not be shown.
const MARK: &str = "hush";

/// Everything that was said.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Heard {
    fn hear(&self, words: impl Debug) {
        writeln!(self.0.lock().unwrap(), "{words:?}\n{words:#?}").unwrap();
    }

    fn hear_error(&self, error: &Error) {
        self.hear(error);
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = source {
            writeln!(self.0.lock().unwrap(), "{error} {error:?}").unwrap();
            source = error.source();
        }
    }
}

impl Visit for &Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

/// Hears everything at every level.
impl Subscriber for Heard {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut &*self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        writeln!(self.0.lock().unwrap(), "event {} {}", event.metadata().target(), event.metadata().level()).unwrap();
        event.record(&mut &*self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let heard = Heard::default();
    tracing::subscriber::set_global_default(heard.clone()).unwrap();
    // A panic's words count as well.
    let panicked = heard.clone();
    std::panic::set_hook(Box::new(move |panic| panicked.hear(format!("{panic}"))));

    let builder = Broker::builder().user("u", "hush-1").mechanisms("PLAIN AMQPLAIN RABBIT-CR-DEMO");
    heard.hear(&builder);
    let broker = builder.bind("127.0.0.1:0").await.unwrap();
    heard.hear(&broker);

    good_sessions(&heard, &broker).await;
    failed_logins(&heard, &broker).await;
    urls(&heard);
    plain_data(&heard);
    expiring(&heard, &broker).await;
    facade(&heard, &broker).await;
    broker.shutdown().await;
    heard.hear(&broker);

    let heard = heard.0.lock().unwrap().clone();
    drop(std::panic::take_hook());
    assert!(heard.contains("event leveret") && heard.contains("connection open"), "nothing was logged:\n{heard}");
    // lapin 459: what a program is told of anyway is no error in its log.
    assert!(!heard.lines().any(|line| line.starts_with("event leveret") && line.ends_with(" ERROR")), "{heard}");
    for line in heard.lines() {
        assert!(!line.contains(MARK) && !shows_octets(line), "{line}");
    }
}

/// The mark as a list of numbers, as octets are shown by some.
fn shows_octets(line: &str) -> bool {
    let numbers: Vec<String> = MARK.bytes().map(|octet| octet.to_string()).collect();
    line.contains(&numbers.join(", "))
}

/// Logins that succeed, with everything shown that there is to show at each step.
async fn good_sessions(heard: &Heard, broker: &Broker) {
    for mechanism in [Sasl::Plain, Sasl::AmqPlain, Sasl::RabbitCrDemo] {
        let builder = Connection::builder(&broker.url()).unwrap().mechanisms([mechanism]);
        heard.hear(&builder);
        heard.hear(builder.config());
        let connection = builder.open().await.unwrap();
        heard.hear(&connection);
        connection.update_secret("hush-2", "a test").await.unwrap();
        // The request stands in the buffer while this is shown.
        let update = connection.update_secret("hush-3", "a test");
        tokio::select! {
            biased;
            updated = update => updated.unwrap(),
            () = std::future::ready(()) => {}
        }
        heard.hear(&connection);
        let channel = connection.open_channel().await.unwrap();
        heard.hear(&channel);
        heard.hear(connection.server());
        connection.close().await.unwrap();
        heard.hear(&connection);
    }
}

async fn failed_logins(heard: &Heard, broker: &Broker) {
    for mechanism in [Sasl::Plain, Sasl::AmqPlain, Sasl::RabbitCrDemo, Sasl::External] {
        let builder = Connection::builder(&broker.url()).unwrap().mechanisms([mechanism]);
        let refused = builder.credentials(Credentials::new("u", "hush-wrong"));
        heard.hear_error(&refused.open().await.unwrap_err());
    }
    let long = Credentials::new("u", "hush".repeat(3000));
    let refused = Connection::builder(&broker.url()).unwrap().credentials(long);
    heard.hear_error(&refused.open().await.unwrap_err());
    // Nobody listens there.
    for hosts in ["127.0.0.1:1", "127.0.0.1:1,localhost:1,[::1]:1"] {
        heard.hear_error(&Connection::open(&format!("amqp://u:hush@{hosts}")).await.unwrap_err());
    }
    let (ours, _) = tokio::io::duplex(8);
    let builder = Connection::builder("amqp://u:hush@host").unwrap().connect_timeout(Duration::from_millis(20));
    heard.hear_error(&builder.connect_with(ours).await.unwrap_err());
}

/// Characters that have a meaning in URLs, at every place of the password; and TLS with a passphrase.
fn urls(heard: &Heard) {
    for odd in
        ["", "/", "?", "#", "@", ":", "%", "%zz", "%ff", " ", "[", "]", ",", "&", "=", "\\", "\n", "é", "//", ":1/"]
    {
        for url in [
            format!("amqp://u:{odd}hush@host:x"),
            format!("amqp://u:hush{odd}@host/a/b"),
            format!("amqp://u:1{odd}hush@host?unknown=1"),
            format!("amqp://u:hush{odd}1@ho st"),
            format!("amqp://u:1@{odd}hush@host"),
            format!("amqp://u:1@2{odd}hush@host/x?heartbeat=5"),
            format!("amqp://u:1@hush{odd}2@host"),
            format!("amqp:/u:hush{odd}@host"),
            format!("u:hush{odd}@host"),
            format!("amqps://u:hush{odd}@host?password=hush{odd}&verify=x"),
            format!("amqps://u:1@host?password=hush{odd}"),
        ] {
            match Config::from_url(&url) {
                Ok(config) => heard.hear(&config),
                Err(error) => heard.hear_error(&error),
            }
            if let Err(error) = serde_json::from_value::<Config>(serde_json::json!({"url": url})) {
                heard.hear(error);
            }
        }
    }
}

fn plain_data(heard: &Heard) {
    heard.hear(Credentials::new("u", "hush"));
    heard.hear(ExpiringCredentials::new(Credentials::new("u", "hush")));
    heard.hear(Secret::new("hush"));
    let tls = Config::from_url("amqps://u:hush@h?certfile=c&keyfile=k&password=hush").unwrap();
    heard.hear(ConnectionBuilder::from(tls));
    let machine =
        leveret::protocol::client::Config { credentials: Credentials::new("u", "hush"), ..Default::default() };
    heard.hear(&machine);
    heard.hear(leveret::protocol::client::Connection::new(machine, std::time::Instant::now()));
    let methods: [Method; 3] = [
        connection::StartOk { response: "\0u\0hush".into(), ..Default::default() }.into(),
        connection::SecureOk { response: "hush".into() }.into(),
        connection::UpdateSecret { new_secret: "hush".into(), ..Default::default() }.into(),
    ];
    heard.hear(methods);
    for text in [
        r#"{"password": "hush", "colour": 1}"#,
        r#"{"password": ["hush"]}"#,
        r#"{"tls": {"key_password": "hush", "cert_file": "c"}}"#,
        r#"{"username": "u", "password": "hush", "frame_max": 1}"#,
    ] {
        heard.hear(serde_json::from_str::<Config>(text).unwrap_err());
    }
}

/// A provider whose secrets replace each other, one of which is too large to be sent.
async fn expiring(heard: &Heard, broker: &Broker) {
    let (asked, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, last) = (Arc::clone(&asked), Arc::clone(&done));
    let provider = move || {
        let secret = match count.fetch_add(1, Ordering::Relaxed) {
            0 => "hush-1".to_owned(),
            1 => "hush".repeat(50_000),
            _ => {
                last.store(true, Ordering::Relaxed);
                "hush-4".to_owned()
            }
        };
        let fresh = ExpiringCredentials::new(Credentials::new("u", secret)).valid_for(Duration::from_secs(1));
        std::future::ready(Ok::<_, std::io::Error>(fresh))
    };
    let builder = ConnectionBuilder::default().credentials_provider(provider);
    heard.hear(&builder);
    let connection = builder.open_with(broker.connect()).await.unwrap();
    while !done.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        heard.hear(&connection);
    }
    connection.close().await.unwrap();
}

/// The facade's handles, each when there is something to show, and what they log.
async fn facade(heard: &Heard, broker: &Broker) {
    let cache = ClientCache::new();
    let config = Config::from_url(&broker.url()).unwrap();
    let client = cache.get(config.clone()).unwrap();
    heard.hear((&cache, &client, client.config(), client.events()));
    let mut events = client.events();
    let queue = client.as_amqp().await.unwrap().open_channel().await.unwrap();
    queue.queue_declare("facade").await.unwrap();
    let (builder, target) = (client.sender(), Target::queue("facade"));
    heard.hear(&builder);
    let sender = builder.build().unwrap();
    let pending = sender.send_pipelined(&target, "hush").await.unwrap();
    heard.hear((&sender, &pending));
    heard.hear(pending.await.unwrap());
    let returned = sender.send(Target::queue("nowhere"), "hush").await.unwrap_err();
    heard.hear((&returned, returned.returned(), returned.message()));
    heard.hear_error(&returned.into());
    let builder = client.receiver(Source::queue("facade")).on_failure(Disposition::Reject, Duration::ZERO);
    heard.hear(&builder);
    let mut receiver = builder.clone().build().await.unwrap();
    let delivery = receiver.recv().await.unwrap().unwrap();
    heard.hear((&receiver, &delivery));
    delivery.release().unwrap();
    drop(receiver);
    let (failing, has_failed) = (builder.build().await.unwrap(), Arc::new(Notify::new()));
    let (tell, told) = (Arc::clone(&has_failed), has_failed.notified());
    let fails = move |_| {
        tell.notify_one();
        async { Err::<Disposition, _>("it failed") }
    };
    failing.for_each_until(1, told, fails).await.unwrap();
    let requester = client.requester();
    heard.hear(&requester);
    heard.hear(requester.build().unwrap().request(Target::queue("nowhere"), "hush").await.unwrap_err());
    heard.hear(client.responder(Source::queue("facade")));
    broker.drop_connections();
    while let Some(event) = events.next().await {
        heard.hear(&event);
        if matches!(event, leveret::messaging::Event::Lost(_)) {
            break;
        }
    }
    let wrong = Client::from_config(config.credentials(Credentials::new("u", "hush-wrong"))).lazy().unwrap();
    heard.hear(wrong.sender().build().unwrap().send(&target, "hush").await.unwrap_err());
    heard.hear((cache.close(Duration::from_secs(10)).await, wrong.close().await));
}

/// The test itself would notice.
#[test]
fn a_secret_that_is_shown_is_found() {
    let heard = Heard::default();
    heard.hear("the password is hush");
    heard.hear(MARK.as_bytes());
    let heard = heard.0.lock().unwrap();
    assert!(heard.lines().any(|line| line.contains(MARK)) && heard.lines().any(shows_octets));
    assert!(fmt::format(format_args!("{MARK}")).contains("hush"));
}
