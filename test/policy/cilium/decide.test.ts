import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '../../../src/model/address.ts';
import { decide } from '../../../src/policy/decide.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import type { ClusterView } from '../../../src/policy/view.ts';
import { clusterWith, pods } from '../../support/cluster.ts';
import { assertFlows, bare, clusterWide, flow, namespaced } from './flows.ts';

const all = {};
const cart = { matchLabels: { app: 'cart' } };
const front = { matchLabels: { 'k8s:app': 'front' } };
const http = [{ ports: [{ port: '80', protocol: 'TCP' }] }];

interface Row {
  readonly name: string;
  readonly policies: readonly Policy[];
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly changes?: Partial<ClusterView>;
}
const into = (rule: unknown, subject: unknown = cart) => namespaced({ endpointSelector: subject, ingress: [rule] });
const out = (rule: unknown, subject: unknown = front) => namespaced({ endpointSelector: subject, egress: [rule] });

const rows: readonly Row[] = [
  // Empty and absent
  {
    name: 'a rule without peers and ports isolates and allows nothing',
    policies: into({}),
    allow: ['cart → front-1 TCP 80', 'scan → front-1 TCP 80'],
    deny: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80', 'front-2 → cart ICMP 8'],
  },
  {
    name: 'ports without peers are for everybody',
    policies: into({ toPorts: http }),
    allow: ['front-1 → cart TCP 80', 'scan → cart TCP 80', '8.8.8.8 → cart TCP 80', 'node-2 → cart TCP 80'],
    deny: ['front-1 → cart TCP 81', 'front-1 → cart UDP 80', 'front-1 → cart ICMP 8'],
  },
  {
    name: 'an empty list of endpoints is nobody, also beside ports',
    policies: into({ fromEndpoints: [], toPorts: http }),
    deny: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80'],
  },
  ...(['fromCIDR', 'fromCIDRSet', 'fromEntities', 'fromNodes'] as const).map(
    (field): Row => ({
      name: `an empty ${field} is nobody`,
      policies: into({ [field]: [], toPorts: http }),
      deny: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80', 'node-2 → cart TCP 80'],
    }),
  ),
  {
    name: 'an empty selector is every pod of the policy’s namespace, on every protocol',
    policies: into({ fromEndpoints: [all] }),
    allow: ['front-1 → cart TCP 80', 'front-2 → cart ICMP 8', 'front-1 → cart 47'],
    deny: ['scan → cart TCP 80', '8.8.8.8 → cart TCP 80', 'node-2 → cart TCP 80'],
  },
  {
    name: 'an empty list of ports is none, and an entry without ports is about nothing',
    policies: [
      ...namespaced({ endpointSelector: cart, ingress: [{ fromEndpoints: [front], toPorts: [] }] }, 'a'),
      ...namespaced({ endpointSelector: front, ingress: [{ fromEndpoints: [all], toPorts: [{ ports: [] }] }] }, 'b'),
      ...namespaced({ endpointSelector: front, ingress: [{ fromEndpoints: [all], toPorts: [{}] }] }, 'c'),
    ],
    allow: ['front-1 → cart TCP 80', 'front-1 → cart UDP 9'],
    deny: ['cart → front-1 TCP 80', 'cart → front-2 UDP 80'],
  },
  {
    name: 'null is absent',
    policies: into({ fromEndpoints: null, toPorts: http, icmps: null }),
    allow: ['scan → cart TCP 80'],
  },
  // Labels
  {
    name: 'label prefixes any: and k8s: and none',
    policies: into({ fromEndpoints: [{ matchLabels: { 'any:app': 'front' } }, { matchLabels: { app: 'nobody' } }] }),
    allow: ['front-1 → cart TCP 80'],
    deny: ['scan → cart TCP 80'],
  },
  {
    name: 'another namespace by its name',
    policies: into({ fromEndpoints: [{ matchLabels: { 'k8s:io.kubernetes.pod.namespace': 'ops', app: 'scan' } }] }),
    allow: ['scan → cart TCP 80'],
    deny: ['front-1 → cart TCP 80', 'agent → cart TCP 80'],
  },
  {
    name: 'any namespace',
    policies: into({
      fromEndpoints: [{ matchExpressions: [{ key: 'io.kubernetes.pod.namespace', operator: 'Exists' }] }],
    }),
    allow: ['scan → cart TCP 80', 'front-1 → cart TCP 80'],
    deny: ['agent → cart TCP 80', '8.8.8.8 → cart TCP 80'],
  },
  {
    name: 'other namespaces than some',
    policies: into({
      fromEndpoints: [
        {
          matchExpressions: [
            { key: 'k8s:io.kubernetes.pod.namespace', operator: 'NotIn', values: ['ops'] },
            { key: 'app', operator: 'Exists' },
          ],
        },
      ],
    }),
    allow: ['front-1 → cart TCP 80'],
    deny: ['scan → cart TCP 80'],
  },
  {
    name: 'namespaces by their labels',
    policies: into({ fromEndpoints: [{ matchLabels: { 'k8s:io.cilium.k8s.namespace.labels.team': 'b' } }] }),
    allow: ['scan → cart TCP 80'],
    deny: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80'],
  },
  {
    name: 'service accounts',
    policies: into({ fromEndpoints: [{ matchLabels: { 'io.cilium.k8s.policy.serviceaccount': 'buyer' } }] }),
    allow: ['front-1 → cart TCP 80'],
    deny: ['front-2 → cart TCP 80'],
    changes: {
      pods: new Map(pods.map((own) => [own.uid, own.name === 'front-1' ? { ...own, serviceAccount: 'buyer' } : own])),
    },
  },
  {
    name: 'the cluster’s own name, and any',
    policies: into({
      fromEndpoints: [
        { matchLabels: { 'io.cilium.k8s.policy.cluster': 'default', app: 'front' } },
        {
          matchExpressions: [{ key: 'io.cilium.k8s.policy.cluster', operator: 'Exists' }],
          matchLabels: { app: 'scan' },
        },
      ],
    }),
    allow: ['front-1 → cart TCP 80'],
    deny: ['scan → cart TCP 80'],
  },
  {
    name: 'reserved labels are about identities wherever the policy is',
    policies: into({ fromEndpoints: [{ matchLabels: { 'reserved:world': '' } }, { matchLabels: { $host: '' } }] }),
    allow: ['8.8.8.8 → cart TCP 80', 'node-1 → cart TCP 80'],
    deny: ['front-1 → cart TCP 80', 'node-2 → cart TCP 80'],
  },
  {
    name: 'everybody but one reserved identity',
    policies: into({
      fromEndpoints: [{ matchExpressions: [{ key: 'reserved:remote-node', operator: 'DoesNotExist' }] }],
    }),
    allow: ['8.8.8.8 → cart TCP 80', 'scan → cart TCP 80'],
    deny: ['node-2 → cart TCP 80'],
  },
  {
    name: 'a reserved label with a value is nobody’s',
    policies: into({ fromEndpoints: [{ matchLabels: { 'reserved:world': 'x' } }] }),
    deny: ['8.8.8.8 → cart TCP 80', 'front-1 → cart TCP 80'],
  },
  {
    name: 'the subject stays in the policy’s namespace, whatever it says',
    policies: [
      ...namespaced(
        { endpointSelector: { matchLabels: { 'k8s:io.kubernetes.pod.namespace': 'ops' } }, ingress: [{}] },
        'a',
      ),
      ...namespaced({ endpointSelector: { matchLabels: { 'io.kubernetes.pod.namespace': 'ops' } }, egress: [{}] }, 'b'),
    ],
    allow: ['front-1 → scan TCP 80', 'front-1 → scan UDP 80'],
    deny: ['scan → cart TCP 80', 'front-1 → cart TCP 80'],
  },
  // CIDRs
  {
    name: 'CIDRs are about addresses outside only',
    policies: out({ toCIDR: ['0.0.0.0/0'] }),
    allow: ['front-1 → 8.8.8.8 TCP 80', 'front-1 → 1.1.1.1 ICMP 8'],
    deny: ['front-1 → cart TCP 80', 'front-1 → node-2 TCP 80', 'front-1 → 2001:db8::1 TCP 80'],
  },
  {
    name: 'CIDR sets with exceptions, with ports',
    policies: out({ toCIDRSet: [{ cidr: '10.0.0.0/8', except: ['10.9.0.0/16'] }], toPorts: http }),
    allow: ['front-1 → 10.8.0.1 TCP 80'],
    deny: ['front-1 → 10.9.0.1 TCP 80', 'front-1 → 10.8.0.1 TCP 81', 'front-1 → cart TCP 80'],
  },
  // Entities
  {
    name: 'entity all',
    policies: into({ fromEntities: ['all'] }),
    allow: ['8.8.8.8 → cart TCP 80', 'scan → cart TCP 80', 'node-2 → cart TCP 80'],
  },
  {
    name: 'entity world',
    policies: out({ toEntities: ['world'] }),
    allow: ['front-1 → 8.8.8.8 TCP 80', 'front-1 → 2001:db8::1 TCP 80'],
    deny: ['front-1 → cart TCP 80', 'front-1 → node-1 TCP 80'],
  },
  {
    name: 'entities world-ipv4 and world-ipv6',
    policies: [
      ...out({ toEntities: ['world-ipv4'] }),
      ...namespaced({ endpointSelector: cart, egress: [{ toEntities: ['world-ipv6'] }] }, 'b'),
    ],
    allow: ['front-1 → 8.8.8.8 TCP 80', 'cart → 2001:db8::1 TCP 80'],
    deny: ['front-1 → 2001:db8::1 TCP 80', 'cart → 8.8.8.8 TCP 80'],
  },
  ...(['cluster', 'cluster-mesh'] as const).map(
    (entity): Row => ({
      name: `entity ${entity}`,
      policies: out({ toEntities: [entity] }),
      allow: ['front-1 → cart TCP 80', 'front-1 → scan TCP 80', 'front-1 → node-1 TCP 80', 'front-1 → node-2 TCP 80'],
      deny: ['front-1 → 8.8.8.8 TCP 80'],
    }),
  ),
  {
    name: 'entities host and remote-node',
    policies: [
      ...out({ toEntities: ['host'] }),
      ...namespaced({ endpointSelector: cart, egress: [{ toEntities: ['remote-node'] }] }, 'b'),
    ],
    allow: ['front-1 → node-1 TCP 80', 'cart → node-2 TCP 80'],
    deny: ['front-1 → node-2 TCP 80', 'cart → node-1 TCP 80', 'front-1 → cart TCP 80'],
  },
  ...(['init', 'health', 'unmanaged', 'ingress', 'none', 'kube-apiserver'] as const).map(
    (entity): Row => ({
      name: `entity ${entity} is nobody that could be allowed`,
      policies: out({ toEntities: [entity] }),
      deny: ['front-1 → cart TCP 80', 'front-1 → node-1 TCP 80', 'front-1 → 8.8.8.8 TCP 80'],
    }),
  ),
  {
    name: 'nodes by their labels',
    policies: namespaced({ endpointSelector: cart, egress: [{ toNodes: [{ matchLabels: { 'node:disk': 'fast' } }] }] }),
    allow: ['cart → node-2 TCP 80'],
    deny: ['cart → node-1 TCP 80', 'cart → front-1 TCP 80'],
    changes: {
      nodes: new Map([
        ['node-1', { addresses: [parseIp('192.168.0.1')], labels: { disk: 'fast' } }],
        ['node-2', { addresses: [parseIp('192.168.0.2')], labels: { disk: 'fast' } }],
      ]),
    },
  },
  // Names
  {
    name: 'names match the addresses that a pod has learnt under them, of nobody in the cluster',
    policies: out({ toFQDNs: [{ matchName: 'Api.Example.' }, { matchPattern: '**.cdn.example' }], toPorts: http }),
    allow: ['front-1 → 192.0.2.1 TCP 80 as api.example', 'front-1 → 192.0.2.2 TCP 80 as a.b.cdn.example'],
    deny: [
      'front-1 → 192.0.2.1 TCP 81 as api.example',
      'front-1 → 192.0.2.3 TCP 80 as cdn.example',
      'front-1 → 192.0.2.9 TCP 80',
      'front-1 → cart TCP 80 as api.example',
      'front-1 → node-2 TCP 80 as api.example',
    ],
  },
  {
    name: 'questions may be asked for the names that rules allow',
    policies: [
      ...out({
        toEndpoints: [cart],
        toPorts: [
          {
            ports: [{ port: '53' }],
            rules: { dns: [{ matchName: 'api.example' }, { matchPattern: '*.cdn.example' }] },
          },
        ],
      }),
    ],
    allow: ['front-1 → cart UDP 53 asks API.example.', 'front-1 → cart TCP 53 asks a.cdn.example'],
    deny: [
      'front-1 → cart UDP 53 asks cdn.example',
      'front-1 → cart UDP 53',
      'front-1 → cart UDP 54 asks api.example',
      'front-1 → 8.8.8.8 UDP 53 asks api.example',
    ],
  },
  {
    name: 'and nobody while none are known',
    policies: out({ toFQDNs: [{ matchPattern: '*' }] }),
    deny: ['front-1 → 8.8.8.8 TCP 80'],
  },
  // Ports
  {
    name: 'ranges, protocol ANY and port 0',
    policies: [
      ...into({
        fromEndpoints: [all],
        toPorts: [{ ports: [{ port: '8000', endPort: 8100, protocol: 'TCP' }, { port: '53' }] }],
      }),
      ...namespaced(
        { endpointSelector: front, ingress: [{ toPorts: [{ ports: [{ port: '0', protocol: 'UDP' }] }] }] },
        'b',
      ),
    ],
    allow: [
      'front-1 → cart TCP 8000',
      'front-1 → cart TCP 8100',
      'front-1 → cart UDP 53',
      'front-1 → cart SCTP 53',
      'cart → front-1 UDP 9',
    ],
    deny: ['front-1 → cart TCP 8101', 'front-1 → cart UDP 8000', 'front-1 → cart ICMP 0', 'cart → front-1 TCP 9'],
  },
  {
    name: 'named ports, in any case',
    policies: [
      ...into({ fromEndpoints: [all], toPorts: [{ ports: [{ port: 'WEB', protocol: 'TCP' }] }] }),
      ...out({ toEntities: ['cluster'], toPorts: [{ ports: [{ port: 'web' }] }] }),
    ],
    allow: ['front-1 → cart TCP 8080', 'front-1 → scan TCP 9090'],
    deny: ['front-1 → cart TCP 9090', 'front-1 → scan TCP 8080', 'front-2 → cart UDP 53'],
  },
  {
    name: 'ICMP by number and name, both families',
    policies: into({
      fromEntities: ['all'],
      icmps: [{ fields: [{ type: 8 }, { type: 'EchoRequest', family: 'IPv6' }, { type: '13', family: 'IPv4' }] }],
    }),
    allow: ['front-1 → cart ICMP 8', 'scan → cart ICMP 13'],
    deny: ['front-1 → cart TCP 80', 'front-1 → cart ICMP 5'],
  },
  {
    name: 'an entry without message types is about nothing',
    policies: into({ fromEntities: ['all'], icmps: [{ fields: [] }] }),
    deny: ['front-1 → cart ICMP 8', 'front-1 → cart TCP 80'],
  },
  // Denies
  {
    name: 'what denies goes before what allows, of every kind and namespace',
    policies: namespaced({
      endpointSelector: cart,
      ingress: [{ fromEntities: ['all'] }],
      ingressDeny: [{ fromEndpoints: [front], toPorts: http }],
    }),
    allow: ['front-1 → cart TCP 81', 'scan → cart TCP 80'],
    deny: ['front-1 → cart TCP 80'],
  },
  {
    name: 'a rule that denies isolates too',
    policies: namespaced({ endpointSelector: cart, ingressDeny: [{ fromEntities: ['world'] }] }),
    deny: ['8.8.8.8 → cart TCP 80', 'front-1 → cart TCP 80'],
    allow: ['cart → front-1 TCP 80'],
  },
  {
    name: 'unless it is not to',
    policies: namespaced({
      endpointSelector: all,
      enableDefaultDeny: { ingress: false },
      ingressDeny: [{ fromEntities: ['world'] }],
      ingress: [{ fromEndpoints: [front] }],
    }),
    allow: ['scan → cart TCP 80', 'front-1 → cart TCP 80'],
    deny: ['8.8.8.8 → cart TCP 80'],
  },
  {
    name: 'isolation may be asked for where there are no rules',
    policies: namespaced({
      endpointSelector: cart,
      enableDefaultDeny: { egress: true },
      ingress: [{ fromEntities: ['all'] }],
    }),
    allow: ['scan → cart TCP 80'],
    deny: ['cart → front-1 TCP 80'],
  },
  {
    name: 'a denying rule with no peers and no ports denies nothing, with an empty list too',
    policies: namespaced({
      endpointSelector: cart,
      ingress: [{ fromEntities: ['all'] }],
      ingressDeny: [{}, { fromEndpoints: [] }, { fromEntities: [], toPorts: http }, { toPorts: [{ ports: [] }] }],
    }),
    allow: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80'],
  },
  {
    name: 'a denying rule with ports alone denies everybody',
    policies: namespaced({
      endpointSelector: cart,
      ingress: [{ fromEntities: ['all'] }],
      ingressDeny: [{ toPorts: http }],
    }),
    allow: ['front-1 → cart TCP 81'],
    deny: ['front-1 → cart TCP 80', '8.8.8.8 → cart TCP 80'],
  },
  // Requires and authentication
  {
    name: 'what is required of endpoints holds for whatever else allows them',
    policies: [
      ...namespaced({ endpointSelector: cart, ingress: [{ fromEndpoints: [all] }] }, 'a'),
      ...namespaced({ endpointSelector: cart, ingress: [{ fromRequires: [{ matchLabels: { tier: 'gold' } }] }] }, 'b'),
    ],
    allow: ['front-2 → cart TCP 80'],
    deny: ['front-1 → cart TCP 80'],
    changes: {
      pods: new Map(
        pods.map((own) => [
          own.uid,
          own.name === 'front-2' ? { ...own, labels: { ...own.labels, tier: 'gold' } } : own,
        ]),
      ),
    },
  },
  {
    name: 'required authentication is what every pod has and nobody else',
    policies: into({ fromEntities: ['all'], authentication: { mode: 'required' } }),
    allow: ['front-1 → cart TCP 80', 'scan → cart TCP 80'],
    deny: ['8.8.8.8 → cart TCP 80', 'node-2 → cart TCP 80'],
  },
  {
    name: 'authentication that always fails, and none',
    policies: [
      ...into({ fromEndpoints: [all], authentication: { mode: 'test-always-fail' } }),
      ...namespaced(
        { endpointSelector: front, ingress: [{ fromEndpoints: [all], authentication: { mode: 'disabled' } }] },
        'b',
      ),
    ],
    allow: ['cart → front-1 TCP 80'],
    deny: ['front-1 → cart TCP 80'],
  },
  // What is not enforced closes
  {
    name: 'rules for requests allow no connection',
    policies: into({ fromEndpoints: [all], toPorts: [{ ...http[0], rules: { http: [{ method: 'GET' }] } }] }),
    deny: ['front-1 → cart TCP 80'],
  },
  {
    name: 'empty rules for requests ask nothing',
    policies: into({ fromEndpoints: [all], toPorts: [{ ...http[0], rules: { http: [] } }] }),
    allow: ['front-1 → cart TCP 80'],
  },
  {
    name: 'peers that cannot be found are nobody to allow',
    policies: [
      ...out({ toServices: [{ k8sService: { serviceName: 'cart', namespace: 'shop' } }] }),
      ...out({ toCIDRSet: [{ cidrGroupRef: 'partners' }] }),
      ...out({ toGroups: [{ aws: { securityGroupsIds: ['sg-1'] } }] }),
      ...out({ toEndpoints: [{ matchLabels: { 'container:image': 'x' } }] }),
    ],
    deny: ['front-1 → cart TCP 80', 'front-1 → 8.8.8.8 TCP 80'],
  },
  ...(
    [
      [
        { toServices: [{ k8sService: { serviceName: 'x' } }] },
        ['front-1 → cart TCP 80', 'front-1 → 8.8.8.8 TCP 80'],
        [],
      ],
      [{ toCIDRSet: [{ cidrGroupRef: 'partners' }] }, ['front-1 → 8.8.8.8 TCP 80'], ['front-1 → cart TCP 80']],
      [{ toGroups: [{ aws: {} }] }, ['front-1 → 8.8.8.8 TCP 80'], ['front-1 → cart TCP 80']],
      [
        { toEntities: ['kube-apiserver'] },
        ['front-1 → 8.8.8.8 TCP 80', 'front-1 → node-1 TCP 80'],
        ['front-1 → cart TCP 80'],
      ],
      [
        { toEndpoints: [{ matchLabels: { 'container:image': 'x' } }] },
        ['front-1 → cart TCP 80'],
        ['front-1 → scan TCP 80'],
      ],
      [
        { toEntities: ['cluster'], toPorts: [{ ports: [{ protocol: 'GRE' }] }] },
        ['front-1 → cart TCP 80', 'front-1 → cart 47'],
        [],
      ],
    ] as const
  ).map(
    ([rule, deny, allow]): Row => ({
      name: `what cannot be found is denied wherever it could be: ${JSON.stringify(rule)}`,
      policies: namespaced({ endpointSelector: front, egress: [{ toEntities: ['all'] }], egressDeny: [rule] }),
      deny,
      allow,
    }),
  ),
  {
    name: 'a subject that is not known exactly is isolated and allowed nothing',
    policies: namespaced({
      endpointSelector: { matchLabels: { app: 'cart', 'container:image': 'x' } },
      ingress: [{ fromEntities: ['all'] }],
    }),
    deny: ['front-1 → cart TCP 80'],
    allow: ['cart → front-1 TCP 80'],
  },
  // Cluster-wide
  {
    name: 'a cluster-wide policy is about every pod, and its empty selectors are every pod',
    policies: clusterWide({ endpointSelector: all, ingress: [{ fromEndpoints: [all] }] }),
    allow: ['scan → cart TCP 80', 'front-1 → scan TCP 80'],
    deny: ['8.8.8.8 → cart TCP 80', 'node-2 → front-1 TCP 80'],
  },
  {
    name: 'and may name namespaces on both sides',
    policies: clusterWide({
      endpointSelector: { matchLabels: { 'k8s:io.kubernetes.pod.namespace': 'shop' } },
      ingress: [{ fromEndpoints: [{ matchLabels: { 'io.kubernetes.pod.namespace': 'ops' } }] }],
    }),
    allow: ['scan → cart TCP 80', 'front-1 → scan TCP 80'],
    deny: ['front-1 → cart TCP 80'],
  },
  {
    name: 'policies of nodes are not enforced, and select no pods',
    policies: clusterWide({ nodeSelector: all, ingress: [{}] }),
    allow: ['front-1 → cart TCP 80', 'agent → cart TCP 80'],
  },
  // The bare list
  {
    name: 'in a bare list the empty selector is everybody',
    policies: bare({
      endpointSelector: { matchLabels: { 'k8s:app': 'cart' } },
      ingress: [{ fromEndpoints: [all], toPorts: http }],
    }),
    allow: ['8.8.8.8 → cart TCP 80', 'scan → cart TCP 80', 'node-2 → cart TCP 80'],
    deny: ['8.8.8.8 → cart TCP 81'],
  },
  {
    name: 'and labels are those of every namespace’s pods',
    policies: bare({
      endpointSelector: all,
      ingress: [{ fromEndpoints: [{ matchLabels: { 'any:app': 'scan' } }, { matchLabels: { 'reserved:world': '' } }] }],
    }),
    allow: ['scan → cart TCP 80', '8.8.8.8 → scan TCP 80'],
    deny: ['front-1 → cart TCP 80'],
  },
  {
    name: 'and what somebody has not, the world has not either',
    policies: bare({
      endpointSelector: all,
      ingress: [{ fromEndpoints: [{ matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }] }],
    }),
    allow: ['8.8.8.8 → cart TCP 80', 'node-2 → cart TCP 80'],
    deny: ['scan → cart TCP 80'],
  },
];

for (const { name, policies, allow = [], deny = [], changes } of rows)
  test(name, () => assertFlows(policies, { allow, deny }, changes));

test('requests decide where they are known', () => {
  const rules = {
    http: [
      { method: 'GET', path: '/cart/.*', headers: ['X-Token: abc'] },
      { method: 'P(OST|UT)', host: 'shop\\.example' },
    ],
  };
  const view = clusterWith(into({ fromEndpoints: [all], toPorts: [{ ...http[0], rules }] }));
  const cases: readonly [
    method: string,
    target: string,
    headers: readonly (readonly [string, string])[],
    host: string,
    verdict: string,
  ][] = [
    ['GET', '/cart/7?x=1', [['x-token', 'abc']], 'other', 'allow'],
    ['GET', '/cart/7', [['x-token', 'abcd']], 'other', 'deny'],
    ['GET', '/x/cart/7', [['x-token', 'abc']], 'other', 'deny'],
    ['PUT', '/', [], 'shop.example', 'allow'],
    ['PUT', '/', [], 'shopxexample', 'deny'],
    ['put', '/', [], 'shop.example', 'deny'],
  ];
  for (const [method, target, headers, host, verdict] of cases) {
    const request = { kind: 'http', method, target, headers, host } as const;
    assert.equal(decide(view, { ...flow('front-1 → cart TCP 80'), request }).verdict, verdict, `${method} ${target}`);
  }
});

test('names of servers and of DNS decide where they are known', () => {
  const tls = clusterWith(
    out({ toPorts: [{ ports: [{ port: '443', protocol: 'TCP' }], serverNames: ['*.Example', '**.cdn.example'] }] }),
  );
  const named = (serverName?: string) => ({
    ...flow('front-1 → 8.8.8.8 TCP 443'),
    request: { kind: 'tls', ...(serverName === undefined ? {} : { serverName }) } as const,
  });
  assert.equal(decide(tls, named('api.example')).verdict, 'allow');
  assert.equal(decide(tls, named('a.b.cdn.example')).verdict, 'allow');
  assert.equal(decide(tls, named('a.b.example')).verdict, 'deny');
  assert.equal(decide(tls, named()).verdict, 'deny');
  assert.equal(decide(tls, flow('front-1 → 8.8.8.8 TCP 443')).verdict, 'deny');

  const dns = clusterWith(
    out({
      toPorts: [
        { ports: [{ port: '53' }], rules: { dns: [{ matchName: 'a.example' }, { matchPattern: 'b*.example' }] } },
      ],
    }),
  );
  const asked = (name: string) => ({ ...flow('front-1 → 8.8.8.8 UDP 53'), request: { kind: 'dns', name } as const });
  assert.equal(decide(dns, asked('a.example.')).verdict, 'allow');
  assert.equal(decide(dns, asked('bx.example')).verdict, 'allow');
  assert.equal(decide(dns, asked('b.x.example')).verdict, 'deny');
});
