//! Scripts as text: how they are written, and read again.

use std::fmt::{self, Display, Formatter, Write};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use super::{Act, ConfirmOrder, Moment, Script};

/// Why a text is no [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    position: usize,
    expected: &'static str,
}

impl ScriptError {
    /// Where in the text: how many octets are before it.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Display for ScriptError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "script, octet {}: expected {}", self.position, self.expected)
    }
}

impl std::error::Error for ScriptError {}

// ---------------------------------------------------------------------------------------------------------------- writing

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, (moment, act)) in self.steps().iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{moment}: {act}")?;
        }
        Ok(())
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received(count) => write!(f, "received {count}"),
            Self::Sent(count) => write!(f, "sent {count}"),
            Self::FrameReceived(count) => write!(f, "frame received {count}"),
            Self::FrameSent(count) => write!(f, "frame sent {count}"),
            Self::Published(count) => write!(f, "published {count}"),
            Self::Delivered(count) => write!(f, "delivered {count}"),
        }
    }
}

impl Display for Act {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::StallReading(time) => write!(f, "stall reading{}", Lasting(*time)),
            Self::StallWriting(time) => write!(f, "stall writing{}", Lasting(*time)),
            Self::Send(octets) => write!(f, "send {octets:x}"),
            Self::CloseConnection { code, text } => write!(f, "close connection {code} {}", Quoted(text)),
            Self::CloseChannels { code, text } => write!(f, "close channels {code} {}", Quoted(text)),
            Self::CancelConsumers => f.write_str("cancel consumers"),
            Self::Block { reason, time } => write!(f, "block {}{}", Quoted(reason), Lasting(*time)),
            Self::Nack => f.write_str("nack"),
            Self::Return => f.write_str("return"),
            Self::LoseConfirm => f.write_str("lose confirm"),
            Self::DelayConfirm(time) => write!(f, "delay confirm{}", Lasting(Some(*time))),
            Self::Confirm(ConfirmOrder::Together) => f.write_str("confirm together"),
            Self::Confirm(ConfirmOrder::Singly) => f.write_str("confirm singly"),
            Self::Confirm(ConfirmOrder::Reversed) => f.write_str("confirm reversed"),
            Self::Confirm(ConfirmOrder::Shuffled(seed)) => write!(f, "confirm shuffled {seed}"),
        }
    }
}

/// A time, with a blank before it; nothing for ever.
struct Lasting(Option<Duration>);

/// How many nanoseconds there are in each unit, the largest first.
const UNITS: [(u128, &str); 4] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];

impl Display for Lasting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(time) = self.0 else { return Ok(()) };
        let nanos = time.as_nanos();
        match UNITS.iter().find(|(unit, _)| nanos.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, " {}{name}", nanos / unit),
            None => Ok(()),
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

// ---------------------------------------------------------------------------------------------------------------- reading

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut reader = Reader { text, at: 0 };
        let mut script = Self::new();
        loop {
            reader.take_while(|char| char.is_ascii_whitespace() || char == ';');
            if reader.rest().is_empty() {
                return Ok(script);
            }
            let moment = reader.moment()?;
            reader.sign(':', "`:`")?;
            script = script.at(moment, reader.act()?);
            reader.blanks();
            if !matches!(reader.peek(), None | Some(';' | '\n' | '\r')) {
                return Err(reader.expected("the end of the step: `;` or a new line"));
            }
        }
    }
}

/// A text, read from left to right.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    fn expected(&self, expected: &'static str) -> ScriptError {
        ScriptError { position: self.at, expected }
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.take_while(|char| matches!(char, ' ' | '\t'));
    }

    fn sign(&mut self, sign: char, expected: &'static str) -> Result<(), ScriptError> {
        self.blanks();
        if self.peek() != Some(sign) {
            return Err(self.expected(expected));
        }
        self.next();
        Ok(())
    }

    /// The next word as one of these.
    fn word<T: Copy>(&mut self, words: &[(&str, T)], expected: &'static str) -> Result<T, ScriptError> {
        self.blanks();
        let start = self.at;
        let word = self.take_while(|char| char.is_ascii_alphabetic());
        let found = words.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or(ScriptError { position: start, expected })
    }

    fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, ScriptError> {
        self.blanks();
        let start = self.at;
        let digits = self.take_while(|char| char.is_ascii_digit());
        digits.parse().map_err(|_| ScriptError { position: start, expected })
    }

    fn moment(&mut self) -> Result<Moment, ScriptError> {
        type Make = fn(u64) -> Moment;
        let words: [(&str, Option<Make>); 5] = [
            ("received", Some(Moment::Received)),
            ("sent", Some(Moment::Sent)),
            ("published", Some(Moment::Published)),
            ("delivered", Some(Moment::Delivered)),
            ("frame", None),
        ];
        let make = match self.word(&words, "a moment: `received`, `sent`, `frame`, `published` or `delivered`")? {
            Some(make) => make,
            None => {
                let words: [(&str, Make); 2] = [("received", Moment::FrameReceived), ("sent", Moment::FrameSent)];
                self.word(&words, "`received` or `sent`")?
            }
        };
        Ok(make(self.number("a number")?))
    }

    fn act(&mut self) -> Result<Act, ScriptError> {
        type Read<'a> = fn(&mut Reader<'a>) -> Result<Act, ScriptError>;
        let words: [(&str, Read<'a>); 11] = [
            ("cut", |_| Ok(Act::Cut)),
            ("stall", Self::stall),
            ("send", |reader| Ok(Act::Send(reader.octets()?))),
            ("close", Self::close),
            ("cancel", |reader| reader.word(&[("consumers", ())], "`consumers`").map(|()| Act::CancelConsumers)),
            ("block", |reader| Ok(Act::Block { reason: reader.quoted()?, time: reader.lasting()? })),
            ("nack", |_| Ok(Act::Nack)),
            ("return", |_| Ok(Act::Return)),
            ("lose", |reader| reader.word(&[("confirm", ())], "`confirm`").map(|()| Act::LoseConfirm)),
            ("delay", Self::delay),
            ("confirm", Self::confirm),
        ];
        let read = self.word(&words, AN_ACT)?;
        read(self)
    }

    fn stall(&mut self) -> Result<Act, ScriptError> {
        type Make = fn(Option<Duration>) -> Act;
        let words: [(&str, Make); 2] = [("reading", Act::StallReading), ("writing", Act::StallWriting)];
        let make = self.word(&words, "`reading` or `writing`")?;
        Ok(make(self.lasting()?))
    }

    fn close(&mut self) -> Result<Act, ScriptError> {
        let connection = self.word(&[("connection", true), ("channels", false)], "`connection` or `channels`")?;
        let (code, text) = (self.number("a reply code")?, self.quoted()?);
        Ok(if connection { Act::CloseConnection { code, text } } else { Act::CloseChannels { code, text } })
    }

    fn delay(&mut self) -> Result<Act, ScriptError> {
        self.word(&[("confirm", ())], "`confirm`")?;
        let time = self.lasting()?.ok_or_else(|| self.expected(A_TIME))?;
        Ok(Act::DelayConfirm(time))
    }

    fn confirm(&mut self) -> Result<Act, ScriptError> {
        let words = [
            ("together", Some(ConfirmOrder::Together)),
            ("singly", Some(ConfirmOrder::Singly)),
            ("reversed", Some(ConfirmOrder::Reversed)),
            ("shuffled", None),
        ];
        let order = match self.word(&words, "`together`, `singly`, `reversed` or `shuffled`")? {
            Some(order) => order,
            None => ConfirmOrder::Shuffled(self.number("a seed")?),
        };
        Ok(Act::Confirm(order))
    }

    /// A time, if there is one.
    fn lasting(&mut self) -> Result<Option<Duration>, ScriptError> {
        self.blanks();
        let start = self.at;
        if !self.peek().is_some_and(|char| char.is_ascii_digit()) {
            return Ok(None);
        }
        let count: u128 = self.number(A_TIME)?;
        let unit = self.word(&UNITS.map(|(nanos, name)| (name, nanos)), "`ns`, `us`, `ms` or `s`")?;
        let time = count.checked_mul(unit).and_then(|nanos| {
            let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
            Some(Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).ok()?))
        });
        time.map(Some).ok_or(ScriptError { position: start, expected: "a time that is not as long" })
    }

    fn quoted(&mut self) -> Result<String, ScriptError> {
        self.sign('"', "a text in quotes")?;
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(match self.next() {
                    Some(char @ ('"' | '\\')) => char,
                    Some('n') => '\n',
                    Some('r') => '\r',
                    _ => {
                        return Err(ScriptError {
                            position: at,
                            expected: "one of `\\\"`, `\\\\`, `\\n` and `\\r` where there is a backslash",
                        });
                    }
                }),
                Some(char) => text.push(char),
                None => return Err(self.expected("the quote that ends the text")),
            }
        }
    }

    /// Pairs of hexadecimal digits; blanks between them are allowed.
    fn octets(&mut self) -> Result<Bytes, ScriptError> {
        let mut octets = Vec::new();
        loop {
            self.blanks();
            let start = self.at;
            let mut digit = || self.next_if_hexadecimal();
            match (digit(), digit()) {
                (None, _) => return Ok(octets.into()),
                (Some(high), Some(low)) => octets.push(high << 4 | low),
                (Some(_), None) => {
                    return Err(ScriptError { position: start, expected: "pairs of hexadecimal digits" });
                }
            }
        }
    }

    fn next_if_hexadecimal(&mut self) -> Option<u8> {
        let digit = self.peek()?.to_digit(16)?;
        self.next();
        u8::try_from(digit).ok()
    }
}

const A_TIME: &str = "a time, as `20ms`";
const AN_ACT: &str =
    "an act: `cut`, `stall`, `send`, `close`, `cancel`, `block`, `nack`, `return`, `lose`, `delay` or `confirm`";
