//! `-- --memory`: what a client keeps in memory, as the system counts it (resident pages, each measurement in a process of its
//! own, on one thread).

use std::error::Error;
use std::process::Command;
use std::time::Duration;
use std::{env, result};

use bytes::Bytes;
use leveret::amqp::{Channel, Confirm, Connection, Message, MessageStream};
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::cores::Cores;
use crate::raw_server::RawServer;
use crate::usage::memory;

pub(crate) type Result<T> = result::Result<T, Box<dyn Error>>;

/// What is held in memory, how often, and the raw server's virtual host for it.
struct Thing {
    name: &'static str,
    count: u64,
    virtual_host: &'static str,
}

const CONNECTIONS: Thing = Thing { name: "idle connection", count: 1000, virtual_host: "/" };
const CHANNELS: Thing = Thing { name: "open channel", count: 2000, virtual_host: "/" };
const KEPT: Thing = Thing { name: "delivery of 100 B, kept", count: 100_000, virtual_host: "/" };
const UNCONFIRMED: Thing =
    Thing { name: "published message of 100 B, unconfirmed", count: 100_000, virtual_host: "none" };
const BEHIND: Thing = Thing { name: "delivery of 100 B, 1 000 000 behind", count: 1_000_000, virtual_host: "million" };

const THINGS: &[&Thing] = &[&CONNECTIONS, &CHANNELS, &KEPT, &UNCONFIRMED, &BEHIND];

/// A client that holds them.
pub(crate) trait Holder {
    type Connection;
    type Channel;
    type Delivery;
    type Confirm;
    type Consumer;

    async fn connect(port: u16, virtual_host: &str) -> Result<Self::Connection>;

    async fn open_channel(connection: &Self::Connection) -> Result<Self::Channel>;

    /// Consumes from the queue "100", acknowledges each, and keeps what is left to the program.
    async fn keep(channel: &Self::Channel, count: u64) -> Result<Vec<Self::Delivery>>;

    /// Publishes with confirms, which never come.
    async fn publish(channel: &Self::Channel, count: u64) -> Result<Vec<Self::Confirm>>;

    /// Consumes from the queue "100" without acknowledgements, takes one message and then no more.
    async fn fall_behind(channel: &Self::Channel) -> Result<Self::Consumer>;
}

/// By how many octets for each of them a process grows.
pub(crate) type Hold = fn(port: u16, thing: &str) -> Result<u64>;

/// Whoever has grown by so many KiB needs no more of them to be measured.
const ENOUGH: u64 = 1024 * 1024;

/// Prints the table.
pub(crate) fn measure(holders: &[(&str, Hold)]) -> Result<()> {
    let server = RawServer::start(Cores::Any)?;
    print!("{:<42} {:>10}", "octets of each", "how many");
    holders.iter().for_each(|(name, _)| print!(" {name:>16}"));
    println!();
    for Thing { name: thing, count, .. } in THINGS {
        print!("{thing:<42} {count:>10}");
        for (holder, _) in holders {
            let mut command = Command::new("timeout");
            command.arg("120").arg(env::current_exe()?);
            let output = command.args(["--hold", holder, thing, &server.port.to_string()]).output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let octets: u64 = said.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
            print!(" {octets:>16}");
        }
        println!();
    }
    Ok(())
}

/// The process of one measurement.
pub(crate) fn hold_one(holders: &[(&str, Hold)], holder: &str, thing: &str, port: u16) -> Result<()> {
    let (_, hold) = holders.iter().find(|(name, _)| *name == holder).ok_or("no such client")?;
    println!("{}", hold(port, thing)?);
    Ok(())
}

pub(crate) fn hold<H: Holder>(port: u16, thing: &str) -> Result<u64> {
    let &&Thing { name, count, virtual_host } = THINGS.iter().find(|one| one.name == thing).ok_or("no such thing")?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        // One connection and one channel are there before: what the first of each needs is needed once.
        let connection = H::connect(port, virtual_host).await?;
        let channel = H::open_channel(&connection).await?;
        let before = memory("VmRSS")?;
        let grown = || Ok::<_, Box<dyn Error>>(memory("VmRSS")?.saturating_sub(before));
        let (mut connections, mut channels) = (Vec::new(), Vec::new());
        let (kib, held) = if name == CONNECTIONS.name {
            while (connections.len() as u64) < count && grown()? < ENOUGH {
                connections.push(H::connect(port, virtual_host).await?);
            }
            (grown()?, connections.len() as u64)
        } else if name == CHANNELS.name {
            for _ in 0..count {
                channels.push(H::open_channel(&connection).await?);
            }
            (grown()?, count)
        } else if name == KEPT.name {
            let _kept = H::keep(&channel, count).await?;
            (grown()?, count)
        } else if name == UNCONFIRMED.name {
            let _confirms = H::publish(&channel, count).await?;
            (grown()?, count)
        } else {
            let _consumer = H::fall_behind(&channel).await?;
            (settled_peak().await?.saturating_sub(before), count)
        };
        Ok(kib * 1024 / held)
    })
}

/// So many of what comes one by one.
pub(crate) async fn collect<T>(count: u64, mut next: impl AsyncFnMut() -> Result<T>) -> Result<Vec<T>> {
    let mut collected = Vec::with_capacity(count as usize);
    for _ in 0..count {
        collected.push(next().await?);
    }
    Ok(collected)
}

/// The most memory so far, once it has not grown for a second.
async fn settled_peak() -> Result<u64> {
    let (mut peak, mut quiet) = (memory("VmHWM")?, 0);
    while quiet < 10 {
        sleep(Duration::from_millis(100)).await;
        let now = memory("VmHWM")?;
        quiet = if now == peak { quiet + 1 } else { 0 };
        peak = now;
    }
    Ok(peak)
}

pub(crate) struct Leveret;

impl Holder for Leveret {
    type Connection = Connection;
    type Channel = Channel;
    type Delivery = Message;
    type Confirm = Confirm;
    type Consumer = MessageStream;

    async fn connect(port: u16, virtual_host: &str) -> Result<Connection> {
        let builder = Connection::builder(&format!("amqp://127.0.0.1:{port}?heartbeat=0"))?;
        Ok(builder.virtual_host(virtual_host).open().await?)
    }

    async fn open_channel(connection: &Connection) -> Result<Channel> {
        Ok(connection.open_channel().await?)
    }

    async fn keep(channel: &Channel, count: u64) -> Result<Vec<Message>> {
        let mut consumer = channel.basic_consume("100").prefetch(1000).await?;
        collect(count, async || {
            let (message, acker) = consumer.next().await.ok_or("no message")??.detach();
            acker.ack()?;
            Ok(message)
        })
        .await
    }

    async fn publish(channel: &Channel, count: u64) -> Result<Vec<Confirm>> {
        channel.confirm_select_with_window(2 * count as usize).await?;
        let body = Bytes::from(vec![b'x'; 100]);
        collect(count, async || Ok(channel.basic_publish("", "100", &body).await?)).await
    }

    /// Its reading stops then, and with it the growth.
    async fn fall_behind(channel: &Channel) -> Result<MessageStream> {
        let mut consumer = channel.basic_consume("100").no_ack().await?;
        consumer.next().await.ok_or("no message")??;
        Ok(consumer)
    }
}
