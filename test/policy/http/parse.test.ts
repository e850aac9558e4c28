import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bytesOf,
  canonicalPath,
  headerLimit,
  headLimit,
  NotCanonical,
  textOf,
} from '../../../src/policy/http/canonical.ts';
import { type Head, type HeadAnswer, parseHead, printHead } from '../../../src/policy/http/parse.ts';
import { headArbitrary, mutated } from '../../support/http.ts';

function parse(text: string): HeadAnswer {
  return parseHead(bytesOf(text));
}

function head(text: string): Head {
  const answer = parse(text);
  assert.equal(answer.kind, 'head', answer.kind === 'refused' ? answer.words : 'more');
  return answer.kind === 'head' ? answer : assert.fail();
}

/** A whole head of 1.1 with these header lines beside its Host. */
function get(target: string, ...lines: readonly string[]): string {
  return `GET ${target} HTTP/1.1\r\nHost: a\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;
}

test('a request is read', () => {
  const text =
    'POST /a/%7Eb?x=%2f HTTP/1.1\r\nHost: Shop.Example:80\r\nContent-Length: 5\r\nX-A: \t one \r\nx-a:two\r\n\r\nhello';
  assert.deepEqual(head(text), {
    kind: 'head',
    length: text.length - 5,
    request: {
      kind: 'http',
      method: 'POST',
      target: '/a/~b?x=%2f',
      host: 'shop.example:80',
      headers: [
        ['host', 'Shop.Example:80'],
        ['content-length', '5'],
        ['x-a', 'one'],
        ['x-a', 'two'],
      ],
    },
    version: '1.1',
    framing: { kind: 'length', length: 5n },
    upgrade: false,
    expect: false,
  } satisfies Head);
});

test('a path has one spelling', () => {
  const paths: readonly (readonly [string, string])[] = [
    ['/', '/'],
    ['//', '/'],
    ['/a//b///', '/a/b/'],
    ['/a/./b', '/a/b'],
    ['/a/.', '/a/'],
    ['/a/..', '/'],
    ['/a/b/../c', '/a/c'],
    ['/a//../b', '/b'],
    ['/%61%2e%2E/', '/a../'],
    ['/a/%2e%2e/b', '/b'],
    ['/admin%3adelete', '/admin:delete'],
    ['/a%3Bb', '/a;b'],
    ['/%7bx%7D', '/{x}'],
    ['/a%20b%c3%a9%3f%25%23%22', '/a%20b%C3%A9%3F%25%23%22'],
    ['/%2541', '/%2541'],
    ['/.../..a', '/.../..a'],
  ];
  for (const [raw, canonical] of paths) assert.equal(canonicalPath(raw), canonical, raw);
});

test('a path that could be read in two ways is refused', () => {
  for (const raw of [
    '/..',
    '/a/../..',
    '/%2e%2e',
    '/a%2fb',
    '/a%2Fb',
    '/a%5cb',
    '/%00',
    '/%0d%0a',
    '/%7f',
    '/..;/a',
    '/a/.;x',
    '/%2e.%3bx',
    'a',
  ])
    assert.throws(() => canonicalPath(raw), NotCanonical, raw);
});

test('a target may be absolute, and is then of the Host', () => {
  assert.equal(head('GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n').request.target, '/x?y');
  assert.equal(head('GET http://a?y HTTP/1.1\r\nHost: A\r\n\r\n').request.target, '/?y');
  assert.equal(head('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n').request.target, '*');
});

test('bodies have a length, or chunks, or there is none', () => {
  assert.deepEqual(head(get('/')).framing, { kind: 'none' });
  assert.deepEqual(head(get('/', 'Content-Length: 0')).framing, { kind: 'length', length: 0n });
  assert.deepEqual(head(get('/', 'content-length: 9223372036854775807')).framing, {
    kind: 'length',
    length: 2n ** 63n - 1n,
  });
  assert.deepEqual(head(get('/', 'Transfer-Encoding: chunked')).framing, { kind: 'chunked' });
});

test('what asks to leave HTTP, and what waits, is seen', () => {
  assert.equal(head(get('/', 'Connection: upgrade', 'Upgrade: websocket')).upgrade, true);
  assert.equal(head(get('/', 'HTTP2-Settings: AAMAAABk')).upgrade, true);
  assert.equal(head(get('/', 'Upgrade-Insecure-Requests: 1')).upgrade, false);
  assert.equal(head(get('/', 'Expect: 100-Continue')).expect, true);
});

/** What two servers would read as two different things; each is refused, and for this. */
const smuggling: readonly (readonly [name: string, text: string])[] = [
  ['two lengths', get('/', 'Content-Length: 5', 'Content-Length: 6')],
  ['the same length twice', get('/', 'Content-Length: 5', 'Content-Length: 5')],
  ['a list of lengths', get('/', 'Content-Length: 5, 5')],
  ['a signed length', get('/', 'Content-Length: +5')],
  ['a hexadecimal length', get('/', 'Content-Length: 0x5')],
  ['an empty length', get('/', 'Content-Length:')],
  ['a length beyond 2^63', get('/', 'Content-Length: 9223372036854775808')],
  ['a length with leading zeros without end', get('/', `Content-Length: ${'0'.repeat(20)}5`)],
  ['length and chunks', get('/', 'Content-Length: 5', 'Transfer-Encoding: chunked')],
  ['chunks and length', get('/', 'Transfer-Encoding: chunked', 'Content-Length: 5')],
  ['chunked twice', get('/', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')],
  ['a list of codings', get('/', 'Transfer-Encoding: gzip, chunked')],
  ['another coding', get('/', 'Transfer-Encoding: identity')],
  ['chunked in capitals', get('/', 'Transfer-Encoding: Chunked')],
  ['a vertical tab before the coding', get('/', 'Transfer-Encoding: \x0bchunked')],
  ['a space before the colon', get('/', 'Transfer-Encoding : chunked')],
  ['a tab before the colon', get('/', 'Content-Length\t: 5')],
  ['a folded line', get('/', 'X: a', ' Transfer-Encoding: chunked')],
  ['a folded line with a tab', get('/', 'X: a', '\tb')],
  ['a line that begins with a space right after the request line', 'GET / HTTP/1.1\r\n Host: a\r\n\r\n'],
  ['a name that is none', get('/', 'Transfer\x80Encoding: chunked')],
  ['no name', get('/', ': chunked')],
  ['no colon', get('/', 'Transfer-Encoding')],
  ['chunks in 1.0', 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ['bare line feeds', 'GET / HTTP/1.1\nHost: a\n\n'],
  ['one bare line feed', 'GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n'],
  ['a bare carriage return', get('/', 'X: a\rTransfer-Encoding: chunked')],
  ['a null byte', get('/', 'X: a\0b')],
  ['an empty line before the request', '\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n'],
  ['two Hosts', get('/', 'Host: b')],
  ['two equal Hosts', get('/', 'Host: a')],
  ['a Host with a path', 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n'],
  ['a Host that is a list', 'GET / HTTP/1.1\r\nHost: a,b\r\n\r\n'],
  ['a Host with a user', 'GET / HTTP/1.1\r\nHost: u@a\r\n\r\n'],
  ['an authority that is not the Host', 'GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['an authority with a user', 'GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n'],
  ['an authority and no Host', 'GET http://a/ HTTP/1.0\r\n\r\n'],
  ['another scheme', get('ftp://a/')],
  ['two spaces', 'GET  / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a space at the end of the line', 'GET / HTTP/1.1 \r\nHost: a\r\n\r\n'],
  ['a tab for a space', 'GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['no version', 'GET /\r\n\r\n'],
  ['HTTP/0.9', 'GET / HTTP/0.9\r\nHost: a\r\n\r\n'],
  ['HTTP/1.2', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ['a method in lower case', 'get / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a method that is too long', `${'A'.repeat(33)} / HTTP/1.1\r\nHost: a\r\n\r\n`],
  ['CONNECT', 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n'],
  ['* with GET', get('*')],
  ['a fragment', get('/a#b')],
  ['a raw backslash', get('/a\\b')],
  ['a raw byte over 0x7f', get('/\xe9')],
  ['half an escape', get('/%4')],
  ['no escape in the query', get('/?%zz')],
  ['an expectation that is not known', get('/', 'Expect: 200-ok')],
  ['two expectations', get('/', 'Expect: 100-continue', 'Expect: x')],
  ['TLS', '\x16\x03\x01\x02\0\x01'],
];

for (const [name, text] of smuggling)
  test(`refused: ${name}`, () => {
    const answer = parse(text);
    assert.deepEqual(
      { kind: answer.kind, reason: 'reason' in answer && answer.reason },
      { kind: 'refused', reason: 'HTTP_MALFORMED' },
    );
  });

test('a head has a limit of bytes, to the byte', () => {
  const filled = (size: number): string => get('/', `X: ${'a'.repeat(size - get('/', 'X: ').length)}`);
  assert.equal(head(filled(headLimit)).length, headLimit);
  for (const text of [filled(headLimit + 1), filled(headLimit + 1).slice(0, headLimit), 'a'.repeat(headLimit)]) {
    const answer = parse(text);
    assert.equal('reason' in answer && answer.reason, 'HTTP_HEAD_TOO_BIG');
  }
  assert.equal(parse('a'.repeat(headLimit - 1)).kind, 'more');
});

test('a head has a limit of lines', () => {
  const lines = (count: number): string[] => Array.from({ length: count - 1 }, (_, i) => `x${i}: y`);
  assert.equal(head(get('/', ...lines(headerLimit))).request.headers.length, headerLimit);
  const answer = parse(get('/', ...lines(headerLimit + 1)));
  assert.equal('reason' in answer && answer.reason, 'HTTP_HEAD_TOO_BIG');
});

test('a head that came in pieces says at each piece what the whole says, or that it needs more', () => {
  fc.assert(
    fc.property(mutated(headArbitrary), fc.uint8Array(), (text, after) => {
      const bytes = Uint8Array.of(...bytesOf(text), ...after);
      const whole = parseHead(bytes);
      for (let length = 0; length < bytes.length; length++) {
        const answer = parseHead(bytes.subarray(0, length));
        if (answer.kind !== 'more') assert.deepEqual(answer, whole, textOf(bytes.subarray(0, length)));
      }
    }),
    { numRuns: 300 },
  );
});

test('what is understood, printed in canonical form, is understood as the same', () => {
  let understood = 0;
  fc.assert(
    fc.property(mutated(headArbitrary), (text) => {
      const answer = parse(text);
      if (answer.kind !== 'head') return;
      understood++;
      const { request } = answer;
      const path = request.target.replace(/\?.*$/s, '');
      if (path !== '*') assert.equal(canonicalPath(path), path);
      const again = head(printHead(answer));
      assert.deepEqual({ ...again, length: 0 }, { ...answer, length: 0 });
    }),
    { numRuns: 3000 },
  );
  assert.ok(understood > 500, `${understood} heads were understood`);
});
