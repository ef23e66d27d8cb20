//! Scripts by chance, of what a client that recovers lives through.

use std::time::Duration;

use bytes::Bytes;

use super::{Act, ConfirmOrder, Dice, Moment, Script};
use crate::codec::Frame;

/// Longer than many a turn of a client's, shorter than anybody's patience.
const MOST_MILLIS: u64 = 20;

pub(super) fn script(dice: &mut Dice) -> Script {
    let mut script = Script::new();
    for _ in 0..=dice.below(4) {
        script = match (moment(dice), act(dice)) {
            // Between two frames: a broken one is the end of the connection, or a message that is not what it was.
            (Moment::Sent(at), act @ Act::Send(_)) => script.at(Moment::FrameSent(at % 40), act),
            (moment, act) => script.at(moment, act),
        };
    }
    script
}

/// Within the handshake, or the first dozens of messages.
fn moment(dice: &mut Dice) -> Moment {
    match dice.below(8) {
        0 => Moment::Received(dice.below(3000)),
        1 => Moment::Sent(dice.below(2000)),
        2 => Moment::FrameReceived(dice.below(60)),
        3 => Moment::FrameSent(dice.below(40)),
        4..=6 => Moment::Published(1 + dice.below(30)),
        _ => Moment::Delivered(1 + dice.below(30)),
    }
}

fn act(dice: &mut Dice) -> Act {
    match dice.below(18) {
        0..=2 => Act::Cut,
        3 => Act::StallReading(Some(time(dice))),
        4 => Act::StallWriting(Some(time(dice))),
        5 => Act::Send(Bytes::from_static(&Frame::HEARTBEAT)),
        6 => {
            let (code, text) = match dice.below(2) {
                0 => (320, "CONNECTION_FORCED - maintenance"),
                _ => (541, "INTERNAL_ERROR - by chance"),
            };
            Act::CloseConnection { code, text: text.into() }
        }
        7 => {
            let (code, text) = match dice.below(3) {
                0 => (311, "CONTENT_TOO_LARGE - by chance"),
                1 => (404, "NOT_FOUND - by chance"),
                _ => (406, "PRECONDITION_FAILED - by chance"),
            };
            Act::CloseChannels { code, text: text.into() }
        }
        8 => Act::CancelConsumers,
        9 => Act::Block { reason: "low on memory".into(), time: Some(time(dice)) },
        10 | 11 => Act::Nack,
        12 | 13 => Act::Return,
        14 => Act::LoseConfirm,
        15 => Act::DelayConfirm(time(dice)),
        _ => Act::Confirm(match dice.below(3) {
            0 => ConfirmOrder::Singly,
            1 => ConfirmOrder::Reversed,
            _ => ConfirmOrder::Shuffled(dice.below(1000)),
        }),
    }
}

fn time(dice: &mut Dice) -> Duration {
    Duration::from_millis(1 + dice.below(MOST_MILLIS))
}
