// The life of a client (see ../main.rs), through RabbitMQ's own client for Java: java -cp 'JARS/*' JavaClient.java URL

import com.rabbitmq.client.*;
import java.util.List;
import java.util.Map;
import java.util.concurrent.*;

public class JavaClient {
    static final Map<String, Object> DEAD_LETTERS = Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead");
    static final BlockingQueue<Delivery> CANCELLED = new LinkedBlockingQueue<>();

    interface Use { void of(Channel channel) throws Exception; }

    static void say(Object... words) {
        System.out.println(String.join(" ", java.util.Arrays.stream(words).map(String::valueOf).toList()));
    }

    /** What the server says when it closes the channel. */
    static void refused(Connection connection, String word, Use what) throws Exception {
        Channel channel = connection.createChannel();
        try {
            what.of(channel);
        } catch (java.io.IOException error) {
            AMQP.Channel.Close close = (AMQP.Channel.Close) ((ShutdownSignalException) error.getCause()).getReason();
            say(word, close.getReplyCode(), close.getReplyText());
        }
    }

    static String text(Delivery delivery) { return new String(delivery.getBody()); }

    static BlockingQueue<Delivery> consume(Channel channel, String queue, boolean autoAck, String tag) throws Exception {
        BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, autoAck, tag, (itsTag, delivery) -> deliveries.add(delivery), itsTag -> CANCELLED.add(
            new Delivery(null, null, itsTag.getBytes())));
        return deliveries;
    }

    static Delivery next(BlockingQueue<Delivery> deliveries) throws Exception {
        Delivery delivery = deliveries.poll(20, TimeUnit.SECONDS);
        if (delivery == null) throw new TimeoutException("nothing came");
        return delivery;
    }

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        try (Connection connection = factory.newConnection()) {
            live(connection);
        }
        say("closed");
    }

    static void live(Connection connection) throws Exception {
        refused(connection, "missing", other -> other.queueDeclarePassive("nowhere"));

        Channel channel = connection.createChannel();
        channel.exchangeDeclare("events", "topic", true);
        channel.queueDeclare("dead", true, false, false, null);
        AMQP.Queue.DeclareOk declared = channel.queueDeclare("work", true, false, false, DEAD_LETTERS);
        say("declared", declared.getQueue(), declared.getMessageCount(), declared.getConsumerCount());
        channel.queueBind("work", "events", "order.*.#");
        refused(connection, "differs", other -> other.queueDeclare("work", false, false, false, DEAD_LETTERS));

        BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
        channel.addReturnListener(returns::add);
        channel.confirmSelect();
        for (int number = 0; number < 100; number++) {
            Map<String, Object> headers = Map.of("number", number, "text", "hare", "flag", true, "list", List.of(1, 2),
                "nested", Map.of("deep", "down"));
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().contentType("text/plain").headers(headers)
                .deliveryMode(2).messageId("id-" + number).build();
            channel.basicPublish("events", "order.new." + number, true, properties, String.valueOf(number).getBytes());
        }
        channel.waitForConfirmsOrDie(20_000);
        say("confirmed", 100);
        channel.basicPublish("events", "nobody", true, null, "lost".getBytes());
        channel.waitForConfirmsOrDie(20_000);
        Return returned = returns.poll(20, TimeUnit.SECONDS);
        say("returned", returned.getReplyCode(), returned.getReplyText(), returned.getExchange(), returned.getRoutingKey());

        channel.basicQos(10);
        BlockingQueue<Delivery> work = consume(channel, "work", false, "working");
        for (int inOrder = 0;;) {
            Delivery delivery = next(work);
            long tag = delivery.getEnvelope().getDeliveryTag();
            if (delivery.getEnvelope().isRedeliver()) {
                say("again", text(delivery));
            } else if (inOrder == 5 && text(delivery).equals("5")) {
                inOrder++;
                channel.basicNack(tag, false, true);
                continue;
            } else {
                if (inOrder == 0) {
                    AMQP.BasicProperties properties = delivery.getProperties();
                    Map<String, Object> headers = properties.getHeaders();
                    say("properties", properties.getContentType(), properties.getMessageId(), properties.getDeliveryMode());
                    List<?> list = (List<?>) headers.get("list");
                    say("headers", headers.get("number"), headers.get("text"), headers.get("flag"), list.get(0) + "," + list.get(1),
                        ((Map<?, ?>) headers.get("nested")).get("deep"));
                }
                if (text(delivery).equals(String.valueOf(inOrder))) inOrder++;
            }
            if (text(delivery).equals("99")) {
                channel.basicReject(tag, false);
                say("consumed", inOrder);
                break;
            }
            channel.basicAck(tag, false);
        }
        channel.basicCancel("working");

        Delivery dead = next(consume(channel, "dead", true, "mourning"));
        Map<?, ?> death = (Map<?, ?>) ((List<?>) dead.getProperties().getHeaders().get("x-death")).get(0);
        say("dead", text(dead), death.get("reason"), death.get("queue"), death.get("exchange"), death.get("count"));
        channel.basicCancel("mourning");

        channel.basicPublish("", "work", null, new byte[1_000_000]);
        channel.waitForConfirmsOrDie(20_000);
        GetResponse got = channel.basicGet("work", false);
        say("got", got.getBody().length, got.getMessageCount());
        channel.basicAck(got.getEnvelope().getDeliveryTag(), false);
        say("got", channel.basicGet("work", true) == null ? "nothing" : "something");

        Channel transaction = connection.createChannel();
        transaction.txSelect();
        transaction.basicPublish("", "work", null, "rolled back".getBytes());
        transaction.txRollback();
        transaction.basicPublish("", "work", null, "committed".getBytes());
        transaction.txCommit();
        say("transaction", channel.messageCount("work"));
        channel.queuePurge("work");

        BlockingQueue<Delivery> answers = consume(channel, "amq.rabbitmq.reply-to", true, "asking");
        AMQP.BasicProperties asked = new AMQP.BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").correlationId("7").build();
        channel.basicPublish("", "work", asked, "ping".getBytes());
        channel.waitForConfirmsOrDie(20_000);
        AMQP.BasicProperties question = channel.basicGet("work", true).getProps();
        AMQP.BasicProperties answer = new AMQP.BasicProperties.Builder().correlationId(question.getCorrelationId()).build();
        channel.basicPublish("", question.getReplyTo(), answer, "pong".getBytes());
        say("answered", text(next(answers)));

        consume(channel, "work", true, "doomed");
        channel.queueDelete("work");
        next(CANCELLED);
        say("cancelled");
    }
}
