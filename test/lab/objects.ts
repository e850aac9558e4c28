import type { Deployment, Live, Node, Pod, Service } from '../../src/api/kinds.ts';

let count = 0;

/** A pod as the API gives it out. */
export function pod(name: string, options: Partial<Pod['spec']> & { ready?: boolean; ips?: string[] } & Labelled = {}) {
  const { ready = true, ips = [], labels = {}, owner, deleted = false, ...spec } = options;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      namespace: 'default',
      name,
      uid: `uid-${name}`,
      resourceVersion: String(++count),
      creationTimestamp: '2026-01-01T00:00:00Z',
      labels,
      ...(owner === undefined
        ? {}
        : {
            ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name: owner, uid: owner, controller: true }],
          }),
      ...(deleted ? { deletionTimestamp: '2026-01-01T00:01:00Z' } : {}),
    },
    spec: { containers: [{ name: 'c', image: 'x' }], ...spec },
    status: {
      podIPs: ips.map((ip) => ({ ip })),
      conditions: ['Ready', 'ContainersReady'].map((type) => ({ type, status: ready ? 'True' : 'False' })),
    },
  } satisfies Live<Pod>;
}

interface Labelled {
  readonly labels?: Record<string, string>;
  readonly owner?: string;
  readonly deleted?: boolean;
}

export function node(name: string, spec: Node['spec'] = {}, labels: Record<string, string> = {}): Node {
  return { apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, spec };
}

export function service(name: string, spec: Service['spec']): Live<Service> {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name, uid: `svc-${name}`, resourceVersion: '1' },
    spec,
  };
}

export function deployment(replicas: number, spec: Partial<Deployment['spec']> = {}): Deployment {
  const labels = { app: 'web' };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { namespace: 'default', name: 'web', generation: 1 },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'x' }] } },
      ...spec,
    },
  };
}
