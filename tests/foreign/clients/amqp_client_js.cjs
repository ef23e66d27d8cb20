// The life of a client (see ../main.rs), through amqp-client.js: node amqp_client_js.cjs URL
const { AMQPClient } = require('@cloudamqp/amqp-client');

const say = (...words) => console.log(...words);

// What the server says when it closes the channel.
async function refused(connection, word, what) {
  const channel = await connection.channel();
  const { message } = await what(channel).then(() => new Error('nothing was refused'), (error) => error);
  const [, text, code] = message.match(/: (.*) \((\d+)\)$/) ?? [null, message, 0];
  say(word, code, text);
}

async function main() {
  const connection = await new AMQPClient(process.argv[2]).connect();
  connection.logger = null;
  await refused(connection, 'missing', (channel) => channel.queueDeclare('nowhere', { passive: true }));

  const channel = await connection.channel();
  const deadLetters = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead' };
  await channel.exchangeDeclare('events', 'topic', { durable: true });
  await channel.queueDeclare('dead', { durable: true });
  const declared = await channel.queueDeclare('work', { durable: true }, deadLetters);
  say('declared', declared.name, declared.messageCount, declared.consumerCount);
  await channel.queueBind('work', 'events', 'order.*.#');
  await refused(connection, 'differs', (other) => other.queueDeclare('work', { durable: false }, deadLetters));

  await channel.confirmSelect();
  const confirms = [];
  for (let number = 0; number < 100; number++) {
    const headers = { number, text: 'hare', flag: true, list: [1, 2], nested: { deep: 'down' } };
    const properties = { contentType: 'text/plain', headers, deliveryMode: 2, messageId: `id-${number}` };
    confirms.push(channel.basicPublish('events', `order.new.${number}`, String(number), properties, true));
  }
  await Promise.all(confirms);
  say('confirmed', confirms.length);
  const returning = new Promise((resolve) => { channel.onReturn = resolve; });
  await channel.basicPublish('events', 'nobody', 'lost', {}, true);
  const returned = await returning;
  say('returned', returned.replyCode, returned.replyText, returned.exchange, returned.routingKey);

  await channel.basicQos(10);
  let inOrder = 0;
  const consumer = await channel.basicConsume('work', { noAck: false });
  for await (const message of consumer.messages) {
    const { headers, contentType, messageId, deliveryMode } = message.properties;
    const body = message.bodyString();
    if (message.redelivered) {
      say('again', body);
    } else if (inOrder === 5 && body === '5') {
      inOrder += 1;
      await message.nack(true);
      continue;
    } else {
      if (inOrder === 0) {
        say('properties', contentType, messageId, deliveryMode);
        say('headers', headers.number, headers.text, headers.flag, headers.list.join(','), headers.nested.deep);
      }
      inOrder += body === String(inOrder);
    }
    if (body === '99') {
      await message.reject(false);
      break;
    }
    await message.ack();
  }
  say('consumed', inOrder);
  await consumer.cancel();

  const graves = await channel.basicConsume('dead', { noAck: false });
  for await (const message of graves.messages) {
    const death = message.properties.headers['x-death'][0];
    say('dead', message.bodyString(), death.reason, death.queue, death.exchange, death.count);
    await message.ack();
    break;
  }
  await graves.cancel();

  await channel.basicPublish('', 'work', Buffer.alloc(1_000_000, 'x'));
  const got = await channel.basicGet('work', { noAck: false });
  say('got', got.bodySize, got.messageCount);
  await got.ack();
  say('got', await channel.basicGet('work') ? 'something' : 'nothing');

  const transaction = await connection.channel();
  await transaction.txSelect();
  await transaction.basicPublish('', 'work', 'rolled back');
  await transaction.txRollback();
  await transaction.basicPublish('', 'work', 'committed');
  await transaction.txCommit();
  say('transaction', (await channel.queueDeclare('work', { passive: true })).messageCount);
  await channel.queuePurge('work');

  const answers = await channel.basicConsume('amq.rabbitmq.reply-to', { noAck: true });
  await channel.basicPublish('', 'work', 'ping', { replyTo: 'amq.rabbitmq.reply-to', correlationId: '7' });
  const question = await channel.basicGet('work', { noAck: true });
  await channel.basicPublish('', question.properties.replyTo, 'pong', { correlationId: question.properties.correlationId });
  for await (const answer of answers.messages) {
    say('answered', answer.bodyString());
    break;
  }

  const doomed = await channel.basicConsume('work', { noAck: true });
  await channel.queueDelete('work');
  const cancelled = await (async () => { for await (const _ of doomed.messages); })().then(() => true, () => true);
  if (cancelled) say('cancelled');
  await connection.close();
  say('closed');
}

main().catch((error) => { console.error(error); process.exit(1); });
