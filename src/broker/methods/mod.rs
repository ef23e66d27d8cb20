//! What each method does: a file per theme. Here is only the sorting.

mod basic;
mod exchange;
mod publish;
mod queue;
mod tx;

use super::Place;
use super::channel::{Confirms, Mode};
use super::faults::{not_implemented, precondition};
use super::state::State;
use crate::codec::method::{access, channel, confirm, connection};
use crate::codec::{Method, ReplyCode};
use crate::protocol::server::Fault;

impl State {
    /// Does what a client asks for. The error closes the channel or the connection.
    pub(super) fn method(&mut self, place: Place, method: Method) -> Result<(), Fault> {
        match method {
            Method::Basic(method) => self.basic(place, method),
            Method::Queue(method) => self.queue(place, method),
            Method::Exchange(method) => self.exchange(place, method),
            Method::Tx(method) => self.tx(place, &method),
            Method::Confirm(confirm::Method::Select(select)) => self.confirm_select(place, select.no_wait),
            Method::Channel(channel::Method::Flow(flow)) => self.flow(place, flow.active),
            Method::Channel(channel::Method::FlowOk(_)) => Ok(()),
            // A leftover of 0-8: everybody gets a ticket.
            Method::Access(access::Method::Request(_)) => {
                self.send(place, access::RequestOk { ticket: 1 });
                Ok(())
            }
            // c142: a password does not expire here.
            Method::Connection(connection::Method::UpdateSecret(_)) => {
                self.send(place, connection::UpdateSecretOk {});
                Ok(())
            }
            _ => Err(unimplemented_method()),
        }
    }

    fn confirm_select(&mut self, place: Place, no_wait: bool) -> Result<(), Fault> {
        let Some(channel) = self.channel(place) else { return Ok(()) };
        match channel.mode {
            Mode::Tx(_) => return Err(precondition("cannot switch from tx to confirm mode")),
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
        }
        self.reply(place, no_wait, confirm::SelectOk {});
        Ok(())
    }

    /// c138: a client cannot stop the flow.
    fn flow(&mut self, place: Place, active: bool) -> Result<(), Fault> {
        if !active {
            return Err(not_implemented("active=false"));
        }
        self.send(place, channel::FlowOk { active });
        Ok(())
    }
}

fn unimplemented_method() -> Fault {
    Fault::new(ReplyCode::COMMAND_INVALID, "unimplemented method")
}
