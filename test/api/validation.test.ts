import assert from 'node:assert/strict';
import { test } from 'node:test';
import { objectOr } from '../../src/api/json.ts';
import { kinds } from '../../src/api/kinds.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import { type Answer, causesOf, TestApi } from './harness.ts';

const policies = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies';

function policy(spec: unknown, name = 'p') {
  return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name }, spec };
}

const ingress = (rule: unknown) => ({ podSelector: {}, ingress: [rule] });
const port = (value: unknown) => ingress({ ports: [value] });
const block = (value: unknown) => ingress({ from: [{ ipBlock: value }] });

/** Specs that Kubernetes refuses, and the fields that it names. */
const refused: readonly (readonly [string, unknown, readonly string[]])[] = [
  [
    'an endPort below the port',
    port({ port: 80, endPort: 79 }),
    ['spec.ingress[0].ports[0].endPort: FieldValueInvalid'],
  ],
  ['an endPort without a port', port({ endPort: 79 }), ['spec.ingress[0].ports[0].endPort: FieldValueInvalid']],
  [
    'an endPort beside a name',
    port({ port: 'http', endPort: 79 }),
    ['spec.ingress[0].ports[0].endPort: FieldValueInvalid'],
  ],
  ['port 0', port({ port: 0 }), ['spec.ingress[0].ports[0].port: FieldValueInvalid']],
  ['port 65536', port({ port: 65536 }), ['spec.ingress[0].ports[0].port: FieldValueInvalid']],
  ['a port name that is none', port({ port: 'UPPER_case' }), ['spec.ingress[0].ports[0].port: FieldValueInvalid']],
  ['a port that is a fraction', port({ port: 80.5 }), ['spec.ingress[0].ports[0].port: FieldValueTypeInvalid']],
  [
    'a protocol without ports',
    port({ protocol: 'ICMP' }),
    ['spec.ingress[0].ports[0].protocol: FieldValueNotSupported'],
  ],
  [
    'a protocol in lower case',
    port({ protocol: 'tcp' }),
    ['spec.ingress[0].ports[0].protocol: FieldValueNotSupported'],
  ],
  ['an empty peer', ingress({ from: [{}] }), ['spec.ingress[0].from[0]: FieldValueRequired']],
  ['a null rule', ingress(null), ['spec.ingress[0]: FieldValueTypeInvalid']],
  ['a null peer', ingress({ from: [null] }), ['spec.ingress[0].from[0]: FieldValueTypeInvalid']],
  [
    'an ipBlock beside a selector',
    ingress({ from: [{ podSelector: {}, ipBlock: { cidr: '10.0.0.0/8' } }] }),
    ['spec.ingress[0].from[0]: FieldValueForbidden'],
  ],
  ['a CIDR that is none', block({ cidr: '10.0.0.0/33' }), ['spec.ingress[0].from[0].ipBlock.cidr: FieldValueInvalid']],
  ['an address for a CIDR', block({ cidr: '10.0.0.1' }), ['spec.ingress[0].from[0].ipBlock.cidr: FieldValueInvalid']],
  [
    'an IPv4-mapped CIDR',
    block({ cidr: '::ffff:10.0.0.0/24' }),
    ['spec.ingress[0].from[0].ipBlock.cidr: FieldValueInvalid'],
  ],
  ['an empty CIDR', block({ cidr: '' }), ['spec.ingress[0].from[0].ipBlock.cidr: FieldValueRequired']],
  ['no CIDR', block({}), ['spec.ingress[0].from[0].ipBlock.cidr: FieldValueRequired']],
  [
    'an exception outside',
    block({ cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] }),
    ['spec.ingress[0].from[0].ipBlock.except[0]: FieldValueInvalid'],
  ],
  [
    'an exception that is everything',
    block({ cidr: '10.0.0.0/8', except: ['10.0.0.0/8'] }),
    ['spec.ingress[0].from[0].ipBlock.except[0]: FieldValueInvalid'],
  ],
  [
    'an operator that there is not',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Like', values: ['b'] }] } },
    ['spec.podSelector.matchExpressions[0].operator: FieldValueNotSupported'],
  ],
  [
    'In without values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
    ['spec.podSelector.matchExpressions[0].values: FieldValueRequired'],
  ],
  [
    'Exists with values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['b'] }] } },
    ['spec.podSelector.matchExpressions[0].values: FieldValueForbidden'],
  ],
  [
    'a label value that is none',
    { podSelector: { matchLabels: { a: 'b c' } } },
    ['spec.podSelector.matchLabels: FieldValueInvalid'],
  ],
  [
    'a policy type that there is not',
    { podSelector: {}, policyTypes: ['Both'] },
    ['spec.policyTypes[0]: FieldValueNotSupported'],
  ],
  [
    'three policy types',
    { podSelector: {}, policyTypes: ['Ingress', 'Egress', 'Ingress'] },
    ['spec.policyTypes: FieldValueInvalid'],
  ],
  ['no spec', undefined, ['spec: FieldValueRequired']],
];

test('a NetworkPolicy that Kubernetes refuses is refused, with the same field', async (t) => {
  const api = await TestApi.start(t);
  for (const [what, spec, causes] of refused) {
    const answer = await api.raw(policies, { method: 'POST', body: policy(spec) });
    assert.deepEqual([answer.status, answer.json.reason, causesOf(answer)], [422, 'Invalid', causes], what);
    assert.match(String(answer.json.message), /^NetworkPolicy.networking.k8s.io "p" is invalid: /, what);
  }
  assert.equal((await api.client.list(kinds.NetworkPolicy)).entries.length, 0);
});

/** Mistakes of all sorts, each in its place. */
const many = {
  podSelector: { matchExpressions: [{ key: 'a b', operator: 'Has' }] },
  ingress: [
    { ports: [{ port: 70_000 }, { protocol: 'TPC' }], from: [{ ipBlock: { cidr: '10.0.0.0/33' } }] },
    { ports: [{ protocol: 'TCP', port: 80, endPort: 9 }] },
  ],
  policyTypes: ['Both'],
};
const places = [
  'spec.podSelector.matchExpressions[0].key',
  'spec.podSelector.matchExpressions[0].operator',
  'spec.ingress[0].ports[0].port',
  'spec.ingress[0].ports[1].protocol',
  'spec.ingress[0].from[0].ipBlock.cidr',
  'spec.ingress[1].ports[0].endPort',
  'spec.policyTypes[0]',
];

test('of several mistakes all are said at once, in the order in which a reader comes to them', async (t) => {
  const api = await TestApi.start(t);
  const answer = await api.raw(policies, { method: 'POST', body: policy(many) });
  assert.deepEqual(
    causesOf(answer).map((cause) => cause.replace(/: \w+$/, '')),
    places,
  );
  const parsed = policyKindOf(policy(many))?.parse(policy(many));
  assert.ok(parsed?.ok === false);
  assert.deepEqual(
    parsed.issues.map(({ field }) => field),
    places,
    'whoever checks a manifest is told the same',
  );
});

test('an unknown field of a NetworkPolicy is refused whatever validation is asked for', async (t) => {
  const api = await TestApi.start(t);
  const typo = policy({ podSelector: {}, ingress: [{ form: [{ podSelector: {} }] }] });
  for (const mode of ['', '?fieldValidation=Ignore', '?fieldValidation=Warn', '?fieldValidation=Strict']) {
    const answer = await api.raw(policies + mode, { method: 'POST', body: typo });
    assert.equal(answer.status, 400, mode);
    assert.match(String(answer.json.message), /unknown field "spec.ingress\[0\].form"/);
  }
  await api.raw(policies, { method: 'POST', body: policy({ podSelector: {} }) });
  const patched = await api.raw(`${policies}/p`, {
    method: 'PATCH',
    body: typo,
    headers: { 'content-type': 'application/merge-patch+json' },
  });
  assert.equal(patched.status, 400);
});

test('a NetworkPolicy gets Kubernetes’ defaults', async (t) => {
  const api = await TestApi.start(t);
  const stored = async (spec: unknown, name: string) =>
    objectOr((await api.raw(policies, { method: 'POST', body: policy(spec, name) })).json.spec);
  assert.deepEqual(await stored({}, 'a'), { podSelector: {}, policyTypes: ['Ingress'] });
  assert.deepEqual(await stored({ egress: [{}] }, 'b'), {
    podSelector: {},
    egress: [{}],
    policyTypes: ['Ingress', 'Egress'],
  });
  assert.deepEqual(await stored({ egress: [] }, 'c'), { podSelector: {}, egress: [], policyTypes: ['Ingress'] });
  assert.deepEqual(await stored({ policyTypes: ['Egress'] }, 'd'), { podSelector: {}, policyTypes: ['Egress'] });
  assert.deepEqual(await stored(port({ port: 53 }), 'e'), {
    podSelector: {},
    ingress: [{ ports: [{ port: 53, protocol: 'TCP' }] }],
    policyTypes: ['Ingress'],
  });
});

test('pods, Deployments and metadata that are wrong are refused with their fields', async (t) => {
  const api = await TestApi.start(t);
  const pods = '/api/v1/namespaces/default/pods';
  const pod = (spec: object, metadata: object = {}) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', ...metadata },
    spec,
  });
  const container = (extra: object) => pod({ containers: [{ name: 'c', image: 'i', ...extra }] });
  const cases: readonly (readonly [unknown, readonly string[]])[] = [
    [pod({ containers: [] }), ['spec.containers: FieldValueRequired']],
    [
      pod({ containers: [{ name: 'C', image: '' }] }),
      ['spec.containers[0].name: FieldValueInvalid', 'spec.containers[0].image: FieldValueRequired'],
    ],
    [
      pod({
        containers: [
          { name: 'c', image: 'i' },
          { name: 'c', image: 'i' },
        ],
      }),
      ['spec.containers[1].name: FieldValueDuplicate'],
    ],
    [
      container({ ports: [{ containerPort: 0 }, { containerPort: 1, name: 'a' }, { containerPort: 2, name: 'a' }] }),
      [
        'spec.containers[0].ports[0].containerPort: FieldValueInvalid',
        'spec.containers[0].ports[2].name: FieldValueDuplicate',
      ],
    ],
    [
      container({ volumeMounts: [{ name: 'none', mountPath: '/x' }] }),
      ['spec.containers[0].volumeMounts[0].name: FieldValueNotFound'],
    ],
    [container({ readinessProbe: {} }), ['spec.containers[0].readinessProbe: FieldValueRequired']],
    [
      container({ livenessProbe: { tcpSocket: { port: 1 }, exec: {}, successThreshold: 2 } }),
      [
        'spec.containers[0].livenessProbe: FieldValueForbidden',
        'spec.containers[0].livenessProbe.successThreshold: FieldValueInvalid',
      ],
    ],
    [
      pod({ containers: [{ name: 'c', image: 'i' }], restartPolicy: 'Sometimes' }),
      ['spec.restartPolicy: FieldValueNotSupported'],
    ],
    [pod({ containers: [{ name: 'c', image: 'i' }] }, { name: 'Upper' }), ['metadata.name: FieldValueInvalid']],
    [
      pod({ containers: [{ name: 'c', image: 'i' }] }, { labels: { '-a': 'b' } }),
      ['metadata.labels: FieldValueInvalid'],
    ],
  ];
  for (const [body, causes] of cases) {
    const answer = await api.raw(pods, { method: 'POST', body });
    assert.deepEqual([answer.status, causesOf(answer)], [422, causes], JSON.stringify(body));
  }
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'd' },
    spec: {
      selector: { matchLabels: { app: 'a' } },
      template: { metadata: { labels: { app: 'b' } }, spec: { containers: [{ name: 'c', image: 'i' }] } },
    },
  };
  const mismatch = await api.raw('/apis/apps/v1/namespaces/default/deployments', { method: 'POST', body: deployment });
  assert.deepEqual(causesOf(mismatch), ['spec.template.metadata.labels: FieldValueInvalid']);
});

test('Services get addresses, keep them, and nobody gets another’s', async (t) => {
  const api = await TestApi.start(t);
  const services = '/api/v1/namespaces/default/services';
  const make = (name: string, spec: object): Promise<Answer> =>
    api.raw(services, {
      method: 'POST',
      body: {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { ports: [{ port: 80 }], selector: { app: 'a' }, ...spec },
      },
    });
  const single = objectOr((await make('single', {})).json.spec);
  assert.match(String(single.clusterIP), /^10\.96\./);
  assert.deepEqual(
    [single.clusterIPs, single.ipFamilies, single.ipFamilyPolicy],
    [[single.clusterIP], ['IPv4'], 'SingleStack'],
  );
  const dual = objectOr((await make('dual', { ipFamilyPolicy: 'PreferDualStack' })).json.spec);
  assert.match(String(dual.clusterIPs), /^10\.96\.[\d.]+,fd00:10:96::/);
  const six = objectOr((await make('six', { ipFamilies: ['IPv6'] })).json.spec);
  assert.match(String(six.clusterIP), /^fd00:10:96::/);
  const turned = objectOr((await make('turned', { ipFamilies: ['IPv6', 'IPv4'] })).json.spec);
  assert.match(String(turned.clusterIPs), /^fd00:10:96::[^,]*,10\.96\./);
  assert.deepEqual(objectOr((await make('headless', { clusterIP: 'None' })).json.spec).clusterIPs, ['None']);
  assert.equal(objectOr((await make('dns', { clusterIP: '10.96.0.10' })).json.spec).clusterIP, '10.96.0.10');
  assert.deepEqual(causesOf(await make('thief', { clusterIP: '10.96.0.10' })), ['spec.clusterIPs: FieldValueInvalid']);
  assert.deepEqual(causesOf(await make('outside', { clusterIP: '192.0.2.1' })), ['spec.clusterIPs: FieldValueInvalid']);
  assert.deepEqual(causesOf(await make('twisted', { clusterIP: '10.96.0.11', ipFamilies: ['IPv6'] })), [
    'spec.clusterIPs[0]: FieldValueInvalid',
  ]);
  assert.deepEqual(causesOf(await make('portless', { ports: [] })), ['spec.ports: FieldValueRequired']);
  assert.deepEqual(causesOf(await make('nameless', { ports: [{ port: 1 }, { port: 2 }] })), [
    'spec.ports[0].name: FieldValueRequired',
    'spec.ports[1].name: FieldValueRequired',
  ]);
  const merge = (name: string, spec: object) =>
    api.raw(`${services}/${name}`, {
      method: 'PATCH',
      body: { spec },
      headers: { 'content-type': 'application/merge-patch+json' },
    });
  assert.deepEqual(causesOf(await merge('single', { clusterIP: '10.96.0.99', clusterIPs: null })), [
    'spec.clusterIPs[0]: FieldValueInvalid',
  ]);
  const upgraded = objectOr((await merge('single', { ipFamilyPolicy: 'PreferDualStack' })).json.spec);
  assert.equal(String(upgraded.clusterIPs).split(',')[0], single.clusterIP);
  assert.equal(String(upgraded.clusterIPs).split(',').length, 2);
  const back = objectOr((await merge('single', { ipFamilyPolicy: 'SingleStack' })).json.spec);
  assert.deepEqual([back.clusterIPs, back.ipFamilies], [[single.clusterIP], ['IPv4']]);
  const balanced = objectOr((await make('balanced', { type: 'LoadBalancer' })).json.spec);
  assert.match(JSON.stringify(balanced.ports), /"nodePort":3\d{4}/);
  const put = await api.raw(`${services}/dual`, {
    method: 'PUT',
    body: {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'dual' },
      spec: { ports: [{ port: 81 }], selector: { app: 'b' } },
    },
  });
  assert.deepEqual(objectOr(put.json.spec).clusterIPs, dual.clusterIPs);
});

test('a small range is used up, and an address that comes free is given again', async (t) => {
  const { client } = await TestApi.start(t, { serviceCidrs: ['10.9.0.0/29' as never] });
  const service = (name: string) => ({
    apiVersion: 'v1' as const,
    kind: 'Service' as const,
    metadata: { name, namespace: 'default' },
    spec: { ports: [{ port: 80 }] },
  });
  const given: (string | undefined)[] = [];
  for (let i = 0; i < 6; i++) given.push((await client.create(kinds.Service, service(`s${i}`))).spec?.clusterIP);
  assert.equal(new Set(given).size, 6);
  await assert.rejects(client.create(kinds.Service, service('more')), /range is full/);
  await client.delete(kinds.Service, { namespace: 'default', name: 's3' });
  assert.equal((await client.create(kinds.Service, service('again'))).spec?.clusterIP, given[3]);
  const both = { ...service('both'), spec: { ports: [{ port: 80 }], ipFamilyPolicy: 'RequireDualStack' as const } };
  await assert.rejects(client.create(kinds.Service, both), /not configured for dual-stack/);
});
