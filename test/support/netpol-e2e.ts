import { parseIp } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import type { PolicyFlow } from '../../src/policy/decide.ts';
import { parseNetworkPolicy } from '../../src/policy/network-policy/parse.ts';
import type { Policy } from '../../src/policy/rule.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import type { E2ePod, E2eStep } from './shared.ts';

export const e2eNodes = ['node-1', 'node-2'] as const;

/** One verdict that the suite expects. */
export interface E2eVerdict {
  readonly from: string;
  readonly to: string;
  readonly allowed: boolean;
  readonly flow: PolicyFlow;
}

/** `namespace/name`, which is also the UID in the view. */
export function e2eUid(pod: Pick<E2ePod, 'Namespace' | 'Name'>): string {
  return `${pod.Namespace}/${pod.Name}`;
}

/** The cluster of one step; pods are dealt out to the two nodes in turn. */
export function e2eView(step: E2eStep): ClusterView {
  return {
    pods: new Map(step.Pods.map((pod, i) => [e2eUid(pod), podView(pod, e2eNodes[i % e2eNodes.length] ?? 'node-1')])),
    namespaces: new Map(step.Namespaces.map(({ Name, Labels }) => [Name, Labels])),
    nodes: new Map(e2eNodes.map((name, i) => [name, { addresses: [parseIp(`192.168.0.${i + 1}`)] }])),
    policies: (step.Policies ?? []).map(e2ePolicy),
    settings: {},
  };
}

/** What the suite judges of a step: all pairs but a pod and itself. Flows are after service translation. */
export function e2eVerdicts(step: E2eStep): E2eVerdict[] {
  return Object.entries(step.Expected).flatMap(([from, row]) =>
    Object.entries(row).flatMap(([to, allowed]) => {
      if (from === to) return [];
      const flow = { source: { pod: from }, destination: { pod: to }, protocol: step.Protocol, port: step.Port };
      return [{ from, to, allowed, flow }];
    }),
  );
}

export function e2ePolicy(object: unknown): Policy {
  const parsed = parseNetworkPolicy(object);
  if (!parsed.ok) throw new Error(`the suite's policy does not parse: ${JSON.stringify(parsed.issues)}`);
  return parsed.policy;
}

function podView(pod: E2ePod, node: string): PodView {
  return {
    namespace: pod.Namespace,
    name: pod.Name,
    uid: e2eUid(pod),
    labels: pod.Labels,
    serviceAccount: 'default',
    node,
    addresses: [parseIp(pod.IP)],
    namedPorts: pod.Ports.flatMap(({ name, protocol, containerPort }) =>
      name === undefined ? [] : [{ name, protocol, port: containerPort }],
    ),
    hostNetwork: false,
  };
}
