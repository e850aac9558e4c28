import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseClusterNetworkPolicy } from '../../../src/policy/cluster-network-policy/parse.ts';
import { mutatedJson } from '../../support/json.ts';

const metadata = { name: 'guard' };
const subject = { namespaces: {} };
const spec = (own: object) => ({ tier: 'Admin', priority: 10, subject, ...own });
const policyOf = (own: object) => {
  const result = parseClusterNetworkPolicy({ metadata, spec: spec(own) });
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
};
const issuesOf = (object: unknown) => {
  const result = parseClusterNetworkPolicy(object);
  assert.ok(!result.ok, 'it was accepted');
  return result.issues.map(({ field, message }) => `${field}: ${message}`);
};
const everybody = [{ namespaces: {} }];

const peers: readonly [string, object, unknown][] = [
  ['all namespaces', { namespaces: {} }, [{ kind: 'pods', namespaces: { selector: {} }, pods: {} }]],
  [
    'namespaces by label',
    { namespaces: { matchLabels: { team: 'a' } } },
    [{ kind: 'pods', namespaces: { selector: { matchLabels: { team: 'a' } } }, pods: {} }],
  ],
  [
    'pods of namespaces',
    { pods: { namespaceSelector: { matchLabels: { team: 'a' } }, podSelector: { matchLabels: { app: 'b' } } } },
    [
      {
        kind: 'pods',
        namespaces: { selector: { matchLabels: { team: 'a' } } },
        pods: { matchLabels: { app: 'b' } },
      },
    ],
  ],
  [
    'without a namespace selector pods are of every namespace',
    { pods: { podSelector: {} } },
    [{ kind: 'pods', namespaces: { selector: {} }, pods: {} }],
  ],
  ['every node', { nodes: {} }, [{ kind: 'node', which: 'any', labels: {} }]],
  [
    'nodes by label',
    { nodes: { matchExpressions: [{ key: 'control-plane', operator: 'Exists' }] } },
    [{ kind: 'node', which: 'any', labels: { matchExpressions: [{ key: 'control-plane', operator: 'Exists' }] } }],
  ],
  [
    'networks, host bits cleared, the cluster’s own addresses too',
    { networks: ['10.1.2.3/8', 'fd00::/8'] },
    [
      { kind: 'cidr', cidr: '10.0.0.0/8', except: [] },
      { kind: 'cidr', cidr: 'fd00::/8', except: [] },
    ],
  ],
  [
    'domain names: a star is one label or more',
    { domainNames: ['Kubernetes.io', '*.kubernetes.io.'] },
    [
      { kind: 'name', pattern: { pattern: 'kubernetes.io' } },
      { kind: 'name', pattern: { pattern: '**.kubernetes.io' } },
    ],
  ],
];
for (const [name, peer, expected] of peers)
  test(`peers: ${name}`, () => {
    const policy = policyOf({ egress: [{ action: 'Accept', to: [peer] }] });
    assert.deepEqual(policy.rules[0]?.peers, expected);
    if ('pods' in peer || 'namespaces' in peer)
      assert.deepEqual(policyOf({ ingress: [{ action: 'Deny', from: [peer] }] }).rules[0]?.peers, expected);
  });

const protocols: readonly [string, unknown, unknown][] = [
  ['absent is every protocol', undefined, 'any'],
  ['a port', [{ tcp: { destinationPort: { number: 80 } } }], [{ protocol: 'TCP', port: { from: 80, to: 80 } }]],
  [
    'a range',
    [{ udp: { destinationPort: { range: { start: 1, end: 65535 } } } }],
    [{ protocol: 'UDP', port: { from: 1, to: 65535 } }],
  ],
  [
    'several',
    [{ sctp: { destinationPort: { number: 7 } } }, { tcp: { destinationPort: { number: 8 } } }],
    [
      { protocol: 'SCTP', port: { from: 7, to: 7 } },
      { protocol: 'TCP', port: { from: 8, to: 8 } },
    ],
  ],
  [
    'a named port, of whatever protocol',
    [{ destinationNamedPort: 'web' }],
    ['TCP', 'UDP', 'SCTP'].map((protocol) => ({ protocol, port: { name: 'web' } })),
  ],
];
for (const [name, list, expected] of protocols)
  test(`protocols: ${name}`, () => {
    const { rules } = policyOf({ ingress: [{ action: 'Accept', from: everybody, protocols: list }] });
    assert.deepEqual(rules[0]?.ports, expected);
  });

test('tier, priority, action, name and place of a rule', () => {
  const rules = ['Accept', 'Deny', 'Pass'].map((action, i) => ({ name: `rule ${i}`, action, from: everybody }));
  const read = (tier: string, priority: number) =>
    policyOf({ tier, priority, ingress: rules, egress: [{ action: 'Deny', to: everybody }] }).rules.map(
      ({ ref, verdict, level, description }) => `${ref.direction}[${ref.index}] ${level} ${verdict} ${description}`,
    );
  assert.deepEqual(read('Admin', 0), [
    'ingress[0] admin allow rule 0',
    'ingress[1] admin deny rule 1',
    'ingress[2] admin pass rule 2',
    'egress[0] admin deny undefined',
  ]);
  assert.equal(read('Baseline', 1000)[0], 'ingress[0] baseline allow rule 0');
});

test('the last rule of a policy decides before the first of the next priority', () => {
  const ingress = Array.from({ length: 25 }, () => ({ action: 'Pass', from: everybody }));
  const last = policyOf({ priority: 3, ingress }).rules.at(-1)?.priority;
  const first = policyOf({ priority: 4, ingress }).rules[0]?.priority;
  assert.ok(last !== undefined && first !== undefined && last < first, `${last} is not below ${first}`);
});

test('it stands in the network gate, isolates nobody and is about pods', () => {
  const {
    gate,
    isolates,
    namespace,
    subject: who,
  } = policyOf({
    subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'a' } } } },
  });
  assert.deepEqual([gate, isolates, namespace], ['network', [], '']);
  assert.deepEqual(who, { kind: 'pods', namespaces: { selector: {} }, pods: { matchLabels: { app: 'a' } } });
});

test('domain names are peers like others, and no limit', () => {
  const egress = [{ action: 'Accept', to: [{ namespaces: {} }, { domainNames: ['a.example'] }] }];
  assert.equal(policyOf({ egress }).limits, undefined);
});

const accept = (rule: object) => spec({ egress: [{ action: 'Accept', to: everybody, ...rule }] });
// Each bound of the definition, from the far side of it.
const refused: readonly [string, object, string][] = [
  ['an unknown field', spec({ colour: 'red' }), 'spec.colour: is not a field of this kind'],
  ['an unknown tier', spec({ tier: 'Middle' }), 'spec.tier: expected "Admin" or "Baseline"'],
  ['no priority', { tier: 'Admin', subject }, 'spec.priority: expected a whole number'],
  ['a priority above 1000', spec({ priority: 1001 }), 'spec.priority: must be from 0 to 1000'],
  ['a priority below 0', spec({ priority: -1 }), 'spec.priority: must be from 0 to 1000'],
  ['a priority that is no whole number', spec({ priority: 1.5 }), 'spec.priority: expected a whole number'],
  ['no subject', { tier: 'Admin', priority: 1 }, 'spec.subject: expected an object'],
  ['an empty subject', spec({ subject: {} }), 'spec.subject: must have exactly one field'],
  [
    'two subjects',
    spec({ subject: { namespaces: {}, pods: { podSelector: {} } } }),
    'spec.subject: must have exactly one field',
  ],
  [
    'a subject without pod selector',
    spec({ subject: { pods: {} } }),
    'spec.subject.pods.podSelector: expected an object',
  ],
  ['an unknown action', accept({ action: 'Allow' }), 'spec.egress[0].action: expected "Accept" or "Deny" or "Pass"'],
  ['no peers', accept({ to: [] }), 'spec.egress[0].to: must have at least one element'],
  ['peers left out', spec({ egress: [{ action: 'Deny' }] }), 'spec.egress[0].to: expected a list'],
  ['26 peers', accept({ to: Array(26).fill({ namespaces: {} }) }), 'spec.egress[0].to: must have at most 25 elements'],
  [
    '26 rules',
    spec({ ingress: Array(26).fill({ action: 'Deny', from: everybody }) }),
    'spec.ingress: must have at most 25 rules',
  ],
  ['an empty peer', accept({ to: [{}] }), 'spec.egress[0].to[0]: must have exactly one field'],
  [
    'networks of ingress',
    spec({ ingress: [{ action: 'Deny', from: [{ networks: ['10.0.0.0/8'] }] }] }),
    'spec.ingress[0].from[0].networks: is not a field of this kind',
  ],
  [
    'a network that is none',
    accept({ to: [{ networks: ['10.0.0.0'] }] }),
    'spec.egress[0].to[0].networks[0]: is not a CIDR prefix such as 10.0.0.0/8 or fd00::/48',
  ],
  [
    'IPv4 inside IPv6',
    accept({ to: [{ networks: ['::ffff:10.0.0.0/104'] }] }),
    'spec.egress[0].to[0].networks[0]: is not a CIDR prefix such as 10.0.0.0/8 or fd00::/48',
  ],
  [
    'a network twice',
    accept({ to: [{ networks: ['10.0.0.0/8', '10.0.0.0/8'] }] }),
    'spec.egress[0].to[0].networks[1]: is there already',
  ],
  ['no protocols', accept({ protocols: [] }), 'spec.egress[0].protocols: must have at least one element'],
  ['an empty protocol', accept({ protocols: [{}] }), 'spec.egress[0].protocols[0]: must have exactly one field'],
  [
    'a protocol without a port',
    accept({ protocols: [{ tcp: {} }] }),
    'spec.egress[0].protocols[0].tcp: must have exactly one field',
  ],
  [
    'port 0',
    accept({ protocols: [{ tcp: { destinationPort: { number: 0 } } }] }),
    'spec.egress[0].protocols[0].tcp.destinationPort.number: must be from 1 to 65535',
  ],
  [
    'a range of one',
    accept({ protocols: [{ tcp: { destinationPort: { range: { start: 5, end: 5 } } } }] }),
    'spec.egress[0].protocols[0].tcp.destinationPort.range: start must be less than end',
  ],
  [
    'a number beside a range',
    accept({ protocols: [{ tcp: { destinationPort: { number: 1, range: { start: 1, end: 2 } } } }] }),
    'spec.egress[0].protocols[0].tcp.destinationPort: must have exactly one field',
  ],
  ['a name of 101 letters', accept({ name: 'x'.repeat(101) }), 'spec.egress[0].name: must have at most 100 characters'],
  [
    'named ports of nodes',
    accept({ to: [{ nodes: {} }], protocols: [{ destinationNamedPort: 'web' }] }),
    'spec.egress[0]: networks, nodes and domainNames have no named ports, so no protocol may be a destinationNamedPort',
  ],
  [
    'a domain name to deny',
    accept({ action: 'Deny', to: [{ domainNames: ['a.example'] }] }),
    'spec.egress[0].to[0].domainNames: is only for rules with action Accept',
  ],
  [
    'a domain name with a star inside',
    accept({ to: [{ domainNames: ['a.*.example'] }] }),
    'spec.egress[0].to[0].domainNames[0]: is not a domain name such as kubernetes.io or *.kubernetes.io',
  ],
  [
    'a selector that is none',
    spec({ subject: { namespaces: { matchExpressions: [{ key: 'a', operator: 'In' }] } } }),
    'spec.subject.namespaces.matchExpressions[0].values: must not be empty with operator In',
  ],
];
for (const [name, own, expected] of refused)
  test(`refused: ${name}`, () => assert.equal(issuesOf({ metadata, spec: own })[0], expected));

test('what is not understood denies all that it selects, at its own place in the order', () => {
  const own = { subject: { namespaces: { matchLabels: { team: 'a' } } }, tier: 'Baseline', priority: 7, colour: 'red' };
  const result = parseClusterNetworkPolicy({ metadata, spec: own });
  assert.ok(!result.ok && result.broken !== undefined);
  const { broken } = result;
  assert.deepEqual(broken.subject, {
    kind: 'pods',
    namespaces: { selector: { matchLabels: { team: 'a' } } },
    pods: {},
  });
  assert.deepEqual(
    broken.rules.map(({ ref, verdict, level, peers: whom, ports }) => [ref.direction, verdict, level, whom, ports]),
    [
      ['ingress', 'deny', 'baseline', 'any', 'any'],
      ['egress', 'deny', 'baseline', 'any', 'any'],
    ],
  );
  assert.match(broken.broken, /the pods that it selects: spec.colour: is not a field/);
});

test('what is not understood at all denies every pod everything, before all others', () => {
  const result = parseClusterNetworkPolicy({ metadata, spec: 'none' });
  assert.ok(!result.ok && result.broken !== undefined);
  assert.deepEqual(result.broken.subject, { kind: 'pods', namespaces: { selector: {} }, pods: {} });
  assert.deepEqual(
    result.broken.rules.map(({ level, priority, verdict }) => [level, priority, verdict]),
    [
      ['admin', 0, 'deny'],
      ['admin', 0, 'deny'],
    ],
  );
});

test('whatever comes, it is a policy, or refused with a place and closed', () => {
  const whole = spec({
    ingress: [{ name: 'a', action: 'Pass', from: [{ namespaces: {} }, { pods: { podSelector: {} } }] }],
    egress: [
      {
        action: 'Accept',
        to: [{ networks: ['10.0.0.0/8'] }, { nodes: {} }, { domainNames: ['*.a.example'] }],
        protocols: [
          { tcp: { destinationPort: { number: 80 } } },
          { udp: { destinationPort: { range: { start: 1, end: 9 } } } },
        ],
      },
    ],
  });
  fc.assert(
    fc.property(mutatedJson({ metadata, spec: whole }), (object) => {
      const result = parseClusterNetworkPolicy(object);
      if (result.ok) return;
      assert.ok(result.issues.length > 0);
      if (result.broken === undefined) return;
      assert.ok(result.broken.rules.length === 2 && result.broken.rules.every(({ verdict }) => verdict === 'deny'));
    }),
    { numRuns: 2000 },
  );
});
