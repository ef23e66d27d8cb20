//! A stream inside of TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::hooks::{Asked, ClientCertificate};
use super::server_name;
use super::words::explain;
use crate::error::Result;
use crate::transport::Stream;

/// Everything for connecting, with files read and keys checked.
#[derive(Debug)]
pub(crate) struct TlsReady {
    pub(super) config: Arc<ClientConfig>,
    /// Who the server has to be, if not the host.
    pub(super) name: Option<ServerName<'static>>,
    /// Knows what became of the client certificate, unless the configuration is somebody else's.
    pub(super) client_certificate: Option<Arc<ClientCertificate>>,
}

impl TlsReady {
    /// The handshake with a host. One after the other, not two at once: the client certificate remembers what the last one was.
    pub(crate) async fn connect(&self, stream: Stream, host: &str) -> Result<Stream> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let shown = name.to_str().into_owned();
        let client_certificate = self.client_certificate.clone();
        if let Some(certificate) = &client_certificate {
            certificate.forget();
        }
        match TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await {
            Ok(inner) => Ok(Stream::tls(TlsStream { inner, name: shown, client_certificate, heard: false })),
            Err(error) => Err(explain(error, &shown, asked(client_certificate.as_deref()))),
        }
    }
}

fn asked(client_certificate: Option<&ClientCertificate>) -> Asked {
    client_certificate.map_or(Asked::Unknown, ClientCertificate::asked)
}

/// What the driver reads and writes.
#[derive(Debug)]
pub(crate) struct TlsStream {
    inner: tokio_rustls::client::TlsStream<Stream>,
    name: String,
    client_certificate: Option<Arc<ClientCertificate>>,
    /// Something came from the server. Until then an error is one of the handshake: with TLS 1.3 the server looks at the client's
    /// certificate when the client is done already, so its refusal meets the first read.
    heard: bool,
}

impl TlsStream {
    pub(crate) fn get_ref(&self) -> &Stream {
        self.inner.get_ref().0
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if self.heard {
            return error;
        }
        io::Error::new(error.kind(), explain(error, &self.name, asked(self.client_certificate.as_deref())))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
            Ok(()) => {
                self.heard |= buf.filled().len() > before;
                Poll::Ready(Ok(()))
            }
            // Without TLS's goodbye. AMQP has one of its own, so nobody can pretend that a message ended here.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.explain(error))),
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
