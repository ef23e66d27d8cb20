//! What the client asks of the server on a channel: opening, calls, consumers, settling, closing.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use super::acks::Acks;
use super::batch::Batch;
use super::calls::{CallId, Reply};
use super::channel::{Channel, Hands, State};
use super::confirms::{Confirmation, Confirms, Returned, Watermark};
use super::consumer::{ConsumerId, ConsumerState, Deliveries};
use super::{ChannelId, Connection, Phase, Place};
use crate::codec::method::{MethodFields, basic, channel, confirm, tx};
use crate::codec::{Method, ReplyCode, ShortString};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::OutBuffer;
use crate::wakes::keep;

/// What becomes of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// `basic.ack`
    Ack {
        /// All up to and including the tag.
        multiple: bool,
    },
    /// `basic.ack`, together with those of its neighbours when the driver takes the output, where
    /// [`coalesce_acks`](Connection::coalesce_acks) has asked for that; otherwise by itself and at once.
    CoalescedAck,
    /// `basic.nack`
    Nack {
        /// All up to and including the tag.
        multiple: bool,
        /// Back into the queue.
        requeue: bool,
    },
    /// `basic.reject`
    Reject {
        /// Back into the queue.
        requeue: bool,
    },
}

impl Connection {
    /// Opens a channel on a free number (`channel.open`).
    pub fn open_channel(&mut self) -> Result<(ChannelId, CallId), Error> {
        self.usable()?;
        let Some(number) = self.numbers.next(self.tuning.channel_max) else {
            let message = format!("{} channels are open, as many as were agreed", self.tuning.channel_max);
            return Err(Error::new(ErrorKind::LimitReached, message));
        };
        let mut channel = Channel::new(number);
        self.out.put_method(number, &channel::Open::default().into(), self.max_payload)?;
        let call = channel.calls.expect(channel::Open::INFO);
        let at = self.channels.iter().position(Option::is_none).unwrap_or(self.channels.len());
        match self.channels.get_mut(at) {
            Some(slot) => *slot = Some(channel),
            None => self.channels.push(Some(channel)),
        }
        self.numbers.take(number, ChannelId(at));
        Ok((ChannelId(at), call))
    }

    /// Sends a request and expects what answers it. `window` limits unconfirmed messages, for `confirm.select`.
    pub fn call(&mut self, id: ChannelId, method: Method, window: usize) -> Result<CallId, Error> {
        let max_payload = self.max_payload;
        let (channel, out) = self.open(id)?;
        let info = method.info();
        match info {
            confirm::Select::INFO if channel.transactional => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "the channel is transactional: it takes no confirms",
                ));
            }
            tx::Select::INFO if channel.confirms.is_some() => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "the channel is in confirm mode: it takes no transactions",
                ));
            }
            _ => {}
        }
        out.put_method(channel.number, &method, max_payload)?;
        match info {
            confirm::Select::INFO => channel.begin_confirms(window),
            tx::Select::INFO => channel.transactional = true,
            tx::Rollback::INFO => {
                // What was settled since the last commit is unsettled again.
                channel.settled_up_to = 0;
                if let Some(acks) = &mut channel.acks {
                    acks.give_up();
                }
            }
            _ => {}
        }
        match method {
            Method::Basic(basic::Method::Get(basic::Get { no_ack: false, .. })) => {
                channel.unsettled = true;
                Ok(channel.calls.expect_unsettled(info))
            }
            _ => Ok(channel.calls.expect(info)),
        }
    }

    /// The server's answer, once it is there.
    pub fn poll_call(&mut self, id: ChannelId, call: CallId, waker: &Waker) -> Poll<Result<Reply, Error>> {
        let Some((channel, hands)) = self.parts(id) else { return Poll::Ready(Err(unknown_channel())) };
        match channel.calls.poll(call, waker, hands.wakes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(reply)) => Poll::Ready(Ok(reply)),
            Poll::Ready(None) => Poll::Ready(Err(channel.end.clone().unwrap_or_else(unknown_channel))),
        }
    }

    /// Nobody waits for this answer any more; when it comes it is dropped, and a message goes back into its queue.
    pub fn abandon_call(&mut self, id: ChannelId, call: CallId) {
        if let Some((channel, mut hands)) = self.parts(id) {
            let unwanted = channel.calls.abandon(call, hands.wakes);
            channel.put_back(unwanted, &mut hands);
        }
    }

    /// Sends `connection.update-secret`.
    pub fn update_secret(&mut self, secret: &str, reason: &str) -> Result<CallId, Error> {
        use crate::codec::method::connection::UpdateSecret;
        self.usable()?;
        let method = UpdateSecret { new_secret: secret.to_owned().into(), reason: reason.into() };
        self.out.put_method(0, &method.into(), self.max_payload)?;
        self.config.credentials.set_secret(secret);
        Ok(self.calls.expect(UpdateSecret::INFO))
    }

    /// The server's answer to a request on the connection itself.
    pub fn poll_connection_call(&mut self, call: CallId, waker: &Waker) -> Poll<Result<Reply, Error>> {
        match self.calls.poll(call, waker, &mut self.wakes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(reply)) => Poll::Ready(Ok(reply)),
            Poll::Ready(None) => Poll::Ready(Err(self.end.clone().unwrap_or_else(unknown_channel))),
        }
    }

    /// Nobody waits for this answer any more.
    pub fn abandon_connection_call(&mut self, call: CallId) {
        self.calls.abandon(call, &mut self.wakes);
    }

    // ------------------------------------------------------------------------------------------------------ closing

    /// Sends `channel.close`. `None` when the channel is closed, or closing, already.
    pub fn close_channel(&mut self, id: ChannelId, code: ReplyCode, text: &str) -> Result<Option<CallId>, Error> {
        let (channel, mut hands) = match self.parts(id) {
            Some((channel, hands)) if matches!(channel.state, State::Open | State::Opening) => (channel, hands),
            _ => return Ok(None),
        };
        let close = channel::Close { reply_code: code.0, reply_text: text.into(), class_id: 0, method_id: 0 };
        channel.close(close, &mut hands)?;
        let call = channel.expect_close();
        self.publishers.wake_all(&mut self.wakes);
        Ok(Some(call))
    }

    /// The channel's handle is gone: it is closed if it is open, and forgotten as soon as the server agrees.
    pub fn release_channel(&mut self, id: ChannelId) {
        if matches!(self.phase, Phase::Open)
            && let Ok(Some(call)) = self.close_channel(id, ReplyCode::REPLY_SUCCESS, "")
        {
            self.abandon_call(id, call);
        }
        let Some(slot) = self.channels.get_mut(id.0) else { return };
        match slot {
            Some(channel) if channel.state == State::Closed => *slot = None,
            Some(channel) => channel.released = true,
            None => {}
        }
    }

    /// Why the channel cannot be used any more, if so.
    pub fn channel_end(&self, id: ChannelId) -> Option<&Error> {
        self.channels.get(id.0)?.as_ref()?.end.as_ref()
    }

    /// The channel's number on the wire.
    pub fn channel_number(&self, id: ChannelId) -> Option<u16> {
        Some(self.channels.get(id.0)?.as_ref()?.number)
    }

    // --------------------------------------------------------------------------------------------------- publishing

    /// What can be known of confirms without the lock.
    pub fn watermark(&self, id: ChannelId) -> Watermark {
        self.channels.get(id.0).and_then(Option::as_ref).map(|channel| channel.watermark.clone()).unwrap_or_default()
    }

    /// What became of a published message, once it is known; `NotRequested` of one without a tag.
    #[inline]
    pub fn poll_confirm(&mut self, id: ChannelId, tag: u64, waker: &Waker) -> Poll<Result<Confirmation, Error>> {
        let Self { channels, wakes, .. } = self;
        let channel = channels.get_mut(id.0).and_then(Option::as_mut);
        let Some(channel) = channel else { return Poll::Ready(Err(unknown_channel())) };
        let Some(confirms) = channel.confirms.as_mut().filter(|_| tag != 0) else {
            return Poll::Ready(Ok(Confirmation::NotRequested));
        };
        match (confirms.take(tag), &channel.end) {
            (Some(confirmation), _) => Poll::Ready(Ok(confirmation)),
            (None, Some(error)) => Poll::Ready(Err(never_confirmed(confirms, tag, error))),
            (None, None) => {
                confirms.watch(tag, waker, wakes);
                Poll::Pending
            }
        }
    }

    /// The message that had come back before its channel ended, where [`poll_confirm`](Self::poll_confirm) says that one had. It can be
    /// taken once.
    pub fn take_returned(&mut self, id: ChannelId, tag: u64) -> Option<Box<Returned>> {
        let channel = self.channel(id).filter(|channel| channel.end.is_some())?;
        channel.confirms.as_mut()?.take_returned(tag)
    }

    /// Whether the server has said what became of a message. Nothing is taken from whoever waits for that.
    pub fn is_settled(&self, id: ChannelId, tag: u64) -> bool {
        let channel = self.channels.get(id.0).and_then(Option::as_ref);
        channel.and_then(|channel| channel.confirms.as_ref()).is_some_and(|confirms| confirms.is_settled(tag))
    }

    /// The same, where it is enough that the message has come back.
    pub fn is_answered(&self, id: ChannelId, tag: u64) -> bool {
        let channel = self.channels.get(id.0).and_then(Option::as_ref);
        channel.and_then(|channel| channel.confirms.as_ref()).is_some_and(|confirms| confirms.is_answered(tag))
    }

    /// Whether [`poll_confirm`](Self::poll_confirm) would be ready: it is settled, or will never be.
    pub fn is_decided(&self, id: ChannelId, tag: u64) -> bool {
        self.channel_end(id).is_some() || self.is_settled(id, tag)
    }

    /// Ready when everything that was published up to this tag is settled, or will never be.
    pub fn poll_settled(
        &mut self,
        id: ChannelId,
        tag: u64,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Poll<Result<(), Error>> {
        let Some((channel, hands)) = self.parts(id) else { return Poll::Ready(Err(unknown_channel())) };
        let Some(confirms) = &mut channel.confirms else { return Poll::Ready(Ok(())) };
        match (confirms.is_drained(tag), &channel.end) {
            (true, _) => Poll::Ready(Ok(())),
            (false, Some(error)) => Poll::Ready(Err(error.clone().with_outcome(Outcome::Unknown))),
            (false, None) => {
                confirms.await_drained(tag, place, waker, hands.wakes);
                Poll::Pending
            }
        }
    }

    /// Somebody no longer waits for what was published to be settled.
    pub fn leave_settled(&mut self, id: ChannelId, place: Place) {
        if let Some((channel, hands)) = self.parts(id)
            && let Some(confirms) = &mut channel.confirms
        {
            confirms.leave_drains(place, hands.wakes);
        }
    }

    /// The tag of the message that was published last on this channel; 0 where there is none, or where there are no confirms.
    pub fn last_published(&self, id: ChannelId) -> u64 {
        let channel = self.channels.get(id.0).and_then(Option::as_ref);
        channel.and_then(|channel| channel.confirms.as_ref()).map_or(0, |confirms| confirms.next_tag() - 1)
    }

    /// Nobody asks what became of this message any more.
    pub fn forget_confirm(&mut self, id: ChannelId, tag: u64) {
        drop(self.take_returned(id, tag));
        let Self { channels, wakes, .. } = self;
        let channel = channels.get_mut(id.0).and_then(Option::as_mut);
        if let Some(confirms) = channel.and_then(|channel| channel.confirms.as_mut()) {
            confirms.forget(tag, wakes);
        }
    }

    /// How many published messages the server has not confirmed yet.
    pub fn unconfirmed(&self, id: ChannelId) -> usize {
        let channel = self.channels.get(id.0).and_then(Option::as_ref);
        channel.and_then(|channel| channel.confirms.as_ref()).map_or(0, Confirms::outstanding)
    }

    /// The next returned message that belongs to no confirm, with the number of those that were lost before it because nobody
    /// asked. `None` when there will be no more.
    pub fn poll_returned(
        &mut self,
        id: ChannelId,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Poll<Option<(Box<Returned>, u64)>> {
        let Some((channel, hands)) = self.parts(id) else { return Poll::Ready(None) };
        match channel.take_returned() {
            Some(returned) => Poll::Ready(Some(returned)),
            None if channel.end.is_some() => Poll::Ready(None),
            None => {
                channel.returned_wakers.wait(place, waker, hands.wakes);
                Poll::Pending
            }
        }
    }

    /// Somebody no longer waits for returned messages.
    pub fn leave_returned(&mut self, id: ChannelId, place: Place) {
        if let Some((channel, hands)) = self.parts(id) {
            channel.returned_wakers.leave(place, hands.wakes);
        }
    }

    // ---------------------------------------------------------------------------------------------------- consuming

    /// Lets acks be coalesced ([`Settle::CoalescedAck`]) on a channel from which nothing that has to be settled was asked for before: what
    /// became of that would not be known.
    pub fn coalesce_acks(&mut self, id: ChannelId) -> Result<(), Error> {
        let (channel, _) = self.open(id)?;
        if channel.acks.is_none() && channel.unsettled {
            let message = "acks can be coalesced only from the first consumer or basic.get of their channel on";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        channel.acks.get_or_insert_with(Box::<Acks>::default);
        Ok(())
    }

    /// Starts a consumer, which takes deliveries from now on (`basic.consume`). With an empty tag it gets one of its own.
    pub fn consume(&mut self, id: ChannelId, mut consume: basic::Consume) -> Result<(ConsumerId, CallId), Error> {
        let max_payload = self.max_payload;
        let mut tags_given = self.consumer_tags_given;
        let (channel, out) = self.open(id)?;
        if consume.consumer_tag.is_empty() {
            consume.consumer_tag = channel.consumers.new_tag(&mut tags_given);
        }
        let tag = consume.consumer_tag.clone();
        let no_ack = consume.no_ack;
        let Some(consumer) = channel.consumers.add(tag.clone(), no_ack) else {
            // c105: the server would close the whole connection.
            let message = format!("the channel has a consumer with the tag {tag} already");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        if let Err(error) = out.put_method(channel.number, &consume.into(), max_payload) {
            channel.consumers.remove(consumer);
            return Err(error.into());
        }
        channel.unsettled |= !no_ack;
        let call = channel.calls.expect_for(basic::Consume::INFO, tag);
        self.consumer_tags_given = tags_given;
        Ok((consumer, call))
    }

    /// The consumer's tag.
    pub fn consumer_tag(&mut self, id: ChannelId, consumer: ConsumerId) -> ShortString {
        let consumer = self.channel(id).and_then(|channel| channel.consumers.get_mut(consumer));
        consumer.map(|consumer| consumer.tag.clone()).unwrap_or_default()
    }

    /// Moves what was delivered into `into`, which is empty.
    pub fn poll_deliveries(
        &mut self,
        id: ChannelId,
        consumer: ConsumerId,
        into: &mut VecDeque<Batch>,
        waker: &Waker,
    ) -> Poll<Deliveries> {
        let Some((channel, hands)) = self.parts(id) else { return Poll::Ready(Deliveries::End(None)) };
        let counts = channel.end.is_none();
        let Some(consumer) = channel.consumers.get_mut(consumer) else {
            return Poll::Ready(Deliveries::End(None));
        };
        if consumer.queue.is_empty() {
            return match &consumer.state {
                ConsumerState::Ended(reason) => Poll::Ready(Deliveries::End(reason.clone())),
                _ => {
                    hands.wakes.drop_later(keep(&mut consumer.waker, waker));
                    Poll::Pending
                }
            };
        }
        std::mem::swap(&mut consumer.queue, into);
        if counts {
            let taken: usize = into.iter().map(Batch::len).sum();
            *hands.buffered = hands.buffered.saturating_sub(taken);
        }
        Poll::Ready(Deliveries::Some)
    }

    /// Sends `basic.cancel`. `None` when the consumer has ended already.
    pub fn cancel(&mut self, id: ChannelId, consumer: ConsumerId) -> Result<Option<CallId>, Error> {
        let max_payload = self.max_payload;
        let (channel, out) = self.open(id)?;
        let Some(live) = channel.consumers.get_mut(consumer) else { return Ok(None) };
        if !matches!(live.state, ConsumerState::Live) {
            return Ok(None);
        }
        let tag = live.tag.clone();
        let cancel = basic::Cancel { consumer_tag: tag.clone(), no_wait: false };
        out.put_method(channel.number, &cancel.into(), max_payload)?;
        live.state = ConsumerState::Cancelling;
        Ok(Some(channel.calls.expect_for(basic::Cancel::INFO, tag)))
    }

    /// The consumer's handle is gone: it is cancelled, and what nobody has handled goes back to the queue. `unhandled` are
    /// the tags of deliveries that were taken and never looked at.
    pub fn release_consumer(&mut self, id: ChannelId, consumer: ConsumerId, unhandled: &[u64]) {
        let Some((channel, mut hands)) = self.parts(id) else { return };
        let Some(released) = channel.consumers.get_mut(consumer) else { return };
        let queue = std::mem::take(&mut released.queue);
        hands.wakes.drop_later(released.waker.take());
        if channel.end.is_none() {
            *hands.buffered = hands.buffered.saturating_sub(queue.iter().map(Batch::len).sum());
        }
        let (no_ack, ended) = (released.no_ack, matches!(released.state, ConsumerState::Ended(_)));
        let to_be_cancelled =
            (matches!(released.state, ConsumerState::Live) && released.started).then(|| released.tag.clone());
        if channel.state != State::Open || ended {
            channel.consumers.remove(consumer);
        } else {
            released.state = ConsumerState::Draining;
        }
        if channel.state == State::Open {
            channel.send_acks(hands.out, hands.answers);
            // Cancelled first, or the server would deliver them here again.
            if let Some(tag) = to_be_cancelled {
                channel.cancel_for_nobody(tag, &mut hands);
            }
            if !no_ack {
                let queued = queue.iter().flat_map(Batch::delivered).map(|delivered| delivered.delivery_tag);
                for delivery_tag in unhandled.iter().copied().chain(queued) {
                    channel.requeue(delivery_tag, &mut hands);
                }
            }
        }
    }

    /// Settles deliveries (`basic.ack`, `basic.nack`, `basic.reject`). `Stale` when the channel has ended, or when the delivery was settled
    /// with a later one; nothing is sent then.
    #[inline]
    pub fn settle(&mut self, id: ChannelId, delivery_tag: u64, settle: Settle) -> Result<(), Error> {
        match self.channels.get_mut(id.0).and_then(Option::as_mut) {
            Some(channel) if channel.state == State::Open => {
                let number = channel.number;
                if (1..=channel.settled_up_to).contains(&delivery_tag) {
                    return Err(settled_already());
                }
                if let Settle::Ack { multiple: true } | Settle::Nack { multiple: true, .. } = settle {
                    channel.settled_up_to = delivery_tag;
                }
                if let Some(acks) = &mut channel.acks {
                    let waits = match settle {
                        Settle::CoalescedAck => acks.ack(delivery_tag),
                        _ => acks.note(delivery_tag, settle, number, (&mut self.out, &mut self.answers)),
                    };
                    if waits {
                        if !std::mem::replace(&mut acks.listed, true) {
                            self.acking.push(id);
                        }
                        return Ok(());
                    }
                }
                let frame = settle_frame(number, delivery_tag, settle);
                self.out.put(&frame);
                self.answers += frame.len();
                Ok(())
            }
            channel => {
                let end = channel.and_then(|channel| channel.end.clone()).unwrap_or_else(unknown_channel);
                let message = "the delivery's channel has ended, and the server has put the message back";
                Err(Error::because(ErrorKind::Stale, message, &end))
            }
        }
    }

    /// Whether a delivery was settled by the settling of a later one, with `multiple`.
    pub fn was_settled_with_later(&self, id: ChannelId, delivery_tag: u64) -> bool {
        let channel = self.channels.get(id.0).and_then(Option::as_ref);
        channel.is_some_and(|channel| (1..=channel.settled_up_to).contains(&delivery_tag))
    }

    /// Sends the coalesced acks that wait, of all channels.
    pub(super) fn send_acks(&mut self) {
        let Self { acking, channels, out, answers, .. } = self;
        for id in acking.drain(..) {
            if let Some(channel) = channels.get_mut(id.0).and_then(Option::as_mut)
                && let Some(acks) = &mut channel.acks
            {
                acks.listed = false;
                channel.send_acks(out, answers);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------ helpers

    pub(super) fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.channels.get_mut(id.0)?.as_mut()
    }

    fn usable(&self) -> Result<(), Error> {
        match (&self.phase, &self.end) {
            (_, Some(error)) => Err(error.clone()),
            (Phase::Open, None) => Ok(()),
            (_, None) => Err(Error::new(ErrorKind::Closed, "the connection is not open yet")),
        }
    }

    /// An open channel, and where its frames go: requests, which come behind the acks that wait.
    fn open(&mut self, id: ChannelId) -> Result<(&mut Channel, &mut OutBuffer), Error> {
        let channel = self.channels.get_mut(id.0).and_then(Option::as_mut);
        match channel {
            Some(channel) if channel.state == State::Open => {
                channel.send_acks(&mut self.out, &mut self.answers);
                Ok((channel, &mut self.out))
            }
            Some(channel) => Err(channel.end.clone().unwrap_or_else(unknown_channel)),
            None => Err(unknown_channel()),
        }
    }

    pub(super) fn parts(&mut self, id: ChannelId) -> Option<(&mut Channel, Hands<'_>)> {
        let channel = self.channels.get_mut(id.0)?.as_mut()?;
        let hands = Hands {
            out: &mut self.out,
            wakes: &mut self.wakes,
            buffered: &mut self.buffered,
            answers: &mut self.answers,
            max_payload: self.max_payload,
            max_body: self.config.max_message_size,
            publishers: &mut self.publishers,
            heads: &mut self.heads,
        };
        Some((channel, hands))
    }
}

/// `basic.ack`, `basic.nack` and `basic.reject` have the same shape: a delivery tag and an octet of bits, 21 octets with the frame.
#[inline]
pub(super) fn settle_frame(channel: u16, delivery_tag: u64, settle: Settle) -> [u8; 21] {
    let (method, bits) = match settle {
        Settle::Ack { multiple } => (80, u8::from(multiple)),
        Settle::CoalescedAck => (80, 0),
        Settle::Nack { multiple, requeue } => (120, u8::from(multiple) | u8::from(requeue) << 1),
        Settle::Reject { requeue } => (90, u8::from(requeue)),
    };
    let [c1, c0] = channel.to_be_bytes();
    let [t7, t6, t5, t4, t3, t2, t1, t0] = delivery_tag.to_be_bytes();
    [1, c1, c0, 0, 0, 0, 13, 0, 60, 0, method, t7, t6, t5, t4, t3, t2, t1, t0, bits, 0xCE]
}

/// c102: confirms of a dead channel never come. That no queue took a message is known without them.
#[cold]
fn never_confirmed(confirms: &Confirms, tag: u64, end: &Error) -> Error {
    match confirms.came_back(tag) {
        Some(returned) => Error::returned(returned.reply_code, returned.reply_text.as_bytes()),
        None => end.clone().with_outcome(Outcome::Unknown),
    }
}

#[cold]
fn settled_already() -> Error {
    Error::new(ErrorKind::Stale, "the delivery is settled already; nothing was sent")
}

#[cold]
fn unknown_channel() -> Error {
    Error::new(ErrorKind::Closed, "the channel is not open")
}
