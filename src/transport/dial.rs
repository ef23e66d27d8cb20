//! Finding the way to a server: names, addresses, TCP connections.

use std::fmt;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Stream;
use crate::error::{Error, ErrorKind, Result};

/// Where a server listens: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// A host name, or an IP address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Connects to the first address of a name that answers. The error tells what happened at each.
pub(crate) async fn dial(address: &Address) -> Result<Stream> {
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| {
            Error::with_source(ErrorKind::Handshake, format!("the name {} cannot be resolved", address.host), error)
        })?
        .collect();
    let mut failures = Vec::new();
    for socket_address in resolved {
        match TcpStream::connect(socket_address).await.and_then(Stream::tcp) {
            Ok(stream) => return Ok(stream),
            Err(error) => failures.push(format!("{socket_address}: {error}")),
        }
    }
    let reasons = if failures.is_empty() { "the name has no addresses".into() } else { failures.join("; ") };
    Err(Error::new(ErrorKind::Handshake, format!("cannot connect to {address} ({reasons})")))
}
