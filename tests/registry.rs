//! Outgoing connections by name: what is sent under a name, what a wrong name says, and changes while messages are on their way.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly, and so do their helpers")]

#[macro_use]
#[path = "shared/running.rs"]
mod running;
#[path = "shared/servers.rs"]
mod servers;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use leveret::amqp::{Channel, Confirmation, FieldValue, Properties};
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{Client, ClientState, ConfirmMode, Message, Source, Status, Target};
use leveret::registry::{Outgoing, Registry, RegistryConfig, RegistryError};

use crate::running::{PATIENCE, until, within};
use crate::servers::{Server, against_rabbitmq};

/// A queue `q` and the exchange `CRM1` that leads to it.
async fn prepared(server: &Server) -> Channel {
    let connection = within("a connection", leveret::amqp::Connection::open(&server.url)).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare("q").await.unwrap();
    channel.exchange_declare("CRM1", "direct").await.unwrap();
    channel.queue_bind("q", "CRM1", "").await.unwrap();
    channel
}

fn registry(server: &Server, outgoing: Outgoing) -> Registry {
    let registry = Registry::new();
    registry.set_connection("crm", Client::builder(&server.url).unwrap()).unwrap();
    registry.set_outgoing("CRM1", outgoing).unwrap();
    registry
}

/// Waits until so many messages are in the queue.
async fn arrived(channel: &Channel, messages: u32) {
    until("messages in the queue", async || count(channel).await >= messages).await;
}

async fn count(channel: &Channel) -> u32 {
    channel.queue_declare("q").passive(true).await.unwrap().message_count()
}

on_every_server! {
    async fn z1_z2_z3_z4_z7_z8_an_entry_from_a_file_has_template_and_stamp(server: Server) {
        let channel = prepared(server).await;
        let address = server.url.clone();
        let config: RegistryConfig = toml::from_str(&format!(
            r#"
            [connections.crm]
            url = "{address}"
            client_properties = {{ "zato.component" = "server1" }}

            [outgoing.CRM1]
            connection = "crm"
            exchange = "CRM1"
            properties = {{ app_id = "ESB", priority = 5, delivery_mode = 1, headers = {{ X-Foo = "template" }} }}
            "#
        ))
        .unwrap();
        let stamp = |name: &str, _: &Target, message: &mut Message| {
            if message.get_header("X-Component").is_none() {
                *message = std::mem::take(message).header("X-Component", name);
            }
        };
        let registry = Registry::builder().stamp(stamp).build_from(config).unwrap();
        assert_eq!(registry.client("crm").unwrap().state(), ClientState::Idle, "z11: nothing connects before it is used");

        // Its own zero counts, and its own header.
        let own = Message::new("a").priority(0).header("X-Foo", "own");
        let receipt = within("a receipt", registry.send("CRM1", own)).await.unwrap();
        assert_eq!(receipt.status, Status::Accepted);
        let other = Message::new("b").header("X-Component", "mine");
        within("a receipt", registry.send_to("CRM1", Target::queue("q"), other)).await.unwrap();

        let got = channel.basic_get("q").no_ack().await.unwrap().unwrap().message;
        let properties = got.properties().unwrap();
        let expected = Properties::new().app_id("ESB").priority(0).delivery_mode(1);
        assert_eq!(Properties { headers: None, ..properties.clone() }, expected);
        let header = |properties: &Properties, name: &str| {
            properties.headers.as_ref().unwrap().get(name).and_then(FieldValue::as_str).unwrap().to_owned()
        };
        assert_eq!((header(&properties, "X-Foo"), header(&properties, "X-Component")), ("own".into(), "CRM1".into()));
        let got = channel.basic_get("q").no_ack().await.unwrap().unwrap().message;
        let properties = got.properties().unwrap();
        assert_eq!((properties.priority, header(&properties, "X-Component")), (Some(5), "mine".into()));
        assert_eq!(header(&properties, "X-Foo"), "template");
        assert!(registry.close_within(PATIENCE).await.is_clean());
    }

    async fn z1_z2_wrong_names_are_errors_of_their_own(server: Server) {
        prepared(server).await;
        let registry = registry(server, Outgoing::new("crm"));
        let sent = |error: RegistryError| (error.outcome(), error.is_transient(), error.to_string());

        let error = registry.send("CRM2", "x").await.unwrap_err();
        assert!(matches!(&error, RegistryError::UnknownOutgoing { name, .. } if name == "CRM2"));
        assert_eq!(sent(error), (Outcome::NotSent, false, r#"there is no outgoing entry "CRM2""#.into()));
        let error = registry.send("CRM1", "x").await.unwrap_err();
        assert!(matches!(error, RegistryError::NoTarget { .. }), "{error}");

        registry.deactivate("CRM1").unwrap();
        let error = registry.send_to("CRM1", Target::queue("q"), "x").await.unwrap_err();
        assert!(matches!(&error, RegistryError::Inactive { name, .. } if name == "CRM1"));
        assert_eq!(sent(error), (Outcome::NotSent, true, r#"the outgoing entry "CRM1" is not active"#.into()));
        registry.activate("CRM1").unwrap();
        within("a receipt", registry.send_to("CRM1", Target::queue("q"), "x")).await.unwrap();

        let error = registry.set_outgoing("new", Outgoing::new("erp")).unwrap_err();
        assert!(matches!(&error, RegistryError::UnknownConnection { name, .. } if name == "erp"));
        let error = registry.remove_connection("crm").unwrap_err();
        assert!(matches!(&error, RegistryError::InUse { by, .. } if by == &["CRM1"]), "{error}");
        assert!(matches!(registry.remove_outgoing("x").unwrap_err(), RegistryError::UnknownOutgoing { .. }));
        assert!(matches!(registry.remove_connection("x").unwrap_err(), RegistryError::UnknownConnection { .. }));
        let mandatory = Outgoing::new("crm").confirms(ConfirmMode::None).mandatory(true);
        let error = registry.set_outgoing("CRM1", mandatory).unwrap_err();
        assert!(matches!(&error, RegistryError::Settings { name, .. } if name == "CRM1"), "{error}");
        assert!(registry.outgoing("CRM1").unwrap().mandatory.is_none(), "nothing was changed");

        let error = within("an error", registry.send_to("CRM1", Target::queue("nowhere"), "x")).await.unwrap_err();
        let sent = error.send_error().unwrap();
        assert_eq!((sent.kind(), error.outcome()), (ErrorKind::Returned, Outcome::Refused));

        within("closing", registry.close_within(PATIENCE)).await;
        let error = registry.send_to("CRM1", Target::queue("q"), "x").await.unwrap_err();
        assert!(matches!(error, RegistryError::Closed), "{error}");
        assert!(matches!(registry.set_outgoing("x", Outgoing::new("crm")).unwrap_err(), RegistryError::Closed));
        assert!(within("closing", registry.close_within(PATIENCE)).await.is_clean());
    }
}

/// A name in memory of the program's, which asks the registry when it is dropped, and writes down whether that answers.
fn asking(registry: &Registry, answers: &mpsc::Sender<bool>) -> Target {
    struct Asking(Registry, mpsc::Sender<bool>);
    impl AsRef<[u8]> for Asking {
        fn as_ref(&self) -> &[u8] {
            b"q"
        }
    }
    impl Drop for Asking {
        fn drop(&mut self) {
            let (registry, (tell, told)) = (self.0.clone(), mpsc::channel());
            thread::spawn(move || tell.send(registry.outgoing_names()));
            self.1.send(told.recv_timeout(PATIENCE / 4).is_ok()).unwrap();
        }
    }
    Target::queue(Bytes::from_owner(Asking(registry.clone(), answers.clone())))
}

/// An owner's `drop` is code of the program's: it runs where the registry can be asked.
#[test]
fn settings_are_dropped_where_no_lock_is_held() {
    let registry = Registry::new();
    registry.set_connection("crm", Client::builder("amqp://nobody.example").unwrap()).unwrap();
    let (answers, answered) = mpsc::channel();
    let outgoing = |connection: &str| Outgoing::new(connection).target(asking(&registry, &answers));
    let all_answered = |what: &str| {
        let answers: Vec<bool> = answered.try_iter().collect();
        assert_eq!(answers, [true], "{what}");
    };

    registry.set_outgoing("a", outgoing("erp")).unwrap_err();
    all_answered("no such connection");
    registry.set_outgoing("a", outgoing("crm").confirms(ConfirmMode::None).mandatory(true)).unwrap_err();
    all_answered("they make no sense");
    for active in [true, false] {
        drop(registry.set_outgoing("a", outgoing("crm").active(active)).unwrap());
        drop(registry.edit_outgoing("a", |entry| entry.target = None).unwrap());
        all_answered("edited");
        drop(registry.set_outgoing("a", outgoing("crm").active(active)).unwrap());
        drop(registry.set_outgoing("b", Outgoing::new("crm")).unwrap());
        drop(registry.rename_outgoing("b", "a").unwrap());
        all_answered("replaced by another one");
        drop(registry.set_outgoing("a", outgoing("crm").active(active)).unwrap());
        drop(registry.remove_outgoing("a").unwrap());
        all_answered("removed");
    }
    drop(registry.set_outgoing("a", outgoing("crm")).unwrap());
    drop(registry.set_outgoing("b", outgoing("crm").active(false)).unwrap());
    running::run(async { drop(registry.close_within(PATIENCE).await) });
    assert_eq!(answered.try_iter().collect::<Vec<_>>(), [true, true], "closed");
    registry.set_outgoing("a", outgoing("crm")).unwrap_err();
    all_answered("closed before");
}

on_its_own! {
    /// Confirms are held back, so that everything is on its way when the entry is edited, its connection replaced, and both removed.
    async fn z16_changes_lose_nothing_that_is_on_its_way() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let second = Server::broker().await;
        let second_channel = prepared(&second).await;
        let registry = registry(&server, Outgoing::new("crm").target(Target::queue("q")));
        server.in_the_box().hold_confirms(true);
        let mut waiting = Vec::new();
        let mut retired = Vec::new();
        let mut in_flight = 0;
        for change in 0..3 {
            for _ in 0..10 {
                let (registry, number) = (registry.clone(), in_flight);
                waiting.push(tokio::spawn(async move { registry.send("CRM1", format!("{number}")).await }));
                in_flight += 1;
            }
            // One that nobody waits for.
            drop(within("room", registry.post("CRM1", "posted")).await.unwrap());
            in_flight += 1;
            let change = match change {
                0 => registry.edit_outgoing("CRM1", |outgoing| outgoing.properties = Properties::new().app_id("new")),
                1 => registry.set_connection("crm", Client::builder(&server.url).unwrap()),
                _ => {
                    // All of them have begun by now, or they would be sent to the second broker.
                    arrived(&channel, in_flight).await;
                    registry.set_connection("crm", Client::builder(&second.url).unwrap())
                }
            };
            retired.push(change.unwrap());
        }
        let pending: usize = retired.iter().map(|retired| retired.in_flight()).sum();
        assert_eq!(pending, 33, "held back");

        // New messages go the new way, while the old ones still wait.
        within("a receipt", registry.send("CRM1", "new")).await.unwrap();
        assert_eq!(count(&second_channel).await, 1);
        let closing: Vec<_> = retired.into_iter().map(|retired| tokio::spawn(retired.close_within(PATIENCE))).collect();
        assert!(waiting.iter().all(|task| !task.is_finished()));
        server.in_the_box().hold_confirms(false);
        for task in waiting {
            assert_eq!(within("a receipt", task).await.unwrap().unwrap().status, Status::Accepted);
        }
        for task in closing {
            let report = within("the old connection ends", task).await.unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
        assert_eq!(count(&channel).await, 33);

        registry.remove_outgoing("CRM1").unwrap();
        let last = registry.remove_connection("crm").unwrap();
        assert!(within("closing", last.close_within(PATIENCE)).await.is_clean());
        assert!(registry.outgoing_names().is_empty() && registry.connection_names().is_empty());
    }

    /// What was replaced can simply be dropped: the messages still end, and then the old connection goes by itself.
    async fn z16_what_was_replaced_ends_in_the_background() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let registry = registry(&server, Outgoing::new("crm").target(Target::queue("q")));
        server.in_the_box().hold_confirms(true);
        let sending = tokio::spawn({
            let registry = registry.clone();
            async move { registry.send("CRM1", "x").await }
        });
        arrived(&channel, 1).await;
        // It goes with the old connection, and then nobody takes what is sent to it.
        let own = registry.client("crm").unwrap().as_amqp().await.unwrap().open_channel().await.unwrap();
        own.queue_declare("own").exclusive(true).await.unwrap();
        drop(own);
        registry.remove_outgoing("CRM1").unwrap();
        registry.remove_connection("crm").unwrap();
        server.in_the_box().hold_confirms(false);
        assert_eq!(within("a receipt", sending).await.unwrap().unwrap().status, Status::Accepted);
        channel.confirm_select().await.unwrap();
        until("the old connection goes", async || {
            let confirm = channel.basic_publish("", "own", "x").mandatory(true).await.unwrap();
            matches!(confirm.await.unwrap(), Confirmation::Ack(Some(_)))
        })
        .await;
    }

    /// Waiting for one's turn is part of the deadline: nobody waits for as many deadlines as there are others.
    async fn one_deadline_for_those_that_are_sent_alone() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let registry = registry(&server, Outgoing::new("crm").timeout(Duration::from_millis(300)));
        let send = || registry.send_alone("CRM1", Target::queue("q"), "x");
        // From then on there is a channel, and whoever has his turn sends at once.
        until("a receipt", async || send().await.is_ok()).await;
        let before = count(&channel).await;
        server.in_the_box().hold_confirms(true);
        let sends = within("ten errors", futures_util::future::join_all((0..10).map(|_| send()))).await;
        let outcomes: Vec<_> = sends.into_iter().map(|sent| sent.unwrap_err().send_error().unwrap().clone()).collect();
        assert!(outcomes.iter().all(|error| error.kind() == ErrorKind::Timeout), "{outcomes:?}");
        let unsent: Vec<_> = outcomes.iter().filter(|error| error.outcome() == Outcome::NotSent).collect();
        assert_eq!(unsent.len(), 9, "{outcomes:?}");
        assert!(unsent.iter().all(|error| error.message().is_some_and(|(_, message)| message.body() == b"x")));
        assert_eq!(count(&channel).await, before + 1);
    }

    async fn what_is_not_confirmed_in_time_is_handed_back() {
        let server = Server::broker().await;
        let channel = prepared(&server).await;
        let registry = registry(&server, Outgoing::new("crm").target(Target::queue("q")));
        server.in_the_box().hold_confirms(true);
        drop(within("room", registry.post("CRM1", "x")).await.unwrap());
        arrived(&channel, 1).await;
        let retired = registry.deactivate("CRM1").unwrap();
        let report = within("closing", retired.close_within(Duration::from_millis(50))).await;
        assert_eq!(report.unconfirmed.len(), 1, "{report:?}");
        assert_eq!(report.unconfirmed[0].message.body(), b"x");
        assert_eq!(count(&channel).await, 1);
    }
}

on_every_server! {
    async fn z1_ka5_messages_can_be_posted_and_asked_for_later(server: Server) {
        let channel = prepared(server).await;
        let registry = registry(server, Outgoing::new("crm").target(Target::queue("q")));
        for number in 0..10 {
            drop(within("room", registry.post("CRM1", format!("{number}"))).await.unwrap());
        }
        drop(within("room", registry.post_to("CRM1", Target::queue("nowhere"), "lost")).await.unwrap());
        let report = within("a report", registry.flush("CRM1")).await.unwrap();
        assert_eq!(report.len(), 11);
        assert_eq!(report.failed().map(|(at, error)| (at, error.kind())).collect::<Vec<_>>(), [(10, ErrorKind::Returned)]);

        // Without confirms nobody is asked.
        registry.edit_outgoing("CRM1", |outgoing| outgoing.confirms = ConfirmMode::None).unwrap();
        let receipt = within("a receipt", registry.send("CRM1", "x")).await.unwrap();
        assert_eq!(receipt.status, Status::NotRequested);
        arrived(&channel, 11).await;
    }

    async fn renaming_keeps_the_settings(server: Server) {
        let channel = prepared(server).await;
        let registry = registry(server, Outgoing::new("crm").target(Target::queue("q")));
        registry.rename_outgoing("CRM1", "CRM2").unwrap();
        assert_eq!(registry.outgoing_names(), ["CRM2"]);
        within("a receipt", registry.send("CRM2", "x")).await.unwrap();
        registry.rename_outgoing("CRM2", "CRM2").unwrap();
        within("a receipt", registry.send("CRM2", "x")).await.unwrap();
        assert_eq!(count(&channel).await, 2);
        assert!(registry.rename_outgoing("CRM1", "x").is_err());
    }

    /// Whoever changes an entry while somebody else removes it does not bring it back.
    async fn what_was_removed_stays_removed(server: Server) {
        let registry = registry(server, Outgoing::new("crm").target(Target::queue("q")));
        let late = registry.edit_outgoing("CRM1", |outgoing| {
            registry.remove_outgoing("CRM1").unwrap();
            outgoing.active = true;
        });
        assert!(matches!(late, Err(RegistryError::UnknownOutgoing { .. })), "{late:?}");
        assert!(registry.outgoing_names().is_empty());
    }

    /// One that is sent alone is the reason for what the server says of its channel, and shares the blame with nobody.
    async fn a_message_sent_alone_takes_the_blame_alone(server: Server) {
        let channel = prepared(server).await;
        let registry = Arc::new(registry(server, Outgoing::new("crm")));
        let sends: Vec<_> = (0..20)
            .map(|at| {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move {
                    let target = if at % 2 == 0 { Target::queue("q") } else { Target::exchange("missing", "") };
                    registry.send_alone("CRM1", target, "x").await.map_err(|error| error.send_error().unwrap().kind())
                })
            })
            .collect();
        for (at, send) in sends.into_iter().enumerate() {
            let result = within("a result", send).await.unwrap().map(|receipt| receipt.status);
            assert_eq!(result, if at % 2 == 0 { Ok(Status::Accepted) } else { Err(ErrorKind::ChannelClosed) }, "{at}");
        }
        assert_eq!(count(&channel).await, 10);
    }
}

#[test]
fn a_registry_shows_no_secrets() {
    let registry = Registry::new();
    registry.set_connection("crm", Client::builder("amqp://u:hush@localhost/v").unwrap()).unwrap();
    registry.set_outgoing("CRM1", Outgoing::new("crm")).unwrap();
    let shown = format!("{registry:?} {:?}", registry.client("crm").unwrap());
    assert!(shown.contains("CRM1") && !shown.contains("hush"), "{shown}");
}

on_every_server! {
    /// The receiving side of a registry is its clients.
    async fn z13_a_connection_of_the_registry_receives_as_well(server: Server) {
        prepared(server).await;
        let registry = registry(server, Outgoing::new("crm").target(Target::queue("q")));
        within("a receipt", registry.send("CRM1", "x")).await.unwrap();
        let client = registry.client("crm").unwrap();
        client.ping(PATIENCE).await.unwrap();
        let mut receiver = within("a receiver", client.receiver(Source::queue("q")).build()).await.unwrap();
        let delivery = within("a delivery", receiver.recv()).await.unwrap().unwrap();
        assert_eq!(delivery.body(), b"x");
        delivery.accept().unwrap();
    }
}
