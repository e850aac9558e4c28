import fc from 'fast-check';
import type { HttpMatch, HttpRequest, RequestText, TextCondition } from '../../src/policy/request.ts';

/** Requests for tests of whatever reads them: mostly right, and what is nearly right. One character is one byte. */

const segment = fc.constantFrom(
  'a',
  'B',
  'admin',
  '.',
  '..',
  '...',
  '',
  '%61',
  '%2e',
  '%2E%2e',
  '%20',
  '%3b',
  ';x',
  '..;x',
  '%2F',
  '%c3%A9',
  '~',
  '{x}',
  '%25',
  '%3F',
  'v1',
);
const path = fc.array(segment, { maxLength: 5 }).map((segments) => `/${segments.join('/')}`);
const query = fc.constantFrom('', '?', '?a=b', '?a=/../%2F', '?%zz', '??');
export const targetArbitrary = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(path, query).map((parts) => parts.join('')) },
  fc
    .tuple(fc.constantFrom('http://a', 'HTTPS://A', 'http://b', 'http://'), fc.oneof(path, fc.constant('')), query)
    .map((parts) => parts.join('')),
  fc.constant('*'),
);

const headerLine = fc.oneof(
  fc.constantFrom(
    'Content-Length: 5',
    'Content-Length: 0',
    'content-length:7 ',
    'Transfer-Encoding: chunked',
    'Transfer-Encoding: gzip',
    'Connection: upgrade',
    'Upgrade: websocket',
    'HTTP2-Settings: x',
    'Expect: 100-continue',
    'Host: b',
    ' folded',
    'X-Role: admin',
    'x-role: user',
    'X-Role:\tadmin\t',
    'X-Role:',
    'x-role: \xe9',
  ),
  fc
    .tuple(
      fc.constantFrom('x-a', 'X-B', 'x-role', 'cookie'),
      fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)), maxLength: 8 }),
    )
    .map(([name, value]) => `${name}: ${value}`),
);

/** Whole heads with their empty line. */
export const headArbitrary: fc.Arbitrary<string> = fc
  .record({
    method: fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom('GET', 'POST', 'HEAD', 'OPTIONS', 'DELETE', 'M-SEARCH') },
      fc.constantFrom('CONNECT', 'get', ''),
    ),
    target: targetArbitrary,
    version: fc.oneof({ weight: 9, arbitrary: fc.constant('HTTP/1.1') }, fc.constantFrom('HTTP/1.0', 'HTTP/2.0')),
    host: fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom('Host: a', 'host:A ', 'HOST: shop.example:8080') },
      fc.constantFrom('X: y', 'Host: a b'),
    ),
    lines: fc.array(headerLine, { maxLength: 4 }),
    hostAt: fc.nat({ max: 4 }),
  })
  .map(({ method, target, version, host, lines, hostAt }) => {
    const all = [...lines.slice(0, hostAt), host, ...lines.slice(hostAt)];
    return `${method} ${target} ${version}\r\n${all.map((line) => `${line}\r\n`).join('')}\r\n`;
  });

/** Texts, of which some have a few bytes replaced, taken out or put in. */
export function mutated(texts: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const byte = fc.oneof(
    fc.constantFrom('\r', '\n', ' ', '\t', ':', '/', '%', '.', '\0', '\x7f', '\x80', '0', ';', '\r\n'),
    fc.nat({ max: 255 }).map((code) => String.fromCharCode(code)),
  );
  const change = fc.record({
    at: fc.nat({ max: 10_000 }),
    taken: fc.nat({ max: 2 }),
    put: fc.oneof(byte, fc.constant('')),
  });
  return fc
    .tuple(texts, fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, fc.array(change, { minLength: 1, maxLength: 3 })))
    .map(([text, changes]) => {
      let now = text;
      for (const { at, taken, put } of changes) {
        const from = at % (now.length + 1);
        now = now.slice(0, from) + put + now.slice(from + taken);
      }
      return now;
    });
}

/** Ways to cut bytes in pieces. */
export function piecesOf(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((from, i) => bytes.subarray(from, places[i] ?? bytes.length));
}

const textArbitrary: fc.Arbitrary<RequestText> = fc.oneof(
  fc.record({
    op: fc.constantFrom('exact', 'prefix', 'suffix'),
    text: fc.constantFrom('', '/', '/a', '/a/', 'a', 'admin', '/admin', 'v1', '%20', '~', 'GET', 'user', 'shop.'),
  }),
  fc.record({
    op: fc.constantFrom('exact', 'prefix', 'suffix'),
    text: fc.constantFrom('A', 'SHOP.example:8080', '/Admin', 'e'),
    ignoreCase: fc.constant(true as const),
  }),
  fc.constant({ op: 'present' } as const),
  fc.record({
    op: fc.constant('regex' as const),
    text: fc.constantFrom(
      '.*',
      '/a.*',
      '(GET|HEAD)',
      '[^/]+',
      '/(a|B)/?.*',
      '(?i)/ADMIN/.*',
      '^$',
      '.*\\?.*',
      'admin|user',
      '.*[0-9]',
      '[a-z]{2,3}',
    ),
  }),
  fc.record({
    op: fc.constant('template' as const),
    text: fc.constantFrom('/{*}', '/a/{**}', '/{**}/a', '/{*}/admin/{**}', '{**}', '/{**}/{*}'),
  }),
);

const conditionArbitrary: fc.Arbitrary<TextCondition> = fc.record(
  { some: fc.array(textArbitrary, { maxLength: 3 }), none: fc.array(textArbitrary, { maxLength: 2 }) },
  { requiredKeys: [] },
);

const maybe = fc.option(conditionArbitrary, { nil: undefined, freq: 2 });
const headersArbitrary = fc.array(
  fc
    .tuple(fc.constantFrom('x-role', 'x-a', 'host', 'cookie'), conditionArbitrary)
    .map(([name, condition]) => ({ name, ...condition })),
  { maxLength: 2 },
);

/** Whatever may be asked of an HTTP request, of a part or two mostly. */
export const httpMatchArbitrary: fc.Arbitrary<HttpMatch> = fc
  .record({
    method: maybe,
    path: maybe,
    target: maybe,
    host: maybe,
    headers: fc.option(headersArbitrary, { nil: undefined, freq: 2 }),
  })
  .map(({ method, path: asked, target, host, headers }) => ({
    kind: 'http',
    ...(method === undefined ? {} : { method }),
    ...(asked === undefined ? {} : { path: asked }),
    ...(target === undefined ? {} : { target }),
    ...(host === undefined ? {} : { host }),
    ...(headers === undefined ? {} : { headers }),
  }));

/** What a rule asks for that a person wrote: a few methods, a few paths; often enough what is then asked for. */
export const simpleMatchArbitrary: fc.Arbitrary<HttpMatch> = fc
  .record({
    methods: fc.subarray(['GET', 'POST', 'DELETE']),
    paths: fc.subarray<RequestText>([
      { op: 'exact', text: '/' },
      { op: 'exact', text: '/a' },
      { op: 'prefix', text: '/a/' },
      { op: 'prefix', text: '/admin' },
      { op: 'regex', text: '/a/[a-z]+' },
    ]),
    denied: fc.boolean(),
  })
  .map(({ methods, paths, denied }) => ({
    kind: 'http',
    ...(methods.length === 0 ? {} : { method: { some: methods.map((text) => ({ op: 'exact', text })) } }),
    ...(paths.length === 0 ? {} : { path: denied ? { none: paths } : { some: paths } }),
  }));

/** What a rule asks for that lists many paths, each by itself: as many alternatives, of which a request is one. */
export const manyMatchesArbitrary: fc.Arbitrary<HttpMatch[]> = fc
  .shuffledSubarray(['/', '/a', '/a/b', '/a/B', '/admin', '/admin/a', '/%20', '/v1/admin', '/c', '/d'], {
    minLength: 5,
  })
  .map((paths) => paths.map((text) => ({ kind: 'http', path: { some: [{ op: 'exact', text }] } })));

/** Requests in canonical form that such rules tell apart. */
export const requestArbitrary: fc.Arbitrary<HttpRequest> = fc
  .record({
    method: fc.constantFrom('GET', 'GET', 'POST', 'DELETE', 'HEAD'),
    target: fc.constantFrom('/', '/a', '/a/b', '/a/B', '/admin', '/admin/a?x=/a', '/a?b', '/%20', '/v1/admin'),
    host: fc.option(fc.constantFrom('a', 'shop.example:8080', ''), { nil: undefined }),
    headers: fc.array(
      fc.tuple(fc.constantFrom('x-role', 'x-a', 'cookie'), fc.constantFrom('', 'admin', 'user', 'a', 'A\xe9')),
      { maxLength: 3 },
    ),
  })
  .map(({ host, ...request }) => ({ kind: 'http', ...request, ...(host === undefined ? {} : { host }) }));
