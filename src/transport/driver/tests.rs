//! The driver against endpoints that only write, or only listen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Wake;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

/// Wants to write these pieces, one after the other, and wakes the driver for none of them.
struct Pieces(Mutex<Vec<usize>>);

impl Endpoint for Pieces {
    fn turn(&self, turn: Turn<'_>) -> Next {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.output.is_empty()
            && let Some(len) = pieces.pop()
        {
            turn.output.put(&vec![7; len]);
        }
        Next { deadline: None, read: true, ahead: Ahead::default(), finished: false }
    }
}

/// The socket takes the last of a backlog in the same pass in which the endpoint was not yet allowed to hand over more.
#[tokio::test(start_paused = true)]
async fn what_gathers_behind_a_full_socket_is_asked_for() {
    let (ours, mut theirs) = Stream::pipe();
    let (backlog, rest) = (300 * 1024, 1000);
    let driver = tokio::spawn(drive(ours, Arc::new(Pieces(Mutex::new(vec![rest, backlog])))));
    let mut received = vec![0; backlog + rest];
    let read = tokio::time::timeout(Duration::from_secs(1), theirs.read_exact(&mut received)).await;
    assert_eq!(read.unwrap().unwrap(), backlog + rest);
    driver.abort();
}

/// Takes no octets any more, and has something to say a little later, or nothing at all.
struct Broken(Option<Pin<Box<Sleep>>>);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(later) = &mut self.0 else { return Poll::Pending };
        ready!(later.as_mut().poll(cx));
        self.0 = None;
        buf.put_slice(b"last words");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Has something to write whenever it can, and is finished when it has heard something.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<u8>>,
    ended: Mutex<Option<Error>>,
}

impl Endpoint for Listener {
    fn turn(&self, turn: Turn<'_>) -> Next {
        if turn.output.is_empty() {
            turn.output.put(b"hello");
        }
        let finished = !turn.input.is_empty();
        self.heard.lock().unwrap().extend_from_slice(&turn.input.split());
        *self.ended.lock().unwrap() = turn.ended;
        Next { deadline: None, read: true, ahead: Ahead::default(), finished }
    }
}

/// A write may fail before the runtime has noticed that the peer has said why.
#[tokio::test(start_paused = true)]
async fn last_words_are_heard_when_writing_has_failed() {
    let listener = Arc::new(Listener::default());
    let later = Box::pin(tokio::time::sleep(LINGER / 2));
    drive(Stream::new(Broken(Some(later))), Arc::clone(&listener)).await;
    assert_eq!(*listener.heard.lock().unwrap(), b"last words");
    assert!(listener.ended.lock().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn last_words_that_do_not_come_are_not_waited_for_long() {
    let (listener, begin) = (Arc::new(Listener::default()), now());
    drive(Stream::new(Broken(None)), Arc::clone(&listener)).await;
    let waited = now() - begin;
    assert!(waited >= LINGER && waited < 2 * LINGER, "{waited:?}");
    let error = listener.ended.lock().unwrap().take().unwrap();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("reset"), "{error}");
}

/// Takes everything and wants to stop where it is told.
#[derive(Default)]
struct Sink {
    ahead: Ahead,
    took: AtomicUsize,
}

impl Endpoint for Sink {
    fn turn(&self, turn: Turn<'_>) -> Next {
        self.took.fetch_add(turn.input.split().len(), Ordering::Relaxed);
        Next { deadline: None, read: true, ahead: self.ahead, finished: false }
    }
}

/// Without traffic nothing is kept for long, and nobody has to come by for that.
#[tokio::test(start_paused = true)]
async fn a_quiet_connection_gives_back_what_it_read_into() {
    let (ours, mut theirs) = Stream::pipe();
    let mut driver = Driver::new(ours, Arc::new(Sink::default()));
    for _ in 0..2 {
        let written = tokio::time::timeout(KEEP_BLOCKS / 2, async {
            tokio::join!(poll_fn(|cx| driver.poll(cx)), theirs.write_all(&[7; 5_000_000])).0
        });
        assert!(written.await.is_err() && driver.blocks.is_large());
        let _ = tokio::time::timeout(3 * KEEP_BLOCKS, poll_fn(|cx| driver.poll(cx))).await;
        assert!(!driver.blocks.is_large() && driver.blocks.input.capacity() <= 8 * 1024);
        assert!(driver.look_after_blocks.is_none(), "and does not look any more");
    }
}

#[tokio::test]
async fn no_more_is_read_than_is_wanted() {
    let (ours, mut theirs) = Stream::pipe();
    let mut driver = Driver::new(ours, Arc::new(Sink { ahead: Ahead { stop: 10, together: 100 }, ..Sink::default() }));
    theirs.write_all(&[7; 100]).await.unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(driver.poll(&mut cx).is_pending());
    driver.ahead = Ahead { stop: 10, together: 100 };
    theirs.write_all(&[7; 100]).await.unwrap();
    assert!(matches!(driver.poll_read(&mut cx), Poll::Ready(Ok(10))));
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who is woken by what was read need not wait for the end of a flood; and where there is no flood, the driver does not wake itself.
#[tokio::test]
async fn a_pass_reads_only_so_much() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let flood = Stream::new(tokio::io::join(tokio::io::repeat(7), tokio::io::sink()));
    let mut driver = Driver::new(flood, Arc::new(Sink::default()));
    for pass in 1..40 {
        assert!(driver.poll(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), pass, "it goes on by itself");
        let took = driver.endpoint.took.swap(0, Ordering::Relaxed);
        assert!((driver.read_on.end..=driver.read_on.end + READ_ON.end / 4).contains(&took), "{took} octets");
        driver.read_on = if pass < 20 { 0..0 } else { READ_ON };
    }
    let (ours, mut theirs) = Stream::pipe();
    driver.stream = ours;
    driver.blocks.make_room(Ahead::default());
    theirs.write_all(&[7; 100_000]).await.unwrap();
    let before = woken.0.load(Ordering::Relaxed);
    assert!(driver.poll(&mut cx).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), before, "what comes will wake it");
}
