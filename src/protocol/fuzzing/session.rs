//! A program at work on a connection: what it asks for, whom it keeps waiting, and what it knows must be true.

use std::collections::{BTreeMap, VecDeque};
use std::task::Poll;
use std::time::{Duration, Instant};

use ::arbitrary::{Result, Unstructured};

use super::blank;
use super::waiting::Bell;
use crate::codec::method::{basic, confirm, queue};
use crate::codec::{Method, Properties, ReplyCode};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::client::{
    CallId, ChannelId, Confirmation, Connection, ConsumerId, Deliveries, Place, Publish, Reply, Settle, Waiting,
};
use crate::protocol::{Body, Wakes};

/// Who waits at most at a time: more of the same shows nothing new.
const MOST_WAITING: usize = 64;

/// What the message with a delivery tag has as its body: of all sizes that are treated in different ways.
pub(super) fn body_of(delivery_tag: u64) -> Vec<u8> {
    let length = match delivery_tag % 7 {
        0 => 0,
        1..=4 => usize::try_from(delivery_tag % 100).unwrap_or(0),
        5 => 5000,
        _ => 20_000,
    };
    vec![delivery_tag.to_be_bytes()[7]; length]
}

/// A message that the program publishes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) exchange: Vec<u8>,
    pub(super) routing_key: Vec<u8>,
    pub(super) mandatory: bool,
    pub(super) properties: Option<Properties>,
    pub(super) body: Vec<u8>,
}

/// What is known of a channel.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) id: ChannelId,
    pub(super) number: u16,
    pub(super) confirming: bool,
    /// How many messages count.
    pub(super) published: u64,
    /// What the server said first of each.
    pub(super) verdicts: BTreeMap<u64, bool>,
    /// In the order of publishing; for a server to compare with what arrives.
    pub(super) messages: VecDeque<Message>,
    pub(super) released: bool,
}

#[derive(Debug)]
enum What {
    Open(Option<Place>),
    Ended(Option<Place>),
    Call(ChannelId, CallId),
    Secret(CallId),
    Confirm(ChannelId, u64),
    Deliveries(ChannelId, ConsumerId, u64),
    Returned(ChannelId, Option<Place>),
    Publish(ChannelId, Box<Message>, Option<Waiting>),
}

impl What {
    fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Open(_) | Self::Ended(_) | Self::Secret(_) => None,
            Self::Call(id, _)
            | Self::Confirm(id, _)
            | Self::Deliveries(id, ..)
            | Self::Returned(id, _)
            | Self::Publish(id, ..) => Some(*id),
        }
    }
}

#[derive(Debug)]
struct Wait {
    what: What,
    bell: Bell,
}

/// A connection and the program that uses it.
pub(super) struct Session<'a> {
    pub(super) u: Unstructured<'a>,
    pub(super) machine: Connection,
    pub(super) now: Instant,
    pub(super) books: Vec<Book>,
    /// The server keeps to the rules: what it said can be counted on.
    pub(super) honest: bool,
    /// What it says is heard before anything else happens.
    pub(super) heard_at_once: bool,
    consumers: Vec<(ChannelId, ConsumerId)>,
    waits: Vec<Wait>,
}

impl<'a> Session<'a> {
    pub(super) fn new(u: Unstructured<'a>, machine: Connection, now: Instant) -> Self {
        let mut session = Self {
            u,
            machine,
            now,
            books: Vec::new(),
            honest: true,
            heard_at_once: false,
            consumers: Vec::new(),
            waits: Vec::new(),
        };
        session.wait(What::Open(None));
        session.wait(What::Ended(None));
        session
    }

    /// A channel that the program still has.
    pub(super) fn pick(&mut self) -> Result<Option<usize>> {
        let kept: Vec<usize> =
            self.books.iter().enumerate().filter(|(_, book)| !book.released).map(|(at, _)| at).collect();
        if kept.is_empty() { Ok(None) } else { self.u.choose(&kept).copied().map(Some) }
    }

    /// The server says this of a channel's messages: the tag, whether up to it, and whether it is an ack.
    pub(super) fn note(&mut self, at: usize, (tag, multiple, ack): (u64, bool, bool)) {
        let Some(book) = self.books.get_mut(at) else { return };
        let last = if tag == 0 { book.published } else { tag };
        for tag in if multiple { 1 } else { last }..=last {
            book.verdicts.entry(tag).or_insert(ack);
        }
    }

    /// The same for the channel that has this number, and hears it at once.
    pub(super) fn note_number(&mut self, number: u16, said: (u64, bool, bool)) {
        let alive =
            |book: &Book| book.number == number && !book.released && self.machine.channel_end(book.id).is_none();
        if let Some(at) = self.books.iter().rposition(alive) {
            self.note(at, said);
        }
    }

    /// The book of the channel that has a number now.
    pub(super) fn book(&mut self, id: ChannelId) -> Option<&mut Book> {
        self.books.iter_mut().rev().find(|book| book.id == id && !book.released)
    }

    fn wait(&mut self, what: What) {
        let mut wait = Wait { what, bell: Bell::new() };
        if !self.poll(&mut wait) {
            self.waits.push(wait);
        }
    }

    // ------------------------------------------------------------------------------------------------ what it asks for

    /// One thing that a program may do.
    pub(super) fn act(&mut self) -> Result<()> {
        let choice = self.u.int_in_range(0..=20)?;
        if choice == 0 || self.books.iter().all(|book| book.released) {
            self.open_channel();
            return Ok(());
        }
        let Some(at) = self.pick()? else { return Ok(()) };
        let Some(id) = self.books.get(at).map(|book| book.id) else { return Ok(()) };
        if self.waits.len() >= MOST_WAITING && matches!(choice, 1..=12) {
            return Ok(());
        }
        match choice {
            1 | 2 => self.call(id)?,
            3 => self.consume(id)?,
            4 => self.cancel(id)?,
            5 => self.release_consumer()?,
            6 => {
                let multiple = self.u.arbitrary()?;
                let tag = self.u.int_in_range(0..=8)?;
                let settle = *self.u.choose(&[
                    Settle::Ack { multiple },
                    Settle::Nack { multiple, requeue: true },
                    Settle::Reject { requeue: false },
                    Settle::CoalescedAck,
                ])?;
                // On a channel that has ended it is an error, and nothing is sent, which the words show.
                let _ = self.machine.settle(id, tag, settle);
            }
            7..=11 => self.publish(id)?,
            12 => self.wait(What::Returned(id, None)),
            13 => self.give_up()?,
            14 => {
                let close = self.machine.close_channel(id, ReplyCode::REPLY_SUCCESS, "");
                if let Ok(Some(call)) = close {
                    self.wait(What::Call(id, call));
                }
            }
            15 => self.release_channel(at, id),
            16 => {
                if let Ok(call) = self.machine.update_secret("secret", "reason") {
                    self.wait(What::Secret(call));
                }
            }
            17 if self.u.ratio(1, 16)? => {
                let limit = Duration::from_secs(10);
                let closed = self.machine.close(ReplyCode::REPLY_SUCCESS, "bye", self.now, limit);
                assert!(closed.is_ok());
            }
            18 => {
                self.now += Duration::from_secs(self.u.int_in_range(0..=40)?);
                self.machine.handle_timeout(self.now);
            }
            // Another branch of its task was woken.
            19 if !self.waits.is_empty() => {
                let at = self.u.choose_index(self.waits.len())?;
                let mut wait = self.waits.swap_remove(at);
                if !self.poll(&mut wait) {
                    self.waits.push(wait);
                }
            }
            20 => {
                let _ = self.machine.coalesce_acks(id);
            }
            // What the driver asks after each turn.
            _ => {
                let _ = self.machine.wants_input();
            }
        }
        Ok(())
    }

    fn open_channel(&mut self) {
        if self.books.iter().filter(|book| !book.released).count() > 3 {
            return;
        }
        let Ok((id, call)) = self.machine.open_channel() else { return };
        let Some(number) = self.machine.channel_number(id) else { unreachable!("a channel without a number") };
        self.books.push(Book {
            id,
            number,
            confirming: false,
            published: 0,
            verdicts: BTreeMap::new(),
            messages: VecDeque::new(),
            released: false,
        });
        self.wait(What::Call(id, call));
    }

    fn call(&mut self, id: ChannelId) -> Result<()> {
        let method: Method = match self.u.int_in_range(0..=9)? {
            0 => queue::Declare { no_wait: false, ..self.u.arbitrary()? }.into(),
            1 => basic::Get { no_ack: self.u.arbitrary()?, ..Default::default() }.into(),
            2 | 3 => confirm::Select::default().into(),
            4 => basic::Qos::default().into(),
            5 => basic::Recover { requeue: true }.into(),
            6 => queue::Purge::default().into(),
            7 => queue::Bind { no_wait: false, ..self.u.arbitrary()? }.into(),
            choice => {
                let ids = [(90, 10), (90, 20)].get(usize::from(choice == 9)).copied().unwrap_or_default();
                let Some(method) = blank(ids.0, ids.1) else { unreachable!("there is tx") };
                method
            }
        };
        let selects = matches!(method, Method::Confirm(_));
        let window = self.u.int_in_range(1..=4)?;
        if let Ok(call) = self.machine.call(id, method, window) {
            if selects && let Some(book) = self.book(id) {
                book.confirming = true;
            }
            self.wait(What::Call(id, call));
        }
        Ok(())
    }

    fn consume(&mut self, id: ChannelId) -> Result<()> {
        let consume = basic::Consume { no_wait: false, ..self.u.arbitrary()? };
        if let Ok((consumer, call)) = self.machine.consume(id, consume) {
            self.consumers.push((id, consumer));
            self.wait(What::Call(id, call));
            if self.u.arbitrary()? {
                self.wait(What::Deliveries(id, consumer, 0));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: ChannelId) -> Result<()> {
        let Some(consumer) = self.consumers.iter().find(|(channel, _)| *channel == id).map(|(_, it)| *it) else {
            return Ok(());
        };
        if let Ok(Some(call)) = self.machine.cancel(id, consumer) {
            self.wait(What::Call(id, call));
        }
        if self.u.arbitrary()?
            && !self.waits.iter().any(|wait| matches!(wait.what, What::Deliveries(a, b, _) if (a, b) == (id, consumer)))
        {
            self.wait(What::Deliveries(id, consumer, 0));
        }
        Ok(())
    }

    fn release_consumer(&mut self) -> Result<()> {
        if self.consumers.is_empty() {
            return Ok(());
        }
        let at = self.u.choose_index(self.consumers.len())?;
        let (id, consumer) = self.consumers.swap_remove(at);
        self.waits.retain(|wait| !matches!(wait.what, What::Deliveries(a, b, _) if (a, b) == (id, consumer)));
        self.machine.release_consumer(id, consumer, &[]);
        Ok(())
    }

    fn publish(&mut self, id: ChannelId) -> Result<()> {
        let length = *self.u.choose(&[0, 1, 30, 4088, 4089, 10_000, 20_000])?;
        let mut name = || Ok(self.u.arbitrary::<crate::codec::ShortString>()?.as_bytes().to_vec());
        let (exchange, mut routing_key) = (name()?, name()?);
        if self.u.ratio(1, 16)? {
            routing_key = vec![b'k'; 256];
        }
        let message = Message {
            exchange,
            routing_key,
            mandatory: self.u.arbitrary()?,
            properties: self.u.arbitrary()?,
            body: vec![b'b'; length],
        };
        self.wait(What::Publish(id, Box::new(message), None));
        Ok(())
    }

    /// Somebody goes away without an answer.
    fn give_up(&mut self) -> Result<()> {
        if self.waits.is_empty() {
            return Ok(());
        }
        let at = self.u.choose_index(self.waits.len())?;
        let Wait { what, .. } = self.waits.swap_remove(at);
        match what {
            What::Open(place) | What::Ended(place) => {
                if let Some(place) = place {
                    self.machine.unwatch(place);
                }
            }
            What::Call(id, call) => self.machine.abandon_call(id, call),
            What::Secret(call) => self.machine.abandon_connection_call(call),
            What::Confirm(id, tag) => self.machine.forget_confirm(id, tag),
            What::Publish(id, _, waiting) => {
                if let Some(waiting) = waiting {
                    self.machine.leave(id, waiting);
                }
            }
            What::Returned(id, place) => {
                if let Some(place) = place {
                    self.machine.leave_returned(id, place);
                }
            }
            What::Deliveries(..) => {}
        }
        Ok(())
    }

    /// The handle goes, and with it whatever was done through it.
    fn release_channel(&mut self, at: usize, id: ChannelId) {
        self.waits.retain(|wait| wait.what.channel() != Some(id));
        self.consumers.retain(|(channel, _)| *channel != id);
        if let Some(book) = self.books.get_mut(at) {
            book.released = true;
        }
        self.machine.release_channel(id);
    }

    // --------------------------------------------------------------------------------------------------- those who wait

    /// Whoever was woken asks again, until nobody is. Then nobody may be left who would have got an answer.
    pub(super) fn settle_down(&mut self) {
        loop {
            let mut wakes = Wakes::default();
            self.machine.take_wakes(&mut wakes);
            wakes.release();
            let mut woken = false;
            for mut wait in std::mem::take(&mut self.waits) {
                let rung = wait.bell.take();
                woken |= rung;
                if !(rung && self.poll(&mut wait)) {
                    self.waits.push(wait);
                }
            }
            if !woken {
                break;
            }
        }
        for mut wait in std::mem::take(&mut self.waits) {
            assert!(!self.poll(&mut wait), "{wait:?} was not woken");
            self.waits.push(wait);
        }
        let mut wakes = Wakes::default();
        self.machine.take_wakes(&mut wakes);
        assert!(wakes.woken().is_empty(), "somebody is woken because nothing has changed");
    }

    /// The connection is over: everybody learns of it.
    pub(super) fn end(mut self) {
        self.settle_down();
        if !self.machine.is_finished() {
            self.machine.terminate(Error::new(ErrorKind::Io, "the stream has ended"));
        }
        self.settle_down();
        assert!(self.waits.is_empty(), "they wait for ever: {:?}", self.waits);
        assert!(self.machine.is_finished() && self.machine.timeout().is_none() && self.machine.end().is_some());
        let after = self.machine.open_channel();
        assert!(after.is_err(), "a channel of a connection that has ended");
    }

    /// Whether it was answered.
    fn poll(&mut self, wait: &mut Wait) -> bool {
        let Wait { what, bell } = wait;
        match what {
            What::Open(place) => self.machine.poll_open(place, bell.waker()).is_ready(),
            What::Ended(place) => self.machine.poll_ended(place, bell.waker()).is_ready(),
            What::Secret(call) => self.machine.poll_connection_call(*call, bell.waker()).is_ready(),
            What::Call(id, call) => match self.machine.poll_call(*id, *call, bell.waker()) {
                Poll::Pending => false,
                Poll::Ready(Ok(reply)) => {
                    self.check_reply(&reply);
                    true
                }
                Poll::Ready(Err(_)) => {
                    assert!(self.machine.channel_end(*id).is_some(), "a call fails and the channel lives");
                    true
                }
            },
            What::Confirm(id, tag) => match self.machine.poll_confirm(*id, *tag, bell.waker()) {
                Poll::Pending => false,
                Poll::Ready(confirmation) => {
                    self.check_confirmation(*id, *tag, confirmation);
                    true
                }
            },
            What::Returned(id, place) => self.machine.poll_returned(*id, place, bell.waker()).is_ready(),
            What::Deliveries(id, consumer, last) => loop {
                let mut batches = VecDeque::new();
                match self.machine.poll_deliveries(*id, *consumer, &mut batches, bell.waker()) {
                    Poll::Pending => return false,
                    Poll::Ready(Deliveries::End(_)) => return true,
                    Poll::Ready(Deliveries::Some) => {}
                }
                for batch in batches {
                    for (place, one) in batch.delivered().iter().enumerate().filter(|_| self.honest) {
                        assert!(one.delivery_tag > *last, "{} behind {last}", one.delivery_tag);
                        *last = one.delivery_tag;
                        let body = batch.body(place);
                        assert!(body == body_of(one.delivery_tag), "the body of {}", one.delivery_tag);
                    }
                }
            },
            What::Publish(id, message, waiting) => {
                let publish = Publish {
                    exchange: &message.exchange,
                    routing_key: &message.routing_key,
                    mandatory: message.mandatory,
                    immediate: false,
                    stamped: false,
                    properties: message.properties.as_ref().map(Into::into),
                    body: Body::Borrowed(&message.body),
                };
                match self.machine.poll_publish(*id, &publish, waiting, bell.waker()) {
                    Poll::Pending => false,
                    Poll::Ready(Err(error)) => {
                        assert_eq!(error.outcome(), Outcome::NotSent);
                        true
                    }
                    Poll::Ready(Ok(tag)) => {
                        let (id, message) = (*id, (**message).clone());
                        self.published(id, tag, message);
                        true
                    }
                }
            }
        }
    }

    fn published(&mut self, id: ChannelId, tag: u64, message: Message) {
        let Some(book) = self.book(id) else { unreachable!("a message on a channel that was released") };
        book.messages.push_back(message);
        if book.confirming {
            book.published += 1;
            assert_eq!(tag, book.published, "c90");
            if self.waits.len() < 2 * MOST_WAITING {
                self.wait(What::Confirm(id, tag));
            }
        } else {
            assert_eq!(tag, 0);
        }
    }

    fn check_reply(&self, reply: &Reply) {
        if let (true, Method::Basic(basic::Method::GetOk(get_ok)), Some(content)) =
            (self.honest, &reply.method, &reply.content)
        {
            assert!(content.body() == body_of(get_ok.delivery_tag), "the body of {}", get_ok.delivery_tag);
        }
    }

    fn check_confirmation(&mut self, id: ChannelId, tag: u64, confirmation: std::result::Result<Confirmation, Error>) {
        let (honest, at_once) = (self.honest, self.heard_at_once);
        let ended = self.machine.channel_end(id).is_some();
        let Some(book) = self.book(id) else { return };
        let said = book.verdicts.get(&tag).copied();
        match confirmation {
            Ok(Confirmation::Ack(_)) => assert!(!honest || said == Some(true), "{tag} acked, the server said {said:?}"),
            Ok(Confirmation::Nack(_)) => {
                assert!(!honest || said == Some(false), "{tag} nacked, the server said {said:?}")
            }
            Ok(Confirmation::NotRequested) => unreachable!("{tag} on a channel without confirms"),
            Err(error) => {
                let came_back = error.kind() == ErrorKind::Returned;
                let outcome = if came_back { Outcome::Refused } else { Outcome::Unknown };
                assert!(ended && error.outcome() == outcome, "{error}");
                assert!(!honest || !at_once || said.is_none(), "{tag} is unknown, the server said {said:?}");
            }
        }
    }
}
