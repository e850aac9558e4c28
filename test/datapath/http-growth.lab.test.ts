import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { statusesOf } from '../support/http-talk.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { asking, get, HttpPods, policy } from './http-pods.ts';

/** Tables about requests grow, and connections that were read before are judged by the larger ones. */
runInOwnNamespace();

const pods = new HttpPods();
const small = { policy: 4, http_rows: 64, http_accepts: 8, http_alternatives: 4, http_cells: 4, http_matchers: 4 };
before(() => pods.start(small));
after(() => pods.close());

/** So many paths may be asked for, of which none is another policy's of another size. */
const paths = (count: number) =>
  policy(asking(...Array.from({ length: count }, (_, i) => ({ method: 'GET', path: `/of-${count}/number-${i}` }))));

const ask = async (path: string) => statusesOf(await pods.say('old', [get(path)]));

test('a connection that is read goes on over growth, by the tables as they are then', async () => {
  await pods.enforce(paths(1));
  assert.deepEqual(await ask('/of-1/number-0'), [200]);
  let capacity = pods.datapath.usage().http_rows?.capacity ?? 0;
  for (const [before, count] of [
    [1, 20],
    [20, 200],
  ] as const) {
    await pods.enforce(paths(count));
    const rows = pods.datapath.usage().http_rows;
    assert.ok(rows !== undefined && rows.capacity > capacity && rows.grownFrom === small.http_rows);
    ({ capacity } = rows);
    assert.deepEqual(await ask(`/of-${count}/number-${count - 1}`), [200]);
    assert.deepEqual(await ask(`/of-${before}/number-0`), [403]);
    assert.deepEqual(statusesOf(await pods.say(`new ${count}`, [get(`/of-${count}/number-0`)])), [200]);
  }
  assert.equal(pods.server.take().length, 5);
});
