//! Sending over AMQP: one's own channels, opened when they are first used, and replaced when the server has closed them.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::flights::Due;
use super::ledger::{Lane, Ledger};
use super::link::Link;
use super::pending::Pending;
use crate::amqp::{BasicPublish, Body, Posted, PropertiesRef, Publish};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{BatchReport, Cargo, CloseReport, Message, SendError, SharedProperties, Target};
use crate::messaging::deadline::by;
use crate::messaging::events::Event;
use crate::messaging::on_demand::{Now, OnDemand};

#[derive(Debug)]
pub(in crate::messaging) struct Outbox {
    link: Arc<Link>,
    lanes: Box<[OnDemand<Arc<Lane>>]>,
    turn: AtomicUsize,
    settings: Settings,
    /// The properties of messages that say nothing themselves.
    defaults: SharedProperties,
    ledger: Arc<Ledger>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::messaging) struct Settings {
    pub(in crate::messaging) confirms: bool,
    /// For messages whose target does not say.
    pub(in crate::messaging) mandatory: bool,
    /// Messages are marked, so that those that come back are known for certain.
    pub(in crate::messaging) stamped: bool,
    /// How many messages may be unconfirmed, on all channels together.
    pub(in crate::messaging) window: usize,
    pub(in crate::messaging) channels: u16,
}

impl Outbox {
    pub(in crate::messaging) fn new(link: Arc<Link>, settings: Settings, defaults: SharedProperties) -> Self {
        let channels = settings.channels.max(1);
        let ledger = Ledger::new(channels.into(), settings.window, defaults.clone());
        Self {
            link,
            lanes: (0..channels).map(|_| OnDemand::new()).collect(),
            turn: AtomicUsize::new(0),
            settings,
            defaults,
            ledger,
        }
    }

    /// Who keeps the time for one who is outside of any runtime.
    pub(in crate::messaging) fn timers(&self) -> Option<Handle> {
        self.link.timers()
    }

    /// The channel for a message, or for a batch: each in turn.
    pub(in crate::messaging) fn next_lane(&self) -> usize {
        match self.lanes.len() {
            1 => 0,
            lanes => self.turn.fetch_add(1, Ordering::Relaxed) % lanes,
        }
    }

    fn lane(&self, at: usize) -> Result<&OnDemand<Arc<Lane>>> {
        self.lanes.get(at).ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "there is no such channel"))
    }

    /// Opens a channel.
    fn open(&self) -> impl Future<Output = Result<Arc<Lane>>> + Send + use<> {
        let (link, ledger, settings) = (Arc::clone(&self.link), Arc::clone(&self.ledger), self.settings);
        let window = settings.window.div_ceil(settings.channels.max(1).into());
        async move {
            let channel = link.channel().await?;
            if settings.confirms {
                channel.confirm_select_with_window(window).await?;
            }
            Ok(ledger.open(channel))
        }
    }

    /// Publishes a message as soon as there is room. An error has the message in it, and says `NotSent`.
    pub(in crate::messaging) async fn enqueue(
        &self,
        at: usize,
        cargo: &mut Cargo,
        until: Instant,
    ) -> Result<Pending, SendError> {
        self.publish(at, cargo, until).await.map_err(|error| cargo.refuse(error))
    }

    async fn publish(&self, at: usize, cargo: &Cargo, until: Instant) -> Result<Pending> {
        let place = self.lane(at)?;
        let Cargo { target, message } = cargo;
        let publish = self.request(address(target, message)?, target, message);
        loop {
            let opened = place.get(self.link.runtime(), |_| true, || self.open());
            let lane = by(self.timers().as_ref(), until, opened).await.unwrap_or_else(|| Err(no_channel_in_time()))?;
            let limit = until.saturating_duration_since(Instant::now());
            let mut publish = BasicPublish::of(&lane.channel, publish.clone()).deadline(limit);
            let posted = poll_fn(|cx| match lane.post(&mut publish, cx.waker(), cargo, Due::At(until)) {
                Ok(pending) => Poll::Ready(Ok(pending)),
                Err(Some(error)) => Poll::Ready(Err(error)),
                Err(None) => publish.poll_timer(cx).map(Err),
            });
            let posted = posted.await;
            drop(publish);
            match posted {
                Ok(pending) => {
                    self.ledger.set_current(at, Some(lane));
                    return Ok(pending);
                }
                Err(error) if lane.channel.is_open() => return Err(error),
                Err(_) => self.replace(at, place, &lane),
            }
        }
    }

    /// Publishes a message if nothing stands against that at this moment; [`enqueue`](Self::enqueue) knows what it is, otherwise. What was
    /// published is taken out of the message. Not inlined: it is the same for whatever a message is made of.
    #[inline(never)]
    pub(in crate::messaging) fn enqueue_at_once(
        &self,
        at: usize,
        target: Target,
        message: &mut Message,
        due: &Due,
    ) -> std::result::Result<Pending, Target> {
        let Ok(address) = address(&target, message) else { return Err(target) };
        let publish = self.request(address, &target, message);
        let mut posted = Posted::default();
        let mut flights = self.ledger.lock();
        let Some(lane) = flights.current(at) else { return Err(target) };
        let tag = lane.channel.post_at_once(&publish, &mut posted);
        let Ok(tag) = tag else {
            drop(flights);
            lane.channel.wake();
            return Err(target);
        };
        if tag == 0 {
            // Nothing is kept, and the target is dropped where there is no lock.
            self.ledger.conclude(flights, posted.wakes.then_some(&lane.channel));
            return Ok(Pending::new(lane, tag));
        }
        let tag = flights.enter(&lane, tag, posted.turn, (target, message), *due);
        self.ledger.conclude(flights, posted.wakes.then_some(&lane.channel));
        Ok(Pending::new(lane, tag))
    }

    /// Publishes a message if there is room now. An error has the message in it, and says `NotSent`.
    pub(in crate::messaging) fn try_enqueue(
        &self,
        at: usize,
        cargo: &mut Cargo,
        until: Instant,
    ) -> Result<Pending, SendError> {
        self.try_publish(at, cargo, until).map_err(|error| cargo.refuse(error))
    }

    fn try_publish(&self, at: usize, cargo: &Cargo, until: Instant) -> Result<Pending> {
        let place = self.lane(at)?;
        let Cargo { target, message } = cargo;
        let publish = self.request(address(target, message)?, target, message);
        loop {
            // Opening begins, for the next one.
            let Ok(lane) = place.begin(self.link.runtime(), |_| true, || self.open())? else {
                let message = "there is no channel yet; it is being opened";
                return Err(Error::new(ErrorKind::Timeout, message).with_outcome(Outcome::NotSent));
            };
            let mut publish = BasicPublish::of(&lane.channel, publish.clone());
            match lane.post(&mut publish, Waker::noop(), cargo, Due::At(until)) {
                Ok(pending) => {
                    drop(publish);
                    self.ledger.set_current(at, Some(lane));
                    return Ok(pending);
                }
                Err(error) if lane.channel.is_open() => {
                    return Err(error.unwrap_or_else(|| lane.channel.why_publishing_waits()));
                }
                Err(_) => self.replace(at, place, &lane),
            }
        }
    }

    /// What a message is to the channel. Filled in where it stays: it is not moved for free.
    #[inline(always)]
    fn request<'a>(
        &'a self,
        (exchange, routing_key): (&'a [u8], &'a [u8]),
        target: &Target,
        message: &'a Message,
    ) -> Publish<'a> {
        let body = match &message.payload {
            Some(payload) => Body::Shared(payload),
            None => Body::Borrowed(&[]),
        };
        let properties = message.properties.get().or_else(|| self.defaults.get());
        let properties = properties.map(|(properties, is_shared)| match is_shared {
            true => PropertiesRef::Shared(properties),
            false => PropertiesRef::Own(properties),
        });
        let Settings { stamped, mandatory, .. } = self.settings;
        let mandatory = target.is_mandatory().unwrap_or(mandatory);
        Publish { exchange, routing_key, mandatory, immediate: false, stamped, properties, body }
    }

    /// A channel is of no use any more: the next message gets another one.
    fn replace(&self, at: usize, place: &OnDemand<Arc<Lane>>, lane: &Lane) {
        self.ledger.set_current(at, None);
        let is_it = |other: &Arc<Lane>| other.channel.is_same(&lane.channel);
        if place.forget(is_it)
            && let Some(error) = lane.channel.end()
            && error.kind() == ErrorKind::ChannelClosed
        {
            self.link.events().tell(&Event::ChannelClosed(error));
        }
    }

    fn open_lanes(&self) -> impl Iterator<Item = Arc<Lane>> {
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
            if by(Some(lane.runtime()), until, lane.channel.wait_for_confirms()).await.is_none() {
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
                let _ = by(Some(lane.runtime()), until, lane.channel.close()).await;
            }
        }
        // Nothing is queued on this side: who waits for room is told himself.
        CloseReport { unconfirmed: self.ledger.hand_back(), ..CloseReport::default() }
    }
}

impl Drop for Outbox {
    /// A lane knows the ledger, and that would keep the lane.
    fn drop(&mut self) {
        for at in 0..self.lanes.len() {
            self.ledger.set_current(at, None);
        }
    }
}

#[inline]
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

#[cfg(test)]
#[cfg(feature = "broker")]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Wake};
    use std::time::Duration;

    use crate::broker::Broker;
    use crate::error::ErrorKind;
    use crate::messaging::outbox::Backend;
    use crate::messaging::{Client, Sender, Target};

    /// A broker with a queue, and somebody who sends to it.
    async fn sender() -> (Broker, Sender, Target) {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        client.as_amqp().await.unwrap().open_channel().await.unwrap().queue_declare("q").await.unwrap();
        (broker, client.sender().build().unwrap(), Target::queue("q"))
    }

    /// What [`Flights::size`](super::super::flights::Flights::size) says.
    fn size(sender: &Sender) -> (usize, usize) {
        match &sender.outbox().backend {
            Backend::Amqp(outbox) => outbox.ledger.lock().size(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => (0, 0),
        }
    }

    #[tokio::test]
    async fn a_receipt_that_nobody_asks_does_not_make_the_books_grow() {
        let (_broker, sender, target) = sender().await;
        let returned = sender.send_pipelined(Target::queue("nowhere"), "x").await.unwrap();
        for _ in 0..1000 {
            sender.send(&target, "x").await.unwrap();
        }
        let (places, _) = size(&sender);
        assert!(places < 200, "{places} places for one message");
        assert_eq!(returned.await.unwrap_err().into_message().unwrap().1.body(), b"x");
        sender.send(&target, "x").await.unwrap();
        assert_eq!(size(&sender), (0, 1));
    }

    /// After a burst there are more empty pages than are kept. The rest is let go, and nobody clears it again and again.
    #[tokio::test]
    async fn pages_that_nobody_needs_are_let_go() {
        let (broker, sender, target) = sender().await;
        sender.send(&target, "x").await.unwrap();
        let mut receipts = Vec::new();
        for hold in [false, true] {
            broker.hold_confirms(hold);
            for _ in 0..700 {
                receipts.push(sender.send_pipelined(&target, "x").await.unwrap());
            }
            while !hold && sender.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
        }
        for receipt in receipts.drain(..700) {
            receipt.await.unwrap();
        }
        broker.hold_confirms(false);
        for receipt in receipts {
            receipt.await.unwrap();
        }
        match &sender.outbox().backend {
            Backend::Amqp(outbox) => assert!(outbox.ledger.lock().remains.is_empty()),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => {}
        }
    }

    /// Not even its timer is kept, which would keep whoever waited until the next message is sent.
    #[tokio::test]
    async fn a_receipt_that_is_dropped_lets_go_of_its_task() {
        struct Task;
        impl Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let (broker, sender, target) = sender().await;
        sender.send(&target, "x").await.unwrap();
        broker.hold_confirms(true);
        let task = Arc::new(Task);
        let mut receipt = sender.send_pipelined(&target, "x").await.unwrap();
        assert!(Pin::new(&mut receipt).poll(&mut Context::from_waker(&Arc::clone(&task).into())).is_pending());
        drop(receipt);
        broker.hold_confirms(false);
        let confirmed = async {
            while sender.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), confirmed).await.unwrap();
        assert_eq!(Arc::strong_count(&task), 1);
    }

    /// The channel is replaced, and that of the messages before is kept in mind until all is known of them.
    #[tokio::test]
    async fn the_fates_of_an_old_channel_are_not_taken_from_a_new_one() {
        let (_broker, sender, target) = sender().await;
        let missing = Target::exchange("missing", "");
        // This one is let go with the one behind it, and given up afterwards.
        let acked = sender.send_pipelined(&target, "x").await.unwrap();
        sender.send(&target, "x").await.unwrap();
        assert_eq!(size(&sender), (0, 1));
        let failed = sender.send(&missing, "x").await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::ChannelClosed);
        drop(acked);
        // A new channel, whose first message comes back.
        let error = sender.send(Target::queue("nowhere"), "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Returned);
        let report = sender.flush().await;
        assert_eq!((report.len(), report.is_ok()), (1, true), "{report:?}");
    }
}
