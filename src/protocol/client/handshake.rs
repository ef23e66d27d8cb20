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
//!    │                                secure │   ExpectTune
//!    │ ◄──────────────────────────────────── │ ┐
//!    │ secure-ok                             │ │ any number of times
//!    │ ────────────────────────────────────► │ ┘
//!    │                                  tune │
//!    │ ◄──────────────────────────────────── │
//!    │ tune-ok, open                         │
//!    │ ────────────────────────────────────► │
//!    │                               open-ok │   ExpectOpenOk
//!    │ ◄──────────────────────────────────── │
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::config::{Config, FRAME_MIN, INITIAL_FRAME_MAX, Tuning};
use super::sasl::{SaslExchange, SaslMechanism};
use crate::codec::method::connection::{self, Method as M};
use crate::codec::{FRAME_OVERHEAD, FieldTable, Method};
use crate::error::{Error, ErrorKind};

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
pub(crate) struct ExpectTune {
    server: ServerInfo,
    /// The mechanism's name, for errors.
    mechanism: String,
    exchange: Box<dyn SaslExchange>,
    /// How large start-ok was.
    login_frame: usize,
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
        INITIAL_FRAME_MAX as usize - FRAME_OVERHEAD
    }

    /// What the end of the stream most likely means while the login is under way.
    pub(crate) fn refused_login(&self) -> Cow<'static, str> {
        match self {
            Self::Tune(state) if state.login_frame > FRAME_MIN as usize => format!(
                "the connection was closed during the login: a wrong user name or password, or a server that takes no frame \
                 of {} octets yet (RabbitMQ before 4.0 takes {FRAME_MIN})",
                state.login_frame
            )
            .into(),
            _ => "the connection was closed during the login, most likely a wrong user name or password".into(),
        }
    }

    /// The server sent a method on channel 0, other than close.
    pub(crate) fn handle(self, method: M, config: &Config) -> Result<Step, Error> {
        match (self, method) {
            (Self::Start(state), M::Start(start)) => state.handle(start, config),
            (Self::Tune(state), M::Tune(tune)) => state.handle(&tune, config),
            (Self::Tune(state), M::Secure(secure)) => state.challenged(&secure.challenge),
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
        let name = mechanism.name().to_owned();
        let mut exchange = mechanism.start(&config.credentials);
        let response = exchange.respond(None).map_err(|error| failed(&name, error))?;
        let start_ok: Method = connection::StartOk {
            client_properties: config.announced_properties(),
            mechanism: name.as_str().into(),
            response,
            locale: config.locale.clone(),
        }
        .into();
        let login_frame = frame_len(&start_ok)?;
        check_login(login_frame)?;
        let server = ServerInfo { properties: start.server_properties, mechanisms: offered };
        let next = ExpectTune { server, mechanism: name, exchange, login_frame };
        Ok(Step::Next(vec![start_ok], Handshake::Tune(next)))
    }
}

/// The octets of a method's frame.
fn frame_len(method: &Method) -> Result<usize, Error> {
    let mut octets = Vec::new();
    method.encode(&mut octets)?;
    Ok(octets.len() + FRAME_OVERHEAD)
}

/// c16: no server reads a larger frame at this point, it just closes the connection.
fn check_login(octets: usize) -> Result<(), Error> {
    if octets > INITIAL_FRAME_MAX as usize {
        let message = format!(
            "the login is too large: connection.start-ok with the client properties and the secret would have {octets} \
             octets, and before the limits are agreed on a frame has {INITIAL_FRAME_MAX} at most"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

impl Config {
    /// Whether a login whose first response has this size can be sent at all, for those who want to know before they connect.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: `connection.start-ok` would be larger than a server reads before the limits are agreed on.
    pub fn check_login(&self, response: usize) -> Result<(), Error> {
        let start_ok = connection::StartOk {
            client_properties: self.announced_properties(),
            locale: self.locale.clone(),
            ..Default::default()
        };
        check_login(frame_len(&start_ok.into())? + response)
    }
}

fn failed(mechanism: &str, error: super::SaslError) -> Error {
    Error::with_boxed(ErrorKind::Auth, format!("the login with {mechanism} cannot go on"), error)
}

impl fmt::Debug for ExpectTune {
    /// Without what the mechanism knows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpectTune").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl ExpectTune {
    /// c8
    fn challenged(mut self, challenge: &[u8]) -> Result<Step, Error> {
        let response = self.exchange.respond(Some(challenge)).map_err(|error| failed(&self.mechanism, error))?;
        let secure_ok = connection::SecureOk { response }.into();
        self.login_frame = self.login_frame.max(frame_len(&secure_ok)?);
        Ok(Step::Next(vec![secure_ok], Handshake::Tune(self)))
    }

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

/// The first of those wanted that the server offers.
fn choose<'a>(wanted: &'a [Arc<dyn SaslMechanism>], offered: &[String]) -> Result<&'a dyn SaslMechanism, Error> {
    wanted.iter().find(|mechanism| offered.iter().any(|name| name == mechanism.name())).map(AsRef::as_ref).ok_or_else(
        || {
            let wanted: Vec<_> = wanted.iter().map(|mechanism| mechanism.name()).collect();
            let (offered, wanted) = (offered.join(" "), wanted.join(" or "));
            let message = format!("the server offers the mechanisms {offered}, wanted is {wanted}");
            Error::new(ErrorKind::Auth, message)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::Sasl;

    #[test]
    fn c6_a_mechanism_is_a_whole_word() {
        let offered = words(b"AMQPLAIN  CRAM-PLAIN");
        let wanted = |mechanisms: &[Sasl]| -> Vec<Arc<dyn SaslMechanism>> {
            mechanisms.iter().map(|mechanism| Arc::new(*mechanism) as Arc<dyn SaslMechanism>).collect()
        };
        let both = wanted(&[Sasl::Plain, Sasl::AmqPlain]);
        assert_eq!(choose(&both, &offered).unwrap().name(), "AMQPLAIN");
        let error = choose(&wanted(&[Sasl::Plain]), &offered).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("AMQPLAIN CRAM-PLAIN"), "{error}");
    }
}
