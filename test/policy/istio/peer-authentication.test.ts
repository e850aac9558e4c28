import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePeerAuthentication } from '../../../src/policy/istio/peer-authentication.ts';
import { settle } from '../../../src/policy/istio/settle.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { mutatedJson } from '../../support/json.ts';
import { authentication, authorization, decision, verdict } from './istio.ts';

const mode = (name: string) => ({ mtls: { mode: name } });
const cart = { selector: { matchLabels: { app: 'cart' } } };
const v1 = { selector: { matchLabels: { version: 'v1' } } };
const world = '203.0.113.9';

test('STRICT lets in whoever is proven, and nobody else', () => {
  const strict = authentication('shop/default', mode('STRICT'));
  const callers = ['shop/front', 'ops/front', world, 'node-2', 'node-1'];
  // The pod's own node reaches it always: that is how the kubelet probes it.
  assert.deepEqual(
    callers.filter((from) => verdict([strict], from) === 'allow'),
    ['shop/front', 'ops/front', 'node-1'],
  );
  for (const protocol of ['UDP', 'SCTP', 'ICMP'] as const)
    assert.equal(verdict([strict], world, { protocol }), 'deny', protocol);
  const { ingress } = decision([strict], world);
  assert.deepEqual(ingress.by === 'rule' && [ingress.rule.kind, ingress.rule.name], ['PeerAuthentication', 'default']);
});

test('it allows nothing by itself', () => {
  const strict = authentication('shop/default', mode('STRICT'));
  const nothing = authorization('shop/nothing', {});
  assert.equal(verdict([strict, nothing], 'shop/front'), 'deny');
});

// [what, policies, port, may the world in]
const rows: readonly [string, readonly Policy[], number, boolean][] = [
  ['nothing asked', [], 80, true],
  ['PERMISSIVE', [authentication('shop/n', mode('PERMISSIVE'))], 80, true],
  ['UNSET alone', [authentication('shop/n', mode('UNSET'))], 80, true],
  ['an empty spec', [authentication('shop/n', {})], 80, true],
  ['DISABLE', [authentication('shop/n', mode('DISABLE'))], 80, true],
  ['the mesh', [authentication('istio-system/m', mode('STRICT'))], 80, false],
  ['another namespace', [authentication('ops/n', mode('STRICT'))], 80, true],
  [
    'a namespace overrules the mesh',
    [authentication('istio-system/m', mode('STRICT')), authentication('shop/n', mode('PERMISSIVE'))],
    80,
    true,
  ],
  [
    'a namespace that leaves it unset inherits',
    [authentication('istio-system/m', mode('STRICT')), authentication('shop/n', {})],
    80,
    false,
  ],
  [
    'a workload overrules its namespace',
    [authentication('shop/n', mode('STRICT')), authentication('shop/w', { ...cart, ...mode('PERMISSIVE') })],
    80,
    true,
  ],
  [
    'a workload overrules the mesh',
    [authentication('istio-system/m', mode('PERMISSIVE')), authentication('shop/w', { ...cart, ...mode('STRICT') })],
    80,
    false,
  ],
  [
    'a workload that leaves it unset inherits from the namespace, not from the mesh',
    [
      authentication('istio-system/m', mode('STRICT')),
      authentication('shop/n', mode('PERMISSIVE')),
      authentication('shop/w', cart),
    ],
    80,
    true,
  ],
  [
    'and from the mesh through the namespace',
    [authentication('istio-system/m', mode('STRICT')), authentication('shop/n', {}), authentication('shop/w', cart)],
    80,
    false,
  ],
  [
    'of two workloads’ the oldest',
    [
      authentication('shop/a', { ...cart, ...mode('PERMISSIVE') }, '2026-01-02T00:00:00Z'),
      authentication('shop/b', { ...v1, ...mode('STRICT') }, '2026-01-01T00:00:00Z'),
    ],
    80,
    false,
  ],
  [
    'of two namespaces’ the oldest',
    [
      authentication('shop/a', mode('STRICT'), '2026-01-02T00:00:00Z'),
      authentication('shop/b', mode('PERMISSIVE'), '2026-01-01T00:00:00Z'),
    ],
    80,
    true,
  ],
  [
    'of two of one age the first by name',
    [
      authentication('shop/b', mode('STRICT'), '2026-01-01T00:00:00Z'),
      authentication('shop/a', mode('PERMISSIVE'), '2026-01-01T00:00:00Z'),
    ],
    80,
    true,
  ],
  [
    'a selector in the root namespace is ignored',
    [authentication('istio-system/m', { ...cart, ...mode('STRICT') })],
    80,
    true,
  ],
  [
    'an exception of a port',
    [authentication('shop/w', { ...cart, ...mode('STRICT'), portLevelMtls: { 8080: { mode: 'DISABLE' } } })],
    8080,
    true,
  ],
  [
    'and no other port',
    [authentication('shop/w', { ...cart, ...mode('STRICT'), portLevelMtls: { 8080: { mode: 'DISABLE' } } })],
    80,
    false,
  ],
  [
    'a strict port',
    [authentication('shop/w', { ...cart, ...mode('PERMISSIVE'), portLevelMtls: { 8080: { mode: 'STRICT' } } })],
    8080,
    false,
  ],
  [
    'and no other port',
    [authentication('shop/w', { ...cart, ...mode('PERMISSIVE'), portLevelMtls: { 8080: { mode: 'STRICT' } } })],
    80,
    true,
  ],
  [
    'a port’s exception from what is inherited',
    [
      authentication('shop/n', mode('STRICT')),
      authentication('shop/w', { ...cart, portLevelMtls: { 80: { mode: 'PERMISSIVE' } } }),
    ],
    80,
    true,
  ],
  [
    'a port that leaves it unset is as the workload',
    [authentication('shop/w', { ...cart, ...mode('STRICT'), portLevelMtls: { 80: {} } })],
    80,
    false,
  ],
];
for (const [name, policies, port, open] of rows)
  test(`precedence: ${name}`, () => {
    for (const order of [policies, [...policies].reverse()])
      assert.equal(verdict(order, world, { port }), open ? 'allow' : 'deny');
  });

test('an exception is of TCP only', () => {
  const policy = authentication('shop/w', {
    ...cart,
    ...mode('STRICT'),
    portLevelMtls: { 80: { mode: 'PERMISSIVE' } },
  });
  assert.equal(verdict([policy], world, { protocol: 'UDP' }), 'deny');
  assert.equal(verdict([policy], world, { protocol: 'ICMP', port: 8 << 8 }), 'deny');
});

test('pods that a workload’s policy does not select are their namespace’s', () => {
  const policies = [
    authentication('shop/n', mode('STRICT')),
    authentication('shop/w', { ...cart, ...mode('PERMISSIVE') }),
  ];
  assert.equal(verdict(policies, world, { to: 'shop/admin' }), 'deny');
});

test('before it is settled a policy is no more open than it could turn out to be', () => {
  const alone = authentication('shop/n', mode('STRICT'));
  assert.equal(alone.rules.length, 1);
});

test('DISABLE is a limit', () => {
  const policy = authentication('shop/w', { ...cart, ...mode('DISABLE'), portLevelMtls: { 80: { mode: 'DISABLE' } } });
  assert.deepEqual(
    policy.limits?.map(({ field }) => field),
    ['spec.mtls.mode', 'spec.portLevelMtls.80.mode'],
  );
});

test('settling again gives the same objects, and leaves other kinds’ alone', () => {
  const policies = [
    authorization('shop/a', {}),
    authentication('istio-system/m', mode('STRICT')),
    authentication('shop/w', { ...cart, ...mode('PERMISSIVE') }),
  ];
  const first = settle(policies);
  const again = settle([...policies, authentication('ops/n', mode('STRICT'))]);
  assert.equal(first[0], policies[0]);
  assert.equal(again[2], first[2]);
  // The mesh's is about fewer now.
  assert.notEqual(again[1], first[1]);
});

test('whatever comes, it is a policy, or refused with a place and asks for proof', () => {
  const spec = { ...cart, ...mode('STRICT'), portLevelMtls: { 80: { mode: 'PERMISSIVE' } } };
  const object = { apiVersion: 'security.istio.io/v1', metadata: { namespace: 'shop', name: 'p' }, spec };
  fc.assert(
    fc.property(mutatedJson(object), (given) => {
      const result = parsePeerAuthentication(given);
      if (result.ok) return;
      assert.ok(result.issues.length > 0);
      if (result.broken === undefined) return;
      const [rule] = result.broken.rules;
      assert.deepEqual(
        [rule?.verdict, rule?.ports, rule?.peers],
        ['deny', 'any', [{ kind: 'not', peer: { kind: 'authenticated' } }]],
      );
    }),
    { numRuns: 2000 },
  );
});
