import type { Direction } from '../../model/verdict.ts';
import { withTexts } from '../annotations.ts';
import { fieldOf } from '../issues.ts';
import type { NameMatch, PeerMatch, Policy, Rule } from '../rule.ts';
import type { LimitAt } from './limit.ts';
import { matchPeers, type PeersSpec } from './peers.ts';
import { matchPorts, type PortsSpec } from './ports.ts';
import type { CiliumRuleSpec, EgressRuleSpec, IngressRuleSpec } from './schema.ts';
import { matchSelector, nobody, type Scope } from './selector.ts';
import type { ServiceLookup } from './services.ts';
import { conflictsOf } from './tls.ts';

/** Whose rule it is, and where in the object it stands. */
export interface Origin {
  readonly kind: string;
  /** Empty for policies of the whole cluster. */
  readonly namespace: string;
  readonly name: string;
  /** `['specs', 1]` */
  readonly path: readonly (string | number)[];
  readonly scope: Scope;
  /** The cluster's services, for those who follow them. */
  readonly services?: ServiceLookup;
}

type Limits = { field: string; reason: string }[];

/** One rule of Cilium's, which has a subject of its own, in the rule form. */
export function toPolicy(origin: Origin, spec: CiliumRuleSpec): Policy {
  const { kind, namespace, name, path } = origin;
  const limits: Limits = [];
  const base = { kind, namespace, name, gate: 'network' } as const;
  if (spec.endpointSelector == null) {
    const reason = 'policies of nodes are not enforced';
    return {
      ...base,
      subject: nobody,
      isolates: [],
      rules: [],
      limits: [{ field: fieldOf([...path, 'nodeSelector']), reason }],
    };
  }
  const { subject, known } = subjectOf(origin, spec.endpointSelector, limits);
  const said = {
    ...(spec.log?.value ? { log: spec.log.value } : {}),
    ...(spec.description ? { description: spec.description } : {}),
  };
  const rules = directed(spec).flatMap((rule) => toRules(origin, rule, limits).map((one) => withTexts(one, said)));
  limits.push(...conflictsOf(rules, ({ ref }) => fieldOf([...path, ref.list ?? ref.direction, ref.index])));
  return {
    ...base,
    subject,
    isolates: isolates(spec),
    // Allowing more pods than are meant would open; isolating and denying more does not.
    rules: known ? rules : rules.filter(({ verdict }) => verdict === 'deny'),
    ...(limits.length === 0 ? {} : { limits }),
  };
}

/** The pods that a policy is about, and whether they are known exactly. */
export function subjectOf(
  { scope, path }: Pick<Origin, 'scope' | 'path'>,
  selector: NonNullable<CiliumRuleSpec['endpointSelector']>,
  limits: Limits,
): { subject: PeerMatch; known: boolean } {
  const own = typeof scope === 'object' ? withoutOwnNamespace(selector) : selector;
  const { peer, limits: reasons } = matchSelector(own, scope, 'everybody');
  for (const reason of reasons)
    limits.push({
      field: fieldOf([...path, 'endpointSelector']),
      reason: `${reason}: more pods than are meant are isolated, and nothing is allowed to them`,
    });
  if (typeof scope !== 'object') return { subject: peer, known: reasons.length === 0 };
  // Whatever a policy with a namespace selects, it selects in its namespace.
  const inNamespace: PeerMatch = { kind: 'namespace', match: { op: 'exact', text: scope.namespace } };
  const subject: PeerMatch =
    peer.kind === 'pods' && 'name' in peer.namespaces ? peer : { kind: 'all', of: [inNamespace, peer] };
  return { subject, known: reasons.length === 0 };
}

/** `k8s:io.kubernetes.pod.namespace` among a subject's labels is overruled by the policy's own namespace. */
function withoutOwnNamespace(selector: NonNullable<CiliumRuleSpec['endpointSelector']>): typeof selector {
  const key = 'k8s:io.kubernetes.pod.namespace';
  if (selector.matchLabels == null || !Object.hasOwn(selector.matchLabels, key)) return selector;
  const { [key]: _overruled, ...matchLabels } = selector.matchLabels;
  return { ...selector, matchLabels };
}

/** A direction that has rules, also denying ones, denies whatever is not allowed, unless the policy says otherwise. */
function isolates({ enableDefaultDeny, ...spec }: CiliumRuleSpec): Direction[] {
  const ingress = enableDefaultDeny?.ingress ?? (spec.ingress?.length ?? 0) + (spec.ingressDeny?.length ?? 0) > 0;
  const egress = enableDefaultDeny?.egress ?? (spec.egress?.length ?? 0) + (spec.egressDeny?.length ?? 0) > 0;
  return [...(ingress ? (['ingress'] as const) : []), ...(egress ? (['egress'] as const) : [])];
}

/** A rule of either direction and verdict, with its place in the manifest. */
interface DirectedRule {
  readonly direction: Direction;
  readonly list: string;
  readonly verdict: 'allow' | 'deny';
  readonly index: number;
  readonly peers: PeersSpec;
  readonly ports: PortsSpec;
  readonly mode?: string | undefined;
}

function directed({ ingress, ingressDeny, egress, egressDeny }: CiliumRuleSpec): DirectedRule[] {
  const allowing = { verdict: 'allow' } as const;
  const denying = { verdict: 'deny' } as const;
  const into = { direction: 'ingress' } as const;
  const out = { direction: 'egress' } as const;
  return [
    ...(ingress ?? []).map((rule, index) => ({
      ...{ ...into, ...allowing, list: 'ingress', index, peers: fromPeers(rule), ports: rule },
      mode: rule.authentication?.mode,
    })),
    ...(ingressDeny ?? []).map((rule, index) => ({
      ...{ ...into, ...denying, list: 'ingressDeny', index, peers: fromPeers(rule), ports: rule },
    })),
    ...(egress ?? []).map((rule, index) => ({
      ...{ ...out, ...allowing, list: 'egress', index, peers: { ...toPeers(rule), fqdns: rule.toFQDNs }, ports: rule },
      mode: rule.authentication?.mode,
    })),
    ...(egressDeny ?? []).map((rule, index) => ({
      ...{ ...out, ...denying, list: 'egressDeny', index, peers: toPeers(rule), ports: rule },
    })),
  ];
}

function toRules(origin: Origin, rule: DirectedRule, limits: Limits): Rule[] {
  const { direction, list, verdict, index, mode } = rule;
  const at = [...origin.path, list, index];
  const add = (found: readonly LimitAt[]): void => {
    for (const { path, reason } of found) limits.push({ field: fieldOf([...at, ...path]), reason });
  };
  const { kind, namespace, name } = origin;
  const ref = { kind, namespace, name, direction, ...(list === direction ? {} : { list }), index };
  const found = matchPeers(rule.peers, origin.scope, verdict, origin.services);
  add(found.limits);
  const { matches, limits: ofPorts } = matchPorts(rule.ports, verdict, namespace);
  add(ofPorts);
  const denied = rule.peers.requires?.length ? [required(rule.peers, origin, ref, add)] : [];

  const named = matches.some(({ ports }) => ports !== 'any');
  // A rule that names neither peers nor ports, or only what peers must be beside, allows and denies nothing.
  const peers = found.peers ?? (named && denied.length === 0 ? 'any' : []);
  if (peers !== 'any' && peers.length === 0) return denied;
  if (mode === 'test-always-fail') return denied;
  return [
    ...denied,
    ...matches.map(
      (match): Rule => ({
        ref,
        ...match,
        peers: mode === 'required' ? proven(peers) : simple(peers),
        verdict,
        level: verdict,
        priority: 0,
      }),
    ),
  ];
}

/** `fromRequires`: whoever of the pods is not all that is required is denied, whatever else allows it. */
function required(
  { requires, prefix }: PeersSpec,
  { scope }: Origin,
  ref: Rule['ref'],
  add: (limits: LimitAt[]) => void,
): Rule {
  const all = (requires ?? []).map((selector, index): PeerMatch => {
    // What is not known is not met.
    const { peer, limits } = matchSelector(selector, scope, 'nobody');
    add(limits.map((reason) => ({ path: [`${prefix}Requires`, index], reason: `${reason}: nobody meets it` })));
    return peer;
  });
  const peers: PeerMatch[] = [
    { kind: 'all', of: [{ kind: 'authenticated' }, { kind: 'not', peer: { kind: 'all', of: all } }] },
  ];
  return { ref, peers, ports: 'any', verdict: 'deny', level: 'deny', priority: 0 };
}

/** Only those whose identity is proven, which every pod's is, and nobody's outside. */
function proven(peers: Rule['peers']): readonly PeerMatch[] {
  const authenticated: PeerMatch = { kind: 'authenticated' };
  if (peers === 'any') return [authenticated];
  const own = peers.filter((peer): peer is Exclude<typeof peer, NameMatch> => peer.kind !== 'name');
  return own.map((peer) => ({ kind: 'all', of: [authenticated, peer] }));
}

function simple(peers: Rule['peers']): Rule['peers'] {
  return peers !== 'any' && peers.some((peer) => peer.kind === 'all' && peer.of.length === 0) ? 'any' : peers;
}

function fromPeers(rule: IngressRuleSpec): PeersSpec {
  return {
    prefix: 'from',
    endpoints: rule.fromEndpoints,
    requires: rule.fromRequires,
    cidr: rule.fromCIDR,
    cidrSet: rule.fromCIDRSet,
    entities: rule.fromEntities,
    nodes: rule.fromNodes,
    groups: rule.fromGroups,
  };
}

function toPeers(rule: EgressRuleSpec): PeersSpec {
  return {
    prefix: 'to',
    endpoints: rule.toEndpoints,
    requires: rule.toRequires,
    cidr: rule.toCIDR,
    cidrSet: rule.toCIDRSet,
    entities: rule.toEntities,
    nodes: rule.toNodes,
    groups: rule.toGroups,
    services: rule.toServices,
  };
}
