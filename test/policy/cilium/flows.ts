import assert from 'node:assert/strict';
import { parseIp } from '../../../src/model/address.ts';
import { parseCiliumPolicy, parseCiliumRules } from '../../../src/policy/cilium/parse.ts';
import { decide, type FlowEnd, type PolicyFlow } from '../../../src/policy/decide.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import type { ClusterView } from '../../../src/policy/view.ts';
import { clusterWith, pods } from '../../support/cluster.ts';

/** A CiliumNetworkPolicy of namespace shop. */
export function namespaced(spec: unknown, name = 'p'): readonly Policy[] {
  return policiesOf(
    parseCiliumPolicy('CiliumNetworkPolicy', {
      apiVersion: 'cilium.io/v2',
      kind: 'CiliumNetworkPolicy',
      metadata: { name, namespace: 'shop' },
      spec,
    }),
  );
}

export function clusterWide(spec: unknown, name = 'p'): readonly Policy[] {
  return policiesOf(parseCiliumPolicy('CiliumClusterwideNetworkPolicy', { metadata: { name }, spec }));
}

export function bare(...list: unknown[]): readonly Policy[] {
  return policiesOf(parseCiliumRules(list, 'list'));
}

function policiesOf(result: ReturnType<typeof parseCiliumPolicy>): readonly Policy[] {
  assert.ok(result.ok, JSON.stringify(result.ok ? '' : result.issues));
  return result.policies;
}

/**
 * `front-1 → cart TCP 80`, `cart → 8.8.8.8 ICMP 8`: names of pods, nodes, or addresses. ICMP's number is its type. With
 * `as a.example` behind it, the destination's address has been learnt under that name; with `asks a.example` it is a DNS
 * question.
 */
export function flow(text: string): PolicyFlow {
  const [from = '', , to = '', protocol = '', number = '0', what, name] = text.split(' ');
  const said: Partial<PolicyFlow> =
    name === undefined ? {} : what === 'as' ? { names: [name] } : { request: { kind: 'dns', name } };
  const end = (name: string): FlowEnd => {
    if (/^node-\d$/.test(name)) return { host: name };
    const known = pods.find((own) => own.name === name);
    return known === undefined ? { address: parseIp(name) } : { pod: known.uid };
  };
  const named = (['TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6'] as const).find((name) => name === protocol);
  const ends = { source: end(from), destination: end(to), ...said };
  if (named === 'ICMP' || named === 'ICMPv6')
    return { ...ends, protocol: named, port: 0, icmp: { type: Number(number), code: 0 } };
  return { ...ends, protocol: named ?? Number(protocol), port: Number(number) };
}

/** Asserts what a cluster with these policies says of flows. */
export function assertFlows(
  policies: readonly Policy[],
  flows: { readonly allow?: readonly string[]; readonly deny?: readonly string[] },
  changes: Partial<ClusterView> = {},
): void {
  const view = clusterWith(policies, changes);
  for (const verdict of ['allow', 'deny'] as const)
    for (const text of flows[verdict] ?? []) {
      const decision = decide(view, flow(text));
      assert.equal(decision.verdict, verdict, `${text}: ${JSON.stringify(decision)}\n${JSON.stringify(policies)}`);
    }
}
