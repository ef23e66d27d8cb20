//! Sending over AMQP: one's own channels, opened when they are first used, and replaced when the server has closed them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ledger::{Ledger, Pending};
use super::link::Link;
use crate::amqp::{BasicPublish, Channel, Confirm};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{BatchReport, Cargo, CloseReport, Message, Receipt, SendError, Target};
use crate::messaging::events::Event;
use crate::messaging::on_demand::{Now, OnDemand};

#[derive(Debug)]
pub(in crate::messaging) struct Outbox {
    link: Arc<Link>,
    lanes: Box<[OnDemand<Lane>]>,
    turn: AtomicUsize,
    settings: Settings,
    ledger: Arc<Ledger>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::messaging) struct Settings {
    pub(in crate::messaging) confirms: bool,
    /// Messages are marked, so that those that come back are known for certain.
    pub(in crate::messaging) stamped: bool,
    /// How many messages may be unconfirmed, on all channels together.
    pub(in crate::messaging) window: usize,
    pub(in crate::messaging) channels: u16,
}

/// One channel.
#[derive(Clone, Debug)]
struct Lane {
    channel: Channel,
    number: u16,
}

/// A message that was handed over.
#[derive(Debug)]
pub(in crate::messaging) enum Handed {
    /// Its confirm has to come.
    Pending(Pending),
    /// Nobody was asked.
    Over(Receipt),
}

impl Outbox {
    pub(in crate::messaging) fn new(link: Arc<Link>, settings: Settings) -> Self {
        let channels = settings.channels.max(1);
        let ledger = Arc::new(Ledger::new(settings.window));
        Self {
            link,
            lanes: (0..channels).map(|_| OnDemand::new()).collect(),
            turn: AtomicUsize::new(0),
            settings,
            ledger,
        }
    }

    /// The channel for a message, or for a batch: each in turn.
    pub(in crate::messaging) fn next_lane(&self) -> usize {
        match self.lanes.len() {
            1 => 0,
            lanes => self.turn.fetch_add(1, Ordering::Relaxed) % lanes,
        }
    }

    fn lane(&self, at: usize) -> Result<&OnDemand<Lane>> {
        self.lanes.get(at).ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "there is no such channel"))
    }

    /// Opens a channel.
    fn open(&self) -> impl Future<Output = Result<Lane>> + Send + use<> {
        let (link, settings) = (Arc::clone(&self.link), self.settings);
        let window = settings.window.div_ceil(settings.channels.max(1).into());
        async move {
            let channel = link.channel().await?;
            if settings.confirms {
                channel.confirm_select_with_window(window).await?;
            }
            Ok(Lane { number: channel.number(), channel })
        }
    }

    /// Publishes a message as soon as there is room. An error has the message in it, and says `NotSent`.
    pub(in crate::messaging) async fn enqueue(
        &self,
        at: usize,
        cargo: &mut Cargo,
        mandatory: bool,
        limit: Duration,
        until: Instant,
    ) -> Result<Handed, SendError> {
        match self.publish(at, cargo, mandatory, limit, until).await {
            Ok((lane, confirm)) => Ok(self.enter(cargo, &lane, confirm, until)),
            Err(error) => Err(cargo.refuse(error)),
        }
    }

    async fn publish(
        &self,
        at: usize,
        Cargo { target, message }: &Cargo,
        mandatory: bool,
        mut limit: Duration,
        until: Instant,
    ) -> Result<(Lane, Confirm)> {
        let place = self.lane(at)?;
        let (exchange, routing_key) = address(target, message)?;
        loop {
            let lane = match place.now() {
                Now::Ready(lane) => lane,
                _ => {
                    let opened = place.get(self.link.runtime(), |_| true, || self.open());
                    let opened = timeout_at(until, opened).await.unwrap_or_else(|_| Err(no_channel_in_time()))?;
                    limit = until.saturating_duration_since(Instant::now());
                    opened
                }
            };
            let publish = self.request(&lane.channel, (exchange, routing_key), message, mandatory);
            match publish.deadline(limit).await {
                Ok(confirm) => return Ok((lane, confirm)),
                Err(error) if lane.channel.is_open() => return Err(error),
                Err(_) => self.replace(place, &lane),
            }
        }
    }

    /// Publishes a message if there is room now. An error has the message in it, and says `NotSent`.
    pub(in crate::messaging) fn try_enqueue(
        &self,
        at: usize,
        cargo: &mut Cargo,
        mandatory: bool,
        until: Instant,
    ) -> Result<Handed, SendError> {
        match self.publish_at_once(at, cargo, mandatory) {
            Ok((lane, confirm)) => Ok(self.enter(cargo, &lane, confirm, until)),
            Err(error) => Err(cargo.refuse(error)),
        }
    }

    fn publish_at_once(
        &self,
        at: usize,
        Cargo { target, message }: &Cargo,
        mandatory: bool,
    ) -> Result<(Lane, Confirm)> {
        let place = self.lane(at)?;
        let address = address(target, message)?;
        loop {
            // Opening begins, for the next one.
            let Ok(lane) = place.begin(self.link.runtime(), |_| true, || self.open())? else {
                let message = "there is no channel yet; it is being opened";
                return Err(Error::new(ErrorKind::Timeout, message).with_outcome(Outcome::NotSent));
            };
            match self.request(&lane.channel, address, message, mandatory).at_once() {
                Ok(confirm) => return Ok((lane, confirm)),
                Err(error) if lane.channel.is_open() => return Err(error),
                Err(_) => self.replace(place, &lane),
            }
        }
    }

    fn request<'a>(
        &self,
        channel: &'a Channel,
        (exchange, routing_key): (&'a [u8], &'a [u8]),
        message: &'a Message,
        mandatory: bool,
    ) -> BasicPublish<'a> {
        let publish = match &message.payload {
            Some(payload) => channel.basic_publish(exchange, routing_key, payload),
            None => channel.basic_publish(exchange, routing_key, &[]),
        };
        publish.properties(&message.properties).mandatory(mandatory).stamped(self.settings.stamped)
    }

    fn enter(&self, cargo: &mut Cargo, lane: &Lane, confirm: Confirm, until: Instant) -> Handed {
        match confirm.delivery_tag() {
            0 => Handed::Over(Receipt::amqp(lane.number, 0)),
            _ => Handed::Pending(self.ledger.enter(cargo, lane.number, confirm, until)),
        }
    }

    /// A channel is of no use any more: the next message gets another one.
    fn replace(&self, place: &OnDemand<Lane>, lane: &Lane) {
        let is_it = |other: &Lane| other.channel.is_same(&lane.channel);
        if place.forget(is_it)
            && let Some(error) = lane.channel.end()
            && error.kind() == ErrorKind::ChannelClosed
        {
            self.link.events().tell(&Event::ChannelClosed(error));
        }
    }

    fn open_lanes(&self) -> impl Iterator<Item = Lane> {
        self.lanes.iter().filter_map(|place| match place.now() {
            Now::Ready(lane) => Some(lane),
            _ => None,
        })
    }

    /// How many messages the server has not confirmed yet.
    pub(in crate::messaging) fn in_flight(&self) -> usize {
        self.open_lanes().filter(|lane| lane.channel.is_open()).map(|lane| lane.channel.unconfirmed()).sum()
    }

    /// Waits until everything that was published is settled, or will never be.
    pub(in crate::messaging) async fn settled(&self, until: Instant) -> Result<()> {
        for lane in self.open_lanes() {
            if timeout_at(until, lane.channel.wait_for_confirms()).await.is_err() {
                let message = format!("{} messages are not confirmed yet", lane.channel.unconfirmed());
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
        Ok(())
    }

    pub(in crate::messaging) async fn flush(&self, until: Instant) -> BatchReport {
        // Who is late stands in the report.
        let _ = self.settled(until).await;
        BatchReport::new(self.ledger.fates())
    }

    /// Nothing is published from now on, other than what waits for room already.
    pub(in crate::messaging) async fn close(&self, until: Instant) -> CloseReport {
        let _ = self.settled(until).await;
        self.ledger.begin_to_close();
        let until = until.max(Instant::now() + Duration::from_secs(1));
        for place in &self.lanes {
            if let Some(lane) = place.close() {
                // The channel is closed on this side, whatever the server says.
                let _ = timeout_at(until, lane.channel.close()).await;
            }
        }
        // Nothing is queued on this side: who waits for room is told himself.
        CloseReport { unconfirmed: self.ledger.hand_back(), ..CloseReport::default() }
    }
}

fn address<'a>(target: &'a Target, message: &Message) -> Result<(&'a [u8], &'a [u8])> {
    if message.key.is_some() {
        let message = "a message's key is Kafka's; AMQP 0-9-1 has routing keys, which belong to the target";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    target.amqp()
}

fn no_channel_in_time() -> Error {
    Error::new(ErrorKind::Timeout, "there was no connection, or no channel, before the deadline")
}
