import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseCiliumPolicy, parseCiliumRules } from '../../../src/policy/cilium/parse.ts';
import { decide } from '../../../src/policy/decide.ts';
import { ciliumSpecArbitrary } from '../../support/cilium-arbitraries.ts';
import { clusterWith } from '../../support/cluster.ts';
import { bare, clusterWide, flow, namespaced } from './flows.ts';

const metadata = { name: 'p', namespace: 'shop' };
const parse = (spec: unknown, more: object = {}) =>
  parseCiliumPolicy('CiliumNetworkPolicy', { metadata, spec, ...more });
const fields = (spec: unknown): string[] => {
  const result = parse(spec);
  return result.ok ? [] : result.issues.map(({ field }) => field);
};
const all = {};
const port = { port: '80', protocol: 'TCP' };
const into = (rule: unknown) => ({ endpointSelector: all, ingress: [rule] });
const out = (rule: unknown) => ({ endpointSelector: all, egress: [rule] });
const toPorts = (rule: unknown) => into({ toPorts: [rule] });
const secret = { namespace: 'myelin-secrets', name: 'a' };

const invalid: readonly [name: string, spec: unknown, field: string][] = [
  ['an unknown field', { ...into({}), color: 'red' }, 'spec.color'],
  ['an unknown field of a rule', into({ fromPods: [] }), 'spec.ingress[0].fromPods'],
  ['a field of the other direction', into({ toEndpoints: [] }), 'spec.ingress[0].toEndpoints'],
  [
    'names where something is denied',
    { endpointSelector: all, egressDeny: [{ toFQDNs: [] }] },
    'spec.egressDeny[0].toFQDNs',
  ],
  ['no selector', { ingress: [{}] }, 'spec'],
  ['both selectors', { endpointSelector: all, nodeSelector: all, ingress: [{}] }, 'spec'],
  ['no rules at all', { endpointSelector: all, ingress: [] }, 'spec'],
  ['a selector of nodes', { nodeSelector: all, ingress: [{}] }, 'spec.nodeSelector'],
  [
    'a bad label',
    into({ fromEndpoints: [{ matchLabels: { app: 'a b' } }] }),
    'spec.ingress[0].fromEndpoints[0].matchLabels.app',
  ],
  [
    'a bad key',
    into({ fromEndpoints: [{ matchLabels: { 'K8S:app': 'a' } }] }),
    'spec.ingress[0].fromEndpoints[0].matchLabels.K8S:app',
  ],
  [
    'a bad operator',
    into({ fromEndpoints: [{ matchExpressions: [{ key: 'a', operator: 'Is' }] }] }),
    'spec.ingress[0].fromEndpoints[0].matchExpressions[0].operator',
  ],
  [
    'In without values',
    into({ fromEndpoints: [{ matchExpressions: [{ key: 'a', operator: 'In' }] }] }),
    'spec.ingress[0].fromEndpoints[0].matchExpressions[0].values',
  ],
  ['an unknown entity', into({ fromEntities: ['everyone'] }), 'spec.ingress[0].fromEntities[0]'],
  ['no CIDR', into({ fromCIDR: ['10.0.0.1'] }), 'spec.ingress[0].fromCIDR[0]'],
  ['a CIDR set without a CIDR', into({ fromCIDRSet: [{}] }), 'spec.ingress[0].fromCIDRSet[0]'],
  [
    'a CIDR set with two',
    into({ fromCIDRSet: [{ cidr: '10.0.0.0/8', cidrGroupRef: 'a' }] }),
    'spec.ingress[0].fromCIDRSet[0]',
  ],
  [
    'an exception outside',
    into({ fromCIDRSet: [{ cidr: '10.0.0.0/8', except: ['11.0.0.0/8'] }] }),
    'spec.ingress[0].fromCIDRSet[0].except[0]',
  ],
  ['two sorts of peers', into({ fromEndpoints: [all], fromEntities: ['world'] }), 'spec.ingress[0].fromEntities'],
  [
    'ICMP beside ports',
    into({ toPorts: [{ ports: [port] }], icmps: [{ fields: [{ type: 8 }] }] }),
    'spec.ingress[0].icmps',
  ],
  [
    'an ICMP type of the other family',
    into({ icmps: [{ fields: [{ type: 'PacketTooBig' }] }] }),
    'spec.ingress[0].icmps[0].fields[0].type',
  ],
  [
    'an ICMP type out of range',
    into({ icmps: [{ fields: [{ type: 256 }] }] }),
    'spec.ingress[0].icmps[0].fields[0].type',
  ],
  ['a port that is a number', toPorts({ ports: [{ port: 80 }] }), 'spec.ingress[0].toPorts[0].ports[0].port'],
  ['a port out of range', toPorts({ ports: [{ port: '65536' }] }), 'spec.ingress[0].toPorts[0].ports[0].port'],
  ['a port in octal', toPorts({ ports: [{ port: '010' }] }), 'spec.ingress[0].toPorts[0].ports[0].port'],
  ['no port', toPorts({ ports: [{ protocol: 'TCP' }] }), 'spec.ingress[0].toPorts[0].ports[0].port'],
  [
    'an end before the port',
    toPorts({ ports: [{ port: '80', endPort: 79 }] }),
    'spec.ingress[0].toPorts[0].ports[0].endPort',
  ],
  [
    'an end of a named port',
    toPorts({ ports: [{ port: 'web', endPort: 79 }] }),
    'spec.ingress[0].toPorts[0].ports[0].endPort',
  ],
  [
    'a port of a protocol without ports',
    toPorts({ ports: [{ port: '1', protocol: 'GRE' }] }),
    'spec.ingress[0].toPorts[0].ports[0].port',
  ],
  [
    'an unknown protocol',
    toPorts({ ports: [{ port: '80', protocol: 'tcp' }] }),
    'spec.ingress[0].toPorts[0].ports[0].protocol',
  ],
  ['more than forty ports', toPorts({ ports: Array(41).fill(port) }), 'spec.ingress[0].toPorts[0].ports'],
  [
    'rules for requests where something is denied',
    { endpointSelector: all, ingressDeny: [{ toPorts: [{ ports: [port], rules: {} }] }] },
    'spec.ingressDeny[0].toPorts[0].rules',
  ],
  [
    'rules for two protocols',
    toPorts({ ports: [port], rules: { http: [all], dns: [{ matchName: 'a' }] } }),
    'spec.ingress[0].toPorts[0].rules',
  ],
  [
    'HTTP over UDP',
    toPorts({ ports: [{ port: '80', protocol: 'UDP' }], rules: { http: [all] } }),
    'spec.ingress[0].toPorts[0].ports[0].protocol',
  ],
  [
    'HTTP on every port',
    toPorts({ ports: [{ port: '0', protocol: 'TCP' }], rules: { http: [all] } }),
    'spec.ingress[0].toPorts[0].ports[0].port',
  ],
  [
    'DNS rules of ingress',
    toPorts({ ports: [{ port: '53' }], rules: { dns: [{ matchName: 'a' }] } }),
    'spec.ingress[0].toPorts[0].rules.dns',
  ],
  [
    'an expression that is none',
    toPorts({ ports: [port], rules: { http: [{ path: '(' }] } }),
    'spec.ingress[0].toPorts[0].rules.http[0].path',
  ],
  [
    'names and rules without TLS',
    toPorts({ ports: [port], serverNames: ['a'], rules: { http: [all] } }),
    'spec.ingress[0].toPorts[0].serverNames',
  ],
  ['no server names', toPorts({ ports: [port], serverNames: [] }), 'spec.ingress[0].toPorts[0].serverNames'],
  ['a name and a pattern', out({ toFQDNs: [{ matchName: 'a', matchPattern: '*' }] }), 'spec.egress[0].toFQDNs[0]'],
  ['a name with a star', out({ toFQDNs: [{ matchName: '*.a' }] }), 'spec.egress[0].toFQDNs[0].matchName'],
  [
    'a bad authentication',
    into({ fromEntities: ['all'], authentication: { mode: 'maybe' } }),
    'spec.ingress[0].authentication.mode',
  ],
  ['a log that is too long', { ...into({}), log: { value: 'x'.repeat(33) } }, 'spec.log.value'],
];
for (const [name, spec, field] of invalid)
  test(`refused: ${name}`, () => {
    assert.equal(fields(spec)[0], field);
    const result = parse(spec);
    assert.ok(!result.ok && result.broken !== undefined);
    assert.deepEqual(result.broken.isolates, ['ingress', 'egress']);
    assert.deepEqual(result.broken.rules, []);
  });

const limited: readonly [name: string, spec: unknown, field: string][] = [
  [
    'DNS on another port',
    out({ toPorts: [{ ports: [{ port: '5353' }], rules: { dns: [{ matchPattern: '*' }] } }] }),
    'spec.egress[0].toPorts[0].rules.dns',
  ],
  ['Kafka', toPorts({ ports: [port], rules: { kafka: [{ topic: 'a' }] } }), 'spec.ingress[0].toPorts[0].rules.kafka'],
  [
    'other protocols',
    toPorts({ ports: [port], rules: { l7proto: 'x', l7: [{}] } }),
    'spec.ingress[0].toPorts[0].rules.l7proto',
  ],
  [
    'listeners',
    out({ toPorts: [{ ports: [port], listener: { name: 'a', envoyConfig: { name: 'b' } } }] }),
    'spec.egress[0].toPorts[0].listener',
  ],
  [
    'Secrets of other namespaces',
    out({ toPorts: [{ ports: [port], originatingTLS: { secret: { name: 'a' } } }] }),
    'spec.egress[0].toPorts[0].originatingTLS.secret.namespace',
  ],
  [
    'clients’ certificates',
    out({ toPorts: [{ ports: [port], rules: { http: [all] }, terminatingTLS: { secret, trustedCA: 'a' } }] }),
    'spec.egress[0].toPorts[0].terminatingTLS.trustedCA',
  ],
  [
    'TLS within TLS',
    out({ toPorts: [{ ports: [port], serverNames: ['a'], originatingTLS: { secret } }] }),
    'spec.egress[0].toPorts[0].originatingTLS',
  ],
  [
    'DNS within TLS',
    out({ toPorts: [{ ports: [{ port: '53' }], rules: { dns: [{ matchName: 'a' }] }, terminatingTLS: { secret } }] }),
    'spec.egress[0].toPorts[0].terminatingTLS',
  ],
  [
    'TLS without rules for what is within',
    out({ toPorts: [{ ports: [port], terminatingTLS: { secret } }] }),
    'spec.egress[0].toPorts[0].terminatingTLS',
  ],
  [
    'two Secrets for one port',
    out({
      toPorts: ['a', 'b'].map((name) => ({
        ports: [port],
        rules: { http: [all] },
        terminatingTLS: { secret: { ...secret, name } },
      })),
    }),
    'spec.egress[0]',
  ],
  [
    'headers that change',
    toPorts({ ports: [port], rules: { http: [{ headerMatches: [{ name: 'a', mismatch: 'ADD', value: 'b' }] }] } }),
    'spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0].mismatch',
  ],
  [
    'headers in secrets',
    toPorts({ ports: [port], rules: { http: [{ headerMatches: [{ name: 'a', secret: { name: 'b' } }] }] } }),
    'spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0].secret',
  ],
  ['services', out({ toServices: [{ k8sService: { serviceName: 'a' } }] }), 'spec.egress[0].toServices[0]'],
  ['groups', out({ toGroups: [{ aws: {} }] }), 'spec.egress[0].toGroups'],
  [
    'groups of CIDRs',
    into({ fromCIDRSet: [{ cidr: '10.0.0.0/8' }, { cidrGroupSelector: {} }] }),
    'spec.ingress[0].fromCIDRSet[1].cidrGroupSelector',
  ],
  ['the API server', out({ toEntities: ['world', 'kube-apiserver'] }), 'spec.egress[0].toEntities[1]'],
  [
    'the API server as a label',
    out({ toEndpoints: [{ matchLabels: { 'reserved:kube-apiserver': '' } }] }),
    'spec.egress[0].toEndpoints[0]',
  ],
  [
    'labels of other sources',
    into({ fromEndpoints: [{ matchLabels: { 'container:a': 'b' } }] }),
    'spec.ingress[0].fromEndpoints[0]',
  ],
  [
    'other clusters',
    into({ fromEndpoints: [{ matchLabels: { 'io.cilium.k8s.policy.cluster': 'b' } }] }),
    'spec.ingress[0].fromEndpoints[0]',
  ],
  [
    'protocols without ports',
    out({ toPorts: [{ ports: [{ protocol: 'ESP' }] }] }),
    'spec.egress[0].toPorts[0].ports[0].protocol',
  ],
  [
    'reserved labels of nodes',
    out({ toNodes: [{ matchLabels: { 'reserved:host': '' } }] }),
    'spec.egress[0].toNodes[0]',
  ],
  [
    'a subject of another source',
    { ...into({}), endpointSelector: { matchLabels: { 'container:a': 'b' } } },
    'spec.endpointSelector',
  ],
];
for (const [name, spec, field] of limited)
  test(`limited: ${name}`, () => {
    const [policy] = namespaced(spec);
    assert.ok(
      policy?.limits?.some((limit) => limit.field === field && limit.reason !== ''),
      JSON.stringify(policy?.limits),
    );
  });

test('what is enforced as it is written has no limits', () => {
  const [policy] = namespaced({
    endpointSelector: all,
    description: 'who may call',
    log: { value: 'called' },
    labels: [{ key: 'a', value: 'b' }, 'k8s:c=d'],
    ingress: [{ fromEndpoints: [all], authentication: { mode: 'required' } }, { fromCIDR: ['10.0.0.0/8'] }],
    ingressDeny: [{ fromEntities: ['remote-node'] }],
  });
  assert.equal(policy?.limits, undefined);
  assert.deepEqual(
    policy?.rules.map(({ ref, log, description }) => ({ list: ref.list, index: ref.index, log, description })),
    [
      { list: undefined, index: 0, log: 'called', description: 'who may call' },
      { list: undefined, index: 1, log: 'called', description: 'who may call' },
      { list: 'ingressDeny', index: 0, log: 'called', description: 'who may call' },
    ],
  );
});

test('Secrets for TLS are read with the names of their data, whose policy names them, and what is asked within', () => {
  const http = [{ method: 'GET' }];
  const [policy] = namespaced(
    out({
      toPorts: [
        {
          ports: [port],
          rules: { http },
          serverNames: ['a.example'],
          terminatingTLS: { secret },
          originatingTLS: { secret },
        },
        {
          ports: [{ ...port, port: '81' }],
          rules: { http },
          originatingTLS: { secret, trustedCA: 'roots', certificate: 'own.crt' },
        },
      ],
    }),
  );
  assert.equal(policy?.limits, undefined);
  const by = policy?.namespace ?? '';
  assert.notEqual(by, '');
  assert.deepEqual(
    policy?.rules.map(({ tls }) => tls),
    [
      {
        terminate: { name: 'a', by, certificate: 'tls.crt', privateKey: 'tls.key' },
        originate: { name: 'a', by, trustedCA: 'ca.crt' },
      },
      { originate: { name: 'a', by, trustedCA: 'roots', certificate: 'own.crt', privateKey: 'tls.key' } },
    ],
  );
  const [first, second] = policy?.rules ?? [];
  assert.equal(first?.requests?.[0]?.kind === 'http' && first.requests[0].serverName?.some?.length, 1);
  assert.deepEqual(second?.requests, [{ kind: 'http', method: { some: [{ op: 'regex', text: 'GET' }] } }]);
});

test('a rule whose TLS cannot be had allows nothing', () => {
  const elsewhere = { namespace: 'default', name: 'a' };
  for (const tls of [{ terminatingTLS: { secret: elsewhere } }, { originatingTLS: { secret: elsewhere } }])
    assert.deepEqual(namespaced(out({ toPorts: [{ ports: [port], rules: { http: [all] }, ...tls }] }))[0]?.rules, []);
});

test('a policy of nodes says that it is not enforced', () => {
  const [policy] = clusterWide({ nodeSelector: all, ingress: [{}] });
  assert.deepEqual(
    policy?.limits?.map(({ field }) => field),
    ['spec.nodeSelector'],
  );
});

test('each of several specs is a policy of its own, with a name that says which', () => {
  const spec = into({ fromEndpoints: [all] });
  const result = parse(spec, { specs: [spec, { endpointSelector: all, egress: [{ toServices: [{}] }] }] });
  assert.ok(result.ok);
  assert.deepEqual(
    result.policies.map(({ name }) => name),
    ['p', 'p specs[0]', 'p specs[1]'],
  );
  assert.deepEqual(
    result.policies[2]?.limits?.map(({ field }) => field),
    ['specs[1].egress[0].toServices[0]'],
  );
});

test('names of domains are read as Cilium reads them', () => {
  const patterns = {
    'A.Example.': 'a.example',
    '*': '**',
    '***.': '**',
    '**.a.b': '**.a.b',
    '****.a': '**.a',
    'a**b.**.c': 'a*b.*.c',
  };
  for (const [text, expected] of Object.entries(patterns)) {
    const [policy] = namespaced(out({ toFQDNs: [{ matchPattern: text }] }));
    assert.deepEqual(policy?.rules[0]?.peers, [{ kind: 'name', pattern: { pattern: expected } }], text);
  }
});

test('neither of spec and specs, or the wrong kind, is refused', () => {
  for (const object of [
    { metadata },
    { metadata, spec: null },
    { metadata, kind: 'NetworkPolicy', spec: into({}) },
    { metadata, apiVersion: 'cilium.io/v1', spec: into({}) },
  ]) {
    const result = parseCiliumPolicy('CiliumNetworkPolicy', object);
    assert.ok(!result.ok && result.broken !== undefined, JSON.stringify(object));
  }
  assert.deepEqual(parseCiliumPolicy('CiliumNetworkPolicy', 'p'), {
    ok: false,
    issues: [{ path: [], field: '', message: 'expected an object' }],
  });
  assert.equal(parseCiliumPolicy('CiliumClusterwideNetworkPolicy', { metadata, spec: into({}) }).ok, false);
});

test('what is not understood closes what it selects, or all that it could', () => {
  const bad = (selector: unknown) => ({ endpointSelector: selector, ingress: [{ fromEveryone: true }] });
  const cart = { matchLabels: { app: 'cart' } };
  const closes = (result: ReturnType<typeof parse>, flows: Readonly<Record<string, string>>) => {
    assert.ok(!result.ok && result.broken !== undefined);
    const view = clusterWith([result.broken]);
    for (const [text, verdict] of Object.entries(flows)) assert.equal(decide(view, flow(text)).verdict, verdict, text);
  };
  closes(parse(bad(cart)), { 'front-1 → cart TCP 80': 'deny', 'front-1 → front-2 TCP 80': 'allow' });
  closes(parse(bad(7)), { 'front-1 → front-2 TCP 80': 'deny', 'scan → 8.8.8.8 TCP 80': 'allow' });
  closes(parse(undefined, { specs: [bad(cart), into({})] }), {
    'front-1 → cart TCP 80': 'deny',
    'scan → 8.8.8.8 TCP 80': 'allow',
  });
  closes(parse(undefined, { specs: [bad(cart), bad(undefined)] }), { 'front-1 → front-2 TCP 80': 'deny' });
  const wide = (spec: unknown) =>
    parseCiliumPolicy('CiliumClusterwideNetworkPolicy', { metadata: { name: 'p' }, spec });
  closes(wide(bad(cart)), { 'front-1 → cart TCP 80': 'deny', 'scan → 8.8.8.8 TCP 80': 'allow' });
  closes(wide(bad('x')), { 'scan → 8.8.8.8 TCP 80': 'deny' });
  closes(parseCiliumRules([bad(cart)], 'list'), { 'scan → 8.8.8.8 TCP 80': 'deny' });
});

test('the list that older documents show', () => {
  const [first, second] = bare(
    {
      endpointSelector: { matchLabels: { 'any:app': 'x' } },
      ingress: [{ fromEndpoints: [{ matchLabels: { 'reserved:host': '' } }] }],
    },
    {
      endpointSelector: { matchLabels: { 'k8s:app': 'cart' } },
      ingress: [
        {
          fromEndpoints: [{ matchLabels: { 'k8s:app': 'front' } }],
          toPorts: [{ ports: [port], rules: { http: [{ method: 'GET', path: '/public' }] } }],
        },
      ],
    },
  );
  assert.deepEqual([first?.name, second?.name, second?.kind], ['list[0]', 'list[1]', 'CiliumRule']);
  assert.deepEqual(second?.rules[0]?.requests, [
    {
      kind: 'http',
      method: { some: [{ op: 'regex', text: 'GET' }] },
      target: { some: [{ op: 'regex', text: '/public' }] },
    },
  ]);
  assert.equal(parseCiliumRules([], 'list').ok, false);
  assert.equal(parseCiliumRules({}, 'list').ok, false);
});

test('what is made to be valid is valid', () => {
  fc.assert(
    fc.property(ciliumSpecArbitrary, (spec) => {
      const result = parse(spec);
      assert.ok(result.ok, JSON.stringify(result.ok ? '' : result.issues));
    }),
    { numRuns: 1000 },
  );
});

/** Every place of a JSON value, by its path. */
function places(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, key]))];
}

function replaced(value: unknown, [head, ...rest]: readonly string[], by: unknown): unknown {
  if (head === undefined) return by;
  if (Array.isArray(value))
    return value.map((inner, index) => (String(index) === head ? replaced(inner, rest, by) : inner));
  return Object.fromEntries(
    Object.entries(Object(value)).map(([key, inner]) => [key, key === head ? replaced(inner, rest, by) : inner]),
  );
}

test('damage anywhere in a policy is refused and closes, or is a policy', () => {
  fc.assert(
    fc.property(ciliumSpecArbitrary, fc.jsonValue(), fc.nat(), (spec, junk, at) => {
      const all = places(spec);
      const damaged = replaced(spec, all[at % all.length] ?? [], junk);
      const result = parse(damaged);
      if (result.ok) return;
      assert.ok(result.issues.length > 0);
      assert.deepEqual(result.broken?.isolates, ['ingress', 'egress']);
      assert.deepEqual(result.broken?.rules, []);
    }),
    { numRuns: 1500 },
  );
});

test('whatever comes, it is answered, and what has a name closes', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      parseCiliumPolicy('CiliumClusterwideNetworkPolicy', value);
      parseCiliumRules(value, 'list');
      const result = parse(value);
      assert.ok(!result.ok && result.broken !== undefined);
    }),
    { numRuns: 1000 },
  );
});

test('a policy allows no more for what cannot be enforced in it', () => {
  const flows = [
    'front-1 → cart TCP 80',
    'front-1 → 8.8.8.8 TCP 80',
    'scan → cart TCP 80',
    'front-1 → node-1 TCP 80',
    'cart → front-1 UDP 53',
    '8.8.8.8 → cart TCP 443',
  ].map(flow);
  fc.assert(
    fc.property(ciliumSpecArbitrary, (spec) => {
      // With every condition on requests taken away, at least as much is allowed.
      const lax = JSON.parse(JSON.stringify(spec), (key, value) =>
        key === 'rules' || key === 'serverNames' ? undefined : value,
      );
      const [strict, more] = [namespaced(spec), namespaced(lax)].map((policies) => clusterWith(policies));
      assert.ok(strict !== undefined && more !== undefined);
      for (const one of flows)
        if (decide(strict, one).verdict === 'allow')
          assert.equal(decide(more, one).verdict, 'allow', JSON.stringify(one));
    }),
    { numRuns: 1000 },
  );
});
