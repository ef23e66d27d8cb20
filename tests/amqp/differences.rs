//! Where other servers differ from what a test wants, each with the reason: the tests of `on_every_server!` run against all of
//! `tests/run`'s servers, and these are the lists of exceptions, the only ones. RabbitMQ 3.10 and 4.0 have none.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// What is done with a test that is in the list.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It is run, and has to fail: an exception that is no longer one is found.
    Fails,
    /// It is not run: it would wait long for what does not come, or succeed now and fail then.
    Skip,
}

use Then::{Fails, Skip};

/// garagemq hands its socket one frame at a time, from one thread for each consumer, one for the confirms of each channel (50
/// times a second) and one for everything else. So whatever leaves on a channel while a delivery or a return does can end up in
/// the middle of it ("the server sent a confirm in the middle of a message"), now and then, and no client can make sense of that.
/// Tests in which that can happen are not run; those that have nothing else on the channel of a delivery are.
const MIXES: &str = "what it sends on one channel at the same time is mixed, frame by frame";

/// What an operator does to the server.
const NO_OPERATOR: &str = "it cannot be told to close connections, and has no alarms (connection.blocked)";

/// Test, what becomes of it, and why.
type Exception = (&'static str, Then, &'static str);

const GARAGEMQ: &[Exception] = &[
    ("chaos::anything_in_any_order", Skip, "no basic.recover (540)"),
    ("coalescing::acks_come_before_recover_and_the_end", Fails, "no basic.recover (540)"),
    ("coalescing::acks_in_a_transaction", Skip, "no answer to the class tx"),
    ("connecting::a_wrong_password_is_an_error_of_its_own", Fails, "a refused login is 530, not 403"),
    ("connecting::an_unknown_virtual_host_is_refused", Fails, "an unknown virtual host is 402, not 530"),
    ("connecting::logs_in_with_each_mechanism", Fails, "only PLAIN"),
    ("connecting::the_secret_can_be_replaced", Skip, "connection.update-secret takes the server down"),
    ("consuming::a_consume_that_is_given_up", Skip, MIXES),
    ("consuming::a_consumer_that_does_not_read", Skip, "queue.delete is not answered under load"),
    ("consuming::a_queue_is_deleted_under_its_consumer", Skip, "queue.delete is not answered then"),
    ("consuming::consumers_with_priorities", Skip, "no consumer priorities"),
    ("consuming::direct_reply_to", Fails, "no direct reply-to"),
    ("consuming::prefetch_for_the_whole_channel", Skip, MIXES),
    ("consuming::prefetch_limits_what_is_unsettled", Skip, MIXES),
    ("ending::a_channel_ends_while_it_delivers", Skip, "frames that cross its channel.close are 501"),
    ("ending::channels_end_apart", Skip, "frames that cross its channel.close are 501"),
    ("ending::closes_that_cross", Skip, "frames that cross its channel.close are 501"),
    ("ending::closing_flushes", Skip, "what was published right before a close may be lost"),
    ("expiring::a_provider_is_asked", Skip, "connection.update-secret takes the server down"),
    ("logins::a_wrong_password_is_known_without_a_word", Fails, "it always gives its reason"),
    ("logins::the_preferred_mechanism_is_taken", Fails, "only PLAIN"),
    ("messages::all_properties_and_all_types_of_headers", Skip, "an empty body is never confirmed"),
    ("messages::bodies_around_the_size_of_a_frame", Skip, "an empty body is never confirmed"),
    ("messages::headers_larger_than_a_frame", Fails, "the test has frames of 131072 octets, these are smaller"),
    ("messages::large_messages", Skip, "an empty body is never confirmed"),
    ("outages::an_operator_closes_the_connections", Skip, NO_OPERATOR),
    ("outages::closing_while_blocked", Skip, NO_OPERATOR),
    ("outages::the_server_is_gone_while_blocked", Skip, NO_OPERATOR),
    ("outages::the_server_is_short_of_memory", Skip, NO_OPERATOR),
    ("publishing::a_full_queue_refuses", Fails, "no limits of queues"),
    ("publishing::an_unroutable_mandatory_message_comes_back", Fails, "other words: No route"),
    ("publishing::confirms_and_deliveries_are_counted_apart", Skip, MIXES),
    ("publishing::exactly_the_unroutable_ones_come_back", Skip, MIXES),
    ("publishing::forgotten_confirms", Skip, MIXES),
    ("publishing::immediate_is_not_implemented", Fails, "540 closes the channel, not the connection"),
    ("publishing::publishing_to_an_exchange_that_is_not_there", Fails, "the content behind it is 501"),
    ("publishing::returns_of_messages_that_look_alike", Skip, MIXES),
    ("publishing::somebody_elses_user_id_is_refused", Fails, "the user id is not looked at"),
    ("settling::closing_a_channel_gives_back_what_is_unsettled", Fails, "not marked as redelivered"),
    ("settling::each_way_of_settling", Fails, "what is put back comes in another order"),
    ("settling::fetching", Fails, "basic.get-ok counts differently"),
    ("settling::recovering", Fails, "no basic.recover (540)"),
    ("sharing::the_last_handle_closes_the_connection", Skip, "what was published right before a close may be lost"),
    ("sharing::two_hundred_tasks_share_a_channel", Skip, MIXES),
    ("topology::a_queue_with_a_limit_drops_its_oldest", Fails, "no limits of queues"),
    ("topology::a_topic_exchange", Fails, "# does not stand for nothing"),
    ("topology::an_alternate_exchange", Fails, "no alternate exchanges"),
    ("topology::an_exclusive_queue", Fails, "others may consume from an exclusive queue"),
    ("topology::an_internal_exchange_takes_nothing_from_outside", Fails, "it does"),
    ("topology::binding_what_is_not_there", Fails, "no exchange.bind (540)"),
    ("topology::declaring_again_with_other_arguments", Fails, "arguments are not compared"),
    ("topology::deleting_only_what_nobody_needs", Fails, "deleting what is not there is 404"),
    ("topology::exchanges_bound_to_exchanges", Fails, "no exchange.bind (540)"),
    ("topology::rejected_messages_are_dead_lettered", Skip, "no dead letters"),
    ("topology::reserved_names", Fails, "names that begin with amq. are free"),
    ("topology::the_life_of_a_queue", Fails, "deleting what is not there is 404"),
    ("topology::the_server_names_a_queue", Fails, "a queue needs a name"),
    ("transactions::a_commit_needs_a_select", Skip, "no answer to the class tx"),
    ("transactions::acks_in_a_transaction", Skip, "no answer to the class tx"),
    ("transactions::commit_and_rollback", Skip, "no answer to the class tx"),
    ("transactions::transactions_and_confirms_exclude_each_other", Skip, "no answer to the class tx"),
];

/// A channel's error is the connection's, as the specification has it for some of them and RabbitMQ for none.
const HARD: &str = "what closes a channel at RabbitMQ closes the connection";

/// An unroutable message is nacked first, and returned after that.
const NACKED: &str = "what nobody gets is nacked, and comes back behind that";

const COUNTS: &str = "what is delivered and unsettled is counted as ready, too";

/// `qpid.max_count` and so on; 542 for those of RabbitMQ.
const OTHER_NAMES: &str = "arguments have names of its own";

const QPID: &[Exception] = &[
    ("chaos::anything_in_any_order", Skip, HARD),
    ("coalescing::acks_in_a_transaction", Skip, COUNTS),
    ("coalescing::consumers_and_gets_on_one_channel", Skip, "the limit of a channel holds for basic.get, too"),
    ("connecting::a_wrong_password_is_an_error_of_its_own", Fails, "a refused login is 530, not 403"),
    ("connecting::an_unknown_virtual_host_is_refused", Fails, "an unknown virtual host is 404, not 530"),
    ("connecting::logs_in_with_each_mechanism", Fails, "no AMQPLAIN"),
    ("connecting::opens_and_closes", Fails, "it does not announce its confirms"),
    ("connecting::the_secret_can_be_replaced", Fails, "connection.update-secret ends the connection"),
    ("consuming::a_dropped_consumer_gives_back_large_messages", Skip, COUNTS),
    ("consuming::a_dropped_consumer_gives_back_what_nobody_has_seen", Skip, COUNTS),
    ("consuming::a_queue_is_deleted_under_its_consumer", Skip, "its consumers are not told"),
    ("consuming::an_exclusive_consumer", Fails, HARD),
    ("consuming::direct_reply_to", Fails, "no direct reply-to"),
    ("consuming::prefetch_for_the_whole_channel", Skip, "a prefetch is the whole channel's, always"),
    ("consuming::prefetch_limits_what_is_unsettled", Skip, COUNTS),
    ("expiring::a_provider_is_asked", Fails, "connection.update-secret ends the connection"),
    ("logins::the_preferred_mechanism_is_taken", Fails, "no AMQPLAIN"),
    ("messages::all_properties_and_all_types_of_headers", Fails, "not all types of headers come through"),
    ("outages::an_operator_closes_the_connections", Skip, NO_OPERATOR),
    ("outages::closing_while_blocked", Skip, NO_OPERATOR),
    ("outages::the_server_is_gone_while_blocked", Skip, NO_OPERATOR),
    ("outages::the_server_is_short_of_memory", Skip, NO_OPERATOR),
    ("publishing::a_confirm_can_be_asked_twice", Fails, NACKED),
    ("publishing::a_full_queue_refuses", Fails, OTHER_NAMES),
    ("publishing::an_unroutable_mandatory_message_comes_back", Fails, NACKED),
    ("publishing::exactly_the_unroutable_ones_come_back", Skip, NACKED),
    ("publishing::immediate_is_not_implemented", Fails, "it is, here"),
    ("publishing::returns_of_messages_that_look_alike", Fails, NACKED),
    ("publishing::somebody_elses_user_id_is_refused", Fails, "the user id is not looked at"),
    ("settling::each_way_of_settling", Fails, COUNTS),
    ("settling::fetching", Fails, COUNTS),
    ("settling::recovering", Fails, "basic.recover without requeue is done"),
    ("sharing::many_channels_at_the_same_time", Fails, "256 channels at most"),
    ("topology::a_direct_exchange", Fails, NACKED),
    ("topology::a_headers_exchange", Fails, NACKED),
    ("topology::a_queue_with_a_limit_drops_its_oldest", Fails, OTHER_NAMES),
    ("topology::a_topic_exchange", Fails, NACKED),
    ("topology::an_alternate_exchange", Fails, OTHER_NAMES),
    ("topology::an_exclusive_queue", Fails, HARD),
    ("topology::an_internal_exchange_takes_nothing_from_outside", Fails, "it does"),
    ("topology::binding_what_is_not_there", Fails, "no exchange.bind: it ends the connection"),
    ("topology::declaring_again_with_other_arguments", Fails, OTHER_NAMES),
    ("topology::exchanges_bound_to_exchanges", Fails, "no exchange.bind: it ends the connection"),
    ("topology::rejected_messages_are_dead_lettered", Fails, OTHER_NAMES),
    ("topology::reserved_names", Fails, "names that begin with amq. are free"),
    ("topology::the_life_of_a_queue", Skip, COUNTS),
    ("topology::the_server_names_a_queue", Fails, "its names begin with tmp_"),
    ("transactions::a_commit_needs_a_select", Fails, "503, not 406"),
];

/// The server that stands in for RabbitMQ, and where it differs.
fn other_server() -> Option<(String, &'static [Exception])> {
    let script = std::env::var("LEVERET_OTHER").ok()?;
    let (_, name) = script.rsplit_once('/').unwrap();
    let list = match name {
        "garagemq" => GARAGEMQ,
        "qpid" => QPID,
        _ => panic!("nobody knows {name}"),
    };
    Some((name.to_owned(), list))
}

/// Runs a test against the server of `tests/run`, unless that is known to differ. `module` is the path of the test.
pub(crate) async fn against_rabbitmq(module: &str, test: impl Future<Output = ()>) {
    let (_, name) = module.split_once("::").unwrap();
    let exception = other_server().and_then(|(server, list)| {
        let (_, then, why) = list.iter().find(|(test, ..)| *test == name)?;
        Some((server, then, why))
    });
    match exception {
        None => test.await,
        Some((server, Skip, why)) => println!("not with {server}: {why}"),
        Some((server, Fails, why)) => {
            let failed = AssertUnwindSafe(test).catch_unwind().await.is_err();
            assert!(failed, "with {server}, too: the exception for {name} ({why}) can go");
        }
    }
}

/// A test that is renamed takes its exceptions along.
#[test]
fn what_is_listed_is_there() {
    for list in [GARAGEMQ, QPID] {
        for (at, (name, ..)) in list.iter().enumerate() {
            let (module, test) = name.split_once("::").unwrap();
            let path = format!("{}/tests/amqp/{module}.rs", env!("CARGO_MANIFEST_DIR"));
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(source.contains(&format!("async fn {test}(server: ")), "{name}");
            let before = list[..at].last().map(|(name, ..)| name);
            assert!(before < Some(name), "{name} is not where one would look for it");
        }
    }
}
