//! What carries the octets: a TCP connection, a pipe in memory, or something that a program brings; and TLS around one of them.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// Idle time before the system probes a silent peer; heartbeats notice a dead one long before.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Octets that a pipe in memory holds before its writer waits.
const PIPE: usize = 256 * 1024;

/// A stream of octets to the other side.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Memory(DuplexStream),
    Other(Other),
    #[cfg(feature = "tls-core")]
    Tls(Box<super::tls::TlsStream>),
}

/// A stream of a type that is not known here.
struct Other(Box<dyn ReadWrite>);

trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Other")
    }
}

impl Stream {
    /// The two ends of a pipe inside this process.
    pub fn pipe() -> (Self, Self) {
        let (a, b) = tokio::io::duplex(PIPE);
        (Self(Kind::Memory(a)), Self(Kind::Memory(b)))
    }

    /// Anything that carries octets both ways: a proxy's tunnel, a WebSocket, a Unix socket.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Kind::Other(Other(Box::new(stream))))
    }

    /// A TCP connection, with Nagle's algorithm off (it costs 40 ms per round trip) and keepalive on.
    ///
    /// # Errors
    ///
    /// The socket takes no options: it is closed already.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(Self(Kind::Tcp(stream)))
    }

    #[cfg(feature = "tls-core")]
    pub(super) fn tls(stream: super::tls::TlsStream) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    /// The address of the other side of a TCP connection, TLS around it or not.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(stream) => stream.peer_addr().ok(),
            Kind::Memory(_) | Kind::Other(_) => None,
            #[cfg(feature = "tls-core")]
            Kind::Tls(stream) => stream.get_ref().peer_addr(),
        }
    }
}

macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Kind::Tcp($stream) => $call,
            Kind::Memory($stream) => $call,
            Kind::Other(Other($stream)) => $call,
            #[cfg(feature = "tls-core")]
            Kind::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is small leaves at once: users of other clients have waited 40 ms for each message (amqprs 184).
    #[tokio::test]
    async fn nothing_waits_to_be_sent_together_with_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let Kind::Tcp(socket) =
            Stream::tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()).unwrap().0
        else {
            panic!("a stream of another kind");
        };
        assert!(socket.nodelay().unwrap());
    }
}
