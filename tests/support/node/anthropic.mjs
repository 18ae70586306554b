// Anthropic's SDK for Node at models whose upstreams speak other APIs. BASE: https://…; KEY; MODELS: by the API.
import Anthropic from '@anthropic-ai/sdk';
import { BASE, KEY, assert, check, raised } from './cases.mjs';

const MODELS = JSON.parse(process.env.MODELS);
const client = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const user = (content) => [{ role: 'user', content }];
const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const WEATHER = { name: 'weather', description: 'The weather in a city.', input_schema: SCHEMA };
const PNG = 'iVBORw0KGgo=';
const textOf = (message) => message.content.filter((block) => block.type === 'text').map((block) => block.text).join('');

for (const [up, model] of Object.entries(MODELS)) {
  const test = (name, work) => check(`${up}: ${name}`, work);
  const body = { model, max_tokens: 3000 };

  await test('a message and a stream', async () => {
    const whole = await client.messages.create({ ...body, messages: user('Say hello.') });
    assert.equal(textOf(whole), 'Hello there.');
    assert.match(whole._request_id, /^req_/);
    const seen = [];
    const stream = client.messages.stream({ ...body, messages: user('Say hello.') });
    stream.on('text', (text) => seen.push(text));
    assert.equal(await stream.finalText(), 'Hello there.');
    assert.equal(seen.join(''), 'Hello there.');
    const kinds = [];
    for await (const event of await client.messages.create({ ...body, messages: user('Say hello.'), stream: true })) {
      kinds.push(event.type);
    }
    assert.equal(kinds[0], 'message_start');
    assert.equal(kinds.at(-1), 'message_stop');
  });

  await test('a loop of tools', async () => {
    const messages = user('Where does it rain?');
    const first = await client.messages.stream({ ...body, messages, tools: [WEATHER] }).finalMessage();
    assert.equal(first.stop_reason, 'tool_use');
    const call = first.content.find((block) => block.type === 'tool_use');
    assert.deepEqual(call.input, { city: 'Paris' });
    messages.push({ role: 'assistant', content: first.content });
    messages.push(...user([{ type: 'tool_result', tool_use_id: call.id, content: 'dry in Paris' }]));
    const last = await client.messages.create({ ...body, messages, tools: [WEATHER] });
    assert.equal(textOf(last), 'It is dry.');
  });

  await test('the runner of tools', async () => {
    const tool = { ...WEATHER, type: 'custom', run: ({ city }) => `dry in ${city}`, parse: (input) => input };
    const runner = client.beta.messages.toolRunner({ ...body, messages: user('Where does it rain?'), tools: [tool] });
    assert.equal(textOf(await runner.runUntilDone()), 'It is dry.');
  });

  await test('thoughts come back', async () => {
    const thinking = { type: 'enabled', budget_tokens: 2000 };
    const messages = user('Where does it rain?');
    const first = await client.messages.create({ ...body, messages, tools: [WEATHER], thinking });
    assert.equal(first.content[0].type, 'thinking');
    const call = first.content.find((block) => block.type === 'tool_use');
    messages.push({ role: 'assistant', content: first.content });
    messages.push(...user([{ type: 'tool_result', tool_use_id: call.id, content: 'dry in Paris' }]));
    assert.equal(textOf(await client.messages.create({ ...body, messages, tools: [WEATHER], thinking })), 'It is dry.');
  });

  await test('an answer of a shape', async () => {
    const format = { type: 'json_schema', schema: { ...SCHEMA, additionalProperties: false } };
    const found = await client.messages.create({ ...body, messages: user('Shape it.'), output_config: { format } });
    assert.deepEqual(JSON.parse(textOf(found)), { city: 'Paris' });
  });

  await test('an image and a document', async () => {
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PNG } };
    const pdf = { type: 'document', source: { type: 'base64', media_type: 'application/pdf', data: 'JVBERi0xLjcK' } };
    const messages = user([image, pdf, { type: 'text', text: 'Say hello.' }]);
    assert.equal(textOf(await client.messages.create({ ...body, messages })), 'Hello there.');
  });

  await test('tokens are counted', async () => {
    const { input_tokens: found } = await client.messages.countTokens({ model, messages: user('Say hello.') });
    assert.ok(found > 0 && found < 100);
  });

  await test('it asks again after a failure', async () => {
    const patient = client.withOptions({ maxRetries: 4 });
    assert.equal(textOf(await patient.messages.create({ ...body, messages: user('Fail once.') })), 'Hello there.');
  });

  await test('it is not let sleep for hours', async () => {
    const patient = client.withOptions({ maxRetries: 2 });
    await raised(() => patient.messages.create({ ...body, messages: user('Wait for hours.') }), 429);
  });
}

await check('models are listed', async () => {
  const found = [];
  for await (const model of client.models.list({ limit: 2 })) found.push(model.id);
  for (const model of Object.values(MODELS)) assert.ok(found.includes(model));
});

await check('errors have the shape of the API', async () => {
  const unknown = await raised(() => client.messages.create({ model: 'none', max_tokens: 9, messages: user('Hi.') }), 404);
  assert.equal(unknown.error.error.type, 'not_found_error');
  const wrong = client.withOptions({ apiKey: 'sk-wrong' });
  const refused = await raised(() => wrong.messages.create({ model: 'none', max_tokens: 9, messages: user('Hi.') }), 401);
  assert.equal(refused.error.error.type, 'authentication_error');
});
process.exit(0);
