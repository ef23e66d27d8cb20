//! Connections over what a program brings: tunnels, sockets of other kinds, streams in layers.

use std::time::Duration;

use leveret::amqp::{Confirmation, Connection, ConnectionBuilder};
use leveret::broker::Broker;
use leveret::error::ErrorKind;
use tokio::io::{BufStream, DuplexStream};

use crate::support::{assert_works, within};

/// Uses a connection for everything that streams can be used for.
async fn assert_carries(connection: &Connection) {
    let channel = connection.open_channel().await.unwrap();
    assert_works(&channel).await;
    channel.confirm_select().await.unwrap();
    let queue = channel.queue_declare("").exclusive(true).await.unwrap();
    let body = vec![7; 300_000];
    let confirm = channel.basic_publish("", queue.name(), body.clone()).mandatory(true).await.unwrap();
    assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
    let got = within("the message", async { channel.basic_get(queue.name()).no_ack().await }).await.unwrap().unwrap();
    assert_eq!(got.body(), &body[..]);
}

on_its_own! {
    /// A stream that keeps what is written until it is flushed, as a TLS stream or a WebSocket may.
    async fn a_stream_that_has_to_be_flushed() {
        let broker = Broker::start().await.unwrap();
        let stream = BufStream::with_capacity(1 << 20, 1 << 20, broker.connect());
        let connection = within("a connection", ConnectionBuilder::default().connect_with(stream)).await.unwrap();
        assert_carries(&connection).await;
        within("the end", connection.close()).await.unwrap();
    }

    #[cfg(unix)]
    async fn a_unix_socket() {
        let broker = Broker::start().await.unwrap();
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut behind = broker.connect();
        let tunnel = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut behind).await });
        let connection = within("a connection", ConnectionBuilder::default().connect_with(ours)).await.unwrap();
        assert_carries(&connection).await;
        within("the end", connection.close()).await.unwrap();
        within("the tunnel's end", tunnel).await.unwrap().unwrap();
    }

    /// A tunnel that takes few octets at a time.
    async fn a_narrow_stream() {
        let broker = Broker::start().await.unwrap();
        let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(7);
        let mut behind = broker.connect();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut behind).await });
        let connection = within("a connection", ConnectionBuilder::default().connect_with(ours)).await.unwrap();
        assert_carries(&connection).await;
    }

    async fn a_stream_that_leads_nowhere() {
        let (ours, theirs) = tokio::io::duplex(100);
        let limit = Duration::from_millis(50);
        let error = ConnectionBuilder::default().connect_timeout(limit).connect_with(ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("50 ms"), "{error}");
        drop(theirs);
        let (ours, _) = tokio::io::duplex(100);
        let error = ConnectionBuilder::default().connect_with(ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    }
}
