//! A conversation frame by frame, for those who test brokers: legal frames, and one that is not.
//!
//! ```console
//! $ cargo run --example frame_by_frame                                  # against the broker in the box
//! $ cargo run --example frame_by_frame -- localhost:5672                # as guest
//! ```

use leveret::broker::Broker;
use leveret::codec::method::{channel, connection, queue};
use leveret::codec::{Frame, Method, ProtocolHeader, UncheckedFrame};
use leveret::transport::{FrameStream, Stream};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker;
    let stream = match std::env::args().nth(1) {
        Some(address) => Stream::tcp(TcpStream::connect(address).await?)?,
        None => {
            broker = Broker::start().await?;
            broker.connect()
        }
    };
    let mut frames = FrameStream::new(stream);

    // The handshake, which a client of leveret's would do for us.
    frames.send_header(ProtocolHeader::AMQP_0_9_1).await?;
    show(&frames.next().await?);
    let response = "\0guest\0guest".into();
    frames.send_method(0, connection::StartOk { mechanism: "PLAIN".into(), response, ..Default::default() }).await?;
    let tune = frames.next().await?;
    show(&tune);
    let Some(Frame::Method(0, Method::Connection(connection::Method::Tune(tune)))) = tune else {
        return Err("the login was refused".into());
    };
    let connection::Tune { channel_max, frame_max, .. } = tune;
    frames.send_method(0, connection::TuneOk { channel_max, frame_max, heartbeat: 0 }).await?;
    frames.send_method(0, connection::Open { virtual_host: "/".into(), ..Default::default() }).await?;
    show(&frames.next().await?);

    frames.send_method(1, channel::Open::default()).await?;
    show(&frames.next().await?);
    frames.send_method(1, queue::Declare { exclusive: true, ..Default::default() }).await?;
    show(&frames.next().await?);

    // Something that no client may send: a heartbeat on a channel, with a payload.
    println!("> a heartbeat on channel 7");
    frames.send_unchecked(&UncheckedFrame::new(8, 7, "tick")).await?;
    while let Some(frame) = frames.next().await? {
        show(&Some(frame.clone()));
        if let Frame::Method(0, Method::Connection(connection::Method::Close(_))) = frame {
            // A broker that does not wait for it may have gone.
            let _ = frames.send_method(0, connection::CloseOk {}).await;
        }
    }
    println!("< the end");
    Ok(())
}

fn show(frame: &Option<Frame>) {
    match frame {
        Some(Frame::Method(channel, method)) => println!("< {channel} {}", method.info().name),
        Some(frame) => println!("< {frame:?}"),
        None => println!("< the end"),
    }
}
