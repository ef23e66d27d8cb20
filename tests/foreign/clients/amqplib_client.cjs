// The life of a client (see ../main.rs), through amqplib: node amqplib_client.cjs URL. It has no transactions.
const amqp = require('amqplib');
const { once } = require('node:events');

const say = (...words) => console.log(...words);
const deadLetters = { arguments: { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead' } };

// What the server says when it closes the channel.
async function refused(connection, word, what) {
  const channel = await connection.createChannel();
  const closed = once(channel, 'error');
  await what(channel).catch(() => {});
  const [error] = await closed;
  say(word, error.code, error.message.match(/"(.*)"/)[1].replace(/^\d+ \([A-Z-]+\) with message "/, ''));
}

// Hands each message to `take`, until that says something.
function consume(channel, queue, options, take) {
  return new Promise((resolve, reject) => {
    let subscription;
    const done = async (result) => {
      await channel.cancel((await subscription).consumerTag);
      resolve(result);
    };
    subscription = channel.consume(queue, (message) => {
      const result = take(message);
      if (result !== undefined) done(result).catch(reject);
    }, options);
    subscription.catch(reject);
  });
}

async function main() {
  const connection = await amqp.connect(process.argv[2]);
  await refused(connection, 'missing', (channel) => channel.checkQueue('nowhere'));

  const channel = await connection.createConfirmChannel();
  await channel.assertExchange('events', 'topic');
  await channel.assertQueue('dead');
  const declared = await channel.assertQueue('work', deadLetters);
  say('declared', declared.queue, declared.messageCount, declared.consumerCount);
  await channel.bindQueue('work', 'events', 'order.*.#');
  await refused(connection, 'differs', (other) => other.assertQueue('work', { ...deadLetters, durable: false }));

  for (let number = 0; number < 100; number++) {
    const headers = { number, text: 'hare', flag: true, list: [1, 2], nested: { deep: 'down' } };
    const properties = { contentType: 'text/plain', headers, persistent: true, messageId: `id-${number}`, mandatory: true };
    channel.publish('events', `order.new.${number}`, Buffer.from(String(number)), properties);
  }
  await channel.waitForConfirms();
  say('confirmed', 100);
  const returning = once(channel, 'return');
  channel.publish('events', 'nobody', Buffer.from('lost'), { mandatory: true });
  const [{ fields: returned }] = await returning;
  say('returned', returned.replyCode, returned.replyText, returned.exchange, returned.routingKey);

  await channel.prefetch(10);
  let inOrder = 0;
  const consumed = await consume(channel, 'work', {}, (message) => {
    const { headers, contentType, messageId, deliveryMode } = message.properties;
    const body = message.content.toString();
    if (message.fields.redelivered) {
      say('again', body);
    } else if (inOrder === 5 && body === '5') {
      inOrder += 1;
      channel.nack(message, false, true);
      return undefined;
    } else {
      if (inOrder === 0) {
        say('properties', contentType, messageId, deliveryMode);
        say('headers', headers.number, headers.text, headers.flag, headers.list.join(','), headers.nested.deep);
      }
      inOrder += body === String(inOrder);
    }
    if (body === '99') {
      channel.reject(message, false);
      return inOrder;
    }
    channel.ack(message);
    return undefined;
  });
  say('consumed', consumed);

  const dead = await consume(channel, 'dead', {}, (message) => (channel.ack(message), message));
  const death = dead.properties.headers['x-death'][0];
  say('dead', dead.content.toString(), death.reason, death.queue, death.exchange, death.count);

  channel.sendToQueue('work', Buffer.alloc(1_000_000, 'x'));
  await channel.waitForConfirms();
  const got = await channel.get('work');
  say('got', got.content.length, got.fields.messageCount);
  channel.ack(got);
  say('got', await channel.get('work') ? 'something' : 'nothing');

  let answer;
  const answered = new Promise((resolve) => { answer = resolve; });
  await channel.consume('amq.rabbitmq.reply-to', answer, { noAck: true });
  channel.sendToQueue('work', Buffer.from('ping'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '7' });
  await channel.waitForConfirms();
  const question = await channel.get('work', { noAck: true });
  channel.sendToQueue(question.properties.replyTo, Buffer.from('pong'), { correlationId: question.properties.correlationId });
  say('answered', (await answered).content.toString());

  const cancelled = new Promise((resolve) => {
    channel.consume('work', (message) => message === null && resolve()).then(() => channel.deleteQueue('work'));
  });
  await cancelled;
  say('cancelled');
  await connection.close();
  say('closed');
}

main().catch((error) => { console.error(error); process.exit(1); });
