//! Those who wait: each has a bell of its own, so that it shows who was woken and who was forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

#[derive(Debug)]
struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What one of those who wait is woken with.
#[derive(Debug)]
pub(in crate::protocol) struct Bell {
    rung: Arc<Rung>,
    waker: Waker,
}

impl Bell {
    pub(in crate::protocol) fn new() -> Self {
        let rung = Arc::new(Rung(AtomicBool::new(false)));
        Self { waker: Arc::clone(&rung).into(), rung }
    }

    pub(in crate::protocol) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether it was rung since this was asked last.
    pub(in crate::protocol) fn take(&self) -> bool {
        self.rung.0.swap(false, Ordering::Relaxed)
    }
}
