//! Bodies in several frames, put together where they were read.
//!
//! Between two pieces of a body stand eight octets that are none of it: the end of one frame and the head of the next. What
//! comes behind them is moved over them:
//!
//! ```text
//! input    body so far | end | head | next piece ...
//!          body so far   next piece ...
//! ```
//!
//! Nothing is to be moved when whoever reads stops behind the head, as [`Ahead`] tells him; then the body is whole without having been
//! copied. Anything else in between ends it: what has come goes to the channel, whose assembler copies.

use bytes::{Buf, BytesMut};

use super::channel::State;
use super::inbound::Failure;
use super::{Connection, Phase};
use crate::codec::{FRAME_HEAD, FRAME_OVERHEAD, FrameType, RawFrame, body_head, check_frame_end};
use crate::protocol::{Ahead, Incoming, KEEP_IN_PLACE_FROM};

/// A body whose octets are at the front of the input.
#[derive(Debug)]
pub(super) struct Joined {
    channel: u16,
    /// As the header says.
    size: usize,
    /// So much has come.
    len: usize,
    /// Octets behind it that are no part of it and have been dealt with.
    gap: usize,
    /// The size of the frame at hand,
    frame: usize,
    /// and what is still to come of it before its end.
    left: usize,
}

/// The method and the header before a body are smaller, mostly.
const HEADS: usize = 512;

impl Connection {
    /// Starts with the first piece of a body, which fills a frame and is followed by others. Returns whether it is such a one; then its
    /// frame's head is to be taken off the input.
    pub(super) fn starts_joining(&mut self, channel: u16, frame: usize) -> bool {
        match self.awaited(channel) {
            size if size > frame => {
                self.joined = Some(Joined { channel, size, len: frame, gap: 0, frame, left: 0 });
                true
            }
            _ => false,
        }
    }

    /// Goes on with the body at the front of the input. Returns whether there is none any more; if not, more has to come.
    pub(super) fn join(&mut self, input: &mut BytesMut) -> Result<bool, Failure> {
        while let Some(joined) = &mut self.joined {
            let at = joined.len + joined.gap;
            let came = joined.left.min(input.len().saturating_sub(at));
            if joined.gap > 0 {
                input.copy_within(at..at + came, joined.len);
            }
            joined.len += came;
            joined.left -= came;
            if input.len() == at + came {
                input.truncate(joined.len);
                joined.gap = 0;
            }
            let behind = input.get(joined.len + joined.gap..).and_then(<[u8]>::split_first);
            let Some((&end, behind)) = behind else { return Ok(false) };
            check_frame_end(end, joined.frame)?;
            if joined.len < joined.size {
                // It need not be whole, but what is there has to be allowed.
                RawFrame::split(behind, self.max_payload)?;
                if behind.len() < FRAME_HEAD {
                    return Ok(false);
                }
                if let Some((channel, size)) = body_head(behind)
                    && channel == joined.channel
                    && size <= joined.size - joined.len
                {
                    (joined.frame, joined.left) = (size, size);
                    joined.gap += FRAME_OVERHEAD;
                    continue;
                }
            } else {
                self.another = Some(joined.size);
            }
            let Joined { channel, len, gap, .. } = *joined;
            self.joined = None;
            let body = input.split_to(len).freeze();
            input.advance(gap + 1);
            self.channel_frame(FrameType::Body, channel, Incoming::Kept(body))?;
        }
        Ok(true)
    }

    /// What is known, or likely, to come behind `input`, which has just been fed and is what was left over.
    pub fn ahead(&mut self, input: &[u8]) -> Ahead {
        let another = self.another.take();
        if let Some(joined) = &self.joined {
            let rest = joined.size - joined.len;
            // Pieces that are hardly worth a read of their own come with the one before.
            let stop = match rest - joined.left {
                0 => rest + 1,
                more if more < KEEP_IN_PLACE_FROM => rest + FRAME_OVERHEAD + 1,
                _ => joined.left + FRAME_OVERHEAD,
            };
            return Ahead { stop, together: rest.saturating_add(FRAME_OVERHEAD + 1) };
        }
        match body_head(input) {
            Some((channel, size)) => {
                let missing = (size + FRAME_OVERHEAD).saturating_sub(input.len());
                match self.awaited(channel) {
                    body if body > size => {
                        Ahead { stop: missing + FRAME_HEAD, together: missing.saturating_add(body - size) }
                    }
                    _ => Ahead { stop: 0, together: missing },
                }
            }
            // Bodies of one size come after each other, mostly.
            None => another.map_or_else(Ahead::default, |size| Ahead {
                stop: self.max_payload.min(size) + HEADS,
                together: size + HEADS,
            }),
        }
    }

    /// What is still to come of a body on this channel.
    fn awaited(&self, number: u16) -> usize {
        let id = self.numbers.channel(number).filter(|_| matches!(self.phase, Phase::Open));
        let channel = id.and_then(|id| self.channels.get(id.0)?.as_ref());
        let open = channel.filter(|channel| channel.state == State::Open);
        open.map_or(0, |channel| usize::try_from(channel.awaited()).unwrap_or(0))
    }
}
