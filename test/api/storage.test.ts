import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sweepEvents } from '../../src/api/server/background/events.ts';
import { age } from '../../src/api/server/column.ts';
import { follow, parseJsonPath } from '../../src/api/server/jsonpath.ts';
import { History } from '../../src/api/server/storage/history.ts';
import { Store } from '../../src/api/server/storage/store.ts';

const object = (name: string, extra: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name, namespace: 'default' },
  ...extra,
});

function change(revision: number, size = 2) {
  return {
    revision,
    type: 'ADDED' as const,
    resource: '/events',
    key: String(revision),
    object: object('x'),
    json: 'x'.repeat(size),
    previous: undefined,
  };
}

test('history keeps the last changes within its bounds, and knows what it has forgotten', () => {
  const byNumber = new History({ events: 3, bytes: 1000 }, 10);
  assert.deepEqual(byNumber.after(10), []);
  assert.equal(byNumber.after(9), undefined);
  for (let revision = 11; revision <= 30; revision++) byNumber.push(change(revision));
  assert.equal(byNumber.floor, 27);
  assert.deepEqual(
    byNumber.after(27)?.map(({ revision }) => revision),
    [28, 29, 30],
  );
  assert.deepEqual(
    byNumber.after(29)?.map(({ revision }) => revision),
    [30],
  );
  assert.equal(byNumber.after(26), undefined);
  const byBytes = new History({ events: 100, bytes: 25 }, 0);
  for (let revision = 1; revision <= 5; revision++) byBytes.push(change(revision, 10));
  assert.equal(byBytes.floor, 3);
  byBytes.push(change(6, 100));
  assert.deepEqual([byBytes.floor, byBytes.after(6)], [6, []]);
});

test('events go an hour after they were last seen', () => {
  const store = new Store({ file: ':memory:', historyEvents: 10, historyBytes: 1000 });
  const now = Date.parse('2026-11-21T12:00:00Z');
  store.put('/events', object('old', { lastTimestamp: '2026-11-21T10:59:00Z' }));
  store.put(
    '/events',
    object('seen', { lastTimestamp: '2026-11-21T11:30:00Z', firstTimestamp: '2026-11-21T08:00:00Z' }),
  );
  store.put('/events', object('micro', { eventTime: '2026-11-21T11:59:00.123456Z' }));
  sweepEvents(store, now);
  assert.deepEqual(
    store.list('/events').map(({ key }) => key),
    ['default/micro', 'default/seen'],
  );
  store.close();
});

test('ages are what kubectl prints', () => {
  const now = Date.parse('2026-11-21T12:00:00Z');
  const ago = (seconds: number) => age(new Date(now - 1000 * seconds).toISOString(), now);
  const minute = 60;
  const hour = 60 * minute;
  const day = 24 * hour;
  assert.deepEqual(
    [
      0,
      119,
      120,
      185,
      10 * minute,
      179 * minute,
      3 * hour,
      3 * hour + 5 * minute,
      8 * hour,
      47 * hour,
      2 * day,
      7 * day + 3 * hour,
      8 * day,
      800 * day,
    ].map(ago),
    ['0s', '119s', '2m', '3m5s', '10m', '179m', '3h', '3h5m', '8h', '47h', '2d', '7d3h', '8d', '2y'],
  );
  assert.equal(age(undefined, now), '<unknown>');
});

test('printer columns’ paths lead where they say', () => {
  const value = {
    spec: {
      'a.b': 1,
      list: [
        { type: 'x', v: 1 },
        { type: 'Ready', v: 2 },
      ],
    },
  };
  const read = (path: string) => follow(parseJsonPath(path) ?? [], value);
  assert.deepEqual(read(".spec['a.b']"), [1]);
  assert.deepEqual(read('.spec.a\\.b'), [1]);
  assert.deepEqual(read('$.spec.list[0].v'), [1]);
  assert.deepEqual(read('.spec.list[*].v'), [1, 2]);
  assert.deepEqual(read('.spec.list[?(@.type=="Ready")].v'), [2]);
  assert.deepEqual(read('.spec.none.at.all'), []);
  assert.equal(parseJsonPath('.spec..x'), undefined);
  assert.equal(parseJsonPath('.spec.list[?(@.v>1)]'), undefined);
});
