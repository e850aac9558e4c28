import { parseIp } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import { parseNetworkPolicy } from '../../src/policy/network-policy/parse.ts';
import type { Policy } from '../../src/policy/rule.ts';
import type { ClusterView } from '../../src/policy/view.ts';

/**
 * A small cluster that tables of cases are written on. UID = `namespace/name`.
 *
 *     shop/front-1, shop/front-2 (app=front, node-1 and node-2), shop/cart (app=cart, node-1, ports web=8080/TCP dns=53/UDP),
 *     ops/scan (app=scan, node-2, port web=9090/TCP), ops/agent (app=agent, node-2, host network)
 *
 * Pods 10.244.0.0/16 and fd00:10:244::/56, services 10.96.0.0/16, nodes 192.168.0.0/24 and fd00:168::/64.
 * Namespaces: shop (team=a), ops (team=b).
 */
export const pods: readonly PodView[] = [
  pod('shop/front-1', { app: 'front' }, 'node-1', ['10.244.1.1', 'fd00:10:244:1::1']),
  pod('shop/front-2', { app: 'front' }, 'node-2', ['10.244.2.1', 'fd00:10:244:2::1']),
  pod('shop/cart', { app: 'cart' }, 'node-1', ['10.244.1.2', 'fd00:10:244:1::2'], {
    namedPorts: [
      { name: 'web', protocol: 'TCP', port: 8080 },
      { name: 'dns', protocol: 'UDP', port: 53 },
    ],
  }),
  pod('ops/scan', { app: 'scan' }, 'node-2', ['10.244.2.2', 'fd00:10:244:2::2'], {
    namedPorts: [{ name: 'web', protocol: 'TCP', port: 9090 }],
  }),
  pod('ops/agent', { app: 'agent' }, 'node-2', ['192.168.0.2', 'fd00:168::2'], { hostNetwork: true }),
];

/** The same objects in every cluster: what did not change is the same object. */
const namespaces = new Map([
  ['shop', { team: 'a' }],
  ['ops', { team: 'b' }],
]);

export function clusterWith(policies: readonly Policy[], changes: Partial<ClusterView> = {}): ClusterView {
  return {
    pods: new Map(pods.map((own) => [own.uid, own])),
    namespaces,
    nodes: new Map([
      ['node-1', { addresses: [parseIp('192.168.0.1'), parseIp('fd00:168::1')] }],
      ['node-2', { addresses: [parseIp('192.168.0.2'), parseIp('fd00:168::2')] }],
    ]),
    policies,
    settings: {
      podCidrs: ['10.244.0.0/16', 'fd00:10:244::/56'].map(parsePrefix),
      serviceCidrs: ['10.96.0.0/16'].map(parsePrefix),
    },
    ...changes,
  };
}

/** A NetworkPolicy of namespace shop, or `namespace/name`. */
export function policy(name: string, spec: object): Policy {
  const [first = '', second] = name.split('/');
  const metadata = second === undefined ? { namespace: 'shop', name: first } : { namespace: first, name: second };
  const result = parseNetworkPolicy({ metadata, spec });
  if (result.ok) return result.policy;
  if (result.broken === undefined) throw new Error(JSON.stringify(result.issues));
  return result.broken;
}

export function pod(
  uid: string,
  labels: PodView['labels'],
  node: string,
  addresses: readonly string[],
  more: Partial<PodView> = {},
): PodView {
  const [namespace = '', name = ''] = uid.split('/');
  const base = { namespace, name, uid, labels, node, serviceAccount: 'default', namedPorts: [], hostNetwork: false };
  return { ...base, addresses: addresses.map(parseIp), ...more };
}
