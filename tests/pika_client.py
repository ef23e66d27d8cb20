"""pika, a client in Python, against the server whose URL is the argument. Run by tests/command.rs."""

import sys

import pika
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError, UnroutableError

PERSISTENT = pika.BasicProperties(
    delivery_mode=2,
    content_type="text/plain",
    timestamp=1_700_000_000,
    headers={"text": "één", "number": 7, "large": 2**40, "yes": True, "nothing": None, "list": [1, "a", {"b": 2}]},
)


def closed_by_broker(code, text, call):
    """A channel of its own, on which something is refused."""
    channel = connection.channel()
    try:
        call(channel)
    except ChannelClosedByBroker as error:
        assert (error.reply_code, error.reply_text) == (code, text), error
    else:
        raise AssertionError(f"{code} was expected")
    assert channel.is_closed and connection.is_open


parameters = pika.URLParameters(sys.argv[1])
connection = pika.BlockingConnection(parameters)
channel = connection.channel()

# Confirms, and what comes back.
channel.confirm_delivery()
assert channel.queue_declare("q", durable=True).method.message_count == 0
channel.basic_publish("", "q", b"one hare", PERSISTENT, mandatory=True)
channel.basic_publish("", "q", b"x" * 300_000, mandatory=True)
try:
    channel.basic_publish("", "nowhere", b"lost", mandatory=True)
    raise AssertionError("it has no queue")
except UnroutableError as error:
    assert [message.body for message in error.messages] == [b"lost"]
    assert (error.messages[0].method.reply_code, error.messages[0].method.reply_text) == (312, "NO_ROUTE")

# One at a time, given back, and got again.
method, properties, body = channel.basic_get("q")
assert (body, properties.headers, properties.timestamp) == (b"one hare", PERSISTENT.headers, 1_700_000_000), properties
assert method.message_count == 1 and not method.redelivered
channel.basic_nack(method.delivery_tag, requeue=True)
channel.basic_qos(prefetch_count=1)
bodies = []
for method, properties, body in channel.consume("q", inactivity_timeout=10):
    bodies.append((method.redelivered, len(body)))
    channel.basic_ack(method.delivery_tag)
    if len(bodies) == 2:
        break
assert bodies == [(True, 8), (False, 300_000)], bodies
assert channel.cancel() == 0
assert channel.basic_get("q") == (None, None, None)

# Exchanges of every type, and a binding between two of them.
for exchange, arguments, key, headers in [
    ("direct", None, "k", None),
    ("fanout", None, "", None),
    ("topic", None, "a.*.#", None),
    ("headers", {"x-match": "any", "h": 1}, "", {"h": 1}),
]:
    channel.exchange_declare(exchange, exchange, auto_delete=True)
    channel.queue_bind("q", exchange, key, arguments)
    channel.basic_publish(exchange, key.replace("*", "b").replace("#", "c.d"), b"m", pika.BasicProperties(headers=headers))
channel.exchange_declare("outer", "fanout")
channel.exchange_bind("topic", "outer")
channel.basic_publish("outer", "a.b", b"m", mandatory=True)
assert channel.queue_purge("q").method.message_count == 5

# A transaction.
transaction = connection.channel()
transaction.tx_select()
transaction.basic_publish("", "q", b"rolled back")
transaction.tx_rollback()
transaction.basic_publish("", "q", b"committed")
transaction.tx_commit()
assert transaction.basic_get("q", auto_ack=True)[2] == b"committed"
transaction.close()

# A reply, straight back.
replies = []
asker = connection.channel()
asker.basic_consume("amq.rabbitmq.reply-to", lambda *reply: replies.append(reply[3]), auto_ack=True)
asker.basic_publish("", "q", b"?", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
_, properties, _ = channel.basic_get("q", auto_ack=True)
channel.basic_publish("", properties.reply_to, b"!")
while not replies:
    connection.process_data_events(time_limit=10)
assert replies == [b"!"]

# What ends: a consumer, a channel, a connection.
cancelled = []
asker.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
tag = asker.basic_consume("q", lambda *_: None)
channel.queue_delete("q")
while not cancelled:
    connection.process_data_events(time_limit=10)
assert cancelled == [tag]
closed_by_broker(404, "NOT_FOUND - no queue 'q' in vhost '/'", lambda on: on.queue_declare("q", passive=True))
closed_by_broker(
    403,
    "ACCESS_REFUSED - exchange name 'amq.own' contains reserved prefix 'amq.*'",
    lambda on: on.exchange_declare("amq.own", "direct"),
)
closed_by_broker(
    406,
    "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'outer' in vhost '/': received 'direct' but current is 'fanout'",
    lambda on: on.exchange_declare("outer", "direct"),
)
connection.close()

for change, exception, text in [
    ({"virtual_host": "nowhere"}, ProbableAccessDeniedError, "(530) 'NOT_ALLOWED - vhost nowhere not found'"),
    (
        {"credentials": pika.PlainCredentials("guest", "wrong")},
        ProbableAuthenticationError,
        "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
    ),
]:
    parameters = pika.URLParameters(sys.argv[1])
    for name, value in change.items():
        setattr(parameters, name, value)
    try:
        pika.BlockingConnection(parameters)
        raise AssertionError("it was let in")
    except exception as error:
        assert text in repr(error), error
print("done")
