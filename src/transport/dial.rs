//! Finding the way to a server: names, addresses, TCP connections.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Stream;
use crate::error::{Error, ErrorKind, Result};

/// The addresses of a name, in the order in which the system gives them, at least one. An IP address is its own.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            return Err(Error::with_source(ErrorKind::Handshake, format!("the name {host} cannot be resolved"), error));
        }
    };
    match found.is_empty() {
        true => Err(Error::new(ErrorKind::Handshake, format!("the name {host} has no addresses"))),
        false => Ok(found),
    }
}

/// Connects to one address.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
    TcpStream::connect(address).await.and_then(Stream::tcp)
}
