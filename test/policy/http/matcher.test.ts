import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasBit } from '../../../src/policy/http/bits.ts';
import { bytesOf } from '../../../src/policy/http/canonical.ts';
import { compileMatcher, type RequestTables, tableLimits } from '../../../src/policy/http/matcher.ts';
import { parseHead } from '../../../src/policy/http/parse.ts';
import { runMatcher } from '../../../src/policy/http/run.ts';
import { type HttpMatch, type HttpRequest, matchesRequest, type RequestText } from '../../../src/policy/request.ts';
import { headArbitrary, httpMatchArbitrary } from '../../support/http.ts';

function compiled(matches: readonly HttpMatch[]): RequestTables {
  const made = compileMatcher(matches);
  return made.ok ? made.value : assert.fail(made.reason);
}

function matched(tables: RequestTables, request: HttpRequest): number[] {
  const bits = runMatcher(tables, request);
  return Array.from({ length: tables.count }, (_, number) => number).filter((number) => hasBit(bits, number));
}

function get(target: string, headers: HttpRequest['headers'] = [], host = 'a'): HttpRequest {
  return { kind: 'http', method: 'GET', target, host, headers };
}

const path = (...some: readonly RequestText[]): HttpMatch => ({ kind: 'http', path: { some } });

test('each alternative is told by its number', () => {
  const tables = compiled([
    { kind: 'http' },
    path({ op: 'prefix', text: '/api/' }),
    path({ op: 'exact', text: '/api/users' }),
    path({ op: 'suffix', text: '.png' }, { op: 'template', text: '/{*}/users' }),
    { kind: 'http', method: { none: [{ op: 'exact', text: 'GET' }] } },
    { kind: 'http', target: { some: [{ op: 'regex', text: '/api/users\\?id=[0-9]+' }] } },
  ]);
  assert.deepEqual(matched(tables, get('/api/users')), [0, 1, 2, 3]);
  assert.deepEqual(matched(tables, get('/api/users?id=12')), [0, 1, 2, 3, 5]);
  assert.deepEqual(matched(tables, get('/api/users?id=')), [0, 1, 2, 3]);
  assert.deepEqual(matched(tables, get('/x.png')), [0, 3]);
  assert.deepEqual(matched(tables, { ...get('/'), method: 'POST' }), [0, 4]);
});

test('every line of a header that is asked about counts', () => {
  const some: HttpMatch = { kind: 'http', headers: [{ name: 'x-role', some: [{ op: 'prefix', text: 'a' }] }] };
  const none: HttpMatch = { kind: 'http', headers: [{ name: 'x-role', none: [{ op: 'prefix', text: 'a' }] }] };
  const tables = compiled([some, none]);
  assert.deepEqual(matched(tables, get('/')), [1]);
  assert.deepEqual(
    matched(
      tables,
      get('/', [
        ['x-role', 'ab'],
        ['x-role', 'ac'],
      ]),
    ),
    [0],
  );
  assert.deepEqual(
    matched(
      tables,
      get('/', [
        ['x-role', 'ab'],
        ['x-role', 'b'],
      ]),
    ),
    [],
  );
  assert.deepEqual(
    matched(
      tables,
      get('/', [
        ['x-role', 'b'],
        ['x-other', 'a'],
      ]),
    ),
    [1],
  );
});

test('a host that is absent is none of a list, and not one of it', () => {
  const tables = compiled([
    { kind: 'http', host: { some: [{ op: 'present' }] } },
    { kind: 'http', host: { none: [{ op: 'exact', text: 'a', ignoreCase: true }] } },
  ]);
  const { host: _, ...without } = get('/');
  assert.deepEqual(matched(tables, without), [1]);
  assert.deepEqual(matched(tables, get('/')), [0]);
});

test('expressions that begin and end anywhere', () => {
  const texts = ['^/a$', '/a|^$', '(^|x)/b', '/c($|/.*)', '', '(?i)/D', '.*/e.*', '/[^a-z]+'];
  const tables = compiled(texts.map((text) => path({ op: 'regex', text })));
  for (const target of ['/a', '/b', '/c', '/c/x', '/cx', '/d', '/D', '/x/e', '/1/2', '/'])
    assert.deepEqual(
      matched(tables, get(target)),
      texts.flatMap((text, number) => (matchesRequest(get(target), path({ op: 'regex', text })) ? [number] : [])),
      target,
    );
});

test('the tables say what the reference says, of any alternatives and any request', () => {
  const counts = { yes: 0, no: 0 };
  const requests = headArbitrary
    .map((text) => parseHead(bytesOf(text)))
    .filter((answer) => answer.kind === 'head')
    .map(({ request }) => request);
  fc.assert(
    fc.property(
      fc.array(httpMatchArbitrary, { minLength: 1, maxLength: 12 }),
      fc.array(requests, { minLength: 1, maxLength: 20 }),
      (matches, some) => {
        const tables = compiled(matches);
        for (const request of some) {
          const bits = runMatcher(tables, request);
          for (const [number, match] of matches.entries()) {
            const expected = matchesRequest(request, match);
            counts[expected ? 'yes' : 'no']++;
            assert.equal(hasBit(bits, number), expected, JSON.stringify({ match, request }));
          }
        }
      },
    ),
    { numRuns: 250 },
  );
  assert.ok(counts.yes > 500 && counts.no > 500, JSON.stringify(counts));
});

test('a thousand paths fit, with room for as many again', () => {
  const paths = Array.from({ length: 1000 }, (_, i) => `/api/v${i % 7}/resource-${(i * 7919) % 10_007}/items`);
  const tables = compiled(paths.map((text, i) => path({ op: i % 2 === 0 ? 'exact' : 'prefix', text })));
  assert.ok(tables.accept.length < tableLimits.rows / 2, `${tables.accept.length} rows`);
  for (const i of [0, 1, 500, 999]) assert.deepEqual(matched(tables, get(paths[i] ?? '')), [i]);
  assert.deepEqual(matched(tables, get(`${paths[1]}/more`)), [1]);
  assert.deepEqual(matched(tables, get(`${paths[0]}/more`)), []);
});

test('what is too big, or no matter of bytes, is refused with the reason', () => {
  const reason = (matches: readonly HttpMatch[]): string => {
    const made = compileMatcher(matches);
    return made.ok ? 'fits' : made.reason;
  };
  const anywhere = Array.from({ length: 30 }, (_, i) =>
    path({ op: 'regex', text: `.*word${String.fromCharCode(97 + i)}.*` }),
  );
  assert.match(reason(anywhere), /more than/);
  assert.match(reason(Array.from({ length: 1025 }, () => path())), /more than 1024/);
  assert.match(reason([path({ op: 'exact', text: '/é' })]), /ASCII/);
  assert.match(reason([path({ op: 'regex', text: '[à-ü]' })]), /ASCII/);
  assert.equal(reason([path({ op: 'regex', text: '[^a][\\D\\S].' })]), 'fits');
  const headers = Array.from({ length: 17 }, (_, i) => ({ name: `x-${i}`, some: [] }));
  assert.match(reason([{ kind: 'http', headers }]), /16 headers/);
  const everyByte = Array.from({ length: 95 }, (_, i) => path({ op: 'exact', text: String.fromCharCode(32 + i) }));
  assert.equal(reason([...everyByte, path({ op: 'regex', text: '\\t[[:cntrl:]][[:ascii:]]' })]), 'fits');
});
