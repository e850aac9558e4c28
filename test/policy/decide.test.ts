import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '../../src/model/address.ts';
import { formatRule, type SideDecision } from '../../src/model/verdict.ts';
import { compile } from '../../src/policy/compile.ts';
import { decide, type FlowEnd, type PolicyFlow } from '../../src/policy/decide.ts';
import type { Policy } from '../../src/policy/rule.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { assertAgreement } from '../support/agreement.ts';
import { clusterWith, pod, pods, policy } from '../support/cluster.ts';

const cart = { matchLabels: { app: 'cart' } };
const front = { matchLabels: { app: 'front' } };
const all = {};
const denyAll = policy('deny-all', { podSelector: all, policyTypes: ['Ingress', 'Egress'] });
const ingress = (name: string, ...rules: object[]) =>
  policy(name, { podSelector: cart, policyTypes: ['Ingress'], ingress: rules });
const egress = (name: string, ...rules: object[]) =>
  policy(name, { podSelector: front, policyTypes: ['Egress'], egress: rules });

/** `front-1 → cart TCP 80`: short names of pods, nodes, or addresses; `6` at the end for IPv6. */
function flow(text: string): PolicyFlow {
  const match = /^(\S+) → (\S+) (\S+)(?: (\d+))?( 6)?$/.exec(text);
  const [, from = '', to = '', protocol = '', port = '0', six] = match ?? [];
  const end = (name: string): FlowEnd => {
    if (/^node-\d$/.test(name)) return { host: name };
    const known = [...pods, { name: 'gone', uid: 'gone' }].find((own) => own.name === name);
    return known === undefined ? { address: parseIp(name) } : { pod: known.uid };
  };
  const names = ['TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6'] as const;
  const base = { source: end(from), destination: end(to), port: Number(port) };
  const named = names.find((name) => name === protocol) ?? Number(protocol);
  return { ...base, protocol: named, ...(six === undefined ? {} : { family: 6 }) };
}

/** `allow default`, `deny ingress[0]`, `deny isolation a,b`, `deny UNKNOWN_PEER`. */
function short(side: SideDecision): string {
  if (side.by === 'rule') return `${side.verdict} ${formatRule(side.rule).replace('NetworkPolicy ', '')}`;
  if (side.by === 'isolation') return `deny isolation ${side.policies.map(({ name }) => name).join()}`;
  return `${side.verdict} ${side.by === 'reason' ? side.reason : side.by}`;
}

interface Row {
  readonly name: string;
  readonly policies?: readonly Policy[];
  readonly changes?: Partial<ClusterView>;
  /** Flow → what egress and ingress say. */
  readonly says: Readonly<Record<string, readonly [string, string]>>;
}

const rows: readonly Row[] = [
  {
    name: 'without policies everything is allowed',
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow default'],
      'front-1 → 8.8.8.8 UDP 53': ['allow default', 'allow exempt'],
      '8.8.8.8 → cart ICMP': ['allow exempt', 'allow default'],
    },
  },
  {
    name: 'a policy is about its own namespace',
    policies: [policy('ops/deny', { podSelector: all })],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow default'],
      'cart → scan TCP 80': ['allow default', 'deny isolation deny'],
    },
  },
  {
    name: 'isolation is by direction',
    policies: [ingress('in')],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'deny isolation in'],
      'cart → front-1 TCP 80': ['allow default', 'allow default'],
    },
  },
  {
    name: 'both sides must allow, and each answers for itself',
    policies: [denyAll, egress('out', { to: [{ podSelector: cart }] })],
    says: {
      'front-1 → cart TCP 80': ['allow shop/out egress[0]', 'deny isolation deny-all'],
      'cart → front-1 TCP 80': ['deny isolation deny-all', 'deny isolation deny-all'],
      'scan → cart TCP 80': ['allow default', 'deny isolation deny-all'],
    },
  },
  {
    name: 'policies add up; the first rule by name and index is named',
    policies: [
      ingress('b', { from: [{ podSelector: front }] }, {}),
      ingress('c', { from: [{ podSelector: front }] }),
      ingress('a', { ports: [{ port: 9 }] }, { ports: [{ port: 81 }, { port: 80 }] }),
    ],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow shop/a ingress[1]'],
      'front-1 → cart TCP 82': ['allow default', 'allow shop/b ingress[0]'],
      'scan → cart TCP 82': ['allow default', 'allow shop/b ingress[1]'],
    },
  },
  {
    name: 'of a denial all isolating policies are named, in order',
    policies: [ingress('z'), denyAll, ingress('a')],
    says: { 'scan → cart TCP 80': ['allow default', 'deny isolation a,deny-all,z'] },
  },
  {
    name: 'a pod reaches itself whatever its policies say',
    policies: [denyAll],
    says: {
      'cart → cart TCP 80': ['allow exempt', 'allow exempt'],
      '10.244.1.2 → cart TCP 80': ['allow exempt', 'allow exempt'],
    },
  },
  {
    name: 'its own node reaches a pod, another node is an address; a pod’s way to a node is policy',
    policies: [denyAll],
    says: {
      'node-1 → cart TCP 80': ['allow exempt', 'allow exempt'],
      '192.168.0.1 → cart TCP 80': ['allow exempt', 'allow exempt'],
      'node-2 → cart TCP 80': ['allow exempt', 'deny isolation deny-all'],
      'cart → node-1 TCP 80': ['deny isolation deny-all', 'allow exempt'],
      'cart → node-2 TCP 80': ['deny isolation deny-all', 'allow exempt'],
      'node-1 → node-2 TCP 80': ['allow exempt', 'allow exempt'],
    },
  },
  {
    name: 'nodes are matched by ipBlock and by nothing else',
    policies: [
      ingress('in', { from: [{ ipBlock: { cidr: '192.168.0.2/32' } }, { namespaceSelector: all }] }),
      egress('out', { to: [{ ipBlock: { cidr: 'fd00:168::/64' } }] }),
    ],
    says: {
      'node-2 → cart TCP 80': ['allow exempt', 'allow shop/in ingress[0]'],
      'node-2 → cart TCP 80 6': ['allow exempt', 'deny isolation in'],
      'front-1 → node-1 TCP 80': ['deny isolation out', 'allow exempt'],
      'front-1 → node-1 TCP 80 6': ['allow shop/out egress[0]', 'allow exempt'],
    },
  },
  {
    name: 'a pod on its node’s network is the node: no policy selects it, no selector matches it',
    policies: [
      policy('ops/deny', { podSelector: all, policyTypes: ['Ingress', 'Egress'] }),
      ingress('in', { from: [{ namespaceSelector: all }] }),
    ],
    says: {
      'front-1 → agent TCP 80': ['allow default', 'allow exempt'],
      'agent → cart TCP 80': ['allow exempt', 'deny isolation in'],
      'agent → scan TCP 80': ['allow exempt', 'allow exempt'],
      'scan → cart TCP 80': ['deny isolation deny', 'allow shop/in ingress[0]'],
    },
  },
  {
    name: 'selectors of pods and namespaces',
    policies: [
      ingress('a', { from: [{ podSelector: { matchLabels: { app: 'scan' } } }], ports: [{ port: 1 }] }),
      ingress('b', { from: [{ namespaceSelector: { matchLabels: { team: 'b' } } }], ports: [{ port: 2 }] }),
      ingress('c', {
        from: [
          {
            namespaceSelector: { matchExpressions: [{ key: 'team', operator: 'NotIn', values: ['b'] }] },
            podSelector: front,
          },
        ],
        ports: [{ port: 3 }],
      }),
      ingress('d', {
        from: [
          { namespaceSelector: all, podSelector: { matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] } },
        ],
        ports: [{ port: 4 }],
      }),
    ],
    says: {
      // A pod selector alone stays in the policy's namespace.
      'scan → cart TCP 1': ['allow default', 'deny isolation a,b,c,d'],
      'scan → cart TCP 2': ['allow default', 'allow shop/b ingress[0]'],
      'front-2 → cart TCP 2': ['allow default', 'deny isolation a,b,c,d'],
      'front-2 → cart TCP 3': ['allow default', 'allow shop/c ingress[0]'],
      'scan → cart TCP 3': ['allow default', 'deny isolation a,b,c,d'],
      'scan → cart TCP 4': ['allow default', 'deny isolation a,b,c,d'],
    },
  },
  {
    name: 'nobody knows the labels of an unknown namespace, so no selector matches them',
    policies: [
      ingress('in', {
        from: [{ namespaceSelector: { matchExpressions: [{ key: 'evil', operator: 'DoesNotExist' }] } }],
      }),
    ],
    changes: { namespaces: new Map([['shop', {}]]) },
    says: {
      'scan → cart TCP 80': ['allow default', 'deny isolation in'],
      'front-1 → cart TCP 80': ['allow default', 'allow shop/in ingress[0]'],
    },
  },
  {
    name: 'an ipBlock is about addresses: pods’, nodes’ and strangers’, of its family',
    policies: [ingress('in', { from: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.244.2.0/24', '8.8.0.0/16'] } }] })],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart TCP 80 6': ['allow default', 'deny isolation in'],
      'front-2 → cart TCP 80': ['allow default', 'deny isolation in'],
      'node-2 → cart TCP 80': ['allow exempt', 'allow shop/in ingress[0]'],
      '9.9.9.9 → cart TCP 80': ['allow exempt', 'allow shop/in ingress[0]'],
      '8.8.8.8 → cart TCP 80': ['allow exempt', 'deny isolation in'],
    },
  },
  {
    name: 'what one block excepts another may hold',
    policies: [
      egress(
        'out',
        { to: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }] },
        { to: [{ ipBlock: { cidr: '8.8.8.0/24' } }] },
      ),
    ],
    says: {
      'front-1 → 8.1.1.1 TCP 80': ['allow shop/out egress[0]', 'allow exempt'],
      'front-1 → 8.8.1.1 TCP 80': ['deny isolation out', 'allow exempt'],
      'front-1 → 8.8.8.8 TCP 80': ['allow shop/out egress[1]', 'allow exempt'],
    },
  },
  {
    name: 'all of IPv6 is not IPv4, and the other way round',
    policies: [
      egress('out', { to: [{ ipBlock: { cidr: '::/0' } }] }),
      ingress('in', { from: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }),
    ],
    says: {
      'front-1 → 8.8.8.8 TCP 80': ['deny isolation out', 'allow exempt'],
      'front-1 → 2001:db8::1 TCP 80': ['allow shop/out egress[0]', 'allow exempt'],
      '2001:db8::1 → cart TCP 80': ['allow exempt', 'deny isolation in'],
    },
  },
  {
    name: 'an address of the cluster that nobody has',
    says: {
      'front-1 → 10.244.9.9 TCP 80': ['deny UNKNOWN_PEER', 'deny UNKNOWN_PEER'],
      '10.244.9.9 → cart TCP 80': ['deny UNKNOWN_PEER', 'deny UNKNOWN_PEER'],
      'front-1 → 10.96.0.1 TCP 80': ['deny NO_SERVICE_BACKEND', 'deny NO_SERVICE_BACKEND'],
      'gone → cart TCP 80': ['deny UNKNOWN_PEER', 'deny UNKNOWN_PEER'],
    },
  },
  {
    name: 'nor does an ipBlock make anybody of it',
    policies: [egress('out', { to: [{ ipBlock: { cidr: '10.244.9.0/24' } }, { ipBlock: { cidr: '10.96.0.0/24' } }] })],
    says: {
      'front-1 → 10.244.9.9 TCP 80': ['deny UNKNOWN_PEER', 'deny UNKNOWN_PEER'],
      'front-1 → 10.96.0.1 TCP 80': ['deny NO_SERVICE_BACKEND', 'deny NO_SERVICE_BACKEND'],
    },
  },
  {
    name: 'an address that two pods claim is nobody’s',
    changes: {
      pods: new Map(
        [...pods, pod('ops/thief', { app: 'front' }, 'node-2', ['10.244.1.1'])].map((own) => [own.uid, own]),
      ),
    },
    says: {
      '10.244.1.1 → cart TCP 80': ['deny UNKNOWN_PEER', 'deny UNKNOWN_PEER'],
      'fd00:10:244:1::1 → cart TCP 80': ['allow default', 'allow default'],
    },
  },
  {
    name: 'ports and ranges',
    policies: [
      ingress('in', {
        ports: [{ port: 80 }, { port: 1000, endPort: 2000 }, { protocol: 'UDP', port: 53 }, { protocol: 'SCTP' }],
      }),
    ],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart UDP 80': ['allow default', 'deny isolation in'],
      'front-1 → cart TCP 999': ['allow default', 'deny isolation in'],
      'front-1 → cart TCP 1000': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart TCP 2000': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart TCP 2001': ['allow default', 'deny isolation in'],
      'front-1 → cart UDP 53': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart SCTP 7': ['allow default', 'allow shop/in ingress[0]'],
      'front-1 → cart 6 80': ['allow default', 'allow shop/in ingress[0]'],
    },
  },
  {
    name: 'what has no ports is allowed by rules without ports only',
    policies: [
      ingress('a', { ports: [{ protocol: 'TCP' }, { protocol: 'UDP' }, { protocol: 'SCTP' }] }),
      ingress('b', { from: [{ podSelector: front }] }),
    ],
    says: {
      'front-1 → cart ICMP': ['allow default', 'allow shop/b ingress[0]'],
      'front-1 → cart ICMPv6 0 6': ['allow default', 'allow shop/b ingress[0]'],
      'front-1 → cart 47': ['allow default', 'allow shop/b ingress[0]'],
      'scan → cart ICMP': ['allow default', 'deny isolation a,b'],
      'scan → cart 47': ['allow default', 'deny isolation a,b'],
      'scan → cart TCP 80': ['allow default', 'allow shop/a ingress[0]'],
    },
  },
  {
    name: 'a named port is the destination’s own',
    policies: [
      ingress('in', { ports: [{ port: 'web' }, { protocol: 'UDP', port: 'web' }] }),
      egress('out', { to: [{ namespaceSelector: all }, { ipBlock: { cidr: '8.0.0.0/8' } }], ports: [{ port: 'web' }] }),
    ],
    says: {
      'scan → cart TCP 8080': ['allow default', 'allow shop/in ingress[0]'],
      'scan → cart TCP 9090': ['allow default', 'deny isolation in'],
      'scan → cart UDP 8080': ['allow default', 'deny isolation in'],
      'front-1 → cart TCP 8080': ['allow shop/out egress[0]', 'allow shop/in ingress[0]'],
      'front-1 → scan TCP 9090': ['allow shop/out egress[0]', 'allow default'],
      'front-1 → scan TCP 8080': ['deny isolation out', 'allow default'],
      'front-1 → front-2 TCP 8080': ['deny isolation out', 'allow default'],
      'front-1 → 8.8.8.8 TCP 8080': ['deny isolation out', 'allow exempt'],
    },
  },
  {
    name: 'a named port of a rule about everybody is each pod’s own',
    policies: [egress('out', { ports: [{ port: 'web' }, { port: 443 }] })],
    says: {
      'front-1 → cart TCP 8080': ['allow shop/out egress[0]', 'allow default'],
      'front-1 → scan TCP 8080': ['deny isolation out', 'allow default'],
      'front-1 → scan TCP 443': ['allow shop/out egress[0]', 'allow default'],
      'front-1 → 8.8.8.8 TCP 443': ['allow shop/out egress[0]', 'allow exempt'],
    },
  },
  {
    name: 'a name that several containers use is all of their ports',
    policies: [ingress('in', { ports: [{ port: 'web' }] })],
    changes: {
      pods: new Map(
        [
          ...pods.filter(({ name }) => name !== 'cart'),
          pod('shop/cart', { app: 'cart' }, 'node-1', ['10.244.1.2'], {
            namedPorts: [
              { name: 'web', protocol: 'TCP', port: 1 },
              { name: 'web', protocol: 'TCP', port: 2 },
            ],
          }),
        ].map((own) => [own.uid, own]),
      ),
    },
    says: {
      'scan → cart TCP 1': ['allow default', 'allow shop/in ingress[0]'],
      'scan → cart TCP 2': ['allow default', 'allow shop/in ingress[0]'],
      'scan → cart TCP 3': ['allow default', 'deny isolation in'],
    },
  },
  {
    name: 'a broken policy isolates, and takes nothing from the others',
    policies: [
      policy('broken', { podSelector: cart, policyTypes: ['Sideways'] }),
      ingress('in', { from: [{ podSelector: front }] }),
    ],
    says: {
      'front-1 → cart TCP 80': ['allow default', 'allow shop/in ingress[0]'],
      'scan → cart TCP 80': ['allow default', 'deny isolation broken,in'],
      'cart → scan TCP 80': ['deny isolation broken', 'allow default'],
      'scan → front-1 TCP 80': ['allow default', 'allow default'],
    },
  },
  {
    name: 'the default may be to deny, for the cluster',
    policies: [ingress('in', {})],
    changes: { settings: { defaultDeny: true, namespaceDefaultDeny: new Map([['ops', false]]) } },
    says: {
      'front-1 → cart TCP 80': ['deny default', 'allow shop/in ingress[0]'],
      'cart → front-1 TCP 80': ['deny default', 'deny default'],
      'scan → front-1 TCP 80': ['allow default', 'deny default'],
      'node-1 → front-1 TCP 80': ['allow exempt', 'allow exempt'],
    },
  },
  {
    name: 'or for a namespace',
    changes: { settings: { namespaceDefaultDeny: new Map([['shop', true]]) } },
    says: {
      'scan → cart TCP 80': ['allow default', 'deny default'],
      'cart → scan TCP 80': ['deny default', 'allow default'],
    },
  },
];

for (const { name, policies = [], changes, says } of rows)
  test(name, () => {
    const view = clusterWith(policies, changes);
    const images = [...view.nodes.keys()].map((node) => compile(view, node));
    for (const [text, [out, into]] of Object.entries(says)) {
      const { verdict, egress: a, ingress: b } = decide(view, flow(text));
      assert.deepEqual([short(a), short(b)], [out, into], text);
      assert.equal(verdict, out.startsWith('allow') && into.startsWith('allow') ? 'allow' : 'deny', text);
      for (const image of images) assertAgreement(view, image, flow(text));
    }
  });

test('a flow that names no family uses one that both ends have', () => {
  const six = pod('shop/six', { app: 'front' }, 'node-1', ['fd00:10:244:1::6']);
  const view = clusterWith([ingress('in', { from: [{ ipBlock: { cidr: 'fd00::/16' } }] })], {
    pods: new Map([...pods, six].map((own) => [own.uid, own])),
  });
  const to = { destination: { pod: 'shop/cart' }, protocol: 'TCP', port: 80 } as const;
  assert.equal(decide(view, { source: { pod: 'shop/six' }, ...to }).verdict, 'allow');
  assert.equal(decide(view, { source: { pod: 'shop/front-1' }, ...to }).verdict, 'deny');
});
