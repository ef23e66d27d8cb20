//! What is measured: pieces of work, the same for all clients.

use std::error::Error;

use crate::cores::Cores;
use crate::usage::Usage;

/// Something to do, the same for all clients.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) direction: Direction,
    /// The size of a message's body.
    pub(crate) body: usize,
    /// Messages that may be unconfirmed, or unacknowledged, all tasks together.
    pub(crate) window: u64,
    pub(crate) messages: u64,
    /// The server's virtual host: on "each" the raw server confirms every message by itself.
    pub(crate) virtual_host: &'static str,
    /// So many tasks share the work ...
    pub(crate) tasks: u16,
    /// ... and so many channels.
    pub(crate) channels: u16,
    /// Channels that are open and not used.
    pub(crate) idle_channels: u16,
    /// So many connections share the work, each with as many channels.
    pub(crate) connections: u16,
    /// Acks are coalesced.
    pub(crate) coalesced: bool,
    /// The connections are encrypted.
    pub(crate) tls: bool,
    pub(crate) cores: Cores,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    /// With confirms, each of which is waited for.
    Publish,
    /// With one acknowledgement for so many messages: 1 for each by itself, 0 for none at all, and no limit then.
    Consume { acks: u64 },
    /// One task publishes and another consumes, as above, at the same time: each its own channel, and each all of the messages.
    Both,
}

impl Work {
    /// The raw server takes the size of the bodies from the name.
    pub(crate) fn queue(&self) -> String {
        self.body.to_string()
    }

    pub(crate) fn prefetch(&self) -> u16 {
        u16::try_from(self.window).unwrap_or(u16::MAX)
    }
}

/// Somebody who does it: connects to the port, does the work, and says what the work alone cost.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) run: fn(port: u16, &'static Work) -> Outcome,
    /// What it does.
    pub(crate) does: fn(&Work) -> bool,
    /// It gets only so many of the messages: one in `share`.
    pub(crate) share: u64,
}

pub(crate) type Outcome = Result<Usage, Box<dyn Error>>;

const fn publish(name: &'static str, body: usize, window: u64, messages: u64) -> Work {
    let (direction, virtual_host) = (Direction::Publish, "/");
    let (tasks, channels, idle_channels, connections, coalesced, tls) = (1, 1, 0, 1, false, false);
    Work {
        name,
        direction,
        body,
        window,
        messages,
        virtual_host,
        tasks,
        channels,
        idle_channels,
        connections,
        coalesced,
        tls,
        cores: Cores::Any,
    }
}

const fn consume(name: &'static str, body: usize, window: u64, messages: u64) -> Work {
    Work { direction: Direction::Consume { acks: 1 }, ..publish(name, body, window, messages) }
}

const MILLION: u64 = 1_000_000;

/// The paths that the goals are about, through every client.
pub(crate) static HOT: &[Work] = &[
    publish("publish 100 B", 100, 1000, MILLION),
    Work { virtual_host: "each", ..publish("publish 100 B, each confirmed by itself", 100, 1000, MILLION) },
    publish("publish 64 KiB", 65_536, 100, 10_000),
    publish("publish one at a time", 100, 1, 20_000),
    Work { cores: Cores::OneEach, ..publish("publish one at a time, a core each", 100, 1, 20_000) },
    Work { cores: Cores::OneForBoth, ..publish("publish one at a time, on one core", 100, 1, 20_000) },
    consume("consume 100 B", 100, 1000, MILLION),
    Work { coalesced: true, ..consume("consume 100 B, acks coalesced", 100, 1000, MILLION) },
    Work {
        direction: Direction::Consume { acks: 100 },
        ..consume("consume 100 B, one ack for 100", 100, 1000, MILLION)
    },
    Work { direction: Direction::Consume { acks: 0 }, ..consume("consume 100 B without acks", 100, u64::MAX, MILLION) },
    consume("consume 64 KiB", 65_536, 100, 10_000),
    Work { direction: Direction::Both, channels: 2, ..publish("publish and consume 100 B", 100, 1000, MILLION / 2) },
    Work { tls: true, ..publish("TLS: publish 100 B", 100, 1000, MILLION) },
    Work { tls: true, ..publish("TLS: publish 64 KiB", 65_536, 100, 5_000) },
    Work { tls: true, ..consume("TLS: consume 100 B", 100, 1000, MILLION) },
    Work { tls: true, ..consume("TLS: consume 64 KiB", 65_536, 100, 5_000) },
];

/// How the cost of a message grows with its size, the window, tasks, channels and connections.
pub(crate) static GROWTH: &[Work] = &[
    publish("size: publish 16 B", 16, 1000, MILLION),
    publish("size: publish 1 KiB", 1024, 1000, 500_000),
    publish("size: publish 16 KiB", 16_384, 1000, 40_000),
    publish("size: publish 256 KiB", 262_144, 100, 3_000),
    publish("size: publish 1 MiB", 1_048_576, 100, 1_000),
    consume("size: consume 16 B", 16, 1000, MILLION),
    consume("size: consume 1 KiB", 1024, 1000, 500_000),
    consume("size: consume 16 KiB", 16_384, 1000, 40_000),
    consume("size: consume 256 KiB", 262_144, 100, 3_000),
    consume("size: consume 1 MiB", 1_048_576, 100, 1_000),
    publish("window: 10", 100, 10, 100_000),
    publish("window: 100", 100, 100, 500_000),
    publish("window: 10 000", 100, 10_000, MILLION),
    publish("window: none", 100, MILLION, MILLION),
    Work { tasks: 8, ..publish("tasks: 8 publish on one channel", 100, 1000, MILLION) },
    Work { tasks: 8, channels: 8, ..publish("channels: 8, a task publishes on each", 100, 1000, MILLION) },
    Work { idle_channels: 2000, ..publish("channels: 2000 more are open, publish", 100, 1000, MILLION) },
    Work { idle_channels: 2000, ..consume("channels: 2000 more are open, consume", 100, 1000, MILLION) },
    Work { tasks: 8, connections: 8, ..publish("connections: 8, a task publishes on each", 100, 1000, MILLION) },
    Work { tasks: 64, connections: 64, ..publish("connections: 64, a task publishes on each", 100, 1000, MILLION) },
];

/// Against a real server, which takes most of the machine for itself.
pub(crate) static RABBITMQ: &[Work] = &[
    publish("RabbitMQ: publish, window 1", 100, 1, 10_000),
    publish("RabbitMQ: publish, window 100", 100, 100, 50_000),
    publish("RabbitMQ: publish, window 1000", 100, 1000, 50_000),
    publish("RabbitMQ: publish 64 KiB, window 100", 65_536, 100, 3_000),
];

pub(crate) fn find(name: &str) -> Option<&'static Work> {
    [HOT, GROWTH, RABBITMQ].into_iter().flatten().find(|work| work.name == name)
}
