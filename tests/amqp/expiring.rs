//! Credentials that expire: asked for before each connect, replaced in time, tried again when that fails. With a clock that tokio
//! moves by itself.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use leveret::amqp::{Connection, ConnectionBuilder, Credentials, ExpiringCredentials, SaslError};
use leveret::broker::Broker;
use leveret::error::ErrorKind;
use leveret::transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::support::{Server, assert_works, until, within};

/// A provider that knows when it was asked; the `n`th answer is that of its function for `n`.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Instant>>>);

impl Asked {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The seconds between one time it was asked and the next.
    fn pauses(&self) -> Vec<f64> {
        let asked = self.0.lock().unwrap();
        asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    fn provider(
        &self,
        answer: fn(usize) -> Result<ExpiringCredentials, SaslError>,
    ) -> impl Fn() -> std::future::Ready<Result<ExpiringCredentials, SaslError>> + Send + Sync + 'static {
        let asked = self.clone();
        move || {
            let mut asked = asked.0.lock().unwrap();
            asked.push(Instant::now());
            std::future::ready(answer(asked.len()))
        }
    }
}

/// A token of the broker's guest.
fn token(secret: &str, seconds: u64) -> Result<ExpiringCredentials, SaslError> {
    Ok(ExpiringCredentials::new(Credentials::new("guest", secret)).valid_for(Duration::from_secs(seconds)))
}

/// A stream that keeps a copy of what is written.
struct Tapped {
    stream: Stream,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = written {
            self.written.lock().unwrap().extend_from_slice(&buf[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A pipe to a broker, and what goes through it.
fn tapped(broker: &Broker) -> (Tapped, Arc<Mutex<Vec<u8>>>) {
    let written = Arc::new(Mutex::new(Vec::new()));
    (Tapped { stream: broker.connect(), written: Arc::clone(&written) }, written)
}

fn times(octets: &Mutex<Vec<u8>>, wanted: &str) -> usize {
    octets.lock().unwrap().windows(wanted.len()).filter(|part| *part == wanted.as_bytes()).count()
}

fn builder() -> ConnectionBuilder {
    ConnectionBuilder::default()
}

/// c142: each token is replaced when four fifths of its time have passed, until the connection ends, and no longer.
#[tokio::test(start_paused = true)]
async fn c142_a_secret_is_replaced_before_it_expires() {
    let broker = Broker::start().await.unwrap();
    let (stream, written) = tapped(&broker);
    let asked = Asked::default();
    let provider = asked.provider(|count| token(if count == 1 { "guest" } else { "another token" }, 100));
    let connection = builder().credentials_provider(provider).connect_with(stream).await.unwrap();
    tokio::time::sleep(Duration::from_secs(79)).await;
    assert_eq!((asked.count(), times(&written, "another token")), (1, 0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((asked.count(), times(&written, "another token")), (2, 1));
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!((asked.count(), times(&written, "another token")), (12, 11));
    assert!(asked.pauses().iter().all(|pause| (*pause - 80.0).abs() < 0.1), "{:?}", asked.pauses());
    assert_works(&connection.open_channel().await.unwrap()).await;

    connection.close().await.unwrap();
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!(asked.count(), 12, "nobody is asked for a connection that has ended");
}

/// The last handle is dropped: the connection's task ends, and the refreshing with it.
#[tokio::test(start_paused = true)]
async fn a_dropped_connection_is_not_refreshed() {
    let broker = Broker::start().await.unwrap();
    let asked = Asked::default();
    let provider = asked.provider(|_| token("guest", 100));
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let connection = builder().credentials_provider(provider).open_with(broker.connect()).await.unwrap();
    assert_eq!(tasks(), before + 2, "one task at each end");
    drop(connection);
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!((asked.count(), tasks()), (1, before));
}

/// What lasts is not asked for again.
#[tokio::test(start_paused = true)]
async fn credentials_that_last() {
    let broker = Broker::start().await.unwrap();
    let asked = Asked::default();
    let provider = asked.provider(|_| Ok(ExpiringCredentials::new(Credentials::default())));
    let connection = builder().credentials_provider(provider).open_with(broker.connect()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert!(connection.is_open());
    assert_eq!(asked.count(), 1);
}

/// A token server that is down for a while is asked again, more and more seldom.
#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_is_asked_again() {
    let broker = Broker::start().await.unwrap();
    let (stream, written) = tapped(&broker);
    let asked = Asked::default();
    let provider = asked.provider(|count| match count {
        1 => token("guest", 100),
        2..=9 => Err("the token server is down".into()),
        _ => token("at last", 100),
    });
    let connection = builder().credentials_provider(provider).connect_with(stream).await.unwrap();
    // 80 until the first, at most 152 of pauses, and 80 until the one behind them.
    tokio::time::sleep(Duration::from_secs(330)).await;
    assert!(connection.is_open());
    assert!(times(&written, "at last") >= 1);
    let pauses = asked.pauses();
    for (pause, least) in pauses.iter().skip(1).zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
        assert!((least..least * 1.26).contains(pause), "{pause} s where {least} were due: {pauses:?}");
    }
    assert!((79.9..80.1).contains(&pauses[0]) && (79.9..80.1).contains(&pauses[9]), "{pauses:?}");
}

/// A secret that does not fit into a frame is not sent, and is not the connection's end.
#[tokio::test(start_paused = true)]
async fn a_new_secret_that_is_too_large() {
    let broker = Broker::start().await.unwrap();
    let (stream, written) = tapped(&broker);
    let asked = Asked::default();
    let provider = asked.provider(|count| match count {
        1 => token("guest", 10),
        2 => token(&"x".repeat(10_000), 10),
        _ => token("of a good size", 1000),
    });
    let connection = builder().frame_max(8192).credentials_provider(provider).connect_with(stream).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(connection.is_open());
    assert_eq!((times(&written, "xxx"), times(&written, "of a good size"), asked.count()), (0, 1, 3));
}

/// c16: nothing is sent when the token is larger than a server would read.
#[tokio::test(start_paused = true)]
async fn c16_a_login_that_is_too_large() {
    let broker = Broker::start().await.unwrap();
    let (stream, written) = tapped(&broker);
    let provider = || async { token(&"x".repeat(9000), 10) };
    let error = builder().credentials_provider(provider).connect_with(stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("8192") && !error.to_string().contains("xxx"), "{error}");
    assert_eq!(written.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_credentials() {
    let broker = Broker::start().await.unwrap();
    let (stream, written) = tapped(&broker);
    let provider = || async { Err::<ExpiringCredentials, _>(io::Error::other("the token server is down")) };
    let error = builder().credentials_provider(provider).connect_with(stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("the token server is down") && error.is_transient(), "{error}");

    let provider = || std::future::pending::<Result<ExpiringCredentials, SaslError>>();
    let begun = Instant::now();
    let error = builder().credentials_provider(provider).open_with(broker.connect()).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::Timeout, 20), "{error}");
    assert_eq!(written.lock().unwrap().len(), 0);
}

on_every_server! {
    /// Before each connect, and while the connection is open.
    async fn a_provider_is_asked(server: Server) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let builder = server.builder().credentials(Credentials::new("not", "these")).credentials_provider(move || {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { token("guest", if first { 1 } else { 1000 }) }
        });
        let connection = within("a connection", builder.clone().open()).await.unwrap();
        until("the second time", async || asked.load(Ordering::Relaxed) == 2).await;
        assert_works(&connection.open_channel().await.unwrap()).await;
        let other: Connection = within("a connection", builder.open()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        connection.close().await.unwrap();
        other.close().await.unwrap();
    }
}
