//! The way from a fresh socket to an open connection, a type per state, each named for what it expects.
//!
//! ```text
//!  ProtocolHeader ──header──► StartOk ──start-ok──► LoginVerdict ──accepted──► TuneOk ──tune-ok──► Open ──open──► OpenVerdict
//!        │ another version       │                       │ refused               │ out of bounds     │              │
//!        ▼                       ▼                       ▼                       ▼                   ▼              ▼
//!   own header, end             end              403 or end                   530                  504          open-ok, 530
//! ```
//!
//! A mechanism that asks back goes from StartOk to LoginVerdict by way of SecureOk: secure is sent, secure-ok has to come (c8).
//!
//! The two verdicts are the owner's; until they fall no input is looked at.

use bytes::{Buf, Bytes, BytesMut};

use super::fault::Fault;
use super::sasl::{CR_DEMO, CR_DEMO_ANSWER, CR_DEMO_CHALLENGE, Credentials, Login};
use super::{Config, Event};
use crate::codec::method::{MethodFields, connection};
use crate::codec::{FieldTable, FieldValue, Method, ProtocolHeader, ReplyCode, ShortString};

/// The smallest frame-max that may be agreed on; RabbitMQ's since 4.1 (c15), twice the specification's.
pub(super) const FRAME_MIN: u32 = 8192;

/// Where a handshake stands.
#[derive(Debug)]
pub(super) enum Handshake {
    ProtocolHeader(ExpectProtocolHeader),
    StartOk(ExpectStartOk),
    SecureOk(ExpectSecureOk),
    LoginVerdict(ExpectLoginVerdict),
    TuneOk(ExpectTuneOk),
    Open(ExpectOpen),
    OpenVerdict(ExpectOpenVerdict),
}

#[derive(Debug)]
pub(super) struct ExpectProtocolHeader;

#[derive(Debug)]
pub(super) struct ExpectStartOk;

#[derive(Debug)]
pub(super) struct ExpectSecureOk {
    mechanism: ShortString,
    user: Bytes,
    client_properties: FieldTable,
}

/// What a start-ok leads to.
pub(super) enum Started {
    Login(ExpectLoginVerdict, Event),
    Challenge(ExpectSecureOk, connection::Secure),
}

#[derive(Debug)]
pub(super) struct ExpectLoginVerdict {
    /// The client wants to be told in words when its login is refused (c11).
    wants_close: bool,
}

#[derive(Debug)]
pub(super) struct ExpectTuneOk;

#[derive(Debug)]
pub(super) struct ExpectOpen;

#[derive(Debug)]
pub(super) struct ExpectOpenVerdict;

/// What the client's first octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not all there yet.
    Partial,
    /// AMQP 0-9-1.
    Ours,
    /// Something else.
    Foreign,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuned {
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat: u16,
}

impl ExpectProtocolHeader {
    /// c1, c2: takes the header off the input. Octets that cannot become one are recognised at the first that differs.
    pub(super) fn read(&self, input: &mut BytesMut) -> Greeting {
        let ours = ProtocolHeader::AMQP_0_9_1.to_bytes();
        if input.iter().zip(&ours).any(|(octet, expected)| octet != expected) {
            return Greeting::Foreign;
        }
        if input.len() < ours.len() {
            return Greeting::Partial;
        }
        input.advance(ours.len());
        Greeting::Ours
    }

    pub(super) fn start(&self, config: &Config) -> connection::Start {
        connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: config.server_properties.clone(),
            mechanisms: config.mechanisms.clone().into(),
            locales: "en_US".into(),
        }
    }
}

impl ExpectStartOk {
    pub(super) fn receive(&self, method: Method, config: &Config) -> Result<Started, Fault> {
        let Method::Connection(connection::Method::StartOk(start_ok)) = method else {
            return Err(unexpected(&method, "starting"));
        };
        let connection::StartOk { client_properties, mechanism, response, .. } = start_ok;
        let offered = config.mechanisms.split(' ').any(|name| mechanism == name);
        if offered && mechanism == CR_DEMO {
            let challenge = connection::Secure { challenge: Bytes::from_static(CR_DEMO_CHALLENGE) };
            return Ok(Started::Challenge(ExpectSecureOk { mechanism, user: response, client_properties }, challenge));
        }
        let Some(parsed) = Credentials::parse(mechanism.as_bytes(), &response).filter(|_| offered) else {
            let text = format!("unknown authentication mechanism '{mechanism}'");
            return Err(blame::<connection::StartOk>(ReplyCode::COMMAND_INVALID, text));
        };
        let credentials = parsed.map_err(|_| {
            let text = format!("the response does not follow the mechanism {mechanism}");
            blame::<connection::StartOk>(ReplyCode::SYNTAX_ERROR, text)
        })?;
        let (next, event) = login(mechanism, credentials, client_properties);
        Ok(Started::Login(next, event))
    }
}

impl ExpectSecureOk {
    /// c8
    pub(super) fn receive(&self, method: Method) -> Result<(ExpectLoginVerdict, Event), Fault> {
        let Method::Connection(connection::Method::SecureOk(connection::SecureOk { response })) = method else {
            return Err(unexpected(&method, "securing"));
        };
        let Some(password) = response.strip_prefix(CR_DEMO_ANSWER) else {
            let text = format!("the response does not follow the mechanism {}", self.mechanism);
            return Err(blame::<connection::SecureOk>(ReplyCode::SYNTAX_ERROR, text));
        };
        let credentials = Credentials::Password { user: self.user.clone(), password: response.slice_ref(password) };
        Ok(login(self.mechanism.clone(), credentials, self.client_properties.clone()))
    }
}

fn login(mechanism: ShortString, credentials: Credentials, properties: FieldTable) -> (ExpectLoginVerdict, Event) {
    let wants_close = has_capability(&properties, "authentication_failure_close");
    let login = Login { mechanism, credentials, client_properties: properties };
    (ExpectLoginVerdict { wants_close }, Event::Authenticate(login))
}

impl ExpectLoginVerdict {
    pub(super) fn accepted(&self, config: &Config) -> (ExpectTuneOk, connection::Tune) {
        let &Config { channel_max, frame_max, heartbeat, .. } = config;
        (ExpectTuneOk, connection::Tune { channel_max, frame_max, heartbeat })
    }

    pub(super) fn wants_close(&self) -> bool {
        self.wants_close
    }
}

impl ExpectTuneOk {
    /// c13, c14, c15: the client may only lower what was proposed, and may say 0 only where 0 was proposed.
    pub(super) fn receive(&self, method: Method, config: &Config) -> Result<(ExpectOpen, Tuned), Fault> {
        let Method::Connection(connection::Method::TuneOk(connection::TuneOk { channel_max, frame_max, heartbeat })) =
            method
        else {
            return Err(unexpected(&method, "tuning"));
        };
        within("frame_max", FRAME_MIN, config.frame_max, frame_max)?;
        within("channel_max", 1, config.channel_max.into(), channel_max.into())?;
        Ok((ExpectOpen, Tuned { channel_max, frame_max, heartbeat }))
    }
}

fn within(name: &str, min: u32, max: u32, value: u32) -> Result<(), Fault> {
    let (compared, which, bound) = if value != 0 && value < min {
        ("lower", "minimum", min)
    } else if max != 0 && (value == 0 || value > max) {
        ("higher", "maximum", max)
    } else {
        return Ok(());
    };
    let text = format!("negotiated {name} = {value} is {compared} than the {which} allowed value ({bound})");
    Err(blame::<connection::Tune>(ReplyCode::NOT_ALLOWED, text))
}

impl ExpectOpen {
    pub(super) fn receive(&self, method: Method) -> Result<(ExpectOpenVerdict, Event), Fault> {
        match method {
            Method::Connection(connection::Method::Open(open)) => {
                Ok((ExpectOpenVerdict, Event::Open { virtual_host: open.virtual_host }))
            }
            method => Err(unexpected(&method, "opening")),
        }
    }
}

/// Whether a client announced a capability (c10).
pub(crate) fn has_capability(client_properties: &FieldTable, name: &str) -> bool {
    let capabilities = client_properties.get("capabilities").and_then(FieldValue::as_table);
    capabilities.and_then(|table| table.get(name)).and_then(FieldValue::as_bool).unwrap_or(false)
}

/// A method that does not belong to this state of the connection.
pub(super) fn unexpected(method: &Method, state: &str) -> Fault {
    let info = method.info();
    Fault::new(ReplyCode::CHANNEL_ERROR, format!("unexpected method in connection state {state}"))
        .of(info.class_id, info.method_id)
}

fn blame<M: MethodFields>(code: ReplyCode, text: String) -> Fault {
    Fault::new(code, text).of(M::INFO.class_id, M::INFO.method_id)
}
