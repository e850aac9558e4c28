import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAuthorizationPolicy } from '../../../src/policy/istio/authorization.ts';
import { mutatedJson } from '../../support/json.ts';
import { authorization, decision, verdict } from './istio.ts';

const callers = ['shop/front', 'shop/admin', 'ops/front', 'ops-test/scan', '203.0.113.9', 'node-2'];

/** Who of `callers` gets through, by an ALLOW policy with these rules. */
const letThrough = (rules: unknown) => {
  const policy = authorization('shop/p', { rules });
  return callers.filter((from) => verdict([policy], from) === 'allow');
};
/** Whom a DENY policy with these rules stops. */
const stopped = (rules: unknown) => {
  const policy = authorization('shop/p', { action: 'DENY', rules });
  return callers.filter((from) => verdict([policy], from) === 'deny');
};

// [what, source, whom it is]. The other two columns follow: ALLOW lets through and DENY stops exactly these.
const sources: readonly [string, object, readonly string[]][] = [
  ['an exact principal', { principals: ['cluster.local/ns/shop/sa/front'] }, ['shop/front']],
  ['a principal by prefix', { principals: ['cluster.local/ns/ops*'] }, ['ops/front', 'ops-test/scan']],
  ['a principal by suffix', { principals: ['*/sa/front'] }, ['shop/front', 'ops/front']],
  ['any principal', { principals: ['*'] }, ['shop/front', 'shop/admin', 'ops/front', 'ops-test/scan']],
  ['one of two', { principals: ['*/sa/admin', '*/sa/scan'] }, ['shop/admin', 'ops-test/scan']],
  ['no principal', { notPrincipals: ['*'] }, ['203.0.113.9', 'node-2']],
  [
    'not a principal, none too',
    { notPrincipals: ['*/sa/front'] },
    ['shop/admin', 'ops-test/scan', '203.0.113.9', 'node-2'],
  ],
  ['a namespace', { namespaces: ['ops'] }, ['ops/front']],
  ['a namespace by prefix', { namespaces: ['ops*'] }, ['ops/front', 'ops-test/scan']],
  ['a namespace by suffix', { namespaces: ['*-test'] }, ['ops-test/scan']],
  ['any namespace is an identity', { namespaces: ['*'] }, ['shop/front', 'shop/admin', 'ops/front', 'ops-test/scan']],
  ['not a namespace', { notNamespaces: ['shop', 'ops'] }, ['ops-test/scan', '203.0.113.9', 'node-2']],
  ['a service account of the policy’s namespace', { serviceAccounts: ['front'] }, ['shop/front']],
  ['a service account of another', { serviceAccounts: ['ops/front'] }, ['ops/front']],
  [
    'not a service account',
    { notServiceAccounts: ['front', 'ops/front', 'admin'] },
    ['ops-test/scan', '203.0.113.9', 'node-2'],
  ],
  ['an address', { ipBlocks: ['203.0.113.9'] }, ['203.0.113.9']],
  ['a prefix, pods’ addresses too', { ipBlocks: ['10.244.2.0/31'] }, ['shop/front']],
  ['not a prefix', { notIpBlocks: ['10.0.0.0/8'] }, ['203.0.113.9', 'node-2']],
  ['all fields must hold', { namespaces: ['shop'], principals: ['*/sa/front'] }, ['shop/front']],
  ['positive and negative', { namespaces: ['shop'], notPrincipals: ['*/sa/front'] }, ['shop/admin']],
  ['an empty list is an absent one', { namespaces: ['shop'], principals: [] }, ['shop/front', 'shop/admin']],
  ['the trust domain', { trustDomains: ['cluster.*'] }, ['shop/front', 'shop/admin', 'ops/front', 'ops-test/scan']],
  ['another trust domain', { trustDomains: ['other.example'] }, []],
  ['not the trust domain', { notTrustDomains: ['*.local'] }, ['203.0.113.9', 'node-2']],
];
for (const [name, source, expected] of sources)
  test(`source: ${name}`, () => {
    assert.deepEqual(letThrough([{ from: [{ source }] }]), expected);
    assert.deepEqual(stopped([{ from: [{ source }] }]), expected);
  });

const conditions: readonly [string, object, readonly string[]][] = [
  ['source.ip', { values: ['10.244.2.1', '203.0.113.0/24'] }, ['shop/front', '203.0.113.9']],
  ['source.ip', { notValues: ['0.0.0.0/1'] }, ['203.0.113.9', 'node-2']],
  ['source.namespace', { values: ['ops*'], notValues: ['ops'] }, ['ops-test/scan']],
  ['source.principal', { values: ['*/sa/admin'] }, ['shop/admin']],
  ['source.serviceAccount', { values: ['ops/front', 'admin'] }, ['shop/admin', 'ops/front']],
  ['source.trustDomain', { notValues: ['cluster.local'] }, ['203.0.113.9', 'node-2']],
  ['destination.port', { values: ['80'] }, callers],
  ['destination.port', { notValues: ['80'] }, []],
  ['destination.ip', { values: ['10.244.1.2'] }, callers],
  ['destination.ip', { values: ['10.244.1.0/24'], notValues: ['10.244.1.2'] }, []],
  ['destination.ip', { values: ['fd00::/8'] }, []],
];
for (const [key, asked, expected] of conditions)
  test(`when ${key}: ${JSON.stringify(asked)}`, () => {
    assert.deepEqual(letThrough([{ when: [{ key, ...asked }] }]), expected);
    assert.deepEqual(stopped([{ when: [{ key, ...asked }] }]), expected);
  });

test('sources are alternatives, conditions must all hold, rules are alternatives', () => {
  const from = [{ source: { namespaces: ['shop'] } }, { source: { namespaces: ['ops'] } }];
  const when = [{ key: 'source.principal', values: ['*/sa/front'] }];
  assert.deepEqual(letThrough([{ from, when }]), ['shop/front', 'ops/front']);
  assert.deepEqual(letThrough([{ from: [from[0]] }, { from: [from[1]] }]), ['shop/front', 'shop/admin', 'ops/front']);
});

test('a destination’s address is the one of the flow’s family', () => {
  const policy = authorization('shop/p', { rules: [{ when: [{ key: 'destination.ip', values: ['10.244.1.2'] }] }] });
  assert.equal(verdict([policy], 'shop/front', { family: 4 }), 'allow');
  assert.equal(verdict([policy], 'shop/front', { family: 6 }), 'deny');
});

// Rows of what the API's documentation says of rules that are empty or not there.
const empties: readonly [string, object | undefined, 'allow' | 'deny'][] = [
  ['no spec at all allows nothing', undefined, 'deny'],
  ['an empty spec allows nothing', {}, 'deny'],
  ['no rules allow nothing', { rules: [] }, 'deny'],
  ['an empty rule allows everything', { rules: [{}] }, 'allow'],
  ['an empty rule denies everything', { action: 'DENY', rules: [{}] }, 'deny'],
  ['AUDIT decides nothing', { action: 'AUDIT', rules: [{}] }, 'allow'],
  ['CUSTOM denies what it matches', { action: 'CUSTOM', provider: { name: 'x' }, rules: [{}] }, 'deny'],
  [
    'and nothing else',
    { action: 'CUSTOM', provider: { name: 'x' }, rules: [{ to: [{ operation: { ports: ['81'] } }] }] },
    'allow',
  ],
];
for (const [name, spec, expected] of empties)
  test(`rules: ${name}`, () => {
    const result = parseAuthorizationPolicy({ metadata: { namespace: 'shop', name: 'p' }, spec });
    assert.ok(result.ok, JSON.stringify(result));
    for (const from of callers) assert.equal(verdict([result.policy], from), expected);
  });

test('DENY goes before ALLOW, and without an ALLOW all else is allowed', () => {
  const allow = authorization('shop/a', { rules: [{ from: [{ source: { namespaces: ['shop'] } }] }] });
  const deny = authorization('shop/d', {
    action: 'DENY',
    rules: [{ from: [{ source: { principals: ['*/sa/front'] } }] }],
  });
  assert.deepEqual(
    callers.filter((from) => verdict([allow, deny], from) === 'allow'),
    ['shop/admin'],
  );
  assert.deepEqual(
    callers.filter((from) => verdict([deny], from) === 'deny'),
    ['shop/front', 'ops/front'],
  );
  const { ingress } = decision([allow, deny], 'shop/front');
  assert.equal(ingress.by === 'rule' && ingress.rule.name, 'd');
});

// [what, operation, [protocol, port] it matches when it allows, and when it denies]
const tcp = (port: number) => `TCP ${port}`;
const ports: readonly [string, object, readonly string[], readonly string[]][] = [
  ['a port', { ports: ['80'] }, [tcp(80)], [tcp(80), 'UDP 80']],
  ['two', { ports: ['80', '443'] }, [tcp(80), tcp(443)], [tcp(80), tcp(443), 'UDP 80']],
  ['not a port', { notPorts: ['80'] }, [tcp(443)], [tcp(443), 'ICMP 2048']],
  ['a port but', { ports: ['80', '443'], notPorts: ['80'] }, [tcp(443)], [tcp(443)]],
  ['none', { ports: ['80'], notPorts: ['80'] }, [], []],
];
for (const [name, operation, allowed, denied] of ports)
  test(`operation: ${name}`, () => {
    const probes = [
      ['TCP', 80],
      ['TCP', 443],
      ['UDP', 80],
      ['ICMP', 8 << 8],
    ] as const;
    const matched = (action: string, expected: 'allow' | 'deny') => {
      const policy = authorization('shop/p', { action, rules: [{ to: [{ operation }] }] });
      const found = probes.filter(
        ([protocol, port]) => verdict([policy], 'shop/front', { protocol, port }) === expected,
      );
      return found.map(([protocol, port]) => `${protocol} ${port}`);
    };
    assert.deepEqual(matched('ALLOW', 'allow'), allowed);
    assert.deepEqual(matched('DENY', 'deny'), denied);
  });

test('a rule without ports is about every protocol', () => {
  const policy = authorization('shop/p', { rules: [{ from: [{ source: { namespaces: ['shop'] } }] }] });
  for (const protocol of ['UDP', 'SCTP', 'ICMP'] as const) {
    assert.equal(verdict([policy], 'shop/front', { protocol }), 'allow');
    assert.equal(verdict([policy], 'ops/front', { protocol }), 'deny');
  }
});

test('a condition about the port narrows the operation’s', () => {
  const rules = [
    { to: [{ operation: { notPorts: ['22'] } }], when: [{ key: 'destination.port', values: ['22', '80', '81'] }] },
  ];
  const policy = authorization('shop/p', { rules });
  const open = [22, 80, 81, 82].filter((port) => verdict([policy], 'shop/front', { port }) === 'allow');
  assert.deepEqual(open, [80, 81]);
});

const scopes: readonly [string, string, object, string, 'allow' | 'deny'][] = [
  ['the policy’s namespace', 'shop/p', {}, 'shop/cart', 'deny'],
  ['not another', 'shop/p', {}, 'ops/front', 'allow'],
  ['the root namespace is every namespace', 'istio-system/p', {}, 'ops/front', 'deny'],
  ['a selector', 'shop/p', { selector: { matchLabels: { app: 'cart' } } }, 'shop/cart', 'deny'],
  ['a selector’s other pods', 'shop/p', { selector: { matchLabels: { app: 'cart' } } }, 'shop/admin', 'allow'],
  [
    'all labels must match',
    'shop/p',
    { selector: { matchLabels: { app: 'cart', version: 'v2' } } },
    'shop/cart',
    'allow',
  ],
  ['an empty selector is every pod', 'shop/p', { selector: {} }, 'shop/admin', 'deny'],
  [
    'a selector in the root namespace',
    'istio-system/p',
    { selector: { matchLabels: { app: 'front' } } },
    'ops/front',
    'deny',
  ],
  [
    'what it is attached to is not known here, so all of its namespace',
    'shop/p',
    { targetRefs: [{ kind: 'Gateway', group: 'gateway.networking.k8s.io', name: 'waypoint' }] },
    'shop/admin',
    'deny',
  ],
];
for (const [name, policy, spec, to, expected] of scopes)
  test(`scope: ${name}`, () => assert.equal(verdict([authorization(policy, spec)], 'ops-test/scan', { to }), expected));

test('another root namespace and trust domain, by setting', () => {
  const object = {
    metadata: { namespace: 'mesh-root', name: 'p' },
    spec: { rules: [{ from: [{ source: { trustDomains: ['prod.example'] } }] }] },
  };
  const result = parseAuthorizationPolicy(object, { rootNamespace: 'mesh-root', trustDomain: 'prod.example' });
  assert.ok(result.ok);
  assert.equal(verdict([result.policy], 'ops/front', { to: 'shop/cart' }), 'allow');
  assert.equal(verdict([result.policy], 'node-2', { to: 'shop/cart' }), 'deny');
});

test('AUDIT is an audited DENY: a dry run that asks for nothing more', () => {
  const rules = [{ from: [{ source: { namespaces: ['ops'] } }] }];
  const policy = authorization('shop/p', { action: 'AUDIT', rules });
  assert.deepEqual([policy.options?.mode, policy.isolates, policy.limits], ['audit', [], undefined]);
  const enforced = { ...policy, options: {} };
  assert.equal(verdict([policy], 'ops/front'), 'allow');
  assert.equal(verdict([enforced], 'ops/front'), 'deny');
  assert.equal(verdict([enforced], 'shop/front'), 'allow');
});

test('a dry run is said, and decides nothing', () => {
  const policy = authorization('shop/p', {}, { annotations: { 'istio.io/dry-run': 'true' } });
  assert.equal(policy.options?.mode, 'audit');
  assert.equal(verdict([policy], 'shop/front'), 'allow');
  const wrong = authorization('shop/p', {}, { annotations: { 'istio.io/dry-run': 'yes please' } });
  assert.equal(verdict([wrong], 'shop/front'), 'deny');
});

test('nothing of it is about what pods send', () => {
  const policy = authorization('shop/p', { action: 'DENY', rules: [{}] });
  assert.equal(verdict([policy], 'shop/cart', { to: 'ops/front' }), 'allow');
});

test('whatever comes, it is a policy, or refused with a place and closed', () => {
  const whole = {
    selector: { matchLabels: { app: 'cart' } },
    action: 'DENY',
    rules: [
      {
        from: [
          { source: { principals: ['a'], notIpBlocks: ['10.0.0.0/8'] } },
          { source: { serviceAccounts: ['x/y'] } },
        ],
        to: [{ operation: { ports: ['80'], notPaths: ['/a/{*}'], methods: ['GET'] } }],
        when: [
          { key: 'request.headers[x]', values: ['1'] },
          { key: 'destination.ip', notValues: ['10.0.0.1'] },
        ],
      },
    ],
  };
  const object = { apiVersion: 'security.istio.io/v1', metadata: { namespace: 'shop', name: 'p' }, spec: whole };
  fc.assert(
    fc.property(mutatedJson(object), (given) => {
      const result = parseAuthorizationPolicy(given);
      if (result.ok) return;
      assert.ok(result.issues.length > 0);
      if (result.broken === undefined) return;
      // Whoever it is about is closed to everybody, whatever else is allowed.
      const [rule] = result.broken.rules;
      assert.deepEqual([rule?.verdict, rule?.peers, rule?.ports], ['deny', 'any', 'any']);
    }),
    { numRuns: 2000 },
  );
});
