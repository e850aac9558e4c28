import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { decide, type PolicyFlow } from '../../src/policy/decide.ts';
import { explain } from '../../src/policy/explain.ts';
import type { Policy, Rule } from '../../src/policy/rule.ts';
import { flowsArbitrary, flowsIn, viewArbitrary } from '../support/arbitraries.ts';
import { clusterWith, policy } from '../support/cluster.ts';

const cart = { matchLabels: { app: 'cart' } };
const front = { matchLabels: { app: 'front' } };
const ingress = (name: string, ...rules: object[]) => policy(name, { podSelector: cart, ingress: rules });
const toCart = (source: PolicyFlow['source'], protocol: PolicyFlow['protocol'] = 'TCP', port = 80): PolicyFlow => ({
  source,
  destination: { pod: 'shop/cart' },
  protocol,
  port,
});
const frontPod = { pod: 'shop/front-1' };
const scan = { pod: 'ops/scan' };

test('a flow that is allowed, with the rule that decided and all that select', () => {
  const view = clusterWith([
    ingress('b', {}),
    ingress('a', { from: [{ podSelector: front }] }),
    policy('out', { podSelector: front, policyTypes: ['Egress'], egress: [{}] }),
  ]);
  assert.equal(
    explain(view, toCart(frontPod)).text,
    [
      'pod shop/front-1 (10.244.1.1) → pod shop/cart (10.244.1.2), TCP 80: allowed',
      '  egress of pod shop/front-1 (10.244.1.1): allowed by NetworkPolicy shop/out egress[0]',
      '    selected by: NetworkPolicy shop/out',
      '  ingress of pod shop/cart (10.244.1.2): allowed by NetworkPolicy shop/a ingress[0]',
      '    selected by: NetworkPolicy shop/a, NetworkPolicy shop/b',
    ].join('\n'),
  );
});

test('a flow that is denied, with the rule that comes nearest', () => {
  const view = clusterWith([ingress('in', { from: [{ podSelector: front }], ports: [{ port: 7070 }] })]);
  const explanation = explain(view, toCart(frontPod));
  assert.equal(
    explanation.text,
    [
      'pod shop/front-1 (10.244.1.1) → pod shop/cart (10.244.1.2), TCP 80: denied',
      '  egress of pod shop/front-1 (10.244.1.1): allowed: no policy isolates it in this direction',
      '    selected by: no policy',
      '  ingress of pod shop/cart (10.244.1.2): denied: no rule of NetworkPolicy shop/in allows it',
      '    selected by: NetworkPolicy shop/in',
      '    nearest miss: NetworkPolicy shop/in ingress[0] admits pods with app=front of namespace shop on TCP 7070; the port differs: TCP 80 is not TCP 7070',
    ].join('\n'),
  );
  assert.deepEqual(explanation.ingress.nearest, {
    rule: { kind: 'NetworkPolicy', namespace: 'shop', name: 'in', direction: 'ingress', index: 0 },
    differences: ['the port differs: TCP 80 is not TCP 7070'],
  });
});

// [what, rules, flow, differences of the nearest rule]
const misses: readonly [string, object[], PolicyFlow, string[]][] = [
  [
    'another label',
    [{ from: [{ podSelector: { matchLabels: { app: 'ad' } } }] }],
    toCart(frontPod),
    ['the peer has app=front, not app=ad'],
  ],
  [
    'a missing label',
    [{ from: [{ podSelector: { matchLabels: { tier: 'x' } } }] }],
    toCart(frontPod),
    ['the peer has no label tier, not tier=x'],
  ],
  [
    'an expression',
    [{ from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['front', 'ad'] }] } }] }],
    toCart(frontPod),
    ['the peer has app=front, which app notin (front,ad) does not select'],
  ],
  [
    'another namespace',
    [{ from: [{ podSelector: {} }] }],
    toCart(scan),
    ['the peer’s namespace differs: ops is not namespace shop'],
  ],
  [
    'another namespace’s labels',
    [{ from: [{ namespaceSelector: { matchLabels: { team: 'a' } } }] }],
    toCart(scan),
    ['the peer’s namespace differs: ops is not one of the namespaces with team=a'],
  ],
  [
    'an address outside',
    [{ from: [{ ipBlock: { cidr: '9.0.0.0/8' } }] }],
    toCart({ address: parseIp('8.8.8.8') }),
    ['the address 8.8.8.8 is not in 9.0.0.0/8'],
  ],
  [
    'an address in a hole',
    [{ from: [{ ipBlock: { cidr: '8.0.0.0/8', except: ['8.8.0.0/16'] } }] }],
    toCart({ address: parseIp('8.8.8.8') }),
    ['the address 8.8.8.8 is in 8.8.0.0/16, which is excepted'],
  ],
  [
    'an address where a pod was meant',
    [{ from: [{ podSelector: {} }] }],
    toCart({ address: parseIp('8.8.8.8') }),
    ['the peer is not a pod'],
  ],
  [
    'another protocol',
    [{ ports: [{ protocol: 'UDP', port: 80 }] }],
    toCart(scan),
    ['the protocol differs: TCP 80 is not UDP 80'],
  ],
  [
    'another range',
    [{ ports: [{ port: 1, endPort: 79 }] }],
    toCart(scan),
    ['the port differs: TCP 80 is not TCP 1-79'],
  ],
  [
    'another named port',
    [{ ports: [{ port: 'web' }] }],
    toCart(scan),
    ['the port differs: TCP 80 is not TCP web, which is 8080 there'],
  ],
  ['no such named port', [{ ports: [{ port: 'grpc' }] }], toCart(scan), ['the destination has no TCP port named grpc']],
  [
    'no ports at all',
    [{ ports: [{ protocol: 'TCP' }] }],
    toCart(scan, 'ICMP', 0),
    ['ICMP has no ports, and only rules without ports are about it'],
  ],
  [
    'the rule with the fewest differences',
    [{ from: [{ podSelector: {} }], ports: [{ port: 9 }] }, { ports: [{ port: 81 }] }, { ports: [{ port: 82 }] }],
    toCart(scan),
    ['the port differs: TCP 80 is not TCP 81'],
  ],
  [
    'the peer with the fewest differences',
    [
      {
        from: [
          { podSelector: { matchLabels: { a: 'b' } } },
          { namespaceSelector: {}, podSelector: { matchLabels: { c: 'd' } } },
        ],
      },
    ],
    toCart(scan),
    ['the peer has no label c, not c=d'],
  ],
  [
    'all that differs',
    [{ from: [{ podSelector: { matchLabels: { app: 'ad' } } }], ports: [{ port: 81 }] }],
    toCart(scan),
    [
      'the peer’s namespace differs: ops is not namespace shop',
      'the peer has app=scan, not app=ad',
      'the port differs: TCP 80 is not TCP 81',
    ],
  ],
];
for (const [name, rules, flow, differences] of misses)
  test(`nearest miss: ${name}`, () => {
    assert.deepEqual(explain(clusterWith([ingress('in', ...rules)]), flow).ingress.nearest?.differences, differences);
  });

test('what would be denied if what is audited were enforced is said beside the decision', () => {
  const told: Policy = { ...ingress('told', { from: [{ podSelector: cart }] }), options: { mode: 'audit' } };
  const { verdict, text } = explain(clusterWith([told]), toCart(frontPod));
  assert.equal(verdict, 'allow');
  assert.match(
    text,
    /\n {2}if what is audited were enforced, ingress would be denied: no rule of NetworkPolicy shop\/told allows it$/,
  );
  assert.doesNotMatch(explain(clusterWith([told]), toCart({ pod: 'shop/cart' })).text, /audited were/);
  const enforced = ingress('in', { from: [{ podSelector: cart }] });
  assert.doesNotMatch(explain(clusterWith([told, enforced]), toCart(frontPod)).text, /audited were/);
});

test('where no rule could ever allow, that is said', () => {
  const { text, ingress: side } = explain(clusterWith([ingress('none')]), toCart(scan));
  assert.equal(side.nearest, undefined);
  assert.match(text, /no policy has a rule that allows any ingress/);
});

test('a broken policy says what is wrong with it', () => {
  const { text, ingress: side } = explain(
    clusterWith([policy('odd', { podSelector: cart, ingres: [] })]),
    toCart(scan),
  );
  assert.equal(side.broken.length, 1);
  assert.match(text, /NetworkPolicy shop\/odd: not understood, .*spec\.ingres: is not a field/);
});

test('ends that are not pods', () => {
  const view = clusterWith([]);
  assert.match(
    explain(view, toCart({ host: 'node-1' })).text,
    /^node node-1 \(192\.168\.0\.1\) → pod .*allowed\n.*the source is not a pod\n.*own node/,
  );
  assert.match(
    explain(view, toCart({ pod: 'gone' })).text,
    /^nobody that is known → .*denied\n.*UNKNOWN|belongs to no known pod/,
  );
  assert.match(
    explain(view, { ...toCart(frontPod), destination: { address: parseIp('8.8.8.8') }, protocol: 47 }).text,
    /→ 8\.8\.8\.8, protocol 47: allowed/,
  );
});

test('both gates, and what was passed over, are said', () => {
  const everybody = { kind: 'pods', namespaces: { selector: {} }, pods: {} } as const;
  const rule = (kind: string, style: Pick<Rule, 'level' | 'verdict' | 'priority'>, index = 0): Rule => ({
    ref: { kind, namespace: '', name: 'p', direction: 'ingress', index },
    peers: 'any',
    ports: 'any',
    ...style,
  });
  const made = (kind: string, gate: Policy['gate'], isolates: Policy['isolates'], ...rules: Rule[]): Policy => ({
    ...{ kind, namespace: '', name: 'p', gate, subject: everybody, isolates, rules },
  });
  const view = clusterWith([
    made(
      'Admin',
      'network',
      [],
      rule('Admin', { level: 'admin', verdict: 'pass', priority: 0 }),
      rule('Admin', { level: 'admin', verdict: 'deny', priority: 1 }, 1),
    ),
    made('Mesh', 'mesh', ['ingress']),
  ]);
  const { text, ingress: said } = explain(view, toCart(frontPod));
  assert.match(text, /Admin p ingress\[0\] passes: no further rule of the level admin is asked/);
  assert.match(text, /network gate: allowed: no policy isolates/);
  assert.match(text, /mesh gate: denied: no rule of Mesh p allows it/);
  assert.deepEqual(
    said.gates.map(({ gate, decision }) => [gate, decision.verdict]),
    [
      ['network', 'allow'],
      ['mesh', 'deny'],
    ],
  );
});

test('it never says anything else than the decision, and a near miss is a miss', () => {
  fc.assert(
    fc.property(viewArbitrary(), flowsArbitrary(10), (view, flows) => {
      for (const flow of flowsIn(view, flows)) {
        const decision = decide(view, flow);
        const { verdict, egress, ingress: into, text } = explain(view, flow);
        assert.deepEqual({ verdict, egress: egress.decision, ingress: into.decision }, decision);
        assert.match(text, verdict === 'allow' ? /: allowed\n/ : /: denied\n/);
        for (const side of [egress, into]) {
          if (side.nearest !== undefined) assert.ok(side.nearest.differences.length > 0, text);
          if (side.nearest !== undefined) assert.ok(side.decision.by === 'isolation');
        }
      }
    }),
    { numRuns: 500 },
  );
});
