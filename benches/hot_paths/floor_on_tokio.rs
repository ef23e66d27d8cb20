//! The floor of an asynchronous client, where one message is sent at a time: the floor's loop on tokio, in one thread. It has one task,
//! and knows nothing of frames but how long a confirmation is; what it costs more than the floor is the runtime and its
//! `epoll_wait`, and no client on tokio is without them.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::floor;
use crate::usage::{Meter, Usage};
use crate::work::{Direction, Outcome, Work};

/// Octets of a confirmation.
const CONFIRM: usize = 21;

pub(crate) fn does(work: &Work) -> bool {
    work.direction == Direction::Publish && work.window == 1 && work.connections == 1 && !work.tls
}

pub(crate) fn run(port: u16, work: &Work) -> Outcome {
    let (socket, message) = floor::prepare_to_publish(port, work)?;
    let done = publish(socket, &message, work);
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(done)?)
}

async fn publish(socket: std::net::TcpStream, message: &[u8], work: &Work) -> io::Result<Usage> {
    socket.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(socket)?;
    // Larger than what comes: the runtime takes a full one for a sign that there is more, and asks for it.
    let mut block = [0; 8 * 1024];
    let mut meter = Meter::start(work);
    for _ in 0..work.messages {
        meter.tick();
        stream.write_all(message).await?;
        let mut come = 0;
        while come < CONFIRM {
            match stream.read(&mut block).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => come += count,
            }
        }
    }
    Ok(meter.stop(work.messages))
}
