import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { matchesDomain } from '../../src/policy/request/domain.ts';
import { matchesText, type RequestText } from '../../src/policy/request/text.ts';
import { type HttpMatch, type HttpRequest, matchesAnyRequest, matchesRequest } from '../../src/policy/request.ts';

const request: HttpRequest = {
  kind: 'http',
  method: 'GET',
  target: '/cart/7?item=a/b#c',
  host: 'shop.example:8080',
  headers: [
    ['X-Token', 'secret'],
    ['Accept', 'a'],
    ['accept', 'b'],
    ['X-Empty', ''],
  ],
};

test('every part that an HTTP match names must hold', () => {
  const exact = (text: string): RequestText => ({ op: 'exact', text });
  const cases: readonly [Omit<HttpMatch, 'kind'>, boolean][] = [
    [{}, true],
    [{ method: { some: [exact('POST'), exact('GET')] } }, true],
    [{ method: { some: [exact('POST')] } }, false],
    [{ method: { some: [] } }, false],
    [{ method: { none: [exact('GET')] } }, false],
    [{ path: { some: [exact('/cart/7')] } }, true],
    [{ target: { some: [exact('/cart/7')] } }, false],
    [{ target: { some: [{ op: 'regex', text: '/cart/.*' }] } }, true],
    [{ path: { some: [{ op: 'prefix', text: '/cart/' }], none: [{ op: 'suffix', text: '/7' }] } }, false],
    [{ host: { some: [{ op: 'prefix', text: 'SHOP.', ignoreCase: true }] } }, true],
    [{ host: { some: [{ op: 'prefix', text: 'SHOP.' }] } }, false],
    [{ headers: [{ name: 'x-token', some: [exact('secret')] }] }, true],
    [
      {
        headers: [
          { name: 'x-token', some: [exact('secret')] },
          { name: 'x-other', some: [{ op: 'present' }] },
        ],
      },
      false,
    ],
    [{ headers: [{ name: 'accept', some: [exact('a'), exact('b')] }] }, true],
    [{ headers: [{ name: 'accept', some: [exact('a,b')] }] }, false],
    [{ headers: [{ name: 'accept', none: [exact('b')] }] }, false],
    [{ headers: [{ name: 'accept', none: [exact('a,b')] }] }, true],
    [{ headers: [{ name: 'accept', some: [exact('a')] }] }, false],
    [{ headers: [{ name: 'x-other', none: [exact('a')] }] }, true],
    [{ headers: [{ name: 'x-empty', some: [{ op: 'present' }] }] }, false],
    [{ serverName: { some: [{ op: 'present' }] } }, false],
  ];
  for (const [match, expected] of cases)
    assert.equal(matchesRequest(request, { kind: 'http', ...match }), expected, JSON.stringify(match));
});

test('a request of another kind is never what a rule asks for', () => {
  const dns = { kind: 'dns', names: [{ pattern: '**' }] } as const;
  const tls = { kind: 'tls', serverNames: [{ pattern: '*.example' }] } as const;
  assert.equal(matchesRequest(request, dns), false);
  assert.equal(matchesRequest(request, tls), false);
  assert.equal(matchesRequest({ ...request, serverName: 'shop.example' }, tls), true);
  assert.equal(matchesRequest({ kind: 'tls', serverName: 'shop.example' }, tls), true);
  assert.equal(matchesRequest({ kind: 'tls' }, { kind: 'tls', serverNames: [{ pattern: '**' }] }), false);
  assert.equal(matchesRequest({ kind: 'dns', name: 'a.b.' }, dns), true);
  assert.equal(matchesRequest({ kind: 'dns', name: 'a.b.' }, { kind: 'http' }), false);
  assert.equal(matchesAnyRequest(request, undefined), true);
  assert.equal(matchesAnyRequest(request, []), false);
  assert.equal(matchesAnyRequest(request, [dns, { kind: 'http' }]), true);
});

test('path templates go by segments', () => {
  const cases: readonly [template: string, yes: readonly string[], no: readonly string[]][] = [
    ['/a/{*}', ['/a/b'], ['/a', '/a/', '/a/b/c', '/b/b']],
    ['/a/{**}', ['/a', '/a/', '/a/b', '/a/b/c'], ['/ab']],
    ['/{**}/z', ['/z', '/a/z', '/a/b/z'], ['/a/b', '/az']],
    ['/{*}/b/{**}', ['/a/b/c/d', '/a/b'], ['/b', '/a/c/b']],
  ];
  for (const [text, yes, no] of cases) {
    for (const path of yes) assert.equal(matchesText(path, { op: 'template', text }), true, `${text} ${path}`);
    for (const path of no) assert.equal(matchesText(path, { op: 'template', text }), false, `${text} ${path}`);
  }
});

test('domain patterns go by labels', () => {
  const cases: readonly [pattern: string, yes: readonly string[], no: readonly string[]][] = [
    ['api.example', ['api.example', 'API.Example.'], ['x.api.example', 'api.example.x', 'apixexample', '']],
    ['*.example', ['api.example', 'a-b_c.example'], ['example', 'a.b.example', '.example']],
    ['*', ['example'], ['a.b', '', '.']],
    ['**', ['example', 'a.b', '.'], []],
    ['**.example', ['a.example', 'a.b.example'], ['example', 'a.example.b']],
    ['**.api*.example', ['x.api.example', 'x.y.api2.example'], ['api.example', 'x.ap.example']],
    ['a*b*c.x', ['abc.x', 'aabbcc.x', 'a1b2c.x'], ['acb.x', 'ac.x']],
    ['a*a.x', ['aa.x', 'aba.x'], ['a.x']],
  ];
  for (const [pattern, yes, no] of cases) {
    for (const name of yes) assert.equal(matchesDomain(name, { pattern }), true, `${pattern} ${name}`);
    for (const name of no) assert.equal(matchesDomain(name, { pattern }), false, `${pattern} ${name}`);
  }
});

test('a label’s stars are what the same expression says', () => {
  const pattern = fc
    .array(fc.constantFrom('a', 'b', '*'), { minLength: 1, maxLength: 6 })
    .map((parts) => parts.join(''));
  const label = fc.array(fc.constantFrom('a', 'b'), { minLength: 1, maxLength: 7 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(
      pattern.filter((text) => text !== '**'),
      label,
      (own, name) => {
        const expected = new RegExp(`^${own.replaceAll('*', '[ab]*')}$`).test(name);
        assert.equal(matchesDomain(`${name}.x`, { pattern: `${own}.x` }), expected);
      },
    ),
  );
});

test('templates agree with the expression that they stand for', () => {
  const part = fc.constantFrom('a', 'b', '{*}', '{**}');
  const template = fc.array(part, { minLength: 1, maxLength: 4 });
  const path = fc.array(fc.constantFrom('a', 'b', ''), { maxLength: 5 });
  fc.assert(
    fc.property(template, path, (parts, segments) => {
      const expression = parts.map((one) => (one === '{*}' ? '/[^/]+' : one === '{**}' ? '(?:/[^/]*)*' : `/${one}`));
      const text = segments.map((segment) => `/${segment}`).join('');
      const expected = new RegExp(`^${expression.join('')}$`).test(text);
      assert.equal(matchesText(text, { op: 'template', text: parts.map((one) => `/${one}`).join('') }), expected);
    }),
  );
});
