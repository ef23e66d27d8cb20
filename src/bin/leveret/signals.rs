//! When the program is told to end: by Ctrl-C, and on Unix by SIGTERM.

use std::io;

/// Ready when it is. It listens from now on, and no later.
///
/// # Errors
///
/// The system does not let it listen.
#[cfg(unix)]
pub(crate) fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ready when it is.
///
/// # Errors
///
/// The system does not let it listen.
#[cfg(windows)]
pub(crate) fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut pressed = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        pressed.recv().await;
    })
}
