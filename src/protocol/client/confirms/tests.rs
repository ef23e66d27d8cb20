//! The ring against what a server may say, and against a simple model.

use proptest::prelude::*;

use super::*;

fn confirms(window: usize) -> (Confirms, Watermark, Wakes) {
    let watermark = Watermark::default();
    (Confirms::new(window, watermark.clone()), watermark, Wakes::default())
}

fn poll(confirms: &mut Confirms, tag: u64, waker: &Waker) -> Option<Confirmation> {
    let confirmation = confirms.take(tag);
    if confirmation.is_none() {
        confirms.watch(tag, waker, &mut Wakes::default());
    }
    confirmation
}

fn returned() -> Box<Returned> {
    Box::new(Returned { reply_code: ReplyCode::NO_ROUTE, reply_text: "NO_ROUTE".into(), content: Content::default() })
}

#[test]
fn c90_tags_start_at_one_and_count() {
    let (mut confirms, ..) = confirms(10);
    assert_eq!([confirms.publish(None), confirms.publish(None)], [1, 2]);
}

#[test]
fn c91_multiple_settles_a_range_and_tag_zero_everything() {
    let (mut confirms, watermark, mut wakes) = confirms(10);
    for _ in 0..5 {
        confirms.publish(None);
    }
    assert!(confirms.settle(3, true, true, &mut wakes));
    assert!(watermark.has_passed(3) && !watermark.has_passed(4));
    assert!(confirms.settle(0, true, true, &mut wakes));
    assert_eq!(confirms.outstanding(), 0);
    assert!(watermark.has_passed(5) && !watermark.has_passed(6));
}

#[test]
fn a_tag_that_was_never_given_out_is_noticed() {
    let (mut confirms, _, mut wakes) = confirms(10);
    confirms.publish(None);
    assert!(!confirms.settle(2, false, true, &mut wakes));
    assert!(!confirms.settle(0, false, true, &mut wakes));
    assert_eq!(confirms.outstanding(), 1);
}

#[test]
fn c95_a_nack_is_kept_until_it_is_asked_for() {
    let (mut confirms, watermark, mut wakes) = confirms(10);
    let tags = [confirms.publish(None), confirms.publish(None)];
    confirms.settle(2, true, false, &mut wakes);
    assert!(!watermark.has_passed(1), "a nack hides the watermark");
    for tag in tags {
        assert_eq!(poll(&mut confirms, tag, Waker::noop()), Some(Confirmation::Nack(None)));
    }
    assert!(watermark.has_passed(2) && confirms.kept.is_empty());
}

/// c92, c93, c94: acks are coalesced, and only the message that came back is reported as returned.
#[test]
fn c93_a_return_belongs_to_the_oldest_publish_of_its_look() {
    let (mut confirms, _, mut wakes) = confirms(10);
    let tags: Vec<u64> = [7, 8, 7, 9].into_iter().map(|look| confirms.publish(Some(Look::Fingerprint(look)))).collect();
    assert_eq!(confirms.returned(None, 7, returned()), None);
    assert_eq!(confirms.returned(None, 9, returned()), None);
    assert_eq!(confirms.returned(None, 5, returned()), Some(returned()), "no such publish");
    confirms.settle(4, true, true, &mut wakes);
    let polled: Vec<_> = tags.iter().map(|tag| poll(&mut confirms, *tag, Waker::noop())).collect();
    let ack = |returned| Some(Confirmation::Ack(returned));
    assert_eq!(polled, [ack(Some(returned())), ack(None), ack(None), ack(Some(returned()))]);
    assert!(confirms.kept.is_empty() && confirms.mandatory.is_empty());
}

#[test]
fn two_returns_of_one_look_go_to_two_publishes() {
    let (mut confirms, _, mut wakes) = confirms(10);
    let tags = [
        confirms.publish(Some(Look::Fingerprint(7))),
        confirms.publish(Some(Look::Fingerprint(7))),
        confirms.publish(Some(Look::Fingerprint(7))),
    ];
    assert_eq!(confirms.returned(None, 7, returned()), None);
    assert_eq!(confirms.returned(None, 7, returned()), None);
    confirms.settle(3, true, true, &mut wakes);
    let returned_tags = tags.map(|tag| match poll(&mut confirms, tag, Waker::noop()) {
        Some(Confirmation::Ack(returned)) => returned.is_some(),
        other => panic!("{other:?}"),
    });
    assert_eq!(returned_tags, [true, true, false]);
}

#[test]
fn a_dropped_confirm_leaves_nothing_behind() {
    let (mut confirms, watermark, mut wakes) = confirms(10);
    for _ in 0..4 {
        confirms.publish(Some(Look::Fingerprint(7)));
    }
    confirms.returned(None, 7, returned());
    confirms.forget(1, &mut wakes);
    confirms.forget(2, &mut wakes);
    confirms.settle(2, true, true, &mut wakes);
    confirms.settle(4, true, false, &mut wakes);
    confirms.forget(3, &mut wakes);
    confirms.forget(4, &mut wakes);
    assert!(confirms.kept.is_empty() && confirms.slots.is_empty() && confirms.mandatory.is_empty());
    assert!(watermark.has_passed(4));
}

/// In whatever order, and however often, they ask.
#[test]
fn whoever_asked_last_for_a_message_is_woken_when_it_is_settled() {
    struct Woken;
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {}
    }
    let (mut confirms, _, mut wakes) = confirms(10);
    for _ in 0..6 {
        confirms.publish(None);
    }
    let wakers: Vec<Waker> = (0..6).map(|_| Arc::new(Woken).into()).collect();
    for (tag, waker) in [(2, 0), (5, 5), (3, 3), (1, 1), (4, 4), (2, 2), (6, 0)] {
        assert_eq!(poll(&mut confirms, tag, &wakers[waker]), None);
    }
    confirms.forget(3, &mut wakes);
    for (tag, multiple, ack, woken) in
        [(4, false, true, &[4][..]), (2, true, true, &[1, 2]), (3, false, true, &[]), (5, false, false, &[5])]
    {
        confirms.settle(tag, multiple, ack, &mut wakes);
        assert_eq!(wakes.woken().len(), woken.len(), "{tag}");
        assert!(wakes.woken().drain(..).zip(woken).all(|(waker, at)| waker.will_wake(&wakers[*at])), "{tag}");
    }
    confirms.wake_all(&mut wakes);
    assert!(wakes.woken().len() == 1 && wakes.woken()[0].will_wake(&wakers[0]) && confirms.watchers.is_empty());
}

#[test]
fn room_in_the_window_wakes_as_many_as_fit() {
    let (mut confirms, _, mut wakes) = confirms(3);
    for _ in 0..3 {
        confirms.publish(None);
    }
    assert!(confirms.is_full());
    let mut places: Vec<_> = (0..5).map(|_| None).collect();
    for place in &mut places {
        confirms.waiting.wait(place, Waker::noop(), &mut wakes);
    }
    confirms.settle(2, true, true, &mut wakes);
    assert_eq!(wakes.woken().len(), 2);
}

proptest! {
    /// Whatever order acks and nacks come in, every future learns what was said first of its message.
    #[test]
    fn agrees_with_a_list(
        settles in prop::collection::vec((0u64..24, any::<bool>(), any::<bool>()), 0..40),
        mandatory in prop::collection::vec(any::<bool>(), 20),
        returns in prop::collection::vec(any::<bool>(), 20),
        forgotten in prop::collection::vec(any::<bool>(), 20),
    ) {
        let (mut confirms, watermark, mut wakes) = confirms(100);
        let mut model: Vec<Option<bool>> = vec![None; 20];
        for mandatory in &mandatory {
            confirms.publish(mandatory.then_some(Look::Stamped));
        }
        for (tag, (mandatory, returns)) in (1..).zip(mandatory.iter().zip(&returns)) {
            if *returns {
                prop_assert_eq!(confirms.returned(Some(tag), 0, returned()).is_none(), *mandatory);
            }
        }
        for (tag, multiple, ack) in settles {
            let valid = tag <= 20 && (tag != 0 || multiple);
            prop_assert_eq!(confirms.settle(tag, multiple, ack, &mut wakes), valid);
            if valid {
                let last = if tag == 0 { 20 } else { tag };
                let first = if multiple { 1 } else { last };
                for slot in &mut model[usize::try_from(first - 1).unwrap()..usize::try_from(last).unwrap()] {
                    slot.get_or_insert(ack);
                }
            }
        }
        for (tag, (said, forgotten)) in (1u64..).zip(model.iter().zip(forgotten)) {
            if watermark.has_passed(tag) {
                prop_assert_eq!(*said, Some(true));
            }
            if forgotten {
                confirms.forget(tag, &mut wakes);
                continue;
            }
            let at = usize::try_from(tag - 1).unwrap();
            let back = (mandatory[at] && returns[at]).then(returned);
            let expected = match said {
                Some(true) => Some(Confirmation::Ack(back)),
                Some(false) => Some(Confirmation::Nack(back)),
                None => None,
            };
            prop_assert_eq!(poll(&mut confirms, tag, Waker::noop()), expected);
        }
        prop_assert!(confirms.kept.is_empty());
        let unsettled_from = model.iter().position(Option::is_none).unwrap_or(20);
        prop_assert_eq!(confirms.outstanding(), 20 - unsettled_from);
    }
}

/// Two messages that look the same, of which the second comes back: the stamp says which.
#[test]
fn a_stamp_says_which_of_two_messages_came_back() {
    let (stamped, plain) = (Look::Stamped, Look::Fingerprint(7));
    let (first, second) = ([Some(returned()), None], [None, Some(returned())]);
    for (look, stamp, expected) in [
        (stamped, Some(2), second),
        // The server has lost it.
        (stamped, None, first.clone()),
        // Somebody else's, on a message that was sent without one.
        (plain, Some(2), first.clone()),
        (plain, None, first),
    ] {
        let mut confirms = Confirms::new(10, Watermark::default());
        confirms.publish(Some(look));
        confirms.publish(Some(look));
        assert_eq!(confirms.returned(Some(9), 8, returned()), Some(returned()), "no such message");
        assert_eq!(confirms.returned(stamp, 7, returned()), None);
        assert!(confirms.settle(2, true, true, &mut Wakes::default()));
        for (tag, expected) in (1..).zip(expected) {
            assert_eq!(poll(&mut confirms, tag, Waker::noop()), Some(Confirmation::Ack(expected)));
        }
    }
}

#[test]
fn those_who_wait_for_everything_are_woken_when_it_is_settled() {
    let mut confirms = Confirms::new(10, Watermark::default());
    for _ in 0..3 {
        confirms.publish(None);
    }
    struct Nobody;
    impl std::task::Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let mut wakes = Wakes::default();
    let mut places = [None, None];
    // Who asks twice is woken once.
    for (tag, place) in [(3, 0), (2, 1), (3, 0)] {
        assert!(!confirms.is_drained(tag));
        confirms.await_drained(tag, &mut places[place], &waker, &mut wakes);
    }
    confirms.settle(2, false, true, &mut wakes);
    assert_eq!(wakes.woken().len(), 0, "the first is not settled yet");
    confirms.settle(1, false, true, &mut wakes);
    assert!(confirms.is_drained(2) && !confirms.is_drained(3));
    assert_eq!(wakes.woken().drain(..).len(), 2, "one of them waits on");
    confirms.await_drained(3, &mut places[0], &waker, &mut wakes);
    confirms.settle(3, false, false, &mut wakes);
    assert_eq!(wakes.woken().len(), 1);
    assert!(confirms.is_drained(3) && confirms.is_drained(0));
}

/// What happens to a channel with confirms.
#[derive(Clone, Debug)]
enum Happens {
    Publish {
        mandatory: Option<u64>,
    },
    /// A message of this look comes back.
    Return {
        look: u64,
    },
    Settle {
        tag: u64,
        multiple: bool,
        ack: bool,
    },
    Poll {
        tag: u64,
    },
    Forget {
        tag: u64,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    let tag = 0u64..16;
    prop_oneof![
        4 => prop::option::of(0u64..2).prop_map(|mandatory| Happens::Publish { mandatory }),
        2 => (0u64..2).prop_map(|look| Happens::Return { look }),
        3 => (tag.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(tag, multiple, ack)| Happens::Settle { tag, multiple, ack }),
        2 => tag.clone().prop_map(|tag| Happens::Poll { tag }),
        1 => tag.prop_map(|tag| Happens::Forget { tag }),
    ]
}

/// What a list knows of a message.
#[derive(Clone, Debug, Default)]
struct Message {
    look: Option<u64>,
    returned: bool,
    /// What the server said first.
    said: Option<bool>,
    /// More than a plain ack, and nobody has taken it.
    kept: bool,
    forgotten: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Publishes, returns, acks and nacks, and futures that ask and go away, in any order: the ring says what a list says.
    #[test]
    fn agrees_with_a_list_that_is_told_everything(all in prop::collection::vec(happens(), 0..60)) {
        let (mut confirms, watermark, mut wakes) = confirms(5);
        let mut list: Vec<Message> = Vec::new();
        let mut last_returned = 0;
        for happens in all {
            match happens {
                Happens::Publish { mandatory } => {
                    list.push(Message { look: mandatory, ..Message::default() });
                    prop_assert_eq!(confirms.publish(mandatory.map(Look::Fingerprint)), list.len() as u64);
                }
                Happens::Return { look } => {
                    let waits = |message: &Message| message.look == Some(look) && !message.returned && message.said.is_none();
                    let behind = list.iter().skip(last_returned).position(waits).map(|at| last_returned + at);
                    let at = behind.or_else(|| list.iter().position(waits));
                    prop_assert_eq!(confirms.returned(None, look, returned()).is_none(), at.is_some());
                    if let Some(at) = at {
                        list[at].returned = true;
                        last_returned = last_returned.max(at + 1);
                    }
                }
                Happens::Settle { tag, multiple, ack } => {
                    let published = list.len() as u64;
                    let valid = tag <= published && (tag != 0 || multiple);
                    prop_assert_eq!(confirms.settle(tag, multiple, ack, &mut wakes), valid);
                    let last = usize::try_from(if tag == 0 { published } else { tag }).unwrap();
                    let settled = if multiple { 0..last } else { last.saturating_sub(1)..last };
                    for message in list.iter_mut().take(if valid { settled.end } else { 0 }).skip(settled.start) {
                        if message.said.is_none() {
                            message.said = Some(ack);
                            message.kept = !message.forgotten && (!ack || message.returned);
                        }
                    }
                }
                Happens::Poll { tag } => {
                    let Some(message) = tag.checked_sub(1).and_then(|at| list.get_mut(usize::try_from(at).unwrap())) else {
                        continue;
                    };
                    let gift = message.returned.then(returned);
                    let expected = match (message.said, std::mem::take(&mut message.kept)) {
                        (None, _) => {
                            message.forgotten = false;
                            None
                        }
                        (Some(true), true) => Some(Confirmation::Ack(gift)),
                        (Some(false), true) => Some(Confirmation::Nack(gift)),
                        // Nobody asks a second time, nor after having gone; the ring has nothing to say then.
                        (Some(_), false) if message.forgotten || message.said == Some(false) || message.returned => {
                            prop_assert!(poll(&mut confirms, tag, Waker::noop()).is_some());
                            continue;
                        }
                        (Some(_), false) => Some(Confirmation::Ack(None)),
                    };
                    prop_assert_eq!(poll(&mut confirms, tag, Waker::noop()), expected);
                }
                Happens::Forget { tag } => {
                    if let Some(message) = tag.checked_sub(1).and_then(|at| list.get_mut(usize::try_from(at).unwrap())) {
                        message.forgotten = true;
                        message.kept = false;
                        confirms.forget(tag, &mut wakes);
                    }
                }
            }
            let unsettled = list.iter().position(|message| message.said.is_none());
            prop_assert_eq!(confirms.outstanding(), unsettled.map_or(0, |at| list.len() - at));
            prop_assert_eq!(confirms.kept.len(), list.iter().filter(|message| message.kept).count());
            for (tag, message) in (1u64..).zip(&list) {
                prop_assert!(!watermark.has_passed(tag) || (message.said.is_some() && !message.kept), "{}", tag);
            }
        }
    }
}
