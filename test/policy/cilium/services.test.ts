import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '../../../src/model/address.ts';
import { parseCiliumPolicy } from '../../../src/policy/cilium/parse.ts';
import { noServices, type ServiceLookup } from '../../../src/policy/cilium/services.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { assertFlows } from './flows.ts';

const service = (namespace: string, name: string, labels: Record<string, string>, ...backends: string[]) =>
  [`${namespace}/${name}`, { namespace, name, labels, backends: backends.map(parseIp) }] as const;

/** `shop/cart` is one pod; `shop/db` has no selector: its endpoints are outside; another namespace has a `cart` too. */
const lookup: ServiceLookup = {
  services: new Map([
    service('shop', 'cart', { part: 'cart' }, '10.244.1.2'),
    service('shop', 'db', { part: 'db' }, '198.51.100.7', '198.51.100.8'),
    service('ops', 'cart', { part: 'cart' }, '10.244.2.2'),
    service('shop', 'empty', {}),
  ]),
  apiServers: [parseIp('192.168.0.2'), parseIp('198.51.100.6')],
};

function policies(
  spec: object,
  known: ServiceLookup | 'unknown' = lookup,
  kind = 'CiliumNetworkPolicy',
): readonly Policy[] {
  const wide = kind === 'CiliumClusterwideNetworkPolicy';
  const object = { metadata: { name: 'p', ...(wide ? {} : { namespace: 'shop' }) }, spec };
  const name = wide ? 'CiliumClusterwideNetworkPolicy' : 'CiliumNetworkPolicy';
  const result = parseCiliumPolicy(name, object, 'shop', known === 'unknown' ? undefined : () => known);
  assert.ok(result.ok, JSON.stringify(result));
  return result.policies;
}
const endpointSelector = { matchLabels: { app: 'front' } };
const to = (...toServices: object[]) => ({ endpointSelector, egress: [{ toServices }] });
const byName = (serviceName: string, namespace?: string) => ({ k8sService: { serviceName, namespace } });
const byLabel = (part: string, namespace?: string) => ({
  k8sServiceSelector: { selector: { matchLabels: { part } }, namespace },
});

const rows: readonly [string, readonly Policy[], readonly string[], readonly string[]][] = [
  [
    'a service of pods, in its namespace',
    policies(to(byName('cart', 'shop'))),
    ['front-1 → cart TCP 80'],
    ['front-1 → scan TCP 80', 'front-1 → 198.51.100.7 TCP 80', 'front-1 → front-2 TCP 80'],
  ],
  [
    'a namespace that is not named is the policy’s own',
    policies(to(byName('cart'))),
    ['front-1 → cart TCP 80'],
    ['front-1 → scan TCP 80'],
  ],
  [
    'of the whole cluster: in any namespace',
    policies(to(byName('cart')), lookup, 'CiliumClusterwideNetworkPolicy'),
    ['front-1 → cart TCP 80', 'front-1 → scan TCP 80'],
    ['front-1 → 198.51.100.7 TCP 80'],
  ],
  [
    'a service without a selector, whose endpoints are outside',
    policies(to(byName('db'))),
    ['front-1 → 198.51.100.7 TCP 5432', 'front-1 → 198.51.100.8 TCP 5432'],
    ['front-1 → 198.51.100.9 TCP 5432', 'front-1 → cart TCP 80'],
  ],
  [
    'services by their labels, and several',
    policies(to(byLabel('db', 'shop'), byLabel('cart', 'ops'))),
    ['front-1 → 198.51.100.7 TCP 80', 'front-1 → scan TCP 80'],
    ['front-1 → cart TCP 80'],
  ],
  [
    'ports beside services',
    policies({
      endpointSelector,
      egress: [{ toServices: [byName('cart')], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] }],
    }),
    ['front-1 → cart TCP 80'],
    ['front-1 → cart TCP 81'],
  ],
  [
    'services without backends, or that are not there, are nobody, ports or not',
    policies({
      endpointSelector,
      egress: [
        { toServices: [byName('empty'), byName('none')], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] },
      ],
    }),
    [],
    ['front-1 → cart TCP 80', 'front-1 → 8.8.8.8 TCP 80'],
  ],
  [
    'denied services, of any namespace where none is named',
    policies({ endpointSelector, egress: [{ toEntities: ['all'] }], egressDeny: [{ toServices: [byName('cart')] }] }),
    ['front-1 → 198.51.100.7 TCP 80', 'front-1 → front-2 TCP 80'],
    ['front-1 → cart TCP 80', 'front-1 → scan TCP 80'],
  ],
  [
    'the API server, where it is served: on a node, and outside',
    policies({ endpointSelector, egress: [{ toEntities: ['kube-apiserver'] }] }),
    ['front-1 → node-2 TCP 6443', 'front-1 → 198.51.100.6 TCP 6443'],
    ['front-1 → node-1 TCP 6443', 'front-1 → 198.51.100.7 TCP 80', 'front-1 → cart TCP 80'],
  ],
  [
    'the API server as a caller',
    policies({ endpointSelector, ingress: [{ fromEntities: ['kube-apiserver'] }] }),
    ['198.51.100.6 → front-1 TCP 80', 'node-2 → front-1 TCP 80'],
    ['198.51.100.7 → front-1 TCP 80', 'cart → front-1 TCP 80'],
  ],
  [
    'an API server that is nowhere is nobody to allow',
    policies({ endpointSelector, egress: [{ toEntities: ['kube-apiserver'] }] }, noServices),
    [],
    ['front-1 → node-2 TCP 6443', 'front-1 → 198.51.100.6 TCP 6443'],
  ],
  [
    'and denied wherever it could be',
    policies(
      {
        endpointSelector,
        egress: [{ toEntities: ['all'] }],
        egressDeny: [{ toEntities: ['kube-apiserver'] }],
      },
      noServices,
    ),
    ['front-1 → cart TCP 80'],
    ['front-1 → node-2 TCP 6443', 'front-1 → 198.51.100.6 TCP 6443'],
  ],
];
for (const [name, own, allow, deny] of rows)
  test(`services: ${name}`, () => {
    assert.deepEqual(own[0]?.limits, undefined);
    assertFlows(own, { allow, deny });
  });

test('who does not follow services has a limit, and who follows them is asked only where they matter', () => {
  const [policy] = policies(to(byName('cart')), 'unknown');
  assert.deepEqual(
    policy?.limits?.map(({ field }) => field),
    ['spec.egress[0].toServices[0]'],
  );
  const spec = { endpointSelector, egress: [{ toEntities: ['world'] }] };
  let asked = 0;
  parseCiliumPolicy('CiliumNetworkPolicy', { metadata: { name: 'p' }, spec }, 'shop', () => {
    asked++;
    return lookup;
  });
  assert.equal(asked, 0);
});

test('labels that no Service has are a limit', () => {
  const selector = { matchLabels: { 'container:a': 'b' } };
  const [policy] = policies(to({ k8sServiceSelector: { selector } }));
  assert.match(policy?.limits?.[0]?.reason ?? '', /only a Service’s own labels are known: nobody is allowed/);
  assertFlows(policies(to({ k8sServiceSelector: { selector } })), { deny: ['front-1 → cart TCP 80'] });
});
