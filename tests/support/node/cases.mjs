// What the scripts here share: a case is a function that throws where something is not as it must be.
import assert from 'node:assert/strict';

export { assert };
export const { BASE, KEY, MODEL } = process.env;

export async function check(name, work) {
  let error = '';
  try {
    await within(300_000, work(), 'the case took too long');
  } catch (found) {
    error = `${found?.name}: ${found?.message}`.slice(0, 2000) || 'unknown';
  }
  console.log(JSON.stringify({ case: name, error }));
}

export async function within(milliseconds, promise, message) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(message)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export async function raised(work, status, match = {}) {
  let found;
  try {
    await work();
  } catch (error) {
    found = error;
  }
  assert.ok(found, `nothing was raised, ${status} was expected`);
  assert.equal(found.status, status, found.message);
  for (const [name, value] of Object.entries(match)) assert.equal(found[name], value, `${name}: ${found.message}`);
  return found;
}
