import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import { changed } from '../../src/model/versions.ts';
import { settle } from '../../src/policy/istio/settle.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import type { Policy } from '../../src/policy/rule.ts';
import type { ClusterView, NodeView } from '../../src/policy/view.ts';

/** A large cluster in memory, the same each time: teams with a namespace each, services of several replicas in them. */

export const scale = { nodes: 1000, pods: 50_000, policies: 5000, namespaces: 500, services: 20 } as const;

const nodeName = (i: number): string => `node-${i % scale.nodes}`;
const namespaceName = (i: number): string => `team-${i % scale.namespaces}`;

/** The i-th pod: replicas of a service are on nodes far from each other. */
export function podAt(i: number, change: Partial<PodView> = {}): PodView {
  const replica = Math.floor(i / (scale.namespaces * scale.services));
  const service = Math.floor(i / scale.namespaces) % scale.services;
  const name = `service-${service}-${replica}`;
  const node = (i * 7 + replica * 331) % scale.nodes;
  return {
    uid: `pod-${i}`,
    namespace: namespaceName(i),
    name,
    labels: { app: `service-${service}`, tier: service < 5 ? 'front' : 'back', 'pod-template-hash': `h${service}` },
    serviceAccount: service % 4 === 0 ? `service-${service}` : 'default',
    node: nodeName(node),
    addresses: [addressAt(i)],
    namedPorts: service % 3 === 0 ? [{ name: 'http', protocol: 'TCP', port: 8080 }] : [],
    hostNetwork: false,
    ...change,
  };
}

/** 10.0.0.0/8, from the start. */
export function addressAt(i: number): IpAddress {
  return parseIp(`10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`);
}

/** The i-th policy: of ten, six NetworkPolicies, two Cilium's, one Istio's, and now and then one for all of the cluster. */
export function policyAt(i: number, version = 0): readonly Policy[] {
  const namespace = namespaceName(i);
  const nth = Math.floor(i / scale.namespaces);
  const name = `policy-${nth}`;
  const port = 8000 + ((i + version) % 50);
  const app = `service-${(nth * 2) % scale.services}`;
  const caller = `service-${(nth * 3 + version) % scale.services}`;
  return parse(manifest(), name, namespace);

  function manifest(): object {
    if (i % 100 === 99)
      return {
        apiVersion: 'policy.networking.k8s.io/v1alpha2',
        kind: 'ClusterNetworkPolicy',
        spec: {
          tier: i % 200 === 99 ? 'Admin' : 'Baseline',
          priority: i % 1000,
          subject: { namespaces: { matchLabels: { group: `group-${i % 10}` } } },
          ingress: [
            {
              action: i % 300 === 99 ? 'Pass' : 'Deny',
              from: [{ namespaces: { matchLabels: { group: `group-${(i + 1) % 10}` } } }],
              protocols: [{ tcp: { destinationPort: { number: port } } }],
            },
          ],
        },
      };
    if (nth === 9)
      return {
        apiVersion: 'security.istio.io/v1',
        kind: 'AuthorizationPolicy',
        spec: {
          selector: { matchLabels: { app } },
          action: i % 2 === 0 ? 'ALLOW' : 'DENY',
          rules: [
            {
              from: [{ source: { namespaces: [namespace, namespaceName(i + 1)] } }],
              to: [{ operation: { ports: [`${port}`] } }],
            },
          ],
        },
      };
    if (nth > 6)
      return {
        apiVersion: 'cilium.io/v2',
        kind: 'CiliumNetworkPolicy',
        spec: {
          endpointSelector: { matchLabels: { app } },
          ingress: [
            {
              fromEndpoints: [{ matchLabels: { app: caller } }],
              toPorts: [{ ports: [{ port: `${port}`, protocol: 'TCP' }] }],
            },
          ],
          egress: [{ toEntities: ['cluster'] }, { toCIDR: [`192.0.${nth}.0/24`] }],
        },
      };
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      spec: {
        podSelector: { matchLabels: { app } },
        policyTypes: ['Ingress', 'Egress'],
        ingress: [
          {
            from: [
              { podSelector: { matchLabels: { app: caller } } },
              {
                namespaceSelector: { matchLabels: { group: `group-${i % 10}` } },
                podSelector: { matchLabels: { tier: 'front' } },
              },
            ],
            ports: [{ protocol: 'TCP', port: i % 3 === 0 ? 'http' : port }],
          },
        ],
        egress: [{ to: [{ podSelector: {} }, { ipBlock: { cidr: '203.0.113.0/24', except: ['203.0.113.128/25'] } }] }],
      },
    };
  }
}

function parse(object: object, name: string, namespace: string): readonly Policy[] {
  const whole = { apiVersion: '', kind: '', ...object, metadata: { name: `${name}-${namespace}`, namespace } };
  const result = policyKindOf(whole)?.parse(whole);
  if (result?.ok !== true) throw new Error(`not a policy: ${JSON.stringify([whole, result])}`);
  return result.policies;
}

export function cluster(): ClusterView {
  const nodes = Array.from({ length: scale.nodes }, (_, i): [string, NodeView] => [
    nodeName(i),
    { addresses: [parseIp(`172.16.${i >> 8}.${i & 255}`)], labels: { zone: `zone-${i % 3}` } },
  ]);
  const namespaces = Array.from(
    { length: scale.namespaces },
    (_, i) => [namespaceName(i), { group: `group-${i % 10}` }] as const,
  );
  return {
    nodes: new Map(nodes),
    namespaces: new Map(namespaces),
    pods: changed(new Map(), new Map(Array.from({ length: scale.pods }, (_, i) => [`pod-${i}`, podAt(i)]))),
    policies: settle(Array.from({ length: scale.policies }, (_, i) => policyAt(i)).flat()),
    settings: { podCidrs: [parsePrefix('10.0.0.0/8')], serviceCidrs: [parsePrefix('172.20.0.0/16')] },
  };
}
