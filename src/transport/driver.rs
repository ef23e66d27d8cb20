//! The one task of a connection: reads in large blocks, writes what has gathered, keeps the time.
//!
//! A pass over the connection is: read a block, take one *turn* at the endpoint (which locks its machine once, feeds it the
//! block and takes what is to be written), wake whoever has been answered, write. Everything that happens between two passes
//! goes out with one system call.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Sleep;

use super::blocks::Blocks;
use super::{Stream, now};
use crate::error::{Error, ErrorKind};
use crate::protocol::{Ahead, OutBuffer, Wakes};

/// Pieces handed to one vectored write.
const SLICES: usize = 64;
/// Where the runtime has several threads, a pass that has read so much goes on to the upper end, as long as there is more, before those
/// who were woken have their turn: the driver mostly moves to another thread then, which costs the switch, and reads into memory that is
/// in another core's cache. Where little comes that move is worth more than it costs: the two no longer share a thread.
const READ_ON: Range<usize> = 64 * 1024..2 * 1024 * 1024;
/// How long the last octets of a finished connection may take to leave, or those of a broken one to arrive.
const LINGER: Duration = Duration::from_secs(1);
/// How long memory for reading is kept while nothing is read into it.
const KEEP_BLOCKS: Duration = Duration::from_secs(1);

/// A machine behind its lock, as the driver sees it.
pub(crate) trait Endpoint: Send + Sync + 'static {
    /// Takes what was read and hands over what is to be written. Called from one task only, and does not wait.
    fn turn(&self, turn: Turn<'_>) -> Next;
}

/// What the driver brings to a turn, and where it wants the results.
pub(crate) struct Turn<'a> {
    /// What was read and not consumed yet; the machine takes whole frames off its front.
    pub(crate) input: &'a mut BytesMut,
    /// To be filled. Not empty when the socket has not taken everything yet; then nothing may be added.
    pub(crate) output: &'a mut OutBuffer,
    /// The stream has ended, and why. It is the last turn.
    pub(crate) ended: Option<Error>,
    /// Takes everybody who is to be woken, or dropped, once the lock is released.
    pub(crate) wakes: &'a mut Wakes,
    /// Wakes the driver. To be kept until the next turn, and used when there is something to write where there was nothing,
    /// or when reading may go on.
    pub(crate) driver: &'a Waker,
    /// The time.
    pub(crate) now: Instant,
}

/// What the driver is to do next.
pub(crate) struct Next {
    /// When the next turn has to come at the latest.
    pub(crate) deadline: Option<Instant>,
    /// Whether to go on reading.
    pub(crate) read: bool,
    /// What is worth to be read next.
    pub(crate) ahead: Ahead,
    /// Whether this was the last turn: what is in `output` is written, then the stream is closed.
    pub(crate) finished: bool,
}

/// Drives a connection until its machine is finished or the stream ends.
pub(crate) async fn drive(stream: Stream, endpoint: Arc<impl Endpoint + ?Sized>) {
    let mut driver = Driver::new(stream, endpoint);
    poll_fn(|cx| driver.poll(cx)).await;
    let _ = tokio::time::timeout(LINGER, driver.finish()).await;
}

struct Driver<E: Endpoint + ?Sized> {
    stream: Stream,
    endpoint: Arc<E>,
    blocks: Blocks,
    /// When to see whether the blocks are still used.
    look_after_blocks: Option<Instant>,
    output: OutBuffer,
    wakes: Wakes,
    sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends, if it counts.
    armed: Option<Instant>,
    /// Whether the endpoint wants more input.
    read: bool,
    ahead: Ahead,
    /// A pass that has read so much goes on even if its block is used up.
    read_on: Range<usize>,
    /// Writing failed, and until when the peer's last words are waited for: they say more than the error does. Mostly they have
    /// arrived, but the runtime need not know yet that there is something to read.
    write_error: Option<(io::Error, Instant)>,
    /// The stream has taken octets that it may still hold.
    unflushed: bool,
    /// The endpoint has had its last turn.
    over: bool,
}

impl<E: Endpoint + ?Sized> Driver<E> {
    fn new(stream: Stream, endpoint: Arc<E>) -> Self {
        Self {
            stream,
            endpoint,
            blocks: Blocks::new(),
            look_after_blocks: None,
            output: OutBuffer::new(),
            wakes: Wakes::default(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            read: true,
            ahead: Ahead::default(),
            read_on: if has_threads() { READ_ON } else { 0..0 },
            write_error: None,
            unflushed: false,
            over: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (mut woken, mut try_read, mut total) = (true, true, 0);
        loop {
            let read = if try_read { self.poll_read(cx) } else { Poll::Pending };
            let (got, ended) = match read {
                Poll::Ready(Ok(0)) => (0, Some(closed_without_a_word())),
                Poll::Ready(Ok(count)) => (count, None),
                Poll::Ready(Err(error)) => (0, Some(error.into())),
                Poll::Pending => (0, self.unexplained()),
            };
            if got == 0 && ended.is_none() && !woken {
                return self.poll_timer(cx);
            }
            let (backlog, paused) = (!self.output.is_empty(), !self.read);
            if self.turn(cx, ended) {
                return Poll::Ready(());
            }
            // A stream that had nothing wakes the task when it has.
            try_read = got > 0 || paused;
            // A full socket wakes the task when it has room; until then what is new gathers at the endpoint. Once it has
            // taken everything, the endpoint is asked for that.
            let _ = self.poll_write(cx);
            woken = backlog && self.output.is_empty();
            total += got;
            if got > 0 && self.blocks.is_used_up(self.ahead) && !self.read_on.contains(&total) {
                // Those who were woken have a right to run, and may drop what is in the blocks.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.read {
            return Poll::Pending;
        }
        self.blocks.make_room(self.ahead);
        let before = self.blocks.input.len();
        ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.blocks.input, self.ahead.stop))?;
        self.blocks.filled();
        Poll::Ready(Ok(self.blocks.input.len() - before))
    }

    /// One turn at the endpoint. Returns whether it was the last.
    fn turn(&mut self, cx: &Context<'_>, ended: Option<Error>) -> bool {
        self.over |= ended.is_some();
        let next = self.endpoint.turn(Turn {
            input: &mut self.blocks.input,
            output: &mut self.output,
            ended,
            wakes: &mut self.wakes,
            driver: cx.waker(),
            now: now(),
        });
        self.wakes.release();
        self.read = next.read;
        self.ahead = next.ahead;
        self.over |= next.finished;
        // Deadlines mostly move away, as long as octets flow; the timer follows when it fires.
        if let Some(deadline) = next.deadline
            && !self.over
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.arm(deadline);
        }
        self.over
    }

    fn arm(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline.into());
        self.armed = Some(deadline);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.output.is_empty() {
            let written = match self.output.in_one_piece() {
                Some(octets) => Pin::new(&mut self.stream).poll_write(cx, octets),
                None => self.poll_write_pieces(cx),
            };
            match ready!(written) {
                Ok(0) => return self.write_failed(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.output.advance(count);
                    self.unflushed = true;
                }
                Err(error) => return self.write_failed(error),
            }
        }
        // A socket has nothing to flush; a stream in layers, as TLS is, may have taken octets that nobody has sent.
        if self.unflushed {
            match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => return self.write_failed(error),
            }
        }
        Poll::Ready(())
    }

    fn poll_write_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = self.output.slices(&mut slices);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices.get(..filled).unwrap_or_default())
    }

    fn write_failed(&mut self, error: io::Error) -> Poll<()> {
        self.output.clear();
        self.unflushed = false;
        self.write_error.get_or_insert_with(|| (error, now() + LINGER));
        Poll::Ready(())
    }

    /// The error of writing, when nothing comes any more that would say more.
    fn unexplained(&mut self) -> Option<Error> {
        let deaf = !self.read;
        let failed = self.write_error.take_if(|(_, until)| deaf || *until <= now());
        failed.map(|(error, _)| error.into())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.look_after_blocks.is_none() && self.blocks.is_large() {
            self.look_after_blocks = Some(now() + KEEP_BLOCKS);
        }
        let until = self.write_error.as_ref().map(|(_, until)| *until);
        for due in [until, self.look_after_blocks].into_iter().flatten() {
            if self.armed.is_none_or(|armed| due < armed) {
                self.arm(due);
            }
        }
        if self.armed.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.armed = None;
            if self.look_after_blocks.take_if(|due| *due <= now()).is_some() {
                self.blocks.give_back();
            }
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    async fn finish(&mut self) {
        poll_fn(|cx| self.poll_write(cx)).await;
        let _ = self.stream.shutdown().await;
    }
}

/// The task was dropped with its runtime: nobody drives the connection any more, and those who wait must not wait for ever.
impl<E: Endpoint + ?Sized> Drop for Driver<E> {
    fn drop(&mut self) {
        if !self.over {
            let error = Error::new(ErrorKind::Io, "the runtime that held the connection has ended");
            self.turn(&Context::from_waker(Waker::noop()), Some(error));
        }
    }
}

/// Whether the runtime has more than this thread for its tasks.
fn has_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() != RuntimeFlavor::CurrentThread)
}

fn closed_without_a_word() -> Error {
    Error::new(ErrorKind::Io, "the peer closed the connection without a word")
}

/// Reads once into the room that `buf` has, and so many octets at most unless that is 0.
fn poll_read_buf(
    stream: Pin<&mut Stream>,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<()>> {
    let mut buf = buf.limit(if most == 0 { usize::MAX } else { most });
    let stream = stream.get_mut();
    let read = std::pin::pin!(stream.read_buf(&mut buf));
    read.poll(cx).map_ok(|_| ())
}

#[cfg(test)]
mod tests;
