//! Lines out of a stream, none of them kept that is too long.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads lines.
pub(super) struct Lines<R> {
    input: R,
    longest: usize,
    /// What has come of the line, unless it is too long.
    line: Vec<u8>,
    /// How long the line is so far.
    octets: usize,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    TooLong,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(input: R, longest: usize) -> Self {
        Self { input, longest, line: Vec::new(), octets: 0 }
    }

    /// The next line; `None` at the end. Cancel-safe: what has been read stays here.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(if self.octets > 0 { Some(self.take()) } else { None });
            }
            let end = chunk.iter().position(|octet| *octet == b'\n');
            let (part, used) = match end {
                Some(end) => (chunk.get(..end).unwrap_or(chunk), end + 1),
                None => (chunk, chunk.len()),
            };
            self.octets = self.octets.saturating_add(part.len());
            if self.octets > self.longest {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let too_long = self.octets > self.longest;
        self.octets = 0;
        let mut line = std::mem::take(&mut self.line);
        if too_long {
            return Line::TooLong;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Whole(line.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of every size, so that a line's end falls everywhere.
    #[tokio::test]
    async fn lines_are_the_same_however_they_arrive() {
        for size in 1..12 {
            let input = tokio::io::BufReader::with_capacity(size, &b"a\r\n\n123456\n1234567\nlast"[..]);
            let mut lines = Lines::new(input, 6);
            let mut found = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                found.push(line);
            }
            let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
            assert_eq!(found, [whole("a"), whole(""), whole("123456"), Line::TooLong, whole("last")], "{size}");
        }
    }
}
