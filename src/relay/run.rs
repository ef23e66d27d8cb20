//! A stream of JSON lines: read, batched, sent, tried again, and told of.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::AsyncBufRead;
use tokio::time::Instant;

use super::deliver::Relay;
use super::lines::{Line, Lines};
use super::record::Record;
use super::report::RelayReport;
use super::verdict::{Class, Verdict};

/// What became of a line, once it is certain or its attempts are used up.
#[non_exhaustive]
#[derive(Debug)]
pub struct Fate<'a> {
    /// The number of the line, counted from 1; empty ones count.
    pub line: u64,
    /// What stood there; `None` for what is no record.
    pub record: Option<&'a Record>,
    /// What became of it. [`Retry`](Class::Retry): its attempts are used up.
    pub verdict: &'a Verdict,
    /// How often it was tried.
    pub attempts: u32,
}

/// A record in memory.
struct Pending {
    line: u64,
    record: Record,
    attempts: u32,
    due: Instant,
}

impl Relay {
    /// Reads JSON lines until the input ends, sends each record to where the routes say, and tells `each` of it once. Records are sent in
    /// batches, in the order of the input; those that may be accepted later are tried again, behind those that came in the meantime,
    /// with the same message id. While as many are in memory as [`RelayConfig`](super::RelayConfig) allows, nothing is read.
    ///
    /// # Errors
    ///
    /// Reading failed. What was read before was sent, and told of.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it forgets those of which `each` has not been told; some of them may have been sent.
    #[doc(alias = "log_hooks")]
    pub async fn run<R>(&self, input: R, each: impl FnMut(Fate<'_>)) -> io::Result<RelayReport>
    where
        R: AsyncBufRead + Unpin,
    {
        let lines = Lines::new(input, self.inner().config.max_line);
        let mut run = Run {
            relay: self,
            lines,
            each,
            line: 0,
            ended: None,
            waiting: VecDeque::new(),
            weight: 0,
            report: RelayReport::default(),
        };
        loop {
            let batch = run.gather().await;
            if !batch.is_empty() {
                run.send(batch).await;
            } else if run.ended.is_some() && run.waiting.is_empty() {
                return run.ended.unwrap_or(Ok(())).map(|()| run.report);
            }
        }
    }
}

struct Run<'a, R, F> {
    relay: &'a Relay,
    lines: Lines<R>,
    each: F,
    line: u64,
    /// How the input ended.
    ended: Option<io::Result<()>>,
    /// Those that wait for another attempt, the earliest first.
    waiting: VecDeque<Pending>,
    /// About how much memory all records take.
    weight: usize,
    report: RelayReport,
}

/// Now and so long. What is longer than any program is no reason to overflow.
fn later(wait: Duration) -> Instant {
    Instant::now() + wait.min(Duration::from_secs(1 << 30))
}

impl<R: AsyncBufRead + Unpin, F: FnMut(Fate<'_>)> Run<'_, R, F> {
    /// What is due and what can be read, one batch at most. Empty only when there was nothing to do but to wait, or an end.
    async fn gather(&mut self) -> Vec<Pending> {
        let config = &self.relay.inner().config;
        let mut batch = Vec::new();
        let now = Instant::now();
        while batch.len() < config.batch && self.waiting.front().is_some_and(|pending| pending.due <= now) {
            batch.extend(self.waiting.pop_front());
        }
        // With something in hand it waits a little for more, and otherwise until something is due.
        let mut filling = !batch.is_empty();
        let mut until = if batch.is_empty() {
            self.waiting.front().map(|pending| pending.due)
        } else {
            Some(later(config.batch_wait))
        };
        while batch.len() < config.batch {
            let full = self.waiting.len() + batch.len() >= config.max_pending.max(1)
                || self.weight > 0 && self.weight >= config.max_pending_bytes;
            if full || self.ended.is_some() {
                if let Some(due) = until.filter(|_| batch.is_empty()) {
                    tokio::time::sleep_until(due).await;
                }
                break;
            }
            let line = match until {
                Some(until) => match tokio::time::timeout_at(until, self.lines.next()).await {
                    Ok(line) => line,
                    Err(_) => break,
                },
                None => self.lines.next().await,
            };
            match line {
                Ok(Some(line)) => batch.extend(self.read(line)),
                Ok(None) => self.ended = Some(Ok(())),
                Err(error) => self.ended = Some(Err(error)),
            }
            if !filling && !batch.is_empty() {
                filling = true;
                until = Some(later(config.batch_wait));
            }
        }
        batch
    }

    fn read(&mut self, line: Line) -> Option<Pending> {
        self.line += 1;
        let text = match line {
            Line::Whole(text) if text.trim_ascii().is_empty() => return None,
            Line::Whole(text) => text,
            Line::TooLong => {
                self.report.lines += 1;
                let longest = self.relay.inner().config.max_line;
                self.tell(self.line, None, 0, &Verdict::new(552, &format!("a line of more than {longest} octets")));
                return None;
            }
        };
        self.report.lines += 1;
        match Record::from_json(text) {
            Ok(record) => {
                self.weight = self.weight.saturating_add(record.weight());
                Some(Pending { line: self.line, record, attempts: 0, due: Instant::now() })
            }
            Err(error) => {
                self.tell(self.line, None, 0, &Verdict::new(550, &error.to_string()));
                None
            }
        }
    }

    async fn send(&mut self, batch: Vec<Pending>) {
        let config = &self.relay.inner().config;
        let verdicts = self.relay.deliver_batch(batch.iter().map(|pending| &pending.record)).await;
        for (mut pending, verdict) in batch.into_iter().zip(verdicts) {
            pending.attempts += 1;
            if verdict.class == Class::Retry && pending.attempts < config.attempts {
                self.report.retries += 1;
                pending.due = later(config.backoff().wait(pending.attempts - 1));
                let place = self.waiting.partition_point(|other| other.due <= pending.due);
                self.waiting.insert(place, pending);
                continue;
            }
            self.weight = self.weight.saturating_sub(pending.record.weight());
            self.tell(pending.line, Some(&pending.record), pending.attempts, &verdict);
        }
    }

    fn tell(&mut self, line: u64, record: Option<&Record>, attempts: u32, verdict: &Verdict) {
        let route = record.and_then(|record| self.relay.route(record));
        self.report.count(route, verdict.class);
        (self.each)(Fate { line, record, verdict, attempts });
    }
}
