//! One record, or several: sent, and a verdict on each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::config::{RelayConfig, RelayError, Unrouted};
use super::record::Record;
use super::route::{Ready, Route};
use super::verdict::{Class, Verdict, is_doubtful};
use crate::messaging::{Message, Receipt, Target};
use crate::registry::{Registry, RegistryError};

/// Hands records over to where its routes say, and says what became of each.
///
/// A cheap handle: clones share everything, and any number of tasks may use them at the same time.
#[derive(Clone)]
#[doc(alias = "custom_lua")]
#[doc(alias = "log_hooks")]
pub struct Relay {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) registry: Registry,
    pub(super) config: RelayConfig,
    routes: Vec<Ready>,
}

/// A record on its way: where to and as what.
struct Planned {
    outgoing: String,
    target: Target,
    message: Message,
}

impl Relay {
    /// A relay that sends over the entries of a registry.
    ///
    /// # Errors
    ///
    /// A route makes no sense, its entry is not in the registry, or neither says where to send to.
    pub fn new(registry: Registry, mut config: RelayConfig) -> Result<Self, RelayError> {
        config.batch = config.batch.max(1);
        config.attempts = config.attempts.max(1);
        let ready = |(at, route): (usize, Route)| {
            let ready = Ready::new(route).map_err(|why| RelayError::Route { at, why })?;
            let name = &ready.outgoing;
            let outgoing = registry.outgoing(name).map_err(|error| RelayError::Registry { at, error })?;
            if !ready.has_place() && outgoing.target.is_none() {
                return Err(RelayError::Registry { at, error: RegistryError::NoTarget { name: name.clone() } });
            }
            Ok(ready)
        };
        let routes = std::mem::take(&mut config.routes).into_iter().enumerate().map(ready).collect::<Result<_, _>>()?;
        Ok(Self { inner: Arc::new(Inner { registry, config, routes }) })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The registry that it sends over: to change entries, or to close it.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// The name of the route that takes a record.
    pub fn route(&self, record: &Record) -> Option<&str> {
        self.inner.route(record).map(|route| route.name.as_str())
    }

    /// Sends a record and says what became of it. The entry's timeout bounds it (60 s unless set; twice that where the message has to be
    /// sent once more alone).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the record's fate is not known: try it again with the same id.
    #[doc(alias = "send")]
    pub async fn deliver(&self, record: &Record) -> Verdict {
        let planned = match self.inner.plan(record) {
            Ok(planned) => planned,
            Err(verdict) => return verdict,
        };
        let Planned { outgoing, target, message } = &planned;
        let result = self.inner.registry.send_to(outgoing, target, message.clone()).await;
        self.inner.judge(&planned, &result, &mut true).await
    }

    /// Sends records, those of one entry in their order, and says what became of each, in the order of the input. Entries are sent to at the
    /// same time. The entry's timeout bounds it, as in [`deliver`](Self::deliver); after an exchange that is not there, those that are sent once more
    /// alone come one after the other.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves some of them handed over.
    pub async fn deliver_batch<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Vec<Verdict> {
        let planned: Vec<_> = records.into_iter().map(|record| self.inner.plan(record)).collect();
        let mut groups: BTreeMap<String, Vec<(usize, Planned)>> = BTreeMap::new();
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(planned.len());
        for (at, planned) in planned.into_iter().enumerate() {
            verdicts.push(match planned {
                Ok(planned) => {
                    groups.entry(planned.outgoing.clone()).or_default().push((at, planned));
                    None
                }
                Err(verdict) => Some(verdict),
            });
        }
        // An entry that is slow holds up no other.
        let mut tasks = JoinSet::new();
        let last = groups.pop_last();
        for (name, group) in groups {
            let inner = Arc::clone(&self.inner);
            tasks.spawn(async move { inner.send_group(&name, group).await });
        }
        let mut done = match last {
            Some((name, group)) => self.inner.send_group(&name, group).await,
            None => Vec::new(),
        };
        while let Some(joined) = tasks.join_next().await {
            done.extend(joined.into_iter().flatten());
        }
        for (at, verdict) in done {
            if let Some(place) = verdicts.get_mut(at) {
                *place = Some(verdict);
            }
        }
        // A task that a stamp's panic ended has said nothing of its messages.
        let lost = || Verdict::new(451, "not known: its batch ended early");
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(lost)).collect()
    }
}

impl Inner {
    pub(super) fn route(&self, record: &Record) -> Option<&Ready> {
        self.routes.iter().find(|route| route.takes(record))
    }

    fn plan(&self, record: &Record) -> Result<Planned, Verdict> {
        let Some(route) = self.route(record) else {
            return Err(match self.config.unrouted {
                Unrouted::Refuse => Verdict::new(550, "no route takes it"),
                Unrouted::Drop => Verdict::new(250, "no route takes it: dropped"),
            });
        };
        let (target, message) = route.prepare(record).map_err(|why| Verdict::new(550, &why))?;
        let target = match target {
            Some(target) => target,
            None => self.target_of(&route.outgoing).map_err(|error| Verdict::of_registry(&Err(error), false))?,
        };
        Ok(Planned { outgoing: route.outgoing.clone(), target, message })
    }

    /// Where an entry of the registry sends to, at the moment.
    fn target_of(&self, name: &str) -> Result<Target, RegistryError> {
        let target = self.registry.outgoing(name)?.target;
        target.ok_or_else(|| RegistryError::NoTarget { name: name.to_owned() })
    }

    async fn send_group(&self, name: &str, group: Vec<(usize, Planned)>) -> Vec<(usize, Verdict)> {
        let messages = group.iter().map(|(_, planned)| (&planned.target, planned.message.clone()));
        let report = match self.registry.send_batch(name, messages).await {
            Ok(report) => report,
            Err(error) => {
                let verdict = Verdict::of_registry(&Err(error), false);
                return group.into_iter().map(|(at, _)| (at, verdict.clone())).collect();
            }
        };
        let mut verdicts = Vec::with_capacity(group.len());
        // Once one of them cannot be sent alone the others cannot either, and each would wait as long.
        let mut works = true;
        for ((at, planned), result) in group.iter().zip(report) {
            let verdict = self.judge(planned, &result.map_err(RegistryError::Send), &mut works).await;
            verdicts.push((*at, verdict));
        }
        verdicts
    }

    /// The verdict; where it would be a guess, after the message was sent once more alone, if that works.
    async fn judge(&self, planned: &Planned, result: &Result<Receipt, RegistryError>, works: &mut bool) -> Verdict {
        match result {
            Err(RegistryError::Send(error)) if is_doubtful(error) && *works => {
                let Planned { outgoing, target, message } = planned;
                let alone = self.registry.send_alone(outgoing, target, message.clone()).await;
                let verdict = Verdict::of_registry(&alone, true);
                *works = verdict.class != Class::Retry;
                verdict
            }
            result => Verdict::of_registry(result, false),
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("registry", &self.inner.registry).finish_non_exhaustive()
    }
}
