"""The life of a client (see ../main.rs), through pika: pika_client.py URL"""

import sys

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError


def say(*words):
    print(*words, flush=True)


connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))


def refused(word, what):
    """What the server says when it closes the channel."""
    channel = connection.channel()
    try:
        what(channel)
    except ChannelClosedByBroker as error:
        say(word, error.reply_code, error.reply_text)


refused("missing", lambda channel: channel.queue_declare("nowhere", passive=True))

channel = connection.channel()
channel.exchange_declare("events", "topic", durable=True)
channel.queue_declare("dead", durable=True)
dead_letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
declared = channel.queue_declare("work", durable=True, arguments=dead_letters).method
say("declared", declared.queue, declared.message_count, declared.consumer_count)
channel.queue_bind("work", "events", "order.*.#")
refused("differs", lambda channel: channel.queue_declare("work", durable=False, arguments=dead_letters))

channel.confirm_delivery()
for number in range(100):
    headers = {"number": number, "text": "hare", "flag": True, "list": [1, 2], "nested": {"deep": "down"}}
    properties = pika.BasicProperties("text/plain", headers=headers, delivery_mode=2, message_id=f"id-{number}")
    channel.basic_publish("events", f"order.new.{number}", str(number).encode(), properties, mandatory=True)
say("confirmed", 100)
try:
    channel.basic_publish("events", "nobody", b"lost", mandatory=True)
except UnroutableError as error:
    returned = error.messages[0].method
    say("returned", returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key)

channel.basic_qos(prefetch_count=10)
in_order = 0
for method, properties, body in channel.consume("work"):
    if method.redelivered:
        say("again", body.decode())
    elif in_order == 5 and body == b"5":
        channel.basic_nack(method.delivery_tag, requeue=True)
        in_order += 1
        continue
    else:
        if in_order == 0:
            headers = properties.headers
            say("properties", properties.content_type, properties.message_id, properties.delivery_mode)
            say("headers", headers["number"], headers["text"], str(headers["flag"]).lower(),
                ",".join(map(str, headers["list"])), headers["nested"]["deep"])
        in_order += body == str(in_order).encode()
    if body == b"99":
        channel.basic_reject(method.delivery_tag, requeue=False)
        break
    channel.basic_ack(method.delivery_tag)
say("consumed", in_order)
channel.cancel()

for method, properties, body in channel.consume("dead"):
    death = properties.headers["x-death"][0]
    say("dead", body.decode(), death["reason"], death["queue"], death["exchange"], death["count"])
    channel.basic_ack(method.delivery_tag)
    break
channel.cancel()

channel.basic_publish("", "work", b"x" * 1_000_000)
method, properties, body = channel.basic_get("work")
say("got", len(body), method.message_count)
channel.basic_ack(method.delivery_tag)
say("got", "nothing" if channel.basic_get("work")[0] is None else "something")

transaction = connection.channel()
transaction.tx_select()
transaction.basic_publish("", "work", b"rolled back")
transaction.tx_rollback()
transaction.basic_publish("", "work", b"committed")
transaction.tx_commit()
say("transaction", channel.queue_declare("work", passive=True).method.message_count)
channel.queue_purge("work")

answers = []
channel.basic_consume("amq.rabbitmq.reply-to", lambda *answer: answers.append(answer[3]), auto_ack=True)
question = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="7")
channel.basic_publish("", "work", b"ping", question)
method, properties, body = channel.basic_get("work", auto_ack=True)
channel.basic_publish("", properties.reply_to, b"pong", pika.BasicProperties(correlation_id=properties.correlation_id))
while not answers:
    connection.process_data_events(time_limit=1)
say("answered", answers[0].decode())

cancelled = []
channel.add_on_cancel_callback(lambda _: cancelled.append(True))
channel.basic_consume("work", lambda *_: None)
connection.channel().queue_delete("work")
while not cancelled:
    connection.process_data_events(time_limit=1)
say("cancelled")
connection.close()
say("closed")
