import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isApiError } from '../../src/api/client/error.ts';
import { kinds } from '../../src/api/kinds.ts';
import { podNamed, TestApi } from './harness.ts';

const configMap = (name: string, labels: Record<string, string> = {}) => ({
  apiVersion: 'v1' as const,
  kind: 'ConfigMap' as const,
  metadata: { name, namespace: 'default', labels },
});

interface Seen {
  readonly type: string;
  readonly name: string;
  readonly version: string;
}

interface Follower {
  readonly labelSelector: string;
  /** After how many events the connection is dropped, again and again. */
  readonly breaks: readonly number[];
}

/** Watches until `until` says enough, dropping the connection as told and resuming from the last version seen. */
async function follow(
  api: TestApi,
  from: string,
  { labelSelector, breaks }: Follower,
  wanted: number,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  let version = from;
  for (let round = 0; seen.length < wanted; round++) {
    const stop = new AbortController();
    let left = breaks[round % breaks.length] ?? 1;
    const selector = labelSelector === '' ? {} : { labelSelector };
    const events = api.client.watch(kinds.ConfigMap, { resourceVersion: version, signal: stop.signal, ...selector });
    for await (const event of events) {
      version = event.resourceVersion;
      if (event.type !== 'BOOKMARK') seen.push({ type: event.type, name: event.entry.key, version });
      if (seen.length >= wanted || --left <= 0) break;
    }
    stop.abort();
  }
  return seen;
}

test('watchers that come and go see every change exactly once, in order, as their selectors see it', async (t) => {
  const api = await TestApi.start(t);
  const operation = fc.record({
    name: fc.constantFrom('a', 'b', 'c'),
    color: fc.constantFrom('red', 'blue', undefined),
  });
  const follower = fc.record({
    labelSelector: fc.constantFrom('', 'color=red', 'color!=red'),
    breaks: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 1, maxLength: 25 }),
      fc.array(follower, { minLength: 1, maxLength: 3 }),
      async (operations, followers) => {
        const { resourceVersion: start } = await api.client.list(kinds.ConfigMap);
        const colors = new Map<string, string>();
        const expected = followers.map((): Seen[] => []);
        const selects = (selector: string, color: string | undefined) =>
          color !== undefined && (selector === '' || (selector === 'color=red') === (color === 'red'));
        const note = (name: string, before: string | undefined, after: string | undefined, version: string) =>
          followers.forEach(({ labelSelector }, i) => {
            const was = selects(labelSelector, before);
            const is = selects(labelSelector, after);
            const type = is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED';
            if (was || is) expected[i]?.push({ type, name: `default/${name}`, version });
          });
        const write = async (name: string, color: string | undefined) => {
          const before = colors.get(name);
          const ref = { namespace: 'default', name };
          if (color === undefined) {
            if (before === undefined) return;
            await api.client.delete(kinds.ConfigMap, ref);
            colors.delete(name);
            note(name, before, undefined, String(Number((await api.client.list(kinds.ConfigMap)).resourceVersion)));
            return;
          }
          const stored =
            before === undefined
              ? await api.client.create(kinds.ConfigMap, configMap(name, { color }))
              : await api.client.patch(kinds.ConfigMap, ref, {
                  type: 'merge',
                  patch: { metadata: { labels: { color } }, data: { n: String(Math.random()) } },
                });
          colors.set(name, color);
          note(name, before, color, stored.metadata.resourceVersion);
        };
        // Half of the changes come before the watchers, so that they have something to catch up with.
        const half = Math.floor(operations.length / 2);
        for (const { name, color } of operations.slice(0, half)) await write(name, color);
        const rest = async () => {
          for (const { name, color } of operations.slice(half)) await write(name, color);
          for (const name of [...colors.keys()]) await write(name, undefined);
        };
        await rest();
        const seen = await Promise.all(followers.map((one, i) => follow(api, start, one, expected[i]?.length ?? 0)));
        assert.deepEqual(seen, expected);
      },
    ),
    { numRuns: 20 },
  );
});

test('a watch without a version begins with what is there; bookmarks say where it is', async (t) => {
  const api = await TestApi.start(t, { bookmarkMs: 50 });
  await api.client.create(kinds.ConfigMap, configMap('a'));
  await api.client.create(kinds.ConfigMap, configMap('b'));
  const later = await api.client.create(kinds.Pod, podNamed('unrelated'));
  const types: string[] = [];
  for await (const event of api.client.watch(kinds.ConfigMap)) {
    types.push(event.type);
    if (event.type !== 'BOOKMARK') continue;
    assert.equal(event.resourceVersion, later.metadata.resourceVersion);
    break;
  }
  assert.deepEqual(types, ['ADDED', 'ADDED', 'BOOKMARK']);
});

test('a watch ends when its time is up, with a bookmark', async (t) => {
  const api = await TestApi.start(t);
  const types: string[] = [];
  for await (const event of api.client.watch(kinds.Pod, { resourceVersion: '1', timeoutSeconds: 1 }))
    types.push(event.type);
  assert.deepEqual(types, ['BOOKMARK']);
});

test('streamed initial events end with their mark', async (t) => {
  const api = await TestApi.start(t);
  await api.client.create(kinds.ConfigMap, configMap('a'));
  const query =
    'watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1';
  const answer = await api.raw(`/api/v1/configmaps?${query}`);
  const lines: { type: string; object: { metadata: { name?: string; annotations?: object } } }[] = answer.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ type }) => type),
    ['ADDED', 'BOOKMARK', 'BOOKMARK'],
  );
  assert.deepEqual(lines[1]?.object.metadata.annotations, { 'k8s.io/initial-events-end': 'true' });
  for (const refused of [
    'watch=1&sendInitialEvents=true',
    'watch=1&resourceVersionMatch=NotOlderThan',
    'watch=1&resourceVersion=x',
    'watch=maybe',
  ])
    assert.ok([400, 422].includes((await api.raw(`/api/v1/configmaps?${refused}`)).status), refused);
});

test('a version from before the history is Expired; one from the future is not there yet', async (t) => {
  const api = await TestApi.start(t, { historyEvents: 3 });
  for (let i = 0; i < 8; i++) await api.client.create(kinds.ConfigMap, configMap(`c${i}`));
  const start = async (resourceVersion: string) => {
    for await (const event of api.client.watch(kinds.ConfigMap, { resourceVersion })) return event.type;
    return 'ended';
  };
  await assert.rejects(start('1'), (error) => isApiError(error, 'Expired') && error.status === 410);
  await assert.rejects(start('99999'), (error) => isApiError(error, 'Timeout'));
});
