//! Waiting until a deadline, whoever polls: in a runtime, or outside of any.

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// Waits for something until a deadline: `None` when that has passed. Outside of any runtime the timer is this one's; where nobody has
/// one there is no deadline.
pub(super) async fn by<T>(runtime: Option<&Handle>, until: Instant, wait: impl Future<Output = T>) -> Option<T> {
    let waiting = match (Handle::try_current(), runtime) {
        (Ok(_), _) => timeout_at(until, wait),
        (Err(_), Some(runtime)) => {
            let _inside = runtime.enter();
            timeout_at(until, wait)
        }
        (Err(_), None) => return Some(wait.await),
    };
    waiting.await.ok()
}
