//! Class tx: publishes and acknowledgements of a channel that count together or not at all.

use super::unimplemented_method;
use crate::broker::Place;
use crate::broker::channel::{Mode, Transaction};
use crate::broker::faults::precondition;
use crate::broker::state::State;
use crate::codec::method::tx::{self, Method};
use crate::protocol::server::Fault;

impl State {
    pub(super) fn tx(&mut self, place: Place, method: &Method) -> Result<(), Fault> {
        match method {
            Method::Select(_) => {
                let Some(channel) = self.channel(place) else { return Ok(()) };
                match channel.mode {
                    Mode::Confirm(_) => return Err(precondition("cannot switch from confirm to tx mode")),
                    Mode::Plain => channel.mode = Mode::Tx(Transaction::default()),
                    Mode::Tx(_) => {}
                }
                self.send(place, tx::SelectOk {});
            }
            Method::Commit(_) => {
                let Transaction { publishes, settled } = self.take_transaction(place)?;
                for routed in publishes {
                    // Nobody waits for a confirm here.
                    let _accepted = self.enqueue(place, routed);
                }
                for (verdict, deliveries) in settled {
                    self.settle(place, verdict, deliveries);
                }
                self.send(place, tx::CommitOk {});
            }
            Method::Rollback(_) => {
                let Transaction { settled, .. } = self.take_transaction(place)?;
                if let Some(channel) = self.channel(place) {
                    settled.into_iter().for_each(|(_, deliveries)| channel.put_back(deliveries));
                }
                self.send(place, tx::RollbackOk {});
            }
            _ => return Err(unimplemented_method()),
        }
        Ok(())
    }

    /// c103
    fn take_transaction(&mut self, place: Place) -> Result<Transaction, Fault> {
        match self.channel(place).map(|channel| &mut channel.mode) {
            Some(Mode::Tx(transaction)) => Ok(std::mem::take(transaction)),
            _ => Err(precondition("channel is not transactional")),
        }
    }
}
