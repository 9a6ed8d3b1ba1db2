// A managed system that knows nothing of POLARIS but its AsyncAPI document. It reports its state, waits for an
// adaptation, tells what came of it, and says on standard output what it saw, one JSON object a line.
//
//     BUS_TOKEN=... node client.mjs DOCUMENT SYSTEM
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import Ajv from 'ajv';
import addFormats from 'ajv-formats';

const [path, system] = process.argv.slice(2);
const { document, diagnostics } = await new Parser().parse(await readFile(path, 'utf8'));
if (document === undefined) {
  throw new Error(diagnostics.map(({ message }) => message).join('\n'));
}
const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);

const say = (what, facts) => console.log(JSON.stringify({ what, ...facts }));

// Where messages of this name travel, when POLARIS does so with them.
function channelOf(name, action) {
  const carries = (operation) => operation.messages().all().some((message) => message.name() === name);
  const operation = document.operations().all().find((one) => one.action() === action && carries(one));
  return operation.channels().all()[0];
}

// One subject token, as the description of the parameter has it.
const token = (text) =>
  [...new TextEncoder().encode(text)]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z0-9_~:@=+,-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');

function subjectOf(channel) {
  return channel.parameters().all().reduce(
    (address, parameter) => address.replace(`{${parameter.id()}}`, token(system)),
    channel.address(),
  );
}

const messageOf = (name) => document.allMessages().all().find((message) => message.name() === name);

function problemsOf(name, event) {
  const message = messageOf(name);
  const validate = ajv.compile(message.payload().json());
  return validate(event) ? [] : validate.errors.map(({ instancePath, message: words }) => `${instancePath} ${words}`);
}

// An event like the example of the document, with an id and a time of its own.
function eventLike(name, id, change) {
  const event = structuredClone(messageOf(name).examples()[0].payload());
  Object.assign(event, { id, source: '/node-client', time: new Date().toISOString() });
  change(event);
  return event;
}

const server = document.servers().all()[0];
const bus = await connect({ servers: server.host(), token: process.env.BUS_TOKEN, name: 'node-client', timeout: 5000 });
const stream = jetstream(bus);

async function publish(name, event, id = event.id) {
  const payload = typeof event === 'string' ? event : JSON.stringify(event);
  const stored = await stream.publish(subjectOf(channelOf(name, 'receive')), payload, { msgID: id });
  return { stream: stored.stream, duplicate: stored.duplicate };
}

function telemetry(id, change = () => {}) {
  return eventLike('polaris.telemetry', id, (event) => {
    const state = event.data.system_state;
    Object.assign(event, { correlationid: 'from-node', subject: system });
    Object.assign(state, { system_id: system, timestamp: event.time, from_the_future: { colour: 'blue' } });
    change(state);
  });
}

// What no one can read: a time without its offset, a reading that is missing and 0 at once, and no JSON at all.
const broken = [
  telemetry('broken-time', (state) => (state.timestamp = '2026-01-31T12:00:00')),
  telemetry('broken-reading', (state) => (state.metrics.flow.value = 0)),
];
for (const event of broken) {
  say('refused', { id: event.id, problems: problemsOf('polaris.telemetry', event) });
  await publish('polaris.telemetry', event);
}
await publish('polaris.telemetry', 'not JSON', 'broken-bytes');

const single = telemetry('single');
const many = [telemetry('first-of-many'), telemetry('second-of-many')];
say('fits', { problems: [...problemsOf('polaris.telemetry', single), ...problemsOf('telemetry.batched', many)] });
say('stored', await publish('polaris.telemetry', single));
say('stored again', await publish('polaris.telemetry', single));
say('stored', await publish('telemetry.batched', many, 'many'));

const channel = channelOf('polaris.adaptation', 'send');
const kept = channel.extensions().get('x-polaris-stream').value();
const consumer = await stream.consumers.get(kept.name, { filter_subjects: [subjectOf(channel)] });
const asked = (await consumer.next({ expires: 15000 })).json();
say('asked', { event: asked, problems: problemsOf('polaris.adaptation', asked) });

const result = eventLike('polaris.execution', 'done', (event) => {
  event.correlationid = asked.correlationid;
  Object.assign(event.data.result, { action_id: asked.data.action.action_id, completed_at: event.time });
});
say('stored', await publish('polaris.execution', result));
await bus.drain();
