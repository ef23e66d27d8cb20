//! Finding the way to a server: names, addresses, TCP connections.

use std::fmt;
use std::io;
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
            Err(error) => failures.push((socket_address, error)),
        }
    }
    Err(unreachable(address, failures))
}

/// One line that names every address that was tried, and none of them twice.
fn unreachable(address: &Address, mut failures: Vec<(SocketAddr, io::Error)>) -> Error {
    let message = format!("cannot connect to {address}");
    match failures.pop() {
        None => Error::new(ErrorKind::Handshake, format!("{message}: the name has no addresses")),
        Some((tried, error)) if failures.is_empty() => {
            let tried = tried.to_string();
            let message = if tried == address.to_string() { message } else { format!("{message} ({tried})") };
            Error::with_source(ErrorKind::Handshake, message, error)
        }
        Some(last) => {
            failures.push(last);
            let reasons: Vec<_> = failures.iter().map(|(tried, error)| format!("{tried}: {error}")).collect();
            Error::new(ErrorKind::Handshake, format!("{message} ({})", reasons.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, tried: &[&str]) -> String {
        let failures = tried.iter().map(|at| (at.parse().unwrap(), io::Error::other("refused"))).collect();
        unreachable(&Address { host: host.into(), port: 1 }, failures).to_string()
    }

    #[test]
    fn every_address_that_was_tried_is_named_once() {
        assert_eq!(said("127.0.0.1", &["127.0.0.1:1"]), "cannot connect to 127.0.0.1:1: refused");
        assert_eq!(said("::1", &["[::1]:1"]), "cannot connect to [::1]:1: refused");
        assert_eq!(said("here", &["127.0.0.1:1"]), "cannot connect to here:1 (127.0.0.1:1): refused");
        assert_eq!(
            said("here", &["[::1]:1", "127.0.0.1:1"]),
            "cannot connect to here:1 ([::1]:1: refused; 127.0.0.1:1: refused)"
        );
    }
}
