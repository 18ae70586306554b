// Realtime sessions with OpenAI's SDK for Node, by both of its websockets and in both forms of the API.
// BASE: https://…/v1; KEY; MODEL; EVENTS: a file with what is said of everything; DIRECT: at the upstream itself.
import { readFileSync } from 'node:fs';
import OpenAI, { AzureOpenAI } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { OpenAIRealtimeTranslationWS } from 'openai/realtime/translations/ws';
import { OpenAIRealtimeWS as OlderWS } from 'openai/beta/realtime/ws';
import { OpenAIRealtimeWebSocket as OlderWebSocket } from 'openai/beta/realtime/websocket';
import { BASE, KEY, MODEL, assert, check, raised, within } from './cases.mjs';

const DIRECT = Boolean(process.env.DIRECT);
const EVENTS = JSON.parse(readFileSync(process.env.EVENTS));
const AUDIO = Buffer.alloc(4800).toString('base64');
const TRANSCRIPTION = 'conversation.item.input_audio_transcription';
const client = (apiKey = KEY, more = {}) => new OpenAI({ baseURL: BASE, apiKey, maxRetries: 0, ...more });

class Session {
  constructor(rt, lasting = true) {
    Object.assign(this, { rt, events: [], errors: [], waiting: [], read: 0, over: null });
    const wake = () => this.waiting.splice(0).forEach((go) => go());
    rt.on('event', (event) => {
      this.events.push(event);
      wake();
    });
    rt.on('error', (error) => {
      this.errors.push(error);
      wake();
    });
    rt.socket.addEventListener('open', wake);
    this.closed = new Promise((resolve) => {
      rt.socket.addEventListener('close', (event) => {
        resolve([event.code, event.reason]);
        if (lasting) this.over = event.code;
        wake();
      });
    });
  }
  async until(look) {
    while (!look()) {
      if (this.over) throw new Error(`closed with ${this.over}: ${this.errors.map((error) => error.message)}`);
      await within(120_000, new Promise((go) => this.waiting.push(go)), `waited in vain: ${look}`);
    }
  }
  async event(type) {
    let found;
    await this.until(() => {
      while (this.read < this.events.length && !found) {
        const event = this.events[this.read++];
        if (event.type === type) found = event;
      }
      return found;
    });
    return found;
  }
  end() {
    this.rt.close();
    return this.closed;
  }
}

const open = (Kind, props = { model: MODEL }, from = client()) => new Session(new Kind(props, from), !props.reconnect);
const say = (session, type, more = {}) => session.rt.send({ type, ...more });
const close = (session, how) => say(session, 'conversation.item.delete', { item_id: `close ${how}` });

for (const [kind, Kind, Older] of [
  ['ws', OpenAIRealtimeWS, OlderWS],
  ['websocket', OpenAIRealtimeWebSocket, OlderWebSocket],
]) {
  const test = (name, work) => check(`${kind}: ${name}`, work);

  await test('every event comes as it was sent', async () => {
    const session = open(Kind);
    const heard = new Set();
    for (const { type } of EVENTS) if (type !== 'error') session.rt.on(type, (event) => heard.add(event.type));
    await session.event('session.created');
    say(session, 'response.create', { response: { metadata: { say: 'everything' } } });
    await session.event('response.done');
    assert.deepEqual(session.events.slice(1), EVENTS);
    assert.equal(heard.size, EVENTS.length - 1);
    assert.equal(session.errors.length, 1);
    const told = EVENTS.find((event) => event.type === 'error');
    assert.deepEqual(session.errors[0].error, told.error);
    assert.equal(session.errors[0].event_id, told.event_id);
    await session.end();
  });

  await test('every event of a client is answered', async () => {
    const session = open(Kind);
    await session.event('session.created');
    const settings = { type: 'realtime', output_modalities: ['text'], instructions: 'Be brief.' };
    say(session, 'session.update', { session: settings });
    assert.equal((await session.event('session.updated')).session.instructions, 'Be brief.');
    say(session, 'input_audio_buffer.append', { audio: AUDIO });
    say(session, 'input_audio_buffer.commit');
    assert.equal((await session.event('input_audio_buffer.committed')).item_id, 'item_1');
    const item = { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Hi.' }] };
    say(session, 'conversation.item.create', { item });
    assert.deepEqual((await session.event('conversation.item.done')).item.content, item.content);
    say(session, 'conversation.item.retrieve', { item_id: 'item_1' });
    assert.equal((await session.event('conversation.item.retrieved')).item.id, 'item_1');
    say(session, 'conversation.item.truncate', { item_id: 'item_1', content_index: 0, audio_end_ms: 10 });
    assert.equal((await session.event('conversation.item.truncated')).audio_end_ms, 10);
    say(session, 'conversation.item.delete', { item_id: 'item_1' });
    assert.equal((await session.event('conversation.item.deleted')).item_id, 'item_1');
    session.rt.sendResponseCreate({ type: 'response.create', response: { input: [{ type: 'item_reference', id: 'item_1' }] } });
    assert.equal((await session.event('response.output_text.done')).text, 'Hello there.');
    assert.equal((await session.event('response.done')).response.usage.output_tokens, 10);
    say(session, 'response.cancel', { response_id: 'resp_none', event_id: 'mine' });
    await session.until(() => session.errors.length);
    assert.equal(session.errors[0].error.code, 'response_cancel_not_active');
    assert.equal(session.errors[0].error.event_id, 'mine');
    say(session, 'output_audio_buffer.clear');
    await session.event('output_audio_buffer.cleared');
    say(session, 'input_audio_buffer.clear');
    await session.event('input_audio_buffer.cleared');
    assert.equal((await session.end())[0], 1000);
  });

  await test('the older form of the API', async () => {
    const session = open(Older);
    await session.event('session.created');
    say(session, 'session.update', { session: { modalities: ['text'], instructions: 'Be brief.' } });
    assert.equal((await session.event('session.updated')).session.instructions, 'Be brief.');
    say(session, 'response.create');
    await session.event('response.done');
    await session.end();
  });

  for (const [code, reason] of [[1000, ''], [1001, 'the session has ended'], [1011, 'server error'], [4000, 'session_expired']]) {
    await test(`closed by the upstream with ${code}`, async () => {
      const session = open(Kind);
      await session.event('session.created');
      close(session, `${code} ${reason}`);
      const [found] = await session.closed;
      assert.equal(found, code);
    });
  }

  await test('it connects again after a restart', async () => {
    const props = { model: MODEL, reconnect: true, reconnectInitialDelay: 10, maxReconnectAttempts: 3 };
    const session = open(Kind, props);
    const seen = [];
    session.rt.on('reconnecting', () => seen.push('reconnecting'));
    session.rt.on('reconnected', () => seen.push('reconnected'));
    await session.event('session.created');
    close(session, '1012 restart');
    await session.event('session.created');
    say(session, 'response.create');
    await session.event('response.done');
    assert.deepEqual(seen, ['reconnecting', 'reconnected']);
    session.rt.close();
  });

  await test('a call is made, joined and hung up', async () => {
    const sdk = client();
    const made = await sdk.realtime.calls.create({ sdp: 'v=0\r\n', session: { type: 'realtime', model: MODEL } });
    assert.match(await made.text(), /^v=0\r\n/);
    const callID = made.headers.get('location').split('/').at(-1);
    const session = open(Kind, { callID }, sdk);
    await session.until(() => session.rt.socket.readyState === 1 || session.errors.length);
    say(session, 'response.create');
    await session.event('response.done');
    await sdk.realtime.calls.hangup(callID);
    await session.closed;
    const until404 = async () => {
      for (;;) await sdk.realtime.calls.hangup(callID); // until the portal has noticed that it is over
    };
    await raised(until404, 404);
  });

  if (DIRECT) continue;

  await test('what the portal refuses is named by its id', async () => {
    const session = open(Kind);
    await session.event('session.created');
    say(session, 'session.update', { event_id: 'mine', session: { type: 'realtime', model: 'gpt-other' } });
    await session.until(() => session.errors.length);
    const [{ error }] = session.errors;
    assert.deepEqual([error.code, error.param, error.event_id], ['model_not_allowed', 'session.model', 'mine']);
    say(session, 'response.create');
    await session.event('response.done');
    await session.end();
  });

  await test('a handshake is refused', async () => {
    for (const [props, from] of [[{ model: 'none' }, client()], [{ model: MODEL }, client('sk-wrong')]]) {
      const session = open(Kind, props, from);
      await session.until(() => session.errors.length);
      if (kind === 'ws') assert.match(session.errors[0].message, props.model === 'none' ? /404/ : /401/);
    }
  });

  await test('it does not connect again where it is refused', async () => {
    const session = open(Kind, { model: 'none', reconnect: true, reconnectInitialDelay: 10, maxReconnectAttempts: 2 });
    const seen = [];
    session.rt.on('reconnecting', () => seen.push('reconnecting'));
    await session.until(() => session.errors.length);
    if (kind === 'ws') assert.deepEqual(seen, [], 'browsers do not know why');
    session.rt.close();
  });

  await test('an organization and a project are named', async () => {
    const session = open(Kind, { model: MODEL }, client(KEY, { organization: 'org-x', project: 'proj_y' }));
    await session.event('session.created');
    await session.end();
  });

  await test('the key comes from a function', async () => {
    const from = client(async () => KEY);
    const session = new Session(await Kind.create(from, { model: MODEL }));
    await session.event('session.created');
    await session.end();
  });

  await test('a client secret opens its session', async () => {
    const sdk = client();
    const session = { type: 'realtime', model: MODEL, instructions: 'By secret.' };
    const made = await sdk.realtime.clientSecrets.create({ session, expires_after: { anchor: 'created_at', seconds: 60 } });
    assert.match(made.value, /^ek_/);
    assert.equal(made.session.instructions, 'By secret.');
    const opened = open(Kind, { model: MODEL }, client(made.value));
    assert.equal((await opened.event('session.updated')).session.instructions, 'By secret.');
    say(opened, 'response.create');
    await opened.event('response.done');
    await opened.end();
    const older = await sdk.beta.realtime.sessions.create({ model: MODEL, instructions: 'By secret.' });
    const second = open(Older, { model: MODEL }, client(older.client_secret.value));
    await second.event('session.updated');
    await second.end();
    await raised(() => client(made.value).models.list(), 401);
  });

  for (const by of ['secret', 'older secret', 'first event']) {
    await test(`a transcription by ${by}`, async () => {
      const sdk = client();
      const session = { type: 'transcription', audio: { input: { transcription: { model: MODEL } } } };
      let key = KEY;
      if (by === 'secret') key = (await sdk.realtime.clientSecrets.create({ session })).value;
      if (by === 'older secret') {
        const made = await sdk.beta.realtime.transcriptionSessions.create({ input_audio_transcription: { model: MODEL } });
        key = made.client_secret.value;
      }
      const opened = open(Kind, { intent: 'transcription' }, client(key));
      await opened.until(() => opened.rt.socket.readyState === 1 || opened.errors.length);
      if (by === 'first event') say(opened, 'session.update', { session });
      say(opened, 'input_audio_buffer.append', { audio: AUDIO });
      say(opened, 'input_audio_buffer.commit');
      assert.equal((await opened.event(`${TRANSCRIPTION}.delta`)).delta, 'hello');
      assert.equal((await opened.event(`${TRANSCRIPTION}.completed`)).transcript, 'hello there');
      await opened.end();
    });
  }

  await test('of Azure', async () => {
    const azure = new AzureOpenAI({ endpoint: BASE.replace(/\/v1$/, ''), apiKey: KEY, apiVersion: '2025-04-01-preview', deployment: MODEL });
    const session = new Session(await Kind.azure(azure));
    await session.event('session.created');
    await session.end();
  });
}

if (!DIRECT) {
  await check('calls by telephone are not served', async () => {
    const { calls } = client().realtime;
    await raised(() => calls.accept('rtc_x', { type: 'realtime', model: MODEL }), 404);
    await raised(() => calls.reject('rtc_x'), 404);
    await raised(() => calls.refer('rtc_x', { target_uri: 'tel:+1' }), 404);
  });

  await check('translations are not served', async () => {
    await raised(() => client().realtime.translations.clientSecrets.create({ session: { model: MODEL } }), 404);
    const rt = await OpenAIRealtimeTranslationWS.create(client(), { model: MODEL });
    const refused = new Promise((resolve) => rt.on('error', resolve));
    const { cause, message } = await within(120_000, refused, 'it was not refused');
    assert.match(`${message} ${cause?.message}`, /4\d\d/);
  });
}
process.exit(0);
