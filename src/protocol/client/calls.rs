//! Requests that wait for their replies.
//!
//! Each channel has a queue of expectations. A reply belongs to the first of them that it can answer. A caller who goes away
//! leaves his expectation behind: the late reply meets it and not the next call.
//!
//! A server handles the requests of a channel in their order, and yet replies of different kinds may overtake one another: in
//! RabbitMQ it is the queue that answers `basic.consume` and `basic.cancel`, and the channel may have answered the next
//! request by then (seen with 3.10: `queue.delete-ok` before the `basic.cancel-ok` of the request before it). So replies are matched
//! by kind, and those two by their consumer tag as well.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use crate::codec::method::{MethodFields, MethodInfo, basic};
use crate::codec::{Method, ShortString};
use crate::protocol::Content;
use crate::wakes::{Wakes, replace};

/// A request under way on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(u64);

/// A server's answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The method.
    pub method: Method,
    /// The message that came with it (`basic.get-ok`).
    pub content: Option<Content>,
}

/// The expectations of one channel, in order.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    next: u64,
    /// With their ids, and so in their order. Who has been answered leaves no gap behind: a request that is never answered must not
    /// make the queue grow with those behind it.
    slots: VecDeque<(u64, Slot)>,
}

#[derive(Debug)]
enum Slot {
    Expected {
        request: MethodInfo,
        tag: Option<ShortString>,
        /// The answer may be a message that has to be settled.
        unsettled: bool,
        caller: Caller,
    },
    Answered {
        reply: Reply,
        unsettled: bool,
    },
}

#[derive(Debug)]
enum Caller {
    /// Has not asked for the answer yet.
    Busy,
    Waiting(Waker),
    Gone,
}

impl Caller {
    /// Waits no more, and leaves the waker that it waited with.
    fn leave(&mut self) -> Option<Waker> {
        match std::mem::replace(self, Self::Gone) {
            Self::Waiting(waker) => Some(waker),
            Self::Busy | Self::Gone => None,
        }
    }
}

impl Calls {
    /// Expects an answer to `request`, behind all others.
    pub(crate) fn expect(&mut self, request: MethodInfo) -> CallId {
        self.push(request, None, false)
    }

    /// Expects a message that will have to be settled, even when nobody waits for it any more.
    pub(crate) fn expect_unsettled(&mut self, request: MethodInfo) -> CallId {
        self.push(request, None, true)
    }

    /// Expects an answer that names this consumer tag.
    pub(crate) fn expect_for(&mut self, request: MethodInfo, tag: ShortString) -> CallId {
        self.push(request, Some(tag), false)
    }

    fn push(&mut self, request: MethodInfo, tag: Option<ShortString>, unsettled: bool) -> CallId {
        let id = self.next;
        self.next += 1;
        self.slots.push_back((id, Slot::Expected { request, tag, unsettled, caller: Caller::Busy }));
        CallId(id)
    }

    /// Whether the message that answers the next `basic.get` has to be settled.
    pub(crate) fn next_get_is_unsettled(&self) -> bool {
        let get = self.slots.iter().find_map(|(_, slot)| match slot {
            Slot::Expected { request, unsettled, .. } if *request == basic::Get::INFO => Some(*unsettled),
            _ => None,
        });
        get.unwrap_or(true)
    }

    /// Gives `reply` to the first unanswered call that it can answer; its name is the error when there is none. `Ok(Some)` is a
    /// message whose caller has gone, and which has to be settled all the same.
    pub(crate) fn answer(&mut self, reply: Reply, wakes: &mut Wakes) -> Result<Option<Reply>, &'static str> {
        let info = reply.method.info();
        let names = match &reply.method {
            Method::Basic(basic::Method::ConsumeOk(ok)) => Some(&ok.consumer_tag),
            Method::Basic(basic::Method::CancelOk(ok)) => Some(&ok.consumer_tag),
            _ => None,
        };
        let fits = |(_, slot): &(u64, Slot)| match slot {
            Slot::Expected { request, tag, .. } => {
                let kind = request.class_id == info.class_id && request.replies.contains(&info.method_id);
                kind && tag.as_ref() == names
            }
            Slot::Answered { .. } => false,
        };
        let at = self.slots.iter().position(fits).ok_or(info.name)?;
        let Some((id, Slot::Expected { caller, unsettled, .. })) = self.slots.remove(at) else { return Ok(None) };
        match caller {
            Caller::Gone => return Ok(unsettled.then_some(reply)),
            Caller::Busy => {}
            Caller::Waiting(waker) => wakes.wake([waker]),
        }
        self.slots.insert(at, (id, Slot::Answered { reply, unsettled }));
        Ok(None)
    }

    /// The answer, once it is there; `None` when it will never come. It can be taken once.
    pub(crate) fn poll(&mut self, id: CallId, waker: &Waker, wakes: &mut Wakes) -> Poll<Option<Reply>> {
        let Some((at, slot)) = self.slot(id) else { return Poll::Ready(None) };
        match slot {
            Slot::Expected { caller: Caller::Waiting(old), .. } => wakes.drop_later(replace(old, waker)),
            Slot::Expected { caller, .. } => *caller = Caller::Waiting(waker.clone()),
            Slot::Answered { .. } => return Poll::Ready(self.take(at)),
        }
        Poll::Pending
    }

    /// The caller has gone; the expectation stays until it is met. As [`answer`](Self::answer), gives back a message that was there
    /// already and was not taken.
    pub(crate) fn abandon(&mut self, id: CallId, wakes: &mut Wakes) -> Option<Reply> {
        match self.slot(id)? {
            (_, Slot::Expected { caller, .. }) => {
                wakes.drop_later(caller.leave());
                None
            }
            (at, Slot::Answered { unsettled, .. }) => {
                let unsettled = *unsettled;
                self.take(at).filter(|_| unsettled)
            }
        }
    }

    /// There will be no more replies: every caller is told so.
    pub(crate) fn fail_all(&mut self, wakes: &mut Wakes) {
        self.slots.retain_mut(|(_, slot)| match slot {
            Slot::Expected { caller, .. } => {
                wakes.wake(caller.leave());
                false
            }
            Slot::Answered { .. } => true,
        });
    }

    fn slot(&mut self, CallId(id): CallId) -> Option<(usize, &mut Slot)> {
        let at = self.slots.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.slots.get_mut(at).map(|(_, slot)| (at, slot))
    }

    /// The answer at this place.
    fn take(&mut self, at: usize) -> Option<Reply> {
        match self.slots.remove(at)? {
            (_, Slot::Answered { reply, .. }) => Some(reply),
            (_, Slot::Expected { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::method::queue;

    fn reply(method: impl Into<Method>) -> Reply {
        Reply { method: method.into(), content: None }
    }

    fn declared(name: &str) -> Reply {
        reply(queue::DeclareOk { queue: name.into(), ..Default::default() })
    }

    #[test]
    fn a_late_reply_meets_the_call_that_was_given_up() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let first = calls.expect(queue::Declare::INFO);
        let second = calls.expect(queue::Declare::INFO);
        assert!(calls.poll(second, Waker::noop(), &mut wakes).is_pending());
        calls.abandon(first, &mut wakes);
        calls.answer(declared("late"), &mut wakes).unwrap();
        assert!(calls.poll(second, Waker::noop(), &mut wakes).is_pending());
        calls.answer(declared("right"), &mut wakes).unwrap();
        assert_eq!(calls.poll(second, Waker::noop(), &mut wakes), Poll::Ready(Some(declared("right"))));
        assert!(calls.slots.is_empty());
    }

    #[test]
    fn c120_a_reply_of_the_wrong_kind_is_nobodys() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let get = calls.expect(basic::Get::INFO);
        assert!(calls.answer(reply(queue::PurgeOk::default()), &mut wakes).is_err());
        calls.answer(reply(basic::GetEmpty::default()), &mut wakes).unwrap();
        assert!(calls.poll(get, Waker::noop(), &mut wakes).is_ready());
        assert!(calls.answer(reply(basic::GetEmpty::default()), &mut wakes).is_err(), "nobody asked for a second one");
    }

    /// What RabbitMQ does when the requests come close together.
    #[test]
    fn a_reply_may_overtake_one_of_another_kind() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let [one, two] = ["one", "two"].map(|tag| calls.expect_for(basic::Cancel::INFO, tag.into()));
        let delete = calls.expect(queue::Delete::INFO);
        let cancelled = |tag: &str| reply(basic::CancelOk { consumer_tag: tag.into() });
        for reply in [reply(queue::DeleteOk { message_count: 1 }), cancelled("two"), cancelled("one")] {
            calls.answer(reply, &mut wakes).unwrap();
        }
        assert!(calls.answer(cancelled("one"), &mut wakes).is_err());
        assert_eq!(calls.poll(two, Waker::noop(), &mut wakes), Poll::Ready(Some(cancelled("two"))));
        assert_eq!(calls.poll(one, Waker::noop(), &mut wakes), Poll::Ready(Some(cancelled("one"))));
        assert!(calls.poll(delete, Waker::noop(), &mut wakes).is_ready());
    }

    #[test]
    fn a_message_that_nobody_takes_is_given_back() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let message = || reply(basic::GetOk::default());
        let [early, late, settled] = [
            calls.expect_unsettled(basic::Get::INFO),
            calls.expect_unsettled(basic::Get::INFO),
            calls.expect(basic::Get::INFO),
        ];
        assert_eq!(calls.abandon(early, &mut wakes), None);
        assert_eq!(calls.answer(message(), &mut wakes), Ok(Some(message())));
        assert_eq!(calls.answer(message(), &mut wakes), Ok(None));
        assert_eq!(calls.abandon(late, &mut wakes), Some(message()));
        assert_eq!(calls.answer(message(), &mut wakes), Ok(None));
        assert_eq!(calls.abandon(settled, &mut wakes), None);
        assert!(calls.slots.is_empty());
    }

    /// One request that a server never answers, and a program that goes on asking.
    #[test]
    fn an_answer_that_never_comes_does_not_pile_up_those_behind_it() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let never = calls.expect(queue::Purge::INFO);
        for _ in 0..1000 {
            let get = calls.expect(basic::Get::INFO);
            calls.answer(reply(basic::GetEmpty::default()), &mut wakes).unwrap();
            assert!(calls.poll(get, Waker::noop(), &mut wakes).is_ready());
            assert_eq!(calls.poll(get, Waker::noop(), &mut wakes), Poll::Ready(None), "it is taken once");
        }
        assert!(calls.poll(never, Waker::noop(), &mut wakes).is_pending());
        assert_eq!(calls.slots.len(), 1);
    }

    #[test]
    fn answers_wait_for_those_who_ask_late() {
        let (mut calls, mut wakes) = (Calls::default(), Wakes::default());
        let ids: Vec<_> = (0..3).map(|_| calls.expect(queue::Declare::INFO)).collect();
        for name in ["a", "b", "c"] {
            calls.answer(declared(name), &mut wakes).unwrap();
        }
        for (id, name) in ids.into_iter().zip(["a", "b", "c"]).rev() {
            assert_eq!(calls.poll(id, Waker::noop(), &mut wakes), Poll::Ready(Some(declared(name))));
        }
        assert!(calls.slots.is_empty());
    }
}
