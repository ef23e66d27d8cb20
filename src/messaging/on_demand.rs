//! Something that is made when it is first used, and made anew when it is not usable any more: a connection, a channel.
//!
//! ```text
//!   ┌───────┐ somebody asks  ┌────────┐ made   ┌───────┐
//!   │ Empty │ ─────────────► │ Making │ ─────► │ Ready │
//!   └───────┘                └────────┘        └───────┘
//!       ▲        failed           │                │ not usable any more
//!       └─────────────────────────┴────────────────┘
//!                     close: whatever the state, Closed for good
//! ```
//!
//! It is made in a task of its own, so that one who stops waiting does not stop the others, and all of them get the same result.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Outcome, Result};

#[derive(Debug)]
pub(super) struct OnDemand<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Empty,
    Making(watch::Receiver<Option<Result<T>>>),
    Ready(T),
    Closed,
}

/// What can be said without waiting.
#[derive(Debug)]
pub(super) enum Now<T> {
    Nothing,
    Making,
    Ready(T),
    Closed,
}

impl<T> OnDemand<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Send + Sync + 'static> OnDemand<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Empty) }
    }

    pub(super) fn with(ready: T) -> Self {
        Self { state: Mutex::new(State::Ready(ready)) }
    }

    /// What is there, usable or not.
    pub(super) fn now(&self) -> Now<T> {
        match &*self.lock() {
            State::Empty => Now::Nothing,
            State::Making(_) => Now::Making,
            State::Ready(ready) => Now::Ready(ready.clone()),
            State::Closed => Now::Closed,
        }
    }

    /// What is there if it is usable, or what `make` makes.
    ///
    /// # Errors
    ///
    /// What `make` fails with; `Closed`. The outcome is `NotSent`.
    pub(super) async fn get<F>(
        &self,
        runtime: Option<&Handle>,
        usable: impl Fn(&T) -> bool,
        make: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (mut deaths, mut losses) = (0, 0);
        loop {
            let mut making = match self.begin(runtime, &usable, &make)? {
                Ok(ready) => return Ok(ready),
                Err(making) => making,
            };
            let made = making.wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
            let made = match made {
                Some(made) => made,
                // It was being made on the runtime of somebody who is gone; this one's is still there.
                None if deaths == 0 => {
                    deaths += 1;
                    continue;
                }
                None => Err(Error::new(
                    ErrorKind::Closed,
                    "what was to make it has ended early: its runtime is gone, or on_open has panicked",
                )),
            };
            self.settle(&making, &made)?;
            match made {
                // Lost at this very moment. A server that does this every time is not asked for ever.
                Ok(made) if !usable(&made) && losses < 2 => losses += 1,
                Ok(made) if !usable(&made) => {
                    let message = "the connection was lost as soon as it was there, three times";
                    return Err(Error::new(ErrorKind::Io, message).with_outcome(Outcome::NotSent));
                }
                Ok(made) => return Ok(made),
                Err(error) => return Err(error.with_outcome(Outcome::NotSent)),
            }
        }
    }

    /// What is there if it is usable; or else something is being made from now on, which can be waited for.
    pub(super) fn begin<F>(
        &self,
        runtime: Option<&Handle>,
        usable: impl Fn(&T) -> bool,
        make: impl Fn() -> F,
    ) -> Result<Result<T, watch::Receiver<Option<Result<T>>>>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut state = self.lock();
        if let State::Making(making) = &*state {
            let made = making.borrow().clone();
            match made {
                // Its task is still at it, unless that has ended with its runtime.
                None if making.has_changed().is_ok() => return Ok(Err(making.clone())),
                // Nobody has fetched it yet.
                Some(Ok(made)) => *state = State::Ready(made),
                // Whoever waited has been told. This one asks anew.
                None | Some(Err(_)) => {}
            }
        }
        match &*state {
            State::Ready(ready) if usable(ready) => return Ok(Ok(ready.clone())),
            State::Closed => return Err(closed()),
            State::Empty | State::Ready(_) | State::Making(_) => {}
        }
        let runtime = match runtime {
            Some(runtime) => runtime.clone(),
            None => Handle::try_current().map_err(|_| {
                let message = "there is no tokio runtime here for the connection to live on: call in one, or name one \
                               (ClientBuilder::spawn_on)";
                Error::new(ErrorKind::InvalidArgument, message)
            })?,
        };
        let (tell, making) = watch::channel(None);
        let made = make();
        runtime.spawn(async move {
            let made = made.await;
            // Nobody waits any more: what was made is dropped.
            let _ = tell.send(Some(made));
        });
        let old = std::mem::replace(&mut *state, State::Making(making.clone()));
        drop(state);
        // The last handle of a connection wakes others.
        drop(old);
        Ok(Err(making))
    }

    /// Something was made, or could not be.
    fn settle(&self, making: &watch::Receiver<Option<Result<T>>>, made: &Result<T>) -> Result<()> {
        let mut state = self.lock();
        match &*state {
            State::Closed => return Err(closed()),
            State::Making(current) if current.same_channel(making) => {
                *state = match made {
                    Ok(made) => State::Ready(made.clone()),
                    Err(_) => State::Empty,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets what is there, if it is this one. Says whether it was.
    pub(super) fn forget(&self, is_it: impl Fn(&T) -> bool) -> bool {
        let mut state = self.lock();
        let found = matches!(&*state, State::Ready(ready) if is_it(ready));
        let forgotten = found.then(|| std::mem::replace(&mut *state, State::Empty));
        drop(state);
        drop(forgotten);
        found
    }

    /// Nothing is made from now on. Gives back what is there.
    pub(super) fn close(&self) -> Option<T> {
        let old = std::mem::replace(&mut *self.lock(), State::Closed);
        match old {
            State::Ready(ready) => Some(ready),
            // What is being made is dropped when it is made: those who wait for it find that they are too late.
            State::Making(_) | State::Empty | State::Closed => None,
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "it was closed on this side").with_outcome(Outcome::NotSent)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Something that is made when the door opens, and says how often it was made.
    struct Maker {
        made: AtomicU32,
        door: Notify,
        fails: bool,
    }

    impl Maker {
        fn new(fails: bool) -> Arc<Self> {
            Arc::new(Self { made: AtomicU32::new(0), door: Notify::new(), fails })
        }

        fn make(self: &Arc<Self>) -> impl Future<Output = Result<u32>> + Send + use<> {
            let maker = Arc::clone(self);
            async move {
                maker.door.notified().await;
                let made = maker.made.fetch_add(1, Ordering::SeqCst) + 1;
                if maker.fails { Err(Error::new(ErrorKind::Io, "not today")) } else { Ok(made) }
            }
        }
    }

    #[tokio::test]
    async fn many_who_ask_share_what_is_made_and_one_who_leaves_stops_nobody() {
        let (maker, place) = (Maker::new(false), Arc::new(OnDemand::<u32>::new()));
        let ask = || {
            let (maker, place) = (Arc::clone(&maker), Arc::clone(&place));
            tokio::spawn(async move { place.get(None, |_| true, || maker.make()).await })
        };
        let first = ask();
        tokio::task::yield_now().await;
        let others = [ask(), ask(), ask()];
        tokio::task::yield_now().await;
        assert!(matches!(place.now(), Now::Making));
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        maker.door.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 1);
        }
        assert!(matches!(place.now(), Now::Ready(1)));
        // No use any more: another one is made.
        assert!(place.forget(|made| *made == 1) && !place.forget(|_| true));
        maker.door.notify_one();
        assert_eq!(ask().await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn an_error_is_told_to_those_who_waited_and_to_nobody_else() {
        let (maker, place) = (Maker::new(true), OnDemand::<u32>::new());
        maker.door.notify_one();
        // Nobody waits for this one.
        drop(place.begin(None, |_| true, || maker.make()).unwrap().unwrap_err());
        while maker.made.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        maker.door.notify_one();
        let error = place.get(None, |_| true, || maker.make()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Io, Outcome::NotSent));
        assert_eq!(maker.made.load(Ordering::SeqCst), 2, "it was tried again");
        assert!(matches!(place.now(), Now::Nothing));
    }

    #[tokio::test]
    async fn what_is_lost_at_once_is_not_made_for_ever() {
        let place = OnDemand::<u32>::new();
        let error = place.get(None, |_| false, || async { Ok(1) }).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Io, Outcome::NotSent));
    }

    #[tokio::test]
    async fn after_closing_nothing_is_made() {
        let (maker, place) = (Maker::new(false), Arc::new(OnDemand::<u32>::new()));
        let waiting = tokio::spawn({
            let (maker, place) = (Arc::clone(&maker), Arc::clone(&place));
            async move { place.get(None, |_| true, || maker.make()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(place.close(), None);
        maker.door.notify_one();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        let error = place.get(None, |_| true, || maker.make()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent));
    }

    #[test]
    fn the_runtime_that_it_was_being_made_on_ends() {
        let (maker, place) = (Maker::new(false), OnDemand::<u32>::new());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        first.block_on(async {
            drop(place.begin(None, |_| true, || maker.make()).unwrap().unwrap_err());
        });
        drop(first);
        maker.door.notify_one();
        assert_eq!(runtime().block_on(place.get(None, |_| true, || maker.make())).unwrap(), 1);
        let error = OnDemand::<u32>::new().begin(None, |_| true, || maker.make()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "there is no runtime here");
    }
}
