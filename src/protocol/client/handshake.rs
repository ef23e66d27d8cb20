//! From the protocol header to `connection.open-ok`: a type for each state, named for what it expects.
//!
//! ```text
//!  client                                  server
//!    │ AMQP 0-0-9-1                          │
//!    │ ────────────────────────────────────► │
//!    │                                 start │   ExpectStart
//!    │ ◄──────────────────────────────────── │
//!    │ start-ok                              │
//!    │ ────────────────────────────────────► │
//!    │                     secure (any times)│   ExpectTune
//!    │ ◄──────────────────────────────────── │
//!    │                                  tune │
//!    │ ◄──────────────────────────────────── │
//!    │ tune-ok, open                         │
//!    │ ────────────────────────────────────► │
//!    │                               open-ok │   ExpectOpenOk
//!    │ ◄──────────────────────────────────── │
//! ```

use super::config::{Config, FRAME_MIN, SaslMechanism, Tuning};
use crate::codec::method::connection::{self, Method as M};
use crate::codec::{FieldTable, Method};
use crate::error::{Error, ErrorKind};

/// Before tune-ok no frame may be larger than this (c16); RabbitMQ's own limit.
const INITIAL_FRAME_MAX: usize = 8192;

/// Where the handshake stands.
#[derive(Debug)]
pub(crate) enum Handshake {
    Start(ExpectStart),
    Tune(ExpectTune),
    OpenOk(ExpectOpenOk),
}

/// What a method of the server leads to: something to send, and the next state.
pub(crate) enum Step {
    Next(Vec<Method>, Handshake),
    /// The connection is open.
    Done(ServerInfo, Tuning),
}

/// What the server told of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerInfo {
    /// Product, version, capabilities.
    pub properties: FieldTable,
    /// The mechanisms it offered.
    pub mechanisms: Vec<String>,
}

/// `connection.start` has to come.
#[derive(Debug)]
pub(crate) struct ExpectStart;

/// `connection.tune` has to come, or another challenge.
#[derive(Debug)]
pub(crate) struct ExpectTune {
    server: ServerInfo,
}

/// `connection.open-ok` has to come.
#[derive(Debug)]
pub(crate) struct ExpectOpenOk {
    server: ServerInfo,
    tuning: Tuning,
}

impl Handshake {
    /// Whether the stream's end at this point most likely means that the login was refused (c11).
    pub(crate) fn awaits_login(&self) -> bool {
        matches!(self, Self::Tune(_))
    }

    /// The largest payload that may be sent at this point.
    pub(crate) fn max_payload() -> usize {
        INITIAL_FRAME_MAX - crate::codec::FRAME_OVERHEAD
    }

    /// The server sent a method on channel 0, other than close.
    pub(crate) fn handle(self, method: M, config: &Config) -> Result<Step, Error> {
        match (self, method) {
            (Self::Start(state), M::Start(start)) => state.handle(start, config),
            (Self::Tune(state), M::Tune(tune)) => state.handle(&tune, config),
            (Self::Tune(_), M::Secure(_)) => Err(Error::new(
                ErrorKind::Unsupported,
                "the server asks for another round of authentication, which none of the mechanisms here knows",
            )),
            (Self::OpenOk(state), M::OpenOk(_)) => Ok(Step::Done(state.server, state.tuning)),
            (state, method) => Err(Error::new(
                ErrorKind::Protocol,
                format!("the server sent {} where {} was due", method.info().name, state.expects()),
            )),
        }
    }

    pub(crate) fn expects(&self) -> &'static str {
        match self {
            Self::Start(_) => "connection.start",
            Self::Tune(_) => "connection.tune",
            Self::OpenOk(_) => "connection.open-ok",
        }
    }
}

impl ExpectStart {
    fn handle(self, start: connection::Start, config: &Config) -> Result<Step, Error> {
        if (start.version_major, start.version_minor) != (0, 9) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the server speaks AMQP {}-{}, not 0-9", start.version_major, start.version_minor),
            ));
        }
        let offered = words(&start.mechanisms);
        let mechanism = choose(&config.mechanisms, &offered)?;
        let start_ok = connection::StartOk {
            client_properties: config.announced_properties(),
            mechanism: mechanism.name().into(),
            response: mechanism.response(&config.credentials),
            locale: config.locale.clone(),
        };
        let server = ServerInfo { properties: start.server_properties, mechanisms: offered };
        Ok(Step::Next(vec![start_ok.into()], Handshake::Tune(ExpectTune { server })))
    }
}

impl ExpectTune {
    fn handle(self, tune: &connection::Tune, config: &Config) -> Result<Step, Error> {
        if tune.frame_max != 0 && tune.frame_max < FRAME_MIN {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the server proposes frames of {} octets, the least is {FRAME_MIN}", tune.frame_max),
            ));
        }
        let tuning = Tuning::negotiate(config, tune.channel_max, tune.frame_max, tune.heartbeat);
        let Tuning { channel_max, frame_max, heartbeat } = tuning;
        let replies = vec![
            connection::TuneOk { channel_max, frame_max, heartbeat }.into(),
            connection::Open { virtual_host: config.virtual_host.clone(), ..Default::default() }.into(),
        ];
        Ok(Step::Next(replies, Handshake::OpenOk(ExpectOpenOk { server: self.server, tuning })))
    }
}

/// c6: the words of a list with spaces between.
fn words(list: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(list).split_ascii_whitespace().map(str::to_owned).collect()
}

fn choose(wanted: &[SaslMechanism], offered: &[String]) -> Result<SaslMechanism, Error> {
    wanted.iter().copied().find(|mechanism| offered.iter().any(|name| name == mechanism.name())).ok_or_else(|| {
        let wanted: Vec<_> = wanted.iter().map(|mechanism| mechanism.name()).collect();
        Error::new(
            ErrorKind::Auth,
            format!("the server offers the mechanisms {}, wanted is {}", offered.join(" "), wanted.join(" or ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_a_mechanism_is_a_whole_word() {
        let offered = words(b"AMQPLAIN  CRAM-PLAIN");
        assert_eq!(
            choose(&[SaslMechanism::Plain, SaslMechanism::AmqPlain], &offered).unwrap(),
            SaslMechanism::AmqPlain
        );
        let error = choose(&[SaslMechanism::Plain], &offered).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("AMQPLAIN CRAM-PLAIN"), "{error}");
    }
}
