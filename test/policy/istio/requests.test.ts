import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HttpRequest } from '../../../src/policy/request.ts';
import { authorization, verdict } from './istio.ts';

const get = (target: string, own: Partial<HttpRequest> = {}): HttpRequest => ({
  kind: 'http',
  method: 'GET',
  target,
  host: 'cart.shop',
  headers: [],
  ...own,
});

/** [what, operation or condition, requests that match, requests that do not] */
const rows: readonly [string, object, readonly HttpRequest[], readonly HttpRequest[]][] = [
  ['a method', { methods: ['GET'] }, [get('/')], [get('/', { method: 'POST' }), get('/', { method: 'get' })]],
  ['a method by prefix', { methods: ['P*'] }, [get('/', { method: 'PUT' })], [get('/')]],
  ['not a method', { notMethods: ['POST', 'PUT'] }, [get('/')], [get('/', { method: 'PUT' })]],
  ['a path', { paths: ['/info'] }, [get('/info'), get('/info?x=1')], [get('/info/'), get('/information')]],
  ['a path by prefix', { paths: ['/info*'] }, [get('/info'), get('/info/a')], [get('/inf')]],
  ['a path by suffix', { paths: ['*/info'] }, [get('/a/info')], [get('/info/a')]],
  ['not a path', { notPaths: ['/admin*'] }, [get('/info')], [get('/admin'), get('/admin/x')]],
  ['a template of one segment', { paths: ['/foo/{*}'] }, [get('/foo/bar')], [get('/foo/bar/baz'), get('/foo/')]],
  [
    'a template of many segments',
    { paths: ['/foo/{*}/bar/{**}'] },
    [get('/foo/buzz/bar/'), get('/foo/buzz/bar/baz')],
    [get('/foo/bar/baz')],
  ],
  [
    'a host in any case',
    { hosts: ['CART.shop'] },
    [get('/'), get('/', { host: 'Cart.Shop' })],
    [get('/', { host: 'x' })],
  ],
  ['a host by suffix', { hosts: ['*.shop'] }, [get('/')], [get('/', { host: 'shop' })]],
  ['not a host', { notHosts: ['*.example'] }, [get('/')], [get('/', { host: 'a.EXAMPLE' })]],
  ['all must hold', { methods: ['GET'], paths: ['/a'] }, [get('/a')], [get('/b'), get('/a', { method: 'PUT' })]],
];
for (const [name, operation, matching, others] of rows)
  test(`operation: ${name}`, () => both([{ to: [{ operation }] }], matching, others));

const header = (value: string) => get('/', { headers: [['X-Token', value]] });
const conditions: readonly [string, object, readonly HttpRequest[], readonly HttpRequest[]][] = [
  ['request.headers[X-Token]', { values: ['abc', 'x*'] }, [header('abc'), header('xyz')], [header('ab'), get('/')]],
  ['request.headers[x-token]', { values: ['*'] }, [header('a')], [get('/')]],
  ['request.headers[X-Token]', { notValues: ['abc'] }, [header('ab'), get('/')], [header('abc')]],
  [
    'connection.sni',
    { values: ['*.shop'] },
    [get('/', { serverName: 'a.shop' })],
    [get('/'), get('/', { serverName: 'a' })],
  ],
];
for (const [key, asked, matching, others] of conditions)
  test(`when ${key} ${JSON.stringify(asked)}`, () => both([{ when: [{ key, ...asked }] }], matching, others));

/** An ALLOW lets through, and a DENY stops, exactly what matches. */
function both(rules: unknown, matching: readonly HttpRequest[], others: readonly HttpRequest[]): void {
  const allow = authorization('shop/p', { rules });
  const deny = authorization('shop/p', { action: 'DENY', rules });
  for (const request of matching) {
    assert.equal(verdict([allow], 'shop/front', { request }), 'allow', `ALLOW ${JSON.stringify(request)}`);
    assert.equal(verdict([deny], 'shop/front', { request }), 'deny', `DENY ${JSON.stringify(request)}`);
  }
  for (const request of others) {
    assert.equal(verdict([allow], 'shop/front', { request }), 'deny', `ALLOW ${JSON.stringify(request)}`);
    assert.equal(verdict([deny], 'shop/front', { request }), 'allow', `DENY ${JSON.stringify(request)}`);
  }
}

test('over a connection an ALLOW rule that asks for a request allows nothing, its alternatives neither', () => {
  const rules = [{ to: [{ operation: { methods: ['GET'] } }, { operation: { ports: ['80'] } }] }];
  const policy = authorization('shop/p', { rules });
  assert.equal(verdict([policy], 'shop/front'), 'deny');
  // To a request the second alternative is as good as the first.
  assert.equal(verdict([policy], 'shop/front', { request: get('/', { method: 'PUT' }) }), 'allow');
});

test('other rules of the policy go on allowing', () => {
  const rules = [{ to: [{ operation: { methods: ['GET'] } }] }, { from: [{ source: { namespaces: ['shop'] } }] }];
  const policy = authorization('shop/p', { rules });
  assert.equal(verdict([policy], 'shop/front'), 'allow');
  assert.equal(verdict([policy], 'ops/front'), 'deny');
});

test('over a connection a DENY rule denies without asking for what only a request could tell', () => {
  const rules = [
    { from: [{ source: { namespaces: ['ops'] } }], to: [{ operation: { ports: ['80'], notPaths: ['/public*'] } }] },
  ];
  const policy = authorization('shop/p', { action: 'DENY', rules });
  assert.equal(verdict([policy], 'ops/front'), 'deny');
  assert.equal(verdict([policy], 'ops/front', { port: 81 }), 'allow');
  assert.equal(verdict([policy], 'shop/front'), 'allow');
  assert.equal(verdict([policy], 'ops/front', { request: get('/public/a') }), 'allow');
  // TLS that nobody can look into may be anything.
  assert.equal(verdict([policy], 'ops/front', { request: { kind: 'tls' } }), 'deny');
});

const tokens: readonly [string, object][] = [
  ['requestPrincipals', { from: [{ source: { requestPrincipals: ['*'] } }] }],
  ['notRequestPrincipals', { from: [{ source: { notRequestPrincipals: ['*'] } }] }],
  ['remoteIpBlocks', { from: [{ source: { remoteIpBlocks: ['10.0.0.0/8'] } }] }],
  ['remote.ip', { when: [{ key: 'remote.ip', values: ['10.0.0.0/8'] }] }],
  ['request.auth.principal', { when: [{ key: 'request.auth.principal', values: ['a/b'] }] }],
  ['request.auth.claims[iss]', { when: [{ key: 'request.auth.claims[iss]', values: ['x'] }] }],
  ['request.auth.audiences', { when: [{ key: 'request.auth.audiences', notValues: ['x'] }] }],
  ['an Envoy filter’s own', { when: [{ key: 'experimental.envoy.filters.a.b[c]', values: ['x'] }] }],
];
for (const [name, rule] of tokens)
  test(`what nothing here can look at: ${name} allows nothing, denies whatever it is, and is said`, () => {
    const allow = authorization('shop/p', { rules: [rule] });
    const deny = authorization('shop/p', { action: 'DENY', rules: [rule] });
    for (const request of [undefined, get('/')]) {
      assert.equal(verdict([allow], 'shop/front', { request }), 'deny');
      assert.equal(verdict([deny], 'shop/front', { request }), 'deny');
    }
    assert.equal(allow.limits?.length, 1);
    assert.match(allow.limits?.[0]?.reason ?? '', /allows nothing/);
    assert.match(deny.limits?.[0]?.reason ?? '', /denied without/);
  });

// Where each limit says it is.
const limits: readonly [object, readonly string[]][] = [
  [{ rules: [{}, { to: [{ operation: { ports: ['1'], methods: ['GET'], notPaths: ['/x'] } }] }] }, []],
  [
    {
      rules: [
        {
          when: [
            { key: 'source.ip', values: ['1.2.3.4'] },
            { key: 'request.headers[a]', values: ['b'] },
            { key: 'connection.sni', values: ['b'] },
          ],
        },
      ],
    },
    ['spec.rules[0].when[2]'],
  ],
  [{ rules: [{ from: [{ source: { namespaces: ['a*b'] } }] }] }, ['spec.rules[0].from[0].source.namespaces[0]']],
  [
    { rules: [{ from: [{ source: { principals: ['x', 'spiffe://td/ns/a/sa/b'] } }] }] },
    ['spec.rules[0].from[0].source.principals[1]'],
  ],
  [{ action: 'AUDIT', rules: [{}] }, []],
  [{ action: 'CUSTOM', provider: { name: 'x' }, rules: [{}] }, ['spec.action']],
  [{ targetRefs: [{ kind: 'Service', name: 'x' }] }, ['spec.targetRefs']],
  [{ rules: [{ from: [{ source: { principals: ['*'] } }], to: [{ operation: { ports: ['1'] } }] }] }, []],
];
for (const [spec, expected] of limits)
  test(`limits: ${JSON.stringify(spec)}`, () => {
    const fields = (authorization('shop/p', spec).limits ?? []).map(({ field }) => field);
    assert.deepEqual(fields, expected);
  });

test('where implementations differ or the author erred, ALLOW matches less and DENY more', () => {
  const source = (own: object) => [{ from: [{ source: own }] }];
  for (const own of [{ namespaces: ['s*p'] }, { principals: ['spiffe://cluster.local/ns/shop/sa/front'] }]) {
    assert.equal(verdict([authorization('shop/p', { rules: source(own) })], 'shop/front'), 'deny');
    const deny = authorization('shop/p', { action: 'DENY', rules: source(own) });
    assert.equal(verdict([deny], 'shop/front'), 'deny');
    assert.equal(verdict([deny], 'ops/front'), 'allow');
  }
  // And the other way round for what is excluded.
  const not = { notNamespaces: ['s*p'] };
  assert.equal(verdict([authorization('shop/p', { rules: source(not) })], 'shop/front'), 'deny');
  assert.equal(verdict([authorization('shop/p', { action: 'DENY', rules: source(not) })], 'shop/front'), 'deny');
});
