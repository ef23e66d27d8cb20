//! Several servers, of which some do not answer, do not speak AMQP, or do not let the client in.

use std::time::{Duration, Instant};

use leveret::amqp::{Address, Config, Connection, ConnectionBuilder, Credentials, HostOrder};
use leveret::broker::Broker;
use leveret::codec::method::connection;
use leveret::error::ErrorKind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::scripted::Stage;
use crate::support::{Nobody, within};

fn builder(hosts: &[u16]) -> ConnectionBuilder {
    let hosts = hosts.iter().map(|port| Address::new("127.0.0.1", *port));
    ConnectionBuilder::from(Config::new().hosts(hosts))
}

/// Somebody who takes connections and does this with each.
async fn somebody(answer: &'static [u8], close: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(answer).await.unwrap();
            if !close {
                kept.push(socket);
            }
        }
    });
    port
}

on_its_own! {
    async fn the_next_one_is_tried() {
        let broker = Broker::start().await.unwrap();
        let good = broker.local_addr().port();
        let nobody = Nobody::v4();
        let dead = nobody.port();
        let (rude, web) = (somebody(b"", true).await, somebody(b"HTTP/1.1 400\r\n", false).await);
        for bad in [vec![dead], vec![rude], vec![web], vec![dead, rude, web, dead]] {
            let ports = [bad.as_slice(), &[good]].concat();
            let connection = within("a connection", builder(&ports).open()).await.unwrap();
            connection.close().await.unwrap();
        }
        let list = format!("amqp://guest:guest@127.0.0.1:{dead},127.0.0.1:{good}/%2f");
        within("a connection", Connection::open(&list)).await.unwrap();
        let config = Config::from_url(&list).unwrap();
        within("a connection", Connection::open_config(&config)).await.unwrap();
    }

    /// In a URL, in a list, and without brackets in a config.
    async fn an_ipv6_literal() {
        let broker = match Broker::builder().bind("[::1]:0").await {
            Ok(broker) => broker,
            Err(error) => return println!("this machine has no IPv6: {error}"),
        };
        let port = broker.local_addr().port();
        let (nobody, nobody_there) = (Nobody::v4(), Nobody::v6());
        let dead = nobody.port();
        for url in [
            format!("amqp://[::1]:{port}"),
            format!("amqp://guest:guest@127.0.0.1:{dead},[0:0::1]:{port}/%2f?heartbeat=1"),
            broker.url(),
        ] {
            within("a connection", Connection::open(&url)).await.unwrap().close().await.unwrap();
        }
        let config = Config::new().host("::1").port(port);
        within("a connection", Connection::open_config(&config)).await.unwrap();
        let dead = nobody_there.port();
        let error = within("an error", Connection::open(&format!("amqp://[::1]:{dead}"))).await.unwrap_err();
        assert!(error.to_string().contains(&format!("cannot connect to [::1]:{dead}")), "{error}");
    }

    /// c144: the server says that it will be back; another one is there already.
    async fn a_server_that_is_going_down() {
        let (stage, broker) = (Stage::new().await, Broker::start().await.unwrap());
        let ports = [stage.port(), broker.local_addr().port()];
        let (opened, ()) = tokio::join!(within("a connection", builder(&ports).open()), async {
            let mut peer = stage.accept().await;
            peer.open_until_tune().await;
            let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'".into();
            peer.send(0, connection::Close { reply_code: 320, reply_text: text, class_id: 0, method_id: 0 }).await;
        });
        opened.unwrap();
    }

    /// Every one of them is named, with what happened there.
    async fn none_of_them_will_do() {
        let nobody = Nobody::v4();
        let dead = nobody.port();
        let (rude, web) = (somebody(b"", true).await, somebody(b"HTTP/1.1 400\r\n", false).await);
        let error = within("an error", builder(&[dead, rude, web]).open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.is_transient());
        let text = error.to_string();
        let place = |port: u16, word: &str| {
            let at = text.find(&format!("127.0.0.1:{port}")).unwrap_or_else(|| panic!("{port} is not in {text}"));
            let behind = &text[at..];
            assert!(behind.split(';').next().unwrap().contains(word), "{word} at {port}: {text}");
            at
        };
        assert!(place(dead, "refused") < place(rude, "closed") && place(rude, "closed") < place(web, "HTTP"));
    }

    /// The same user with the same password is not tried elsewhere: that would only lock him out sooner.
    async fn a_refused_login_ends_it() {
        let (one, other) = (Broker::start().await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let ports = [one.local_addr().port(), other.local_addr().unwrap().port()];
        let refused = builder(&ports).credentials(Credentials::new("guest", "wrong")).open();
        assert_eq!(within("a refusal", refused).await.unwrap_err().kind(), ErrorKind::Auth);
        let refused = builder(&ports).virtual_host("nowhere").open();
        assert_eq!(within("a refusal", refused).await.unwrap_err().reply_code().map(|code| code.0), Some(530));
        let came = tokio::time::timeout(Duration::from_millis(50), other.accept()).await;
        assert!(came.is_err(), "the second server was bothered");
    }

    /// One that says nothing leaves the others their share of the time.
    async fn a_silent_one_is_left() {
        let broker = Broker::start().await.unwrap();
        let ports = [somebody(b"", false).await, broker.local_addr().port()];
        // Two seconds for each of them, either way.
        let whole = builder(&ports).connect_timeout(Duration::from_secs(4));
        let each = builder(&ports).connect_timeout(Duration::from_secs(3600)).attempt_timeout(Duration::from_secs(2));
        let (one, other) = tokio::join!(within("a connection", whole.open()), within("a connection", each.open()));
        drop((one.unwrap(), other.unwrap()));
    }

    /// A deadline for each, and one for all.
    async fn time_runs_out() {
        let ports = [somebody(b"", false).await, somebody(b"", false).await, somebody(b"", false).await];
        let (whole, each) = (Duration::from_millis(300), Duration::from_millis(200));
        for builder in [builder(&ports).connect_timeout(whole), builder(&ports).connect_timeout(whole).attempt_timeout(each)] {
            let begun = Instant::now();
            let error = within("an error", builder.open()).await.unwrap_err();
            assert!(begun.elapsed() >= whole, "{:?}", begun.elapsed());
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            for port in ports {
                assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
            }
        }
        let error = builder(&ports).connect_timeout(whole).attempt_timeout(each).open().await.unwrap_err();
        assert!(error.to_string().contains("not tried, the time was up"), "{error}");
        builder(&ports).connect_timeout(Duration::ZERO).open().await.unwrap_err();
    }

    async fn limits_beyond_the_clock_are_none() {
        let broker = Broker::start().await.unwrap();
        let builder = builder(&[broker.local_addr().port()]);
        let builder = builder.connect_timeout(Duration::MAX).attempt_timeout(Duration::MAX).call_deadline(Duration::MAX);
        let connection = within("a connection", builder.open()).await.unwrap();
        connection.open_channel().await.unwrap();
    }

    /// Shuffled, both get their clients.
    async fn many_clients_spread_over_all() {
        let brokers = [Broker::start().await.unwrap(), Broker::start().await.unwrap()];
        let ports = brokers.each_ref().map(|broker| broker.local_addr().port());
        // That all of them meet the same one happens once in 2^39 runs.
        let mut connections = Vec::new();
        for _ in 0..40 {
            let builder = builder(&ports).order(HostOrder::Shuffled);
            connections.push(within("a connection", builder.open()).await.unwrap());
        }
        let [one, _other] = brokers;
        drop(one);
        let mut left = 0;
        for connection in connections {
            left += usize::from(within("an answer or the end", connection.open_channel()).await.is_ok());
        }
        assert!((1..40).contains(&left), "{left} of 40 were at the second");
    }
}
