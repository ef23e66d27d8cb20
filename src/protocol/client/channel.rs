//! One channel of a connection, from its opening to its end.
//!
//! ```text
//!   ┌─────────┐ open-ok  ┌──────┐ close sent  ┌─────────┐ close-ok  ┌────────┐
//!   │ Opening │ ───────► │ Open │ ──────────► │ Closing │ ────────► │ Closed │
//!   └─────────┘          └──────┘             └─────────┘           └────────┘
//!        │                   │                     │                    ▲
//!        └───────────────────┴─────────────────────┴────────────────────┘
//!                        close received: close-ok is sent
//! ```
//!
//! While a channel is closing everything but close and close-ok is discarded (c47). Its number is free again after
//! close-ok (c49), with the exception that [`numbers`](super::numbers) explains.

use std::collections::VecDeque;

use super::acks::Acks;
use super::batch::{Batch, Heads};
use super::calls::{Calls, Reply};
use super::confirms::{Confirms, Returned, Watermark, fingerprint};
use super::consumer::{Consumer, ConsumerState, Consumers};
use super::publish::{Envelope, STAMP};
use super::requests::{Settle, settle_frame};
use super::wakers::WakerQueue;
use super::{ConsumerId, Failure};
use crate::codec::method::channel::{self as channel_class, Method as ChannelMethod};
use crate::codec::method::{MethodFields, basic, channel};
use crate::codec::{AckView, ContentHeader, DeliverView, FrameType, Method, ReplyCode, ShortString};
use crate::error::{Error, ErrorKind};
use crate::protocol::{Assembler, Content, Incoming, OutBuffer, Wakes, Whole};

/// Returned messages that belong to no confirm and that nobody has asked for; more than these push out the oldest.
const MAX_RETURNED: usize = 1024;
/// The same in octets. One message is kept, however large it is.
const MAX_RETURNED_OCTETS: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) state: State,
    /// Why the channel can no longer be used. Set as soon as it is closing.
    pub(crate) end: Option<Error>,
    pub(crate) calls: Calls,
    pub(crate) confirms: Option<Confirms>,
    pub(crate) watermark: Watermark,
    /// `tx.select` was sent.
    pub(crate) transactional: bool,
    /// The server allows content (`channel.flow`).
    pub(crate) flow: bool,
    pub(crate) consumers: Consumers,
    /// Deliveries that have to be settled were asked for.
    pub(crate) unsettled: bool,
    /// Up to which tag they were settled by the settling of a later one.
    pub(crate) settled_up_to: u64,
    /// What is known of them, where acks are to be coalesced.
    pub(crate) acks: Option<Box<Acks>>,
    returned: VecDeque<Box<Returned>>,
    /// In `returned`.
    returned_octets: usize,
    /// How many returned messages were pushed out of `returned`.
    returned_lost: u64,
    /// Who waits for `returned`.
    pub(crate) returned_wakers: WakerQueue,
    /// The handle is gone; the slot goes when the channel is closed.
    pub(crate) released: bool,
    /// `channel.open-ok` has come.
    opened: bool,
    /// The server has sent `channel.close`.
    pub(crate) closed_by_server: bool,
    pub(crate) envelope: Envelope,
    assembler: Assembler<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Opening,
    Open,
    Closing,
    Closed,
}

/// The method of a message that is being put together.
#[derive(Debug)]
enum Pending {
    Deliver { consumer: ConsumerId, delivery_tag: u64, redelivered: bool },
    GetOk(basic::GetOk),
    Return { reply_code: ReplyCode, reply_text: ShortString },
}

/// What a channel needs of its connection while it handles a frame.
pub(crate) struct Hands<'a> {
    pub(crate) out: &'a mut OutBuffer,
    pub(crate) wakes: &'a mut Wakes,
    /// Octets in all consumers' queues.
    pub(crate) buffered: &'a mut usize,
    /// Octets of acks and answers that wait to be written.
    pub(crate) answers: &'a mut usize,
    pub(crate) max_payload: usize,
    pub(crate) max_body: u64,
    /// Publishers who wait for more than the window.
    pub(crate) publishers: &'a mut WakerQueue,
    pub(crate) heads: &'a mut Heads,
}

impl Hands<'_> {
    /// Sends a method whose fields are known to fit.
    fn send(&mut self, channel: u16, method: impl Into<Method>) {
        // A tag that came in one frame goes out in one.
        let _ = self.out.put_method(channel, &method.into(), self.max_payload);
    }

    /// Sends an answer that nobody here has asked for. Such answers must not pile up.
    fn answer(&mut self, channel: u16, method: impl Into<Method>) {
        let before = self.out.len();
        self.send(channel, method);
        *self.answers += self.out.len() - before;
    }
}

impl Channel {
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            state: State::Opening,
            end: None,
            calls: Calls::default(),
            confirms: None,
            watermark: Watermark::default(),
            transactional: false,
            flow: true,
            consumers: Consumers::default(),
            unsettled: false,
            settled_up_to: 0,
            acks: None,
            returned: VecDeque::new(),
            returned_octets: 0,
            returned_lost: 0,
            returned_wakers: WakerQueue::default(),
            released: false,
            opened: false,
            closed_by_server: false,
            envelope: Envelope::default(),
            assembler: Assembler::new(),
        }
    }

    /// A frame for this channel. Returns whether the channel's number is free from now on.
    #[inline]
    pub(crate) fn frame(
        &mut self,
        kind: FrameType,
        payload: Incoming<'_>,
        hands: &mut Hands<'_>,
    ) -> Result<bool, Failure> {
        let whole = match (kind, payload) {
            (FrameType::Method, Incoming::Borrowed(payload)) => return self.method_frame(payload, hands),
            _ if self.state != State::Open => None,
            (FrameType::Header, Incoming::Borrowed(payload)) => self.assembler.header(payload, hands.max_body)?,
            (_, payload) => self.assembler.body(payload)?,
        };
        match whole {
            None => {}
            Some((Pending::Deliver { consumer, delivery_tag, redelivered }, whole)) => {
                let consumer = self.consumers.get_mut(consumer);
                if let Some(acks) = &mut self.acks {
                    acks.delivered(delivery_tag, consumer.as_ref().is_some_and(|consumer| consumer.no_ack));
                }
                // c107: where nobody is left to handle it, it goes back at once and not when the channel ends.
                if let Some(consumer) = consumer
                    && !consumer.deliver((delivery_tag, redelivered), whole, hands)
                    && !consumer.no_ack
                {
                    *hands.answers += self.requeue(delivery_tag, hands);
                }
            }
            Some((Pending::GetOk(get_ok), whole)) => {
                let content = Some(whole.into_content());
                if let Some(acks) = &mut self.acks {
                    acks.delivered(get_ok.delivery_tag, !self.calls.next_get_is_unsettled());
                }
                self.answer(Reply { method: get_ok.into(), content }, hands)?;
            }
            Some((Pending::Return { reply_code, reply_text }, whole)) => {
                let returned = Returned { reply_code, reply_text, content: whole.into_content() };
                self.returned(Box::new(returned), hands.wakes);
            }
        }
        Ok(false)
    }

    /// Octets that are still to come of a body.
    pub(crate) fn awaited(&self) -> u64 {
        self.assembler.awaited()
    }

    /// Only what comes for each message: the compiler puts so little where it is called from.
    #[inline]
    fn method_frame(&mut self, payload: &[u8], hands: &mut Hands<'_>) -> Result<bool, Failure> {
        if self.state == State::Open
            && let Some((id, fields)) = payload.split_first_chunk::<4>()
        {
            match *id {
                DeliverView::ID => return self.deliver(&DeliverView::parse(fields)?).map(|()| false),
                AckView::ACK | AckView::NACK if self.assembler.is_idle() => {
                    let view = AckView::parse(fields)?;
                    return self.confirm(&view, *id == AckView::ACK, hands).map(|()| false);
                }
                _ => {}
            }
        }
        self.other_method(payload, hands)
    }

    #[inline(never)]
    fn other_method(&mut self, payload: &[u8], hands: &mut Hands<'_>) -> Result<bool, Failure> {
        let method = Method::decode(&bytes::Bytes::copy_from_slice(payload))?;
        match method {
            Method::Channel(ChannelMethod::Close(close)) => {
                self.closed_by_server(&close, hands);
                Ok(true)
            }
            // Before open-ok it is late, and answers the close of the channel that had the number before.
            Method::Channel(ChannelMethod::CloseOk(_)) if self.state == State::Closing && self.opened => {
                self.answer(Reply { method, content: None }, hands)?;
                self.state = State::Closed;
                Ok(true)
            }
            Method::Channel(ChannelMethod::OpenOk(_)) if self.state == State::Opening => {
                (self.state, self.opened) = (State::Open, true);
                self.answer(Reply { method, content: None }, hands).map(|()| false)
            }
            Method::Channel(ChannelMethod::OpenOk(_)) if self.state == State::Closing => {
                self.opened = true;
                Ok(false)
            }
            // c47; and before open-ok it can only be for the channel that had the number before.
            _ if self.state != State::Open => Ok(false),
            _ if !self.assembler.is_idle() => Err(Failure::new(
                ReplyCode::UNEXPECTED_FRAME,
                format!("the server sent {} in the middle of a message", method.info().name),
            )),
            method => self.method(method, hands).map(|()| false),
        }
    }

    fn method(&mut self, method: Method, hands: &mut Hands<'_>) -> Result<(), Failure> {
        match method {
            Method::Channel(ChannelMethod::Flow(flow)) => {
                self.flow = flow.active;
                hands.answer(self.number, channel_class::FlowOk { active: flow.active });
                if flow.active {
                    hands.publishers.wake_all(hands.wakes);
                }
            }
            Method::Basic(basic::Method::Cancel(cancel)) => self.cancelled_by_server(&cancel, hands),
            Method::Basic(basic::Method::ConsumeOk(basic::ConsumeOk { ref consumer_tag })) => {
                let tag = consumer_tag.clone();
                self.answer(Reply { method, content: None }, hands)?;
                self.started(tag, hands);
            }
            Method::Basic(basic::Method::CancelOk(basic::CancelOk { ref consumer_tag })) => {
                let tag = consumer_tag.clone();
                self.answer(Reply { method, content: None }, hands)?;
                self.cancelled(&tag, hands.wakes);
            }
            Method::Basic(basic::Method::Return(returned)) => {
                let pending =
                    Pending::Return { reply_code: ReplyCode(returned.reply_code), reply_text: returned.reply_text };
                self.assembler.begin(pending, &address(&returned.exchange, &returned.routing_key));
            }
            Method::Basic(basic::Method::GetOk(get_ok)) => {
                let address = address(&get_ok.exchange, &get_ok.routing_key);
                self.assembler.begin(Pending::GetOk(get_ok), &address);
            }
            method => {
                if let (Method::Basic(basic::Method::RecoverOk(_)), Some(acks)) = (&method, &mut self.acks) {
                    // Whatever came before is the server's again, and will have another tag.
                    acks.settle_up_to(0);
                }
                self.answer(Reply { method, content: None }, hands)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, reply: Reply, hands: &mut Hands<'_>) -> Result<(), Failure> {
        let unwanted = self.calls.answer(reply, hands.wakes).map_err(|name| {
            Failure::new(ReplyCode::COMMAND_INVALID, format!("the server sent {name}, which nothing here asked for"))
        })?;
        self.put_back(unwanted, hands);
        Ok(())
    }

    /// The oldest returned message, and how many were lost before it.
    pub(crate) fn take_returned(&mut self) -> Option<(Box<Returned>, u64)> {
        let returned = self.returned.pop_front()?;
        self.returned_octets -= returned.content.len();
        Some((returned, std::mem::take(&mut self.returned_lost)))
    }

    /// A fetched message whose caller has gone goes back into its queue.
    pub(crate) fn put_back(&mut self, unwanted: Option<Reply>, hands: &mut Hands<'_>) {
        if self.state == State::Open
            && let Some(Reply { method: Method::Basic(basic::Method::GetOk(get_ok)), .. }) = unwanted
        {
            self.requeue(get_ok.delivery_tag, hands);
        }
    }

    /// Sends `basic.reject` for a message that nobody here handles. Returns the octets.
    pub(crate) fn requeue(&mut self, delivery_tag: u64, hands: &mut Hands<'_>) -> usize {
        self.send_acks(hands.out, hands.answers);
        if let Some(acks) = &mut self.acks {
            acks.settle(delivery_tag);
        }
        let frame = settle_frame(self.number, delivery_tag, Settle::Reject { requeue: true });
        hands.out.put(&frame);
        frame.len()
    }

    /// Sends the coalesced acks that wait. Whatever depends on the order comes after it.
    #[inline]
    pub(crate) fn send_acks(&mut self, out: &mut OutBuffer, answers: &mut usize) {
        if let Some(acks) = &mut self.acks
            && acks.wait()
        {
            *answers += acks.send(self.number, out);
        }
    }

    #[inline]
    fn deliver(&mut self, view: &DeliverView<'_>) -> Result<(), Failure> {
        if !self.assembler.is_idle() {
            return Err(Failure::new(
                ReplyCode::UNEXPECTED_FRAME,
                "the server sent a delivery in the middle of a message",
            ));
        }
        let Some(consumer) = self.consumers.find(view.consumer_tag) else {
            let tag = String::from_utf8_lossy(view.consumer_tag).into_owned();
            return Err(Failure::new(
                ReplyCode::COMMAND_INVALID,
                format!("a delivery for the unknown consumer {tag:?}"),
            ));
        };
        let DeliverView { delivery_tag, redelivered, address, .. } = *view;
        self.assembler.begin(Pending::Deliver { consumer, delivery_tag, redelivered }, address);
        Ok(())
    }

    /// The common delivery: a small message whose three frames lie together. It comes to the same as handing them over one by one.
    /// Returns whether this was one; if not, nothing has happened.
    #[inline]
    pub(crate) fn small_delivery(&mut self, method: &[u8], header: &[u8], body: &[u8], hands: &mut Hands<'_>) -> bool {
        let Some(fields) = method.get(DeliverView::ID.len()..) else { return false };
        // What is wrong is judged where the frames are looked at one by one: it may be the first of several things, or discarded.
        let (Ok(view), Ok((size, properties))) = (DeliverView::parse(fields), ContentHeader::split(header)) else {
            return false;
        };
        if size != body.len() as u64 || size > hands.max_body || self.state != State::Open || !self.assembler.is_idle()
        {
            return false;
        }
        let Some(consumer) = self.consumers.find(view.consumer_tag).and_then(|id| self.consumers.get_mut(id)) else {
            return false;
        };
        if !matches!(consumer.state, ConsumerState::Live | ConsumerState::Cancelling) {
            return false;
        }
        let DeliverView { delivery_tag, redelivered, address, .. } = view;
        if let Some(acks) = &mut self.acks {
            acks.delivered(delivery_tag, consumer.no_ack);
        }
        *hands.buffered += Batch::push(&mut consumer.queue, (delivery_tag, redelivered), [address, properties, body]);
        consumer.wake(hands.wakes);
        true
    }

    fn returned(&mut self, returned: Box<Returned>, wakes: &mut Wakes) {
        let unclaimed = match &mut self.confirms {
            Some(confirms) => {
                let content = &returned.content;
                let (exchange, key) = (content.exchange(), content.routing_key());
                let look = fingerprint(exchange.as_bytes(), key.as_bytes(), content.body());
                confirms.returned(stamp(content), look, returned)
            }
            None => Some(returned),
        };
        if let Some(returned) = unclaimed {
            let mut octets: usize = self.returned_octets + returned.content.len();
            while let Some(oldest) = self.returned.front()
                && (self.returned.len() >= MAX_RETURNED || octets > MAX_RETURNED_OCTETS)
            {
                octets -= oldest.content.len();
                self.returned.pop_front();
                self.returned_lost += 1;
            }
            self.returned_octets = octets;
            self.returned.push_back(returned);
            self.returned_wakers.wake_all(wakes);
        }
    }

    #[inline]
    fn confirm(&mut self, view: &AckView, ack: bool, hands: &mut Hands<'_>) -> Result<(), Failure> {
        let settled = match &mut self.confirms {
            Some(confirms) => confirms.settle(view.delivery_tag, view.multiple, ack, hands.wakes),
            None => false,
        };
        if settled {
            Ok(())
        } else {
            let tag = view.delivery_tag;
            Err(Failure::new(
                ReplyCode::COMMAND_INVALID,
                format!("the server confirmed {tag}, which was never published"),
            ))
        }
    }

    /// c108: the queue is gone, or its leader is. RabbitMQ wants no reply, others may.
    fn cancelled_by_server(&mut self, cancel: &basic::Cancel, hands: &mut Hands<'_>) {
        let tag = &cancel.consumer_tag;
        if !cancel.no_wait {
            hands.answer(self.number, basic::CancelOk { consumer_tag: tag.clone() });
        }
        let Some(id) = self.consumers.find(tag.as_bytes()) else { return };
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        // Otherwise our own cancel is under way and will be answered.
        if matches!(consumer.state, ConsumerState::Live) {
            let reason = Error::new(ErrorKind::Cancelled, format!("the server cancelled the consumer {tag}"));
            consumer.end(Some(reason), hands.wakes);
            self.consumers.forget_tag(tag);
        }
    }

    /// `basic.consume-ok`. A consumer that was dropped meanwhile is cancelled now.
    fn started(&mut self, tag: ShortString, hands: &mut Hands<'_>) {
        let Some(id) = self.consumers.find(tag.as_bytes()) else { return };
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        consumer.started = true;
        if matches!(consumer.state, ConsumerState::Draining) {
            self.cancel_for_nobody(tag, hands);
        }
    }

    /// Sends `basic.cancel`, and waits for its answer in nobody's name.
    pub(crate) fn cancel_for_nobody(&mut self, tag: ShortString, hands: &mut Hands<'_>) {
        hands.send(self.number, basic::Cancel { consumer_tag: tag.clone(), no_wait: false });
        let call = self.calls.expect_for(basic::Cancel::INFO, tag);
        self.calls.abandon(call, hands.wakes);
    }

    /// `basic.cancel-ok`.
    fn cancelled(&mut self, tag: &ShortString, wakes: &mut Wakes) {
        let Some(id) = self.consumers.find(tag.as_bytes()) else { return };
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if matches!(consumer.state, ConsumerState::Draining) {
            self.consumers.remove(id);
        } else {
            consumer.end(None, wakes);
            self.consumers.forget_tag(tag);
        }
    }

    /// `channel.close`.
    fn closed_by_server(&mut self, close: &channel::Close, hands: &mut Hands<'_>) {
        hands.answer(self.number, channel::CloseOk::default());
        self.closed_by_server = true;
        if std::mem::replace(&mut self.state, State::Closed) == State::Closing {
            // c46: both closes were under way. RabbitMQ (3.10) answers ours only sometimes; we wait for nothing more.
            let reply = Reply { method: channel::CloseOk::default().into(), content: None };
            let _ = self.calls.answer(reply, hands.wakes);
            return;
        }
        let error = Error::closed_by_peer(
            ErrorKind::ChannelClosed,
            close.reply_code,
            close.reply_text.as_bytes(),
            (close.class_id, close.method_id),
        );
        self.finish(&error, hands.wakes, hands.buffered);
    }

    /// Sends `channel.close`; nothing else is sent or accepted from now on.
    pub(crate) fn close(&mut self, close: channel::Close, hands: &mut Hands<'_>) -> Result<(), Error> {
        self.send_acks(hands.out, hands.answers);
        hands.out.put_method(self.number, &close.into(), hands.max_payload)?;
        self.finish(&Error::new(ErrorKind::Closed, "the channel was closed on this side"), hands.wakes, hands.buffered);
        self.state = State::Closing;
        Ok(())
    }

    /// Nothing more will come for anybody: everybody who waits is told why.
    pub(crate) fn finish(&mut self, reason: &Error, wakes: &mut Wakes, buffered: &mut usize) {
        if self.end.is_some() {
            // A connection that ends under a closing channel leaves only the call for close-ok to be answered.
            self.calls.fail_all(wakes);
            return;
        }
        self.end = Some(reason.clone());
        self.acks = None;
        self.assembler.reset();
        self.calls.fail_all(wakes);
        if let Some(confirms) = &mut self.confirms {
            confirms.wake_all(wakes);
        }
        for consumer in self.consumers.iter_mut() {
            // What is left does not grow any more: nothing is to wait for it, least of all the answer to a close.
            *buffered = buffered.saturating_sub(consumer.buffered());
            if !consumer.no_ack {
                // The server puts them back into their queue; handling them here as well would do the work twice.
                consumer.queue.clear();
            }
            if !matches!(consumer.state, ConsumerState::Ended(_)) {
                consumer.end(Some(reason.clone()), wakes);
            }
        }
        self.returned_wakers.wake_all(wakes);
    }

    /// Begins confirm mode. Publishes count from now on: the server handles the select before them (c90).
    pub(crate) fn begin_confirms(&mut self, window: usize) {
        if self.confirms.is_none() {
            self.confirms = Some(Confirms::new(window, self.watermark.clone()));
        }
    }

    /// What this channel waits for, for the request that it does.
    pub(crate) fn expect_close(&mut self) -> super::CallId {
        self.calls.expect(channel::Close::INFO)
    }
}

impl Consumer {
    /// A message for this consumer is complete. Returns whether anybody is there to handle it.
    fn deliver(&mut self, tag: (u64, bool), whole: Whole<'_>, hands: &mut Hands<'_>) -> bool {
        let handled = matches!(self.state, ConsumerState::Live | ConsumerState::Cancelling);
        if handled {
            *hands.buffered += Batch::push_whole(&mut self.queue, hands.heads, tag, whole);
            self.wake(hands.wakes);
        }
        handled
    }

    #[inline]
    fn wake(&mut self, wakes: &mut Wakes) {
        if let Some(waker) = self.waker.take() {
            wakes.wake([waker]);
        }
    }
}

/// Exchange and routing key as they stand in a method, for the messages whose method is decoded whole.
fn address(exchange: &ShortString, routing_key: &ShortString) -> Vec<u8> {
    let mut octets = Vec::with_capacity(exchange.len() + routing_key.len() + 2);
    for part in [exchange, routing_key] {
        // They came in a short string's place, so they fit.
        let _ = crate::codec::write_short_string(&mut octets, part.as_bytes(), "address");
    }
    octets
}

/// The delivery tag that a returned message was stamped with, if it was.
fn stamp(content: &Content) -> Option<u64> {
    let headers = content.properties().decode().ok()?.headers?;
    headers.get(STAMP)?.as_i64().map(i64::cast_unsigned)
}
