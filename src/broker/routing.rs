//! Exchanges and bindings: which queues a message reaches. Nothing here knows connections or messages waiting.

use std::collections::HashMap;

use super::faults;
use super::queue::QueueId;
use crate::codec::{FieldTable, FieldValue, ShortString};
use crate::protocol::server::Fault;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub(super) fn parse(name: &ShortString) -> Option<Self> {
        Some(match name.as_bytes() {
            b"direct" => Self::Direct,
            b"fanout" => Self::Fanout,
            b"topic" => Self::Topic,
            b"headers" => Self::Headers,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) arguments: FieldTable,
    bindings: Vec<Binding>,
}

/// A binding, seen from the exchange that routes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binding {
    pub(super) destination: Destination,
    pub(super) key: ShortString,
    pub(super) arguments: FieldTable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Queue(QueueId),
    Exchange(ShortString),
}

impl Exchange {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::new(),
            bindings: Vec::new(),
        }
    }

    pub(super) fn with(mut self, durable: bool, auto_delete: bool, internal: bool, arguments: FieldTable) -> Self {
        self.durable = durable;
        self.auto_delete = auto_delete;
        self.internal = internal;
        self.arguments = arguments;
        self
    }

    /// Whether it goes because nothing is bound to it any more.
    fn is_abandoned(&self) -> bool {
        self.auto_delete && !self.is_used()
    }

    pub(super) fn is_used(&self) -> bool {
        !self.bindings.is_empty()
    }
}

impl Binding {
    fn matches(&self, kind: Kind, key: &ShortString, headers: Option<&FieldTable>) -> bool {
        match kind {
            Kind::Direct => self.key == *key,
            Kind::Fanout => true,
            Kind::Topic => topic_matches(self.key.as_bytes(), key.as_bytes()),
            Kind::Headers => headers_match(&self.arguments, headers),
        }
    }
}

/// What a binding to a headers exchange asks for has to make sense.
pub(super) fn check_binding(source: Option<&Exchange>, binding: &Binding) -> Result<(), Fault> {
    let is_headers = source.is_some_and(|exchange| exchange.kind == Kind::Headers);
    let text = match binding.arguments.get("x-match").filter(|_| is_headers) {
        None => return Ok(()),
        Some(FieldValue::LongString(mode)) => match &**mode {
            b"all" | b"any" | b"all-with-x" | b"any-with-x" => return Ok(()),
            mode => {
                format!("value <<\"{}\">>; expected all, any, all-with-x, or any-with-x", String::from_utf8_lossy(mode))
            }
        },
        Some(value) => format!("type {} (value {}); expected longstr", faults::type_name(value), faults::show(value)),
    };
    Err(faults::precondition(format!("Invalid x-match field {text}")))
}

/// The exchanges of a virtual host, without the default one, which has neither bindings nor a life.
#[derive(Debug)]
pub(super) struct Exchanges(HashMap<ShortString, Exchange>);

impl Exchanges {
    /// Those that every virtual host has.
    pub(super) fn predeclared() -> Self {
        let durable = |kind| Exchange { durable: true, ..Exchange::new(kind) };
        let mut exchanges: HashMap<ShortString, Exchange> = [
            ("amq.direct", Kind::Direct),
            ("amq.fanout", Kind::Fanout),
            ("amq.topic", Kind::Topic),
            ("amq.headers", Kind::Headers),
            ("amq.match", Kind::Headers),
        ]
        .into_iter()
        .map(|(name, kind)| (name.into(), durable(kind)))
        .collect();
        exchanges.insert("amq.rabbitmq.trace".into(), Exchange { internal: true, ..durable(Kind::Topic) });
        Self(exchanges)
    }

    pub(super) fn get(&self, name: &ShortString) -> Option<&Exchange> {
        self.0.get(name)
    }

    pub(super) fn insert(&mut self, name: ShortString, exchange: Exchange) {
        self.0.insert(name, exchange);
    }

    /// Adds a binding, once. The source must exist.
    pub(super) fn bind(&mut self, source: &ShortString, binding: Binding) {
        if let Some(exchange) = self.0.get_mut(source)
            && !exchange.bindings.contains(&binding)
        {
            exchange.bindings.push(binding);
        }
    }

    /// Removes a binding, if it is there.
    pub(super) fn unbind(&mut self, source: &ShortString, binding: &Binding) {
        if let Some(exchange) = self.0.get_mut(source) {
            let before = exchange.bindings.len();
            exchange.bindings.retain(|existing| existing != binding);
            if exchange.bindings.len() < before {
                self.remove_if_abandoned(source);
            }
        }
    }

    /// Removes an exchange with all bindings from and to it.
    pub(super) fn remove(&mut self, name: &ShortString) {
        if self.0.remove(name).is_some() {
            self.remove_destination(&Destination::Exchange(name.clone()));
        }
    }

    /// Removes all bindings to something that is gone, and the exchanges that are abandoned by that, and so on.
    pub(super) fn remove_destination(&mut self, destination: &Destination) {
        let mut gone = vec![destination.clone()];
        while let Some(destination) = gone.pop() {
            let mut abandoned = Vec::new();
            for (name, exchange) in &mut self.0 {
                let before = exchange.bindings.len();
                exchange.bindings.retain(|binding| binding.destination != destination);
                if exchange.bindings.len() < before && exchange.is_abandoned() {
                    abandoned.push(name.clone());
                }
            }
            for name in abandoned {
                self.0.remove(&name);
                gone.push(Destination::Exchange(name));
            }
        }
    }

    /// An auto-delete exchange goes with its last binding.
    fn remove_if_abandoned(&mut self, name: &ShortString) {
        if self.0.get(name).is_some_and(Exchange::is_abandoned) {
            self.remove(name);
        }
    }

    /// The queues that a message reaches, each once, through any number of exchanges. `headers` is asked only when a headers
    /// exchange is met.
    pub(super) fn route(
        &self,
        exchange: &ShortString,
        key: &ShortString,
        headers: &dyn Fn() -> Option<FieldTable>,
    ) -> Vec<QueueId> {
        let (mut queues, mut seen, mut next) = (Vec::new(), Vec::new(), vec![exchange.clone()]);
        let mut decoded = None;
        while let Some(name) = next.pop() {
            let Some(exchange) = self.0.get(&name).filter(|_| !seen.contains(&name)) else { continue };
            seen.push(name);
            let headers = match exchange.kind {
                Kind::Headers => decoded.get_or_insert_with(headers).as_ref(),
                _ => None,
            };
            let mut matched = false;
            for binding in exchange.bindings.iter().filter(|binding| binding.matches(exchange.kind, key, headers)) {
                matched = true;
                match &binding.destination {
                    Destination::Queue(queue) if queues.contains(queue) => {}
                    Destination::Queue(queue) => queues.push(*queue),
                    Destination::Exchange(name) => next.push(name.clone()),
                }
            }
            if !matched && let Some(FieldValue::LongString(name)) = exchange.arguments.get("alternate-exchange") {
                next.push(name.clone().into());
            }
        }
        queues
    }
}

/// Words between dots; `*` stands for one, `#` for any number.
fn topic_matches(pattern: &[u8], key: &[u8]) -> bool {
    let (pattern, key) = (words(pattern), words(key));
    let (mut p, mut k) = (0, 0);
    // The last `#` and the first word behind what it stands for: where to go on when the rest does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(word) = key.get(k) {
        match pattern.get(p) {
            Some(&b"#") => {
                retry = Some((p, k));
                p += 1;
            }
            Some(expected) if *expected == b"*" || expected == word => {
                p += 1;
                k += 1;
            }
            _ => {
                let Some((hash, from)) = retry else { return false };
                retry = Some((hash, from + 1));
                p = hash + 1;
                k = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|word| *word == b"#")
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|octet| *octet == b'.').collect() }
}

/// What a binding to a headers exchange asks for: all of its arguments, or any of them.
fn headers_match(arguments: &FieldTable, headers: Option<&FieldTable>) -> bool {
    let mode = arguments.get("x-match").and_then(FieldValue::as_str).unwrap_or("all");
    let with_x = mode.ends_with("-with-x");
    let mut wanted =
        arguments.iter().filter(|(name, _)| **name != "x-match" && (with_x || !name.as_bytes().starts_with(b"x-")));
    let there = |(name, value): (&ShortString, &FieldValue)| {
        let found = headers.and_then(|headers| headers.get(name.to_str().ok()?));
        found.is_some_and(|found| *value == FieldValue::Void || same_value(value, found))
    };
    if mode.starts_with("any") { wanted.any(there) } else { wanted.all(there) }
}

/// Equal but for the width of integers (c75).
pub(super) fn same_value(a: &FieldValue, b: &FieldValue) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_queue(id: u64, key: &str) -> Binding {
        Binding { destination: Destination::Queue(QueueId(id)), key: key.into(), arguments: FieldTable::new() }
    }

    fn to_exchange(name: &str, key: &str) -> Binding {
        Binding { destination: Destination::Exchange(name.into()), key: key.into(), arguments: FieldTable::new() }
    }

    fn route(exchanges: &Exchanges, exchange: &str, key: &str) -> Vec<u64> {
        let mut ids: Vec<u64> =
            exchanges.route(&exchange.into(), &key.into(), &|| None).into_iter().map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn topics() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*", "", false),
            ("*.*", "a.", true),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("a.#", "b", false),
            ("#.c", "a.b.c", true),
            ("#.c", "a.b.d", false),
            ("#.b.#", "a.b.c.d", true),
            ("#.b.*.#.d", "b.x.b.c.d", true),
            ("#.#.*", "a", true),
            ("#.*.#.*.#", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(topic_matches(pattern.as_bytes(), key.as_bytes()), expected, "{pattern} {key}");
        }
        let (pattern, key) = (["#"; 60].join(".") + ".x", ["a"; 60].join("."));
        assert!(!topic_matches(pattern.as_bytes(), key.as_bytes()), "and in no time");
    }

    #[test]
    fn headers() {
        let table = |entries: &[(&str, i32)]| entries.iter().copied().collect::<FieldTable>();
        let message = table(&[("a", 1), ("b", 2), ("x-c", 3)]);
        for (arguments, expected) in [
            (table(&[("a", 1), ("b", 2)]), true),
            (table(&[("a", 1), ("b", 3)]), false),
            (table(&[("a", 1), ("x-c", 9)]), true),
            (table(&[("a", 1), ("x-c", 9)]).with("x-match", "all-with-x"), false),
            (table(&[("a", 1), ("b", 3)]).with("x-match", "any"), true),
            (table(&[("z", 1)]).with("x-match", "any"), false),
            (table(&[("x-c", 3)]).with("x-match", "any"), false),
            (table(&[("x-c", 3)]).with("x-match", "any-with-x"), true),
            (FieldTable::new().with("a", FieldValue::Void), true),
            (FieldTable::new().with("z", FieldValue::Void), false),
            (FieldTable::new().with("a", 1i64), true),
            (FieldTable::new(), true),
        ] {
            assert_eq!(headers_match(&arguments, Some(&message)), expected, "{arguments:?}");
        }
        assert!(!headers_match(&table(&[("a", 1)]), None));
    }

    #[test]
    fn c134_a_message_reaches_a_queue_once_and_a_circle_ends() {
        let mut exchanges = Exchanges::predeclared();
        exchanges.bind(&"amq.fanout".into(), to_exchange("amq.direct", ""));
        exchanges.bind(&"amq.direct".into(), to_exchange("amq.fanout", "k"));
        exchanges.bind(&"amq.fanout".into(), to_queue(1, ""));
        exchanges.bind(&"amq.fanout".into(), to_queue(1, "again"));
        exchanges.bind(&"amq.direct".into(), to_queue(1, "k"));
        exchanges.bind(&"amq.direct".into(), to_queue(2, "k"));
        exchanges.bind(&"amq.direct".into(), to_queue(2, "k"));
        assert_eq!(route(&exchanges, "amq.fanout", "k"), [1, 2]);
        assert_eq!(route(&exchanges, "amq.fanout", "other"), [1]);
        exchanges.unbind(&"amq.direct".into(), &to_queue(2, "k"));
        assert_eq!(route(&exchanges, "amq.direct", "k"), [1]);
    }

    #[test]
    fn an_auto_delete_exchange_goes_with_its_last_binding() {
        let mut exchanges = Exchanges::predeclared();
        for name in ["a", "b"] {
            exchanges.insert(name.into(), Exchange { auto_delete: true, ..Exchange::new(Kind::Fanout) });
        }
        exchanges.bind(&"a".into(), to_exchange("b", ""));
        exchanges.bind(&"b".into(), to_queue(1, ""));
        exchanges.remove_destination(&Destination::Queue(QueueId(1)));
        assert!(exchanges.get(&"b".into()).is_none() && exchanges.get(&"a".into()).is_none());
    }

    #[test]
    fn an_alternate_exchange_takes_what_finds_no_binding() {
        let mut exchanges = Exchanges::predeclared();
        let arguments = FieldTable::new().with("alternate-exchange", "amq.fanout");
        exchanges.insert("a".into(), Exchange { arguments, ..Exchange::new(Kind::Direct) });
        exchanges.bind(&"a".into(), to_queue(1, "k"));
        exchanges.bind(&"amq.fanout".into(), to_queue(2, ""));
        assert_eq!(route(&exchanges, "a", "k"), [1]);
        assert_eq!(route(&exchanges, "a", "other"), [2]);
    }

    /// Whoever is bound to what goes may go, too, and so on: however long the chain is, it is no deep recursion.
    #[test]
    fn a_long_chain_of_auto_delete_exchanges_goes_at_once() {
        const LENGTH: usize = 2000;
        let work = || {
            let mut exchanges = Exchanges::predeclared();
            let others = exchanges.0.len();
            let name = |at: usize| ShortString::from(format!("link {at}"));
            for at in 0..LENGTH {
                let link = Exchange::new(Kind::Fanout).with(false, true, false, FieldTable::new());
                exchanges.insert(name(at), link);
                if at > 0 {
                    exchanges.bind(&name(at), to_exchange(&format!("link {}", at - 1), ""));
                }
            }
            exchanges.bind(&name(0), to_queue(7, ""));
            exchanges.remove_destination(&Destination::Queue(QueueId(7)));
            assert_eq!(exchanges.0.len(), others);
        };
        std::thread::Builder::new().stack_size(256 * 1024).spawn(work).unwrap().join().unwrap();
    }
}
