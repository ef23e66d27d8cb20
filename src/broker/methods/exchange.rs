//! Class exchange: declaring, deleting, and binding to one another.

use super::unimplemented_method;
use crate::broker::Place;
use crate::broker::faults::{self, check_name, check_same, check_same_arguments, default_exchange};
use crate::broker::routing::{Binding, Destination, Exchange, Exchanges, Kind, check_binding};
use crate::broker::state::State;
use crate::codec::method::exchange::{self, Method};
use crate::codec::{FieldTable, FieldValue, ReplyCode, ShortString};
use crate::protocol::server::Fault;

/// The argument that names where messages go which find no binding.
const ALTERNATE: &str = "alternate-exchange";

impl State {
    pub(super) fn exchange(&mut self, place: Place, method: Method) -> Result<(), Fault> {
        match method {
            Method::Declare(declare) => {
                let no_wait = declare.no_wait;
                self.declare_exchange(place, declare)?;
                self.reply(place, no_wait, exchange::DeclareOk {});
            }
            Method::Delete(delete) => {
                self.delete_exchange(place, &delete)?;
                self.reply(place, delete.no_wait, exchange::DeleteOk {});
            }
            Method::Bind(exchange::Bind { destination, source, routing_key, no_wait, arguments, .. }) => {
                self.bind_exchange(place, true, destination, &source, routing_key, arguments)?;
                self.reply(place, no_wait, exchange::BindOk {});
            }
            Method::Unbind(exchange::Unbind { destination, source, routing_key, no_wait, arguments, .. }) => {
                self.bind_exchange(place, false, destination, &source, routing_key, arguments)?;
                self.reply(place, no_wait, exchange::UnbindOk {});
            }
            _ => return Err(unimplemented_method()),
        }
        Ok(())
    }

    /// The exchanges of the connection's virtual host, and its name.
    pub(super) fn exchanges(&mut self, place: Place) -> Result<(ShortString, &mut Exchanges), Fault> {
        let host = self.host_name(place);
        match self.virtual_hosts.get_mut(&host) {
            Some(found) => Ok((host, &mut found.exchanges)),
            None => Err(Fault::new(ReplyCode::NOT_ALLOWED, format!("vhost {host} not found"))),
        }
    }

    fn declare_exchange(&mut self, place: Place, declare: exchange::Declare) -> Result<(), Fault> {
        let exchange::Declare { exchange: name, kind, passive, durable, auto_delete, internal, arguments, .. } =
            declare;
        let (host, exchanges) = self.exchanges(place)?;
        if name.is_empty() {
            return Err(default_exchange());
        }
        let existing = exchanges.get(&name);
        if passive {
            return existing.map(|_| ()).ok_or_else(|| faults::no_exchange(&name, &host));
        }
        let Some(kind) = Kind::parse(&kind) else {
            return Err(Fault::new(ReplyCode::COMMAND_INVALID, format!("unknown exchange type '{kind}'")));
        };
        let Some(existing) = existing else {
            check_name("exchange", &name)?;
            match arguments.get(ALTERNATE) {
                None | Some(FieldValue::LongString(_)) => {}
                Some(value) => return Err(faults::invalid_type(&faults::exchange(&name, &host), ALTERNATE, value)),
            }
            exchanges.insert(name, Exchange::new(kind).with(durable, auto_delete, internal, arguments));
            return Ok(());
        };
        let resource = faults::exchange(&name, &host);
        check_same("type", &resource, kind.name(), existing.kind.name())?;
        check_same("durable", &resource, durable, existing.durable)?;
        check_same("auto_delete", &resource, auto_delete, existing.auto_delete)?;
        check_same("internal", &resource, internal, existing.internal)?;
        check_same_arguments(&resource, &arguments, &existing.arguments)
    }

    /// c131: what is not there is deleted already.
    fn delete_exchange(&mut self, place: Place, delete: &exchange::Delete) -> Result<(), Fault> {
        let name = &delete.exchange;
        let (host, exchanges) = self.exchanges(place)?;
        if name.is_empty() {
            return Err(default_exchange());
        }
        let Some(existing) = exchanges.get(name) else { return Ok(()) };
        let resource = faults::exchange(name, &host);
        if name.as_bytes().starts_with(b"amq.") {
            return Err(faults::refused(format!("deletion of system {resource} not allowed")));
        }
        if delete.if_unused && existing.is_used() {
            return Err(faults::precondition(format!("{resource} in use")));
        }
        exchanges.remove(name);
        Ok(())
    }

    fn bind_exchange(
        &mut self,
        place: Place,
        bind: bool,
        destination: ShortString,
        source: &ShortString,
        key: ShortString,
        arguments: FieldTable,
    ) -> Result<(), Fault> {
        let (host, exchanges) = self.exchanges(place)?;
        if source.is_empty() || destination.is_empty() {
            return Err(default_exchange());
        }
        if bind {
            for name in [source, &destination] {
                exchanges.get(name).ok_or_else(|| faults::no_exchange(name, &host))?;
            }
        }
        let binding = Binding { destination: Destination::Exchange(destination), key, arguments };
        if bind {
            check_binding(exchanges.get(source), &binding)?;
            exchanges.bind(source, binding)
        } else {
            exchanges.unbind(source, &binding)
        }
        Ok(())
    }
}
