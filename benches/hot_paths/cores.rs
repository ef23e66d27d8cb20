//! Which of the machine's processors a process runs on, where that decides what is measured.

use std::io;

/// Where client and server run.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cores {
    /// Wherever the kernel puts them.
    Any,
    /// Each on one of its own.
    OneEach,
    /// Both on the same.
    OneForBoth,
}

impl Cores {
    /// The client's, if it has to stay there.
    pub(crate) fn of_the_client(self) -> Option<usize> {
        (self != Self::Any).then_some(0)
    }

    /// The server's, if it has to stay there.
    pub(crate) fn of_the_server(self) -> Option<usize> {
        match self {
            Self::Any => None,
            Self::OneEach => Some(1),
            Self::OneForBoth => Some(0),
        }
    }
}

/// From now on this thread, and those that it starts, run on the nth of the processors that it may run on. Where there are fewer they share.
#[cfg(target_os = "linux")]
pub(crate) fn stay_on(nth: usize) -> io::Result<()> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true)).collect();
    let mut one = CpuSet::new();
    one.set(allowed[nth % allowed.len()])?;
    Ok(sched_setaffinity(this_thread, &one)?)
}

/// Elsewhere nobody can say that: what is measured would not be what its name says.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stay_on(_nth: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
