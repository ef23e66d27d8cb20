//! What becomes of each method in each state: `spec/transitions` against both machines.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use leveret::codec::method::{self, MethodInfo, Sender, basic, channel, connection};
use leveret::codec::{ContentHeader, Frame, Method, ProtocolHeader, RawProperties, ReplyCode};
use leveret::protocol::OutBuffer;
use leveret::protocol::client::{Config, Connection as Client};
use leveret::protocol::server::{self, Connection as Server, Event};

use super::{assert_same, lines, read};

/// One side of a connection, in a state.
enum Machine {
    Client(Box<Client>),
    Server(Box<Server>),
}

/// The states of the file: machine, channel, name.
const STATES: [(&str, u16, &str); 25] = [
    ("client", 0, "start-due"),
    ("client", 0, "tune-due"),
    ("client", 0, "open-ok-due"),
    ("client", 0, "open"),
    ("client", 0, "closing"),
    ("client", 1, "handshake"),
    ("client", 1, "unknown"),
    ("client", 1, "opening"),
    ("client", 1, "open"),
    ("client", 1, "header-due"),
    ("client", 1, "body-due"),
    ("client", 1, "closing"),
    ("client", 1, "closed"),
    ("client", 1, "connection-closing"),
    ("server", 0, "start-ok-due"),
    ("server", 0, "tune-ok-due"),
    ("server", 0, "open-due"),
    ("server", 0, "open"),
    ("server", 0, "closing"),
    ("server", 1, "handshake"),
    ("server", 1, "unknown"),
    ("server", 1, "open"),
    ("server", 1, "header-due"),
    ("server", 1, "body-due"),
    ("server", 1, "closing"),
];

fn start() -> connection::Start {
    connection::Start { version_minor: 9, mechanisms: "PLAIN".into(), ..Default::default() }
}

fn tune() -> connection::Tune {
    connection::Tune { channel_max: 10, frame_max: 8192, heartbeat: 0 }
}

fn start_ok() -> connection::StartOk {
    connection::StartOk { mechanism: "PLAIN".into(), response: "\0u\0p".into(), ..Default::default() }
}

fn tune_ok() -> connection::TuneOk {
    connection::TuneOk { channel_max: 10, frame_max: 8192, heartbeat: 0 }
}

/// A method with its fields empty, but for those that have to say something to be understood.
fn sample(info: MethodInfo) -> Method {
    match info.name {
        "connection.start" => start().into(),
        "connection.tune" => tune().into(),
        "connection.start-ok" => start_ok().into(),
        "connection.tune-ok" => tune_ok().into(),
        _ => {
            let mut payload = [info.class_id.to_be_bytes(), info.method_id.to_be_bytes()].concat();
            payload.extend([0; 64]);
            Method::decode(&Bytes::from(payload)).unwrap()
        }
    }
}

impl Machine {
    fn hear(&mut self, frames: &[Frame], now: Instant) {
        let mut octets = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut octets, 8184).unwrap());
        let mut input = BytesMut::from(octets.as_slice());
        self.hear_octets(&mut input, now);
    }

    fn hear_octets(&mut self, input: &mut BytesMut, now: Instant) {
        match self {
            Self::Client(client) => client.feed(input, now),
            Self::Server(server) => loop {
                server.feed(input, now);
                match server.next_event() {
                    Some(Event::Authenticate(_)) => server.accept_login(),
                    Some(Event::Open { .. }) => server.accept_open(),
                    Some(Event::ChannelClose(number)) => server.accept_close(number),
                    Some(Event::Close) => server.accept_close(0),
                    Some(_) => {}
                    None => return,
                }
            },
        }
    }

    /// What it has said since it was asked last: names of methods, with the codes of closes.
    fn said(&mut self, now: Instant) -> Vec<String> {
        let mut out = OutBuffer::new();
        match self {
            Self::Client(client) => client.take_output(&mut out, now),
            Self::Server(server) => drop(server.take_output(&mut out, now)),
        }
        let mut octets = Bytes::from(out.to_vec());
        if octets.starts_with(b"AMQP") {
            octets = octets.slice(ProtocolHeader::LEN..);
        }
        let mut said = Vec::new();
        while let Some(frame) = Frame::decode(&mut octets, 8184).unwrap() {
            said.push(match frame {
                Frame::Method(_, Method::Connection(connection::Method::Close(close))) => {
                    format!("close {}", close.reply_code)
                }
                Frame::Method(_, method) => method.info().name.to_owned(),
                other => format!("{other:?}"),
            });
        }
        said
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Client(client) => client.is_finished(),
            Self::Server(server) => server.is_finished(),
        }
    }

    fn in_state(machine: &str, number: u16, state: &str, now: Instant) -> Self {
        let mut machine = if machine == "client" { client(number, state, now) } else { server(number, state, now) };
        machine.said(now);
        assert!(!machine.is_finished(), "{number} {state}");
        machine
    }
}

fn client(number: u16, state: &str, now: Instant) -> Machine {
    let mut machine = Machine::Client(Box::new(Client::new(Config::default(), now)));
    let on_zero = |method: Method| Frame::Method(0, method);
    let steps: &[Frame] =
        &[on_zero(start().into()), on_zero(tune().into()), on_zero(connection::OpenOk::default().into())];
    let taken = match (number, state) {
        (0, "start-due") => 0,
        (0, "tune-due") | (1, "handshake") => 1,
        (0, "open-ok-due") => 2,
        _ => 3,
    };
    machine.hear(&steps[..taken], now);
    let Machine::Client(client) = &mut machine else { panic!() };
    if state == "connection-closing" || (number, state) == (0, "closing") {
        client.close(ReplyCode::REPLY_SUCCESS, "", now, Duration::from_secs(1)).unwrap();
    }
    if number == 0 || ["handshake", "unknown", "connection-closing"].contains(&state) {
        return machine;
    }
    let (id, _) = client.open_channel().unwrap();
    if state == "opening" {
        return machine;
    }
    machine.hear(&[Frame::Method(1, channel::OpenOk::default().into())], now);
    match state {
        "header-due" => machine.hear(&[Frame::Method(1, basic::Return::default().into())], now),
        "body-due" => machine.hear(&[Frame::Method(1, basic::Return::default().into()), header()], now),
        "closed" => machine.hear(&[Frame::Method(1, channel::Close::default().into())], now),
        "closing" => {
            let Machine::Client(client) = &mut machine else { panic!() };
            client.close_channel(id, ReplyCode::REPLY_SUCCESS, "").unwrap();
        }
        _ => {}
    }
    machine
}

fn header() -> Frame {
    Frame::Header(1, ContentHeader { body_size: 1, properties: RawProperties::default() })
}

fn server(number: u16, state: &str, now: Instant) -> Machine {
    let config = server::Config { heartbeat: 0, channel_max: 10, frame_max: 8192, ..server::Config::default() };
    let mut machine = Machine::Server(Box::new(Server::new(config, now)));
    machine.hear_octets(&mut BytesMut::from(&ProtocolHeader::AMQP_0_9_1.to_bytes()[..]), now);
    let on_zero = |method: Method| Frame::Method(0, method);
    let steps: &[Frame] =
        &[on_zero(start_ok().into()), on_zero(tune_ok().into()), on_zero(connection::Open::default().into())];
    let taken = match (number, state) {
        (0, "start-ok-due") => 0,
        (0, "tune-ok-due") | (1, "handshake") => 1,
        (0, "open-due") => 2,
        _ => 3,
    };
    machine.hear(&steps[..taken], now);
    if number == 1 && !["handshake", "unknown"].contains(&state) {
        machine.hear(&[Frame::Method(1, channel::Open::default().into())], now);
    }
    match state {
        "header-due" => machine.hear(&[Frame::Method(1, basic::Publish::default().into())], now),
        "body-due" => machine.hear(&[Frame::Method(1, basic::Publish::default().into()), header()], now),
        "closing" | "connection-closing" => {
            let Machine::Server(server) = &mut machine else { panic!() };
            if (number, state) == (1, "closing") {
                server.close_channel(1, ReplyCode::NOT_FOUND, "", (0, 0));
            } else {
                server.close_connection(ReplyCode::CONNECTION_FORCED, "", (0, 0), now);
            }
        }
        _ => {}
    }
    machine
}

/// A state of the file, and its rows: which methods, and what becomes of them.
struct State {
    machine: String,
    number: u16,
    name: String,
    rows: Vec<(String, String, usize)>,
}

fn states(text: &str) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for (at, line) in lines(text) {
        if let Some(row) = line.strip_prefix("    ") {
            let (methods, outcome) = row.split_once(' ').unwrap_or_else(|| panic!("{at}: {row}"));
            states.last_mut().unwrap().rows.push((methods.to_owned(), outcome.trim().to_owned(), at));
        } else {
            let (head, _) = line.split_once(':').unwrap_or_else(|| panic!("{at}: {line}"));
            let [machine, number, name] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{at}: {line}") };
            let (machine, name) = (machine.to_owned(), name.to_owned());
            states.push(State { machine, number: number.parse().unwrap(), name, rows: Vec::new() });
        }
    }
    states
}

fn fits(methods: &str, info: MethodInfo) -> bool {
    match methods.strip_suffix(".*") {
        Some(class) => info.name.split('.').next() == Some(class),
        None if methods == "by-client" => info.sender != Sender::Server,
        None => methods == "*" || methods == info.name,
    }
}

#[test]
fn every_method_in_every_state() {
    let now = Instant::now();
    let states = states(&read("spec/transitions"));
    let (mut wrong, mut used, mut tried) = (Vec::new(), BTreeSet::new(), 0);
    for state in &states {
        for info in method::ALL.iter().copied().flatten() {
            tried += 1;
            let place = format!("{} {} {}, {}", state.machine, state.number, state.name, info.name);
            let Some((_, outcome, at)) = state.rows.iter().find(|(methods, ..)| fits(methods, *info)) else {
                wrong.push(format!("{place}: no row"));
                continue;
            };
            used.insert(*at);
            let mut machine = Machine::in_state(&state.machine, state.number, &state.name, now);
            machine.hear(&[Frame::Method(state.number, sample(*info))], now);
            let (said, ended) = (machine.said(now).join(" "), machine.is_finished());
            // A close of the other side is the end of the connection, and so is a fault of the server as the client sees it.
            let bye = |name: &str| {
                info.name == name && state.number == 0 && !(state.machine == "client" && state.name == "closing")
            };
            let right = match outcome.split_once(' ').unwrap_or((outcome, "")) {
                ("accept" | "ignore", "") => said.is_empty() && !ended,
                ("reply", names) => {
                    let goes_on = !bye("connection.close") || (state.machine == "server" && state.name == "closing");
                    said == names && ended != goes_on
                }
                ("close", _) => said == *outcome && ended == (state.machine == "client"),
                ("end", "") => said.is_empty() && ended,
                _ => panic!("{at}: {outcome} is no outcome"),
            };
            if !right {
                wrong.push(format!("{place}: {outcome:?} and not {said:?}, ended: {ended}"));
            }
        }
        for (methods, _, at) in state.rows.iter().filter(|(.., at)| !used.contains(at)) {
            wrong.push(format!("{at}: {methods} fits nothing"));
        }
    }
    assert_same(&wrong);
    let names: Vec<_> =
        states.iter().map(|state| (state.machine.as_str(), state.number, state.name.as_str())).collect();
    for state in STATES {
        assert!(names.contains(&state), "{state:?} is not in the file");
    }
    assert_eq!(tried, names.len() * 66);
}
