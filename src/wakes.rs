//! Wakers, and the locks that they are kept behind.
//!
//! A [`Waker`] is code of the program's executor. Where a task is its own waker, dropping the last one drops the task, its future,
//! and every handle in that; and these lock what they came from. So **no waker is woken or dropped while a lock is held**, whichever
//! lock that is: whoever takes one out of its place hands it on, and it is woken or dropped when the lock has been released. A place
//! is filled by [`keep`] or [`replace`], which give back what was there; what gathers while a machine works is in [`Wakes`].
//!
//! Cloning one under a lock is fine. It counts a reference, and there is nothing of the task's that it could run; doing it before the
//! lock is taken would cost every poll that reference, also those that find what they wait for.

use std::task::Waker;

/// Keeps a waker in its place. Gives back what was there, unless that wakes the same: to be dropped without the lock.
#[inline]
#[must_use = "it is dropped when the lock has been released"]
pub(crate) fn keep(place: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match place {
        Some(old) => replace(old, waker),
        None => {
            *place = Some(waker.clone());
            None
        }
    }
}

/// As [`keep`], where there is one already.
#[inline]
#[must_use = "it is dropped when the lock has been released"]
pub(crate) fn replace(old: &mut Waker, waker: &Waker) -> Option<Waker> {
    if old.will_wake(waker) { None } else { Some(std::mem::replace(old, waker.clone())) }
}

/// Wakers that have left their places under a lock: some to be woken, some only to be dropped, and both when it has been released.
#[derive(Debug, Default)]
pub struct Wakes {
    woken: Vec<Waker>,
    dropped: Vec<Waker>,
}

impl Wakes {
    /// These are to be woken.
    #[inline]
    pub(crate) fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.woken.extend(wakers);
    }

    /// These are not needed any more.
    #[inline]
    pub(crate) fn drop_later(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.dropped.extend(wakers);
    }

    /// Whether there is nothing to be done.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.woken.len() + self.dropped.len() == 0
    }

    /// Takes those of another one.
    #[inline]
    pub(crate) fn append(&mut self, other: &mut Self) {
        if !other.woken.is_empty() {
            self.woken.append(&mut other.woken);
        }
        if !other.dropped.is_empty() {
            self.dropped.append(&mut other.dropped);
        }
    }

    /// Those to be woken.
    #[cfg(any(test, feature = "arbitrary"))]
    pub(crate) fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }

    /// Wakes and drops them all. No lock is held by the caller.
    #[inline]
    pub fn release(&mut self) {
        if !self.woken.is_empty() {
            self.woken.drain(..).for_each(Waker::wake);
        }
        if !self.dropped.is_empty() {
            self.dropped.clear();
        }
    }
}
