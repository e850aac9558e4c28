import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bytesOf } from '../../src/policy/http/canonical.ts';
import { parseHead } from '../../src/policy/http/parse.ts';
import { readRequest } from '../../src/proxy/http2/request.ts';
import { targetArbitrary } from '../support/http.ts';

const head = (more: readonly string[] = [], path = '/a', method = 'GET'): string[] => [
  ...[':method', method, ':scheme', 'http', ':authority', 'shop', ':path', path],
  ...more,
];

test('a request is read in its canonical form', () => {
  const answer = readRequest(head(['x-a', '1', 'X'.toLowerCase(), '2'], '/a/../%62//c?d=%2F'));
  assert.deepEqual(answer, {
    kind: 'request',
    grpc: false,
    request: {
      kind: 'http',
      method: 'GET',
      target: '/b/c?d=%2F',
      host: 'shop',
      headers: [
        ['host', 'shop'],
        ['x-a', '1'],
        ['x', '2'],
      ],
    },
  });
});

test('cookies in several lines are one', () => {
  const answer = readRequest(head(['cookie', 'a=1', 'x', 'y', 'cookie', 'b=2']));
  const cookies = answer.kind === 'request' ? answer.request.headers.filter(([name]) => name === 'cookie') : [];
  assert.deepEqual(cookies, [['cookie', 'a=1; b=2']]);
});

test('gRPC is told by its content type', () => {
  for (const [type, grpc] of [
    ['application/grpc', true],
    ['application/grpc+proto', true],
    ['application/grpc-web', false],
    ['application/json', false],
  ] as const) {
    const answer = readRequest(head(['content-type', type]));
    assert.equal(answer.kind === 'request' && answer.grpc, grpc, type);
  }
});

const refused: readonly (readonly [name: string, raw: readonly string[]])[] = [
  ['CONNECT', [':method', 'CONNECT', ':authority', 'a:1']],
  ['extended CONNECT', head([':protocol', 'websocket'], '/', 'CONNECT')],
  ['another pseudo-header', head([':protocol', 'websocket'])],
  ['a pseudo-header twice', [...head(), ':path', '/b']],
  ['a pseudo-header behind a header', [':method', 'GET', 'x', 'y', ':path', '/', ':scheme', 'http', ':authority', 'a']],
  ['no path', [':method', 'GET', ':scheme', 'http', ':authority', 'a']],
  ['a path with an authority', head([], 'http://shop/a')],
  ['a path above the root', head([], '/../a')],
  ['an asterisk that is not for OPTIONS', head([], '*')],
  ['another scheme', [':method', 'GET', ':scheme', 'ftp', ':authority', 'a', ':path', '/']],
  ['no host', [':method', 'GET', ':scheme', 'http', ':path', '/']],
  ['another host', head(['host', 'admin'])],
  ['two hosts', head(['host', 'shop', 'host', 'shop'])],
  ['a method in small letters', head([], '/', 'get')],
  ['a name in capitals', head(['X-A', '1'])],
  ['a control character', head(['x', 'a\nb'])],
  ['Connection', head(['connection', 'close'])],
  ['Upgrade', head(['upgrade', 'h2c'])],
  ['Transfer-Encoding', head(['transfer-encoding', 'chunked'])],
  ['TE of anything but trailers', head(['te', 'gzip'])],
  ['another expectation', head(['expect', 'x'])],
];

for (const [name, raw] of refused)
  test(`refused: ${name}`, () => {
    assert.deepEqual({ ...readRequest(raw), words: '' }, { kind: 'refused', reason: 'HTTP_MALFORMED', words: '' });
  });

test('Host may stand beside :authority where both say the same', () => {
  assert.equal(readRequest(head(['host', 'SHOP'])).kind, 'request');
});

test('a head that is too big is told from one that is wrong', () => {
  const big = readRequest(head(['x', 'a'.repeat(8192)]));
  assert.equal(big.kind === 'refused' && big.reason, 'HTTP_HEAD_TOO_BIG');
  const many = readRequest(head(Array.from({ length: 202 }, () => 'x')));
  assert.equal(many.kind === 'refused' && many.reason, 'HTTP_HEAD_TOO_BIG');
});

test('a request is the same to rules in HTTP/2 as it is in HTTP/1.1', () => {
  const method = fc.constantFrom('GET', 'POST', 'OPTIONS', 'CONNECT', 'get', 'M-SEARCH');
  const host = fc.constantFrom('a', 'A:8080', 'a b', '', '[::1]');
  const lines = fc.array(
    fc.tuple(
      fc.constantFrom('x-a', 'x-role', 'expect', 'accept', 'x y'),
      fc.constantFrom('', 'b', '100-Continue', 'a\x7f', '\xe9', 'a\tb'),
    ),
    { maxLength: 4 },
  );
  fc.assert(
    fc.property(method, targetArbitrary, host, lines, (verb, target, authority, headers) => {
      if (target.includes('://')) return;
      const text = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
      const one = parseHead(bytesOf(`${verb} ${target} HTTP/1.1\r\nHost: ${authority}\r\n${text}\r\n`));
      const pseudo = [':method', verb, ':scheme', 'http', ':authority', authority, ':path', target];
      const two = readRequest([...pseudo, ...headers.flat()]);
      assert.deepEqual(
        two.kind === 'request' ? two.request : two.reason,
        one.kind === 'head' ? one.request : one.kind === 'refused' ? one.reason : 'more',
      );
    }),
    { numRuns: 5000 },
  );
});
