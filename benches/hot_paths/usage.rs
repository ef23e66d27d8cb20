//! What a piece of work cost this process, and how that compares.
//!
//! CPU is user and system time of the whole process (all threads, this is why the server is another process). Machines
//! are shared and their speed changes from second to second, so what counts are ratios between runs next to each other.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What some messages cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) messages: u64,
    cpu: Duration,
    wall: Duration,
}

impl Usage {
    /// Microseconds of CPU per message.
    fn cpu_per_message(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    fn wall_per_message(&self) -> f64 {
        self.wall.as_secs_f64() * 1e6 / self.messages as f64
    }
}

/// Measures from `start` to `stop`: connecting, building and closing stay outside.
pub(crate) struct Meter {
    cpu: Duration,
    wall: Instant,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu_of_this_process(), wall: Instant::now() }
    }

    pub(crate) fn stop(self, messages: u64) -> Usage {
        Usage { messages, wall: self.wall.elapsed(), cpu: cpu_of_this_process().saturating_sub(self.cpu) }
    }
}

fn cpu_of_this_process() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let duration =
        |time: TimeVal| Duration::new(time.tv_sec().try_into().unwrap(), u32::try_from(time.tv_usec()).unwrap() * 1000);
    duration(usage.user_time()) + duration(usage.system_time())
}

/// Prints one client's row. Both have one entry per round, and the rounds belong together.
pub(crate) fn print_row(name: &str, runs: &[Usage], floor: &[Usage]) {
    let cpu: Vec<f64> = runs.iter().map(Usage::cpu_per_message).collect();
    let rate: Vec<f64> = runs.iter().map(|usage| 1e6 / usage.wall_per_message()).collect();
    println!(
        "  {name:<28} {:>10.3} {:>14.0}    {:<22} {}",
        median(&cpu),
        median(&rate),
        ratios(runs, floor, Usage::cpu_per_message),
        ratios(runs, floor, Usage::wall_per_message),
    );
}

pub(crate) fn print_heading(work: &str) {
    println!("{work}");
    println!("  {:<28} {:>10} {:>14}    {:<22} time / floor", "", "CPU µs/msg", "messages/s", "CPU / floor");
}

fn ratios(runs: &[Usage], floor: &[Usage], value: fn(&Usage) -> f64) -> String {
    let mut ratios: Vec<f64> = runs.iter().zip(floor).map(|(run, floor)| value(run) / value(floor)).collect();
    ratios.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}..{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
