// Google's SDK for Node at models whose upstreams speak other APIs. BASE: https://…; KEY; MODELS: by the API; VECTORS.
import { GoogleGenAI, Type } from '@google/genai';
import { BASE, KEY, assert, check, raised } from './cases.mjs';

const MODELS = JSON.parse(process.env.MODELS);
const VECTORS = JSON.parse(process.env.VECTORS);
const made = (apiKey, more = {}) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: BASE, ...more } });
const ai = made(KEY);
const SCHEMA = { type: Type.OBJECT, properties: { city: { type: Type.STRING } }, required: ['city'] };
const TOOLS = [{ functionDeclarations: [{ name: 'weather', description: 'The weather.', parameters: SCHEMA }] }];

async function gathered(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}
const partsOf = (found) => found.flatMap((one) => one.candidates?.[0]?.content?.parts ?? []);
const textOf = (found) => partsOf(found).filter((part) => !part.thought).map((part) => part.text ?? '').join('');

for (const [up, model] of Object.entries(MODELS)) {
  const test = (name, work) => check(`${up}: ${name}`, work);

  await test('an answer and a stream', async () => {
    const whole = await ai.models.generateContent({ model, contents: 'Say hello.' });
    assert.equal(whole.text, 'Hello there.');
    assert.ok(whole.usageMetadata.totalTokenCount > 0);
    const found = await gathered(await ai.models.generateContentStream({ model, contents: 'Say hello.' }));
    assert.equal(textOf(found), 'Hello there.');
    assert.equal(found.at(-1).candidates[0].finishReason, 'STOP');
  });

  await test('a loop of tools', async () => {
    const contents = [{ role: 'user', parts: [{ text: 'Where does it rain?' }] }];
    const config = { tools: TOOLS, thinkingConfig: { includeThoughts: true } };
    const first = await gathered(await ai.models.generateContentStream({ model, contents, config }));
    const parts = partsOf(first);
    const call = parts.find((part) => part.functionCall).functionCall;
    assert.deepEqual([call.name, call.args], ['weather', { city: 'Paris' }]);
    const functionResponse = { id: call.id, name: call.name, response: { result: 'dry in Paris' } };
    contents.push({ role: 'model', parts }, { role: 'user', parts: [{ functionResponse }] });
    assert.equal((await ai.models.generateContent({ model, contents, config })).text, 'It is dry.');
  });

  await test('an answer of a shape', async () => {
    const config = { responseMimeType: 'application/json', responseSchema: SCHEMA };
    const found = await ai.models.generateContent({ model, contents: 'Shape it.', config });
    assert.deepEqual(JSON.parse(found.text), { city: 'Paris' });
  });

  await test('an image', async () => {
    const inlineData = { mimeType: 'image/png', data: 'iVBORw0KGgo=' };
    const found = await ai.models.generateContent({ model, contents: [{ inlineData }, 'Say hello.'] });
    assert.equal(found.text, 'Hello there.');
  });

  await test('a chat', async () => {
    const chat = ai.chats.create({ model });
    assert.equal((await chat.sendMessage({ message: 'Say hello.' })).text, 'Hello there.');
    assert.equal(textOf(await gathered(await chat.sendMessageStream({ message: 'Say hello.' }))), 'Hello there.');
    assert.equal(chat.getHistory().filter((one) => one.role === 'user').length, 2);
  });

  await test('tokens are counted', async () => {
    const { totalTokens } = await ai.models.countTokens({ model, contents: 'Say hello.' });
    assert.ok(totalTokens > 0 && totalTokens < 100);
  });

  await test('it asks again after a failure', async () => {
    const patient = made(KEY, { retryOptions: { attempts: 5 } });
    assert.equal((await patient.models.generateContent({ model, contents: 'Fail once.' })).text, 'Hello there.');
  });
}

for (const [up, model] of Object.entries(VECTORS)) {
  await check(`${up}: embeddings`, async () => {
    const found = await ai.models.embedContent({ model, contents: ['one', 'two'] });
    assert.equal(found.embeddings.length, 2);
    assert.ok(found.embeddings[0].values.length);
  });
}

await check('models are listed', async () => {
  const found = await gathered(await ai.models.list({ config: { pageSize: 2 } }));
  for (const model of Object.values(MODELS)) assert.ok(found.some((one) => one.name === `models/${model}`));
});

await check('errors have the shape of the API', async () => {
  const unknown = await raised(() => ai.models.generateContent({ model: 'none', contents: 'Hi.' }), 404);
  assert.match(unknown.message, /NOT_FOUND/);
  const refused = await raised(() => made('sk-wrong').models.generateContent({ model: 'none', contents: 'Hi.' }), 401);
  assert.match(refused.message, /UNAUTHENTICATED/);
});
process.exit(0);
