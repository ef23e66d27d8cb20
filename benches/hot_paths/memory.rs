//! `-- --memory`: what leveret keeps in memory, as the system counts it (resident pages, each measurement in a process of its
//! own).

use std::error::Error;
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use bytes::Bytes;
use leveret::amqp::{Channel, Connection};
use leveret::error::Result;
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::raw_server::RawServer;
use crate::usage::memory;

/// What is held in memory, and how often.
const THINGS: &[(&str, u64)] = &[
    ("idle connection", 1000),
    ("open channel", 2000),
    ("delivery of 100 B, kept", 100_000),
    ("published message of 100 B, unconfirmed", 100_000),
    ("delivery of 100 B, 1 000 000 behind", 1_000_000),
];

/// Prints the table.
pub(crate) fn measure() -> std::result::Result<(), Box<dyn Error>> {
    let server = RawServer::start()?;
    println!("{:<42} {:>10} {:>14} {:>14}", "", "how many", "octets of each", "together, KiB");
    for (name, count) in THINGS {
        let mut command = Command::new(env::current_exe()?);
        let output = command.args(["--hold", name, &server.port.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let kib: u64 = said.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        println!("{name:<42} {count:>10} {:>14} {kib:>14}", kib * 1024 / count);
    }
    Ok(())
}

/// The process of one measurement: prints by how many KiB it grew.
pub(crate) fn hold(name: &str, port: u16) -> std::result::Result<(), Box<dyn Error>> {
    let (_, count) = THINGS.iter().find(|(known, _)| *known == name).ok_or("no such thing")?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let kib = runtime.block_on(async {
        let virtual_host = if name.contains("unconfirmed") { "none" } else { "/" };
        // One connection and one channel are there before: what the first of each needs is needed once.
        let connection = connect(port, virtual_host).await?;
        let channel = connection.open_channel().await?;
        let before = memory("VmRSS")?;
        match name {
            "idle connection" => connections(port, *count, before).await,
            "open channel" => channels(&connection, *count, before).await,
            "delivery of 100 B, kept" => deliveries(&channel, *count, before).await,
            "published message of 100 B, unconfirmed" => unconfirmed(&channel, *count, before).await,
            _ => behind(&channel, before).await,
        }
    })?;
    println!("{kib}");
    Ok(())
}

async fn connect(port: u16, virtual_host: &str) -> Result<Connection> {
    let builder = Connection::builder(&format!("amqp://127.0.0.1:{port}?heartbeat=0"))?;
    builder.virtual_host(virtual_host).open().await
}

fn grown(before: u64) -> io::Result<u64> {
    Ok(memory("VmRSS")?.saturating_sub(before))
}

async fn connections(port: u16, count: u64, before: u64) -> std::result::Result<u64, Box<dyn Error>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(connect(port, "/").await?);
    }
    Ok(grown(before)?)
}

async fn channels(connection: &Connection, count: u64, before: u64) -> std::result::Result<u64, Box<dyn Error>> {
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(connection.open_channel().await?);
    }
    Ok(grown(before)?)
}

async fn deliveries(channel: &Channel, count: u64, before: u64) -> std::result::Result<u64, Box<dyn Error>> {
    let mut consumer = channel.basic_consume("100").prefetch(1000).await?;
    let mut kept = Vec::with_capacity(count as usize);
    while (kept.len() as u64) < count
        && let Some(delivery) = consumer.next().await
    {
        let (message, acker) = delivery?.detach();
        acker.ack()?;
        kept.push(message);
    }
    Ok(grown(before)?)
}

async fn unconfirmed(channel: &Channel, count: u64, before: u64) -> std::result::Result<u64, Box<dyn Error>> {
    channel.confirm_select_with_window(2 * count as usize).await?;
    let body = Bytes::from(vec![b'x'; 100]);
    let mut confirms = Vec::with_capacity(count as usize);
    for _ in 0..count {
        confirms.push(channel.basic_publish("", "100", &body).await?);
    }
    Ok(grown(before)?)
}

/// The server sends without a limit, and nobody takes anything: reading stops, and with it the growth.
async fn behind(channel: &Channel, before: u64) -> std::result::Result<u64, Box<dyn Error>> {
    let mut consumer = channel.basic_consume("100").no_ack().await?;
    consumer.next().await;
    sleep(Duration::from_secs(3)).await;
    let grown = memory("VmHWM")?.saturating_sub(before);
    drop(consumer);
    Ok(grown)
}
