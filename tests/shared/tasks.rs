//! Tasks of an executor as the async book builds one: a task owns its future and is its own waker, so that whoever drops the last
//! waker drops the future, and all that it holds.

use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::running::PATIENCE;

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task(Mutex<Option<Wait>>);

/// Nobody runs it again.
impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

/// Runs a future until it waits, or is done. From then on it lives as long as somebody keeps its waker.
pub(crate) fn begin(future: impl Future<Output = ()> + Send + 'static) {
    let task = Arc::new(Task(Mutex::new(Some(Box::pin(future)))));
    let waker = Waker::from(Arc::clone(&task));
    let mut future = task.0.lock().unwrap().take().unwrap();
    if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        *task.0.lock().unwrap() = Some(future);
    }
}

/// Something to wait for that can be asked for by one task after the other.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Option<Wait>>>);

impl Shared {
    pub(crate) fn new(wait: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(wait)))))
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().unwrap().as_mut().unwrap().as_mut().poll(cx)
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&self) {
        let _wait = self.0.lock().unwrap().take();
    }

    /// A task that holds something, and waits for this and for nothing else.
    pub(crate) fn begin(&self, holds: impl Send + 'static) {
        let wait = self.clone();
        begin(async move {
            let _holds = holds;
            std::future::poll_fn(|cx| {
                let _ = wait.poll(cx);
                Poll::<()>::Pending
            })
            .await;
        });
    }
}

/// Runs a test in a thread of its own, and in no other: who waits there for a lock that he holds himself fails, and holds nothing up.
pub(crate) fn alone<F: Future<Output = ()>>(what: &str, test: impl FnOnce() -> F + Send + 'static) {
    let (tell, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        tell.send(()).unwrap();
    });
    match ended.recv_timeout(2 * PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().expect(what),
    }
}
