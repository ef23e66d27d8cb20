//! What a piece of work cost this process.
//!
//! CPU is user and system time of the whole process (all threads, this is why the server is another process, and every run of a
//! client one of its own). Allocations are counted in runs that are not timed.

use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use taktora_bounded_alloc::CountingAllocator;

use crate::work::{Direction, Work};

/// The system's, and nothing but that until it is told to count: of all threads, growing in place included.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// From here on allocations are counted.
pub(crate) fn count_allocations() {
    ALLOCATOR.set_tracking(true);
}

/// What some messages cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) messages: u64,
    user: Duration,
    system: Duration,
    wall: Duration,
    /// Where they are counted.
    allocations: u64,
    /// The most memory that the process ever had, in KiB.
    peak: u64,
    /// How long single messages took, from publish to confirm, where one was sent at a time: the 50th, 99th and 99.9th percentile.
    latencies: [Duration; 3],
}

impl Usage {
    /// Microseconds of CPU per message.
    pub(crate) fn cpu_per_message(&self) -> f64 {
        self.user_per_message() + self.system_per_message()
    }

    pub(crate) fn user_per_message(&self) -> f64 {
        self.user.as_secs_f64() * 1e6 / self.messages as f64
    }

    pub(crate) fn system_per_message(&self) -> f64 {
        self.system.as_secs_f64() * 1e6 / self.messages as f64
    }

    pub(crate) fn wall_per_message(&self) -> f64 {
        self.wall.as_secs_f64() * 1e6 / self.messages as f64
    }

    pub(crate) fn allocations_per_message(&self) -> f64 {
        self.allocations as f64 / self.messages as f64
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak as f64 / 1024.0
    }

    /// In microseconds.
    pub(crate) fn latency(&self, percentile: usize) -> f64 {
        self.latencies[percentile].as_secs_f64() * 1e6
    }

    /// Reads what `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let &[messages, user, system, wall, allocations, peak, p50, p99, p999] = numbers.as_slice() else {
            return None;
        };
        let [user, system, wall] = [user, system, wall].map(Duration::from_nanos);
        let latencies = [p50, p99, p999].map(Duration::from_nanos);
        Some(Self { messages, user, system, wall, allocations, peak, latencies })
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [user, system, wall] = [self.user, self.system, self.wall].map(|time| time.as_nanos());
        write!(f, "{} {user} {system} {wall} {} {}", self.messages, self.allocations, self.peak)?;
        self.latencies.iter().try_for_each(|latency| write!(f, " {}", latency.as_nanos()))
    }
}

/// Measures from `start` to `stop`: connecting, building and closing stay outside.
pub(crate) struct Meter {
    cpu: [Duration; 2],
    wall: Instant,
    allocations: usize,
    /// Where one message is sent at a time.
    latencies: Option<(Instant, Histogram<u64>)>,
}

impl Meter {
    pub(crate) fn start(work: &Work) -> Self {
        let one_at_a_time = work.direction == Direction::Publish && work.window == 1;
        // Nanoseconds up to a minute, to three digits.
        let latencies = one_at_a_time.then(|| (Instant::now(), Histogram::new_with_max(60_000_000_000, 3).unwrap()));
        let allocations = ALLOCATOR.alloc_count();
        Self { cpu: cpu_of_this_process(), wall: Instant::now(), allocations, latencies }
    }

    /// Before every publish: where one message is sent at a time, that is as long as one takes.
    pub(crate) fn tick(&mut self) {
        if let Some((last, histogram)) = &mut self.latencies {
            let now = Instant::now();
            histogram.saturating_record(u64::try_from(now.duration_since(*last).as_nanos()).unwrap());
            *last = now;
        }
    }

    pub(crate) fn stop(self, messages: u64) -> Usage {
        let (wall, [user, system]) = (self.wall.elapsed(), cpu_of_this_process());
        let allocations = (ALLOCATOR.alloc_count() - self.allocations) as u64;
        let [user, system] = [user.saturating_sub(self.cpu[0]), system.saturating_sub(self.cpu[1])];
        let latencies = self.latencies.map(|(_, histogram)| {
            [0.5, 0.99, 0.999].map(|quantile| Duration::from_nanos(histogram.value_at_quantile(quantile)))
        });
        let peak = memory("VmHWM").unwrap_or_default();
        Usage { messages, user, system, wall, allocations, peak, latencies: latencies.unwrap_or_default() }
    }
}

/// User and system time.
fn cpu_of_this_process() -> [Duration; 2] {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let duration =
        |time: TimeVal| Duration::new(time.tv_sec().try_into().unwrap(), u32::try_from(time.tv_usec()).unwrap() * 1000);
    [usage.user_time(), usage.system_time()].map(duration)
}

/// A line of /proc/self/status, in KiB: `VmHWM`, the most resident memory so far, or `VmRSS`, now.
pub(crate) fn memory(name: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.ok_or_else(|| io::Error::other("/proc/self/status says nothing of memory"))
}
