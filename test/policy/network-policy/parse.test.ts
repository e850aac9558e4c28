import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parse as parseYaml } from 'yaml';
import { parseNetworkPolicy } from '../../../src/policy/network-policy/parse.ts';
import { networkPolicySpecArbitrary } from '../../support/arbitraries.ts';
import { listCases, readCase } from '../../support/shared.ts';

const metadata = { name: 'cart', namespace: 'shop' };
const parse = (spec: unknown) => parseNetworkPolicy({ metadata, spec });
const policyOf = (spec: unknown) => {
  const result = parse(spec);
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
};

// pkg/apis/networking/v1/defaults.go, and the API's own documentation of policyTypes
const directions: readonly [string, object, readonly string[], number][] = [
  ['nothing but a selector isolates ingress', {}, ['ingress'], 0],
  ['an empty list of ingress rules isolates ingress', { ingress: [] }, ['ingress'], 0],
  ['an empty list of egress rules is no egress rule', { egress: [] }, ['ingress'], 0],
  ['an egress rule isolates egress, and ingress still', { egress: [{}] }, ['ingress', 'egress'], 1],
  ['an empty list of types is the same as none', { policyTypes: [], egress: [{}] }, ['ingress', 'egress'], 1],
  ['types that are named are the only ones', { policyTypes: ['Egress'] }, ['egress'], 0],
  ['rules of a direction that is not named are inert', { policyTypes: ['Egress'], ingress: [{}] }, ['egress'], 0],
  ['the same the other way', { policyTypes: ['Ingress'], egress: [{}], ingress: [{}] }, ['ingress'], 1],
  ['both', { policyTypes: ['Egress', 'Ingress'], egress: [{}], ingress: [{}, {}] }, ['ingress', 'egress'], 3],
  ['null is absent', { policyTypes: null, ingress: null, egress: null }, ['ingress'], 0],
];
for (const [name, spec, isolates, rules] of directions)
  test(`direction: ${name}`, () => {
    const policy = policyOf({ podSelector: {}, ...spec });
    assert.deepEqual(policy.isolates, isolates);
    assert.equal(policy.rules.length, rules);
  });

const shop = { name: 'shop' };
const peers: readonly [string, unknown, unknown][] = [
  ['absent is everybody', undefined, 'any'],
  ['null is everybody', null, 'any'],
  ['an empty list is everybody', [], 'any'],
  [
    'an empty pod selector is every pod of the policy’s namespace',
    [{ podSelector: {} }],
    [{ kind: 'pods', namespaces: shop, pods: {} }],
  ],
  [
    'a null pod selector beside a namespace selector is absent',
    [{ podSelector: null, namespaceSelector: {} }],
    [{ kind: 'pods', namespaces: { selector: {} }, pods: {} }],
  ],
  [
    'an empty namespace selector is every namespace',
    [{ namespaceSelector: {} }],
    [{ kind: 'pods', namespaces: { selector: {} }, pods: {} }],
  ],
  [
    'both selectors in one peer must both match',
    [{ namespaceSelector: { matchLabels: { a: 'b' } }, podSelector: { matchLabels: { c: 'd' } } }],
    [{ kind: 'pods', namespaces: { selector: { matchLabels: { a: 'b' } } }, pods: { matchLabels: { c: 'd' } } }],
  ],
  [
    'in two peers either may match',
    [{ namespaceSelector: {} }, { podSelector: {} }],
    [
      { kind: 'pods', namespaces: { selector: {} }, pods: {} },
      { kind: 'pods', namespaces: shop, pods: {} },
    ],
  ],
  [
    'all four operators',
    [
      {
        podSelector: {
          matchExpressions: [
            { key: 'a', operator: 'In', values: ['b', 'c'] },
            { key: 'a', operator: 'NotIn', values: ['d'] },
            { key: 'a', operator: 'Exists' },
            { key: 'e', operator: 'DoesNotExist', values: [] },
          ],
        },
      },
    ],
    [
      {
        kind: 'pods',
        namespaces: shop,
        pods: {
          matchExpressions: [
            { key: 'a', operator: 'In', values: ['b', 'c'] },
            { key: 'a', operator: 'NotIn', values: ['d'] },
            { key: 'a', operator: 'Exists' },
            { key: 'e', operator: 'DoesNotExist', values: [] },
          ],
        },
      },
    ],
  ],
  [
    'a CIDR, its host bits cleared',
    [{ ipBlock: { cidr: '10.1.2.3/8' } }],
    [{ kind: 'cidr', cidr: '10.0.0.0/8', except: [] }],
  ],
  [
    'a CIDR with exceptions',
    [{ ipBlock: { cidr: 'FD00::/16', except: ['fd00:1::/32'] } }],
    [{ kind: 'cidr', cidr: 'fd00::/16', except: ['fd00:1::/32'] }],
  ],
];
for (const [name, from, expected] of peers)
  test(`peers: ${name}`, () => {
    for (const spec of [{ ingress: [{ from }] }, { policyTypes: ['Egress'], egress: [{ to: from }] }])
      assert.deepEqual(policyOf({ podSelector: {}, ...spec }).rules[0]?.peers, expected);
  });

const ports: readonly [string, unknown, unknown][] = [
  ['absent is every protocol', undefined, 'any'],
  ['an empty list is every protocol', [], 'any'],
  ['an empty port is every TCP port', [{}], [{ protocol: 'TCP', port: { from: 0, to: 65535 } }]],
  ['a protocol alone is all its ports', [{ protocol: 'SCTP' }], [{ protocol: 'SCTP', port: { from: 0, to: 65535 } }]],
  ['TCP is the default', [{ port: 80 }], [{ protocol: 'TCP', port: { from: 80, to: 80 } }]],
  ['a name', [{ protocol: 'UDP', port: 'dns-udp' }], [{ protocol: 'UDP', port: { name: 'dns-udp' } }]],
  ['a range', [{ port: 80, endPort: 90 }], [{ protocol: 'TCP', port: { from: 80, to: 90 } }]],
  ['a range of one', [{ port: 80, endPort: 80 }], [{ protocol: 'TCP', port: { from: 80, to: 80 } }]],
  [
    'null is absent',
    [{ protocol: null, port: null, endPort: null }],
    [{ protocol: 'TCP', port: { from: 0, to: 65535 } }],
  ],
];
for (const [name, list, expected] of ports)
  test(`ports: ${name}`, () => {
    assert.deepEqual(policyOf({ podSelector: {}, ingress: [{ ports: list }] }).rules[0]?.ports, expected);
  });

test('rules know their place in the manifest', () => {
  const { rules } = policyOf({ podSelector: {}, ingress: [{}, {}], egress: [{}] });
  const ref = { kind: 'NetworkPolicy', namespace: 'shop', name: 'cart' };
  assert.deepEqual(
    rules.map((rule) => rule.ref),
    [
      { ...ref, direction: 'ingress', index: 0 },
      { ...ref, direction: 'ingress', index: 1 },
      { ...ref, direction: 'egress', index: 0 },
    ],
  );
});

test('a manifest without a namespace takes the one it is given', () => {
  const result = parseNetworkPolicy({ metadata: { name: 'x' }, spec: { podSelector: {} } }, 'here');
  assert.ok(result.ok && result.policy.namespace === 'here');
});

// [what, spec, field, message]
const refused: readonly [string, unknown, string, RegExp][] = [
  ['an unknown field', { podselector: {} }, 'spec.podselector', /not a field/],
  ['an unknown field in a rule', { ingress: [{ form: [] }] }, 'spec.ingress[0].form', /not a field/],
  ['the other direction’s field', { ingress: [{ to: [] }] }, 'spec.ingress[0].to', /not a field/],
  [
    'an unknown field in a peer',
    { ingress: [{ from: [{ podSelector: {}, nodeSelector: {} }] }] },
    'spec.ingress[0].from[0].nodeSelector',
    /not a field/,
  ],
  ['an unknown field in a selector', { podSelector: { matchLabel: {} } }, 'spec.podSelector.matchLabel', /not a field/],
  [
    'an unknown field in a port',
    { ingress: [{ ports: [{ endport: 1 }] }] },
    'spec.ingress[0].ports[0].endport',
    /not a field/,
  ],
  ['a field named __proto__', JSON.parse('{"__proto__":{}}'), 'spec.__proto__', /not a field/],
  ['an unknown type', { policyTypes: ['ingress'] }, 'spec.policyTypes[0]', /expected "Ingress" or "Egress"/],
  [
    'an unknown protocol',
    { ingress: [{ ports: [{ protocol: 'tcp' }] }] },
    'spec.ingress[0].ports[0].protocol',
    /expected "TCP"/,
  ],
  [
    'an unknown operator',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Gt', values: ['1'] }] } },
    'spec.podSelector.matchExpressions[0].operator',
    /expected "In"/,
  ],
  [
    'In without values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
    'spec.podSelector.matchExpressions[0].values',
    /not be empty/,
  ],
  [
    'NotIn with no values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'NotIn', values: [] }] } },
    'spec.podSelector.matchExpressions[0].values',
    /not be empty/,
  ],
  [
    'Exists with values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['b'] }] } },
    'spec.podSelector.matchExpressions[0].values',
    /must be empty/,
  ],
  [
    'an expression without a key',
    { podSelector: { matchExpressions: [{ operator: 'Exists' }] } },
    'spec.podSelector.matchExpressions[0].key',
    /label key/,
  ],
  [
    'a label that is a number',
    { podSelector: { matchLabels: { a: 1 } } },
    'spec.podSelector.matchLabels.a',
    /quote numbers/,
  ],
  [
    'a label without a value',
    { podSelector: { matchLabels: { a: null } } },
    'spec.podSelector.matchLabels.a',
    /expected a text/,
  ],
  [
    'a label key that is none',
    { podSelector: { matchLabels: { 'a b': 'c' } } },
    'spec.podSelector.matchLabels.a b',
    /not a label key/,
  ],
  [
    'a label key with two slashes',
    { podSelector: { matchLabels: { 'a/b/c': 'c' } } },
    'spec.podSelector.matchLabels.a/b/c',
    /not a label key/,
  ],
  [
    'a label named __proto__',
    JSON.parse('{"podSelector":{"matchLabels":{"__proto__":"x"}}}'),
    'spec.podSelector.matchLabels.__proto__',
    /not a label key/,
  ],
  [
    'a label value that is none',
    { podSelector: { matchLabels: { a: '-' } } },
    'spec.podSelector.matchLabels.a',
    /not a label value/,
  ],
  ['labels as a list', { podSelector: { matchLabels: ['a'] } }, 'spec.podSelector.matchLabels', /map of labels/],
  ['an empty peer', { ingress: [{ from: [{}] }] }, 'spec.ingress[0].from[0]', /must have podSelector/],
  ['a null peer', { ingress: [{ from: [null] }] }, 'spec.ingress[0].from[0]', /expected an object/],
  ['a null rule', { ingress: [null] }, 'spec.ingress[0]', /expected an object/],
  ['peers that are no list', { ingress: [{ from: {} }] }, 'spec.ingress[0].from', /expected a list/],
  [
    'a CIDR beside a selector',
    { ingress: [{ from: [{ podSelector: {}, ipBlock: { cidr: '::/0' } }] }] },
    'spec.ingress[0].from[0].ipBlock',
    /beside a selector/,
  ],
  [
    'a CIDR that is none',
    { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0' } }] }] },
    'spec.ingress[0].from[0].ipBlock.cidr',
    /not a CIDR/,
  ],
  [
    'no CIDR',
    { ingress: [{ from: [{ ipBlock: { except: [] } }] }] },
    'spec.ingress[0].from[0].ipBlock.cidr',
    /expected a CIDR/,
  ],
  [
    'an exception outside',
    { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }] }] },
    'spec.ingress[0].from[0].ipBlock.except[0]',
    /within 10.0.0.0\/8/,
  ],
  [
    'an exception of everything',
    { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.9.0.0/8'] } }] }] },
    'spec.ingress[0].from[0].ipBlock.except[0]',
    /smaller/,
  ],
  [
    'an exception of the other family',
    { ingress: [{ from: [{ ipBlock: { cidr: '::/0', except: ['10.0.0.0/8'] } }] }] },
    'spec.ingress[0].from[0].ipBlock.except[0]',
    /within ::\/0/,
  ],
  ['port 0', { ingress: [{ ports: [{ port: 0 }] }] }, 'spec.ingress[0].ports[0].port', /1 to 65535/],
  ['port 65536', { ingress: [{ ports: [{ port: 65536 }] }] }, 'spec.ingress[0].ports[0].port', /1 to 65535/],
  ['a broken port', { ingress: [{ ports: [{ port: 80.5 }] }] }, 'spec.ingress[0].ports[0].port', /port number/],
  [
    'a number as a name',
    { ingress: [{ ports: [{ port: '80' }] }] },
    'spec.ingress[0].ports[0].port',
    /not a port name/,
  ],
  [
    'a name that is too long',
    { ingress: [{ ports: [{ port: 'a-very-long-port' }] }] },
    'spec.ingress[0].ports[0].port',
    /not a port name/,
  ],
  [
    'an end before the start',
    { ingress: [{ ports: [{ port: 90, endPort: 80 }] }] },
    'spec.ingress[0].ports[0].endPort',
    /less than port 90/,
  ],
  [
    'an end of a name',
    { ingress: [{ ports: [{ port: 'web', endPort: 80 }] }] },
    'spec.ingress[0].ports[0].endPort',
    /numeric port/,
  ],
  [
    'an end without a start',
    { ingress: [{ ports: [{ endPort: 80 }] }] },
    'spec.ingress[0].ports[0].endPort',
    /numeric port/,
  ],
  ['a spec that is none', 'yes', 'spec', /expected an object/],
];
for (const [name, spec, field, message] of refused)
  test(`refused: ${name}`, () => {
    const result = parse(spec);
    assert.ok(!result.ok);
    const [issue, ...others] = result.issues;
    assert.deepEqual(others, []);
    assert.equal(issue?.field, field);
    assert.match(issue.message, message);
    // Until it is mended it closes what it would have opened, and says so.
    assert.deepEqual(result.broken?.isolates, ['ingress', 'egress']);
    assert.deepEqual(result.broken?.rules, []);
    assert.ok(result.broken?.broken.includes(`${field}: ${issue.message}`), result.broken?.broken);
  });

test('every issue is told, with the path for whoever finds the line', () => {
  const result = parse({ podSelector: {}, ingress: [{ ports: [{ port: 0 }, { port: -1 }] }], x: 1 });
  assert.ok(!result.ok);
  assert.deepEqual(
    result.issues.map(({ path }) => path),
    [
      ['spec', 'ingress', 0, 'ports', 0, 'port'],
      ['spec', 'ingress', 0, 'ports', 1, 'port'],
      ['spec', 'x'],
    ],
  );
});

test('a broken policy is about the pods that it selects, or all of its namespace if that cannot be read', () => {
  const subjectOf = (spec: unknown) => {
    const result = parse(spec);
    assert.ok(!result.ok);
    return result.broken?.subject;
  };
  const namespaces = { name: 'shop' };
  assert.deepEqual(subjectOf({ podSelector: { matchLabels: { a: 'b' } }, ingress: [{ x: 1 }] }), {
    kind: 'pods',
    namespaces,
    pods: { matchLabels: { a: 'b' } },
  });
  assert.deepEqual(subjectOf({ podSelector: { matchLabels: { a: 'b' }, x: 1 } }), {
    kind: 'pods',
    namespaces,
    pods: {},
  });
  assert.deepEqual(subjectOf(7), { kind: 'pods', namespaces, pods: {} });
});

test('what is not a NetworkPolicy at all', () => {
  for (const object of [undefined, null, 7, 'x', [], {}, { metadata: {} }, { metadata: { name: '' } }]) {
    const result = parseNetworkPolicy(object);
    assert.ok(!result.ok && result.broken === undefined && result.issues.length > 0, JSON.stringify(object));
  }
  for (const kind of [{ kind: 'Pod' }, { apiVersion: 'networking.k8s.io/v2' }, { extra: 1 }]) {
    const result = parseNetworkPolicy({ ...kind, metadata, spec: {} });
    assert.ok(!result.ok && result.broken !== undefined, JSON.stringify(kind));
  }
});

test('policies of an application, as published', () => {
  const folder = ['online-boutique', 'network-policies'];
  const files = listCases(...folder);
  assert.ok(files.length >= 13);
  for (const file of files) {
    const result = parseNetworkPolicy(parseYaml(readCase(...folder, file)));
    assert.ok(result.ok, `${file}: ${JSON.stringify(result)}`);
  }
});

test('parsing never throws, and whatever is not understood isolates', () => {
  const noise = fc.anything({ maxDepth: 3, withNullPrototype: true });
  const mutated = fc.tuple(
    networkPolicySpecArbitrary,
    fc.constantFrom('podSelector', 'policyTypes', 'ingress', 'egress', 'more'),
    noise,
  );
  fc.assert(
    fc.property(mutated, ([spec, field, value]) => {
      const result = parse({ ...spec, [field]: value });
      if (result.ok) return;
      assert.ok(result.issues.length > 0);
      assert.deepEqual(result.broken?.isolates, ['ingress', 'egress']);
      assert.deepEqual(result.broken.rules, []);
    }),
    { numRuns: 1000 },
  );
});
