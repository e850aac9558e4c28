import { type Family, familyOf, type IpAddress } from '../model/address.ts';
import type { PodView } from '../model/endpoint.ts';
import { echoRequests, icmpPort, type Protocol, protocolFromNumber } from '../model/port.ts';
import { type Prefix, prefixContains, prefixParts } from '../model/prefix.ts';
import type { Direction, SideDecision } from '../model/verdict.ts';
import { isAbout, matchesAnyPeer, matchesAnyPort, type RulePeer, type RulePort, selectsPod } from './match.ts';
import { matchesAnyRequest, type Request } from './request.ts';
import {
  comparePolicies,
  compareRules,
  type Gate,
  mayBeWithin,
  type Policy,
  policyRef,
  type Rule,
  withoutRequests,
} from './rule.ts';
import type { ClusterView } from './view.ts';

/** A pod by UID, a node's own processes by the node's name, or whoever has an address. */
export type FlowEnd = { readonly pod: string } | { readonly host: string } | { readonly address: IpAddress };

/** The first packet of a connection, after service translation. */
export interface PolicyFlow {
  readonly source: FlowEnd;
  readonly destination: FlowEnd;
  /** A name, or an IP protocol number. */
  readonly protocol: Protocol | number;
  /** The destination's; 0 where the protocol has none. */
  readonly port: number;
  /** The message, where the protocol is ICMP or ICMPv6. Default: an echo request. */
  readonly icmp?: { readonly type: number; readonly code: number };
  /** What the flow asks for, where that is known. Without it, rules about requests are taken as strictly as they can be. */
  readonly request?: Request;
  /** The names under which the source has learnt the destination's address from DNS, while that counts. Default: none. */
  readonly names?: readonly string[];
  /** Which of the ends' addresses are used. Default: an `address` end's family, else one that both have, IPv4 first. */
  readonly family?: Family;
}

export interface Decision {
  /** Allow if both sides allow. */
  readonly verdict: 'allow' | 'deny';
  readonly egress: SideDecision;
  readonly ingress: SideDecision;
}

/** Who a flow's end is. */
export type Party =
  | { readonly kind: 'pod'; readonly pod: PodView; readonly address?: IpAddress }
  | { readonly kind: 'node'; readonly name: string; readonly address?: IpAddress }
  | { readonly kind: 'world'; readonly address: IpAddress }
  /** An address of the cluster's that nobody has, or a pod or node that is not in the view. */
  | { readonly kind: 'unknown'; readonly address?: IpAddress; readonly reason: 'UNKNOWN_PEER' | 'NO_SERVICE_BACKEND' };

/** A flow with its ends found in the view. */
export interface ResolvedFlow {
  readonly source: Party;
  readonly destination: Party;
  readonly protocol: Protocol | number;
  /** For ICMP, `icmpPort`. */
  readonly port: number;
  readonly request?: Request;
  readonly names?: readonly string[];
}

/**
 * The reference decision: what the policies of all kinds say of a flow. Written to be read beside the documentation of
 * their APIs; the compiled image and the BPF programs are tested against it.
 */
export function decide(view: ClusterView, flow: PolicyFlow): Decision {
  const resolved = resolveFlow(view, flow);
  const egress = decideSide(view, resolved, 'egress');
  const ingress = decideSide(view, resolved, 'ingress');
  const verdict = egress.verdict === 'allow' && ingress.verdict === 'allow' ? 'allow' : 'deny';
  return { verdict, egress, ingress };
}

/** One side of the decision: `egress` by the source pod's policies, `ingress` by the destination pod's. */
export function decideSide(view: ClusterView, flow: ResolvedFlow, direction: Direction): SideDecision {
  const [subject, peer] = direction === 'egress' ? [flow.source, flow.destination] : [flow.destination, flow.source];
  if (peer.kind === 'unknown') return { verdict: 'deny', by: 'reason', reason: peer.reason };
  if (subject.kind === 'unknown') return { verdict: 'deny', by: 'reason', reason: subject.reason };
  if (subject.kind !== 'pod')
    return {
      verdict: 'allow',
      by: 'exempt',
      why: `the ${direction === 'egress' ? 'source' : 'destination'} is not a pod`,
    };
  if (peer.kind === 'pod' && peer.pod.uid === subject.pod.uid)
    return { verdict: 'allow', by: 'exempt', why: 'a pod reaches itself always' };
  if (direction === 'ingress' && peer.kind === 'node' && peer.name === subject.pod.node)
    return { verdict: 'allow', by: 'exempt', why: 'the pod’s own node reaches it always' };

  const network = decideGate(view, flow, direction, subject.pod, peer, 'network').decision;
  if (network.verdict === 'deny') return network;
  const mesh = decideGate(view, flow, direction, subject.pod, peer, 'mesh').decision;
  // Where both allow, the first one that has a rule for it is named.
  return mesh.verdict === 'deny' || (mesh.by === 'rule' && network.by !== 'rule') ? mesh : network;
}

/** What one gate says, and by what. */
export interface GateDecision {
  readonly decision: SideDecision;
  /** As it was enforced: without its requests where no request is known. */
  readonly rule?: Rule;
  /** The rules that had the rest of their level passed over. */
  readonly passed: readonly Rule[];
}

/**
 * One gate of one side. The levels in their order: admin (a pass skips its rest), denies and allows, isolation, baseline
 * (a pass skips its rest), the default. The mesh has no default but to allow.
 */
export function decideGate(
  view: ClusterView,
  flow: ResolvedFlow,
  direction: Direction,
  subject: PodView,
  peer: Party,
  gate: Gate,
): GateDecision {
  const policies = policiesOf(view, subject).filter((policy) => policy.gate === gate && enforced(policy));
  const rulePeer = toRulePeer(peer, subject, direction === 'egress' ? flow.names : undefined);
  const rulePort = toRulePort(flow);
  const matching = policies
    .flatMap((policy) => policy.rules)
    .flatMap((rule) => asAsked(rule, flow.request) ?? [])
    .filter((rule) => rule.ref.direction === direction && isAbout(view, rule, subject))
    .filter((rule) => matchesAnyPeer(view, rule.peers, rulePeer) && matchesAnyPort(rule.ports, rulePort))
    .sort(compareRules);
  const passed: Rule[] = [];
  const byRule = (rule: Rule): GateDecision => {
    const decision: SideDecision = { verdict: rule.verdict === 'allow' ? 'allow' : 'deny', by: 'rule', rule: rule.ref };
    return { decision, rule, passed };
  };

  const admin = matching.find(({ level }) => level === 'admin');
  if (admin?.verdict === 'pass') passed.push(admin);
  else if (admin !== undefined) return byRule(admin);
  const explicit = matching.find(({ level }) => level === 'deny' || level === 'allow');
  if (explicit !== undefined) return byRule(explicit);
  const isolating = policies.filter((policy) => policy.isolates.includes(direction));
  if (isolating.length > 0)
    return {
      decision: {
        verdict: 'deny',
        by: 'isolation',
        policies: isolating.map((policy) => policyRef(policy, direction)),
      },
      passed,
    };
  const baseline = matching.find(({ level }) => level === 'baseline');
  if (baseline?.verdict === 'pass') passed.push(baseline);
  else if (baseline !== undefined) return byRule(baseline);
  const denied = gate === 'network' && deniesByDefault(view, subject.namespace);
  return { decision: { verdict: denied ? 'deny' : 'allow', by: 'default' }, passed };
}

/** The rule as it stands for this request, or for a connection of which no request is known; undefined where it does not. */
function asAsked(rule: Rule, request: Request | undefined): Rule | undefined {
  if (request === undefined) return withoutRequests(rule);
  // No kind has rules that pass over some requests but DNS questions; such a one denies them all.
  if (request.kind !== 'dns' && rule.verdict === 'pass') return withoutRequests(rule);
  if (rule.verdict !== 'allow' && mayBeWithin(request, rule.requests)) return withoutRequests(rule);
  return matchesAnyRequest(request, rule.requests) ? rule : undefined;
}

/** Whether a policy decides anything at all. */
export function enforced({ options }: Policy): boolean {
  return options?.mode !== 'audit';
}

/** The policies that select the pod, in the order in which they are named. */
export function policiesOf(view: ClusterView, pod: PodView): Policy[] {
  return view.policies.filter((policy) => selectsPod(view, policy.subject, pod)).sort(comparePolicies);
}

export function deniesByDefault({ settings }: ClusterView, namespace: string): boolean {
  return settings.namespaceDefaultDeny?.get(namespace) ?? settings.defaultDeny ?? false;
}

/** @param subject The pod at the flow's other end, whose policies are asked. */
export function toRulePeer(party: Party, subject: PodView, names?: readonly string[]): RulePeer {
  return {
    ...(names === undefined ? {} : { names }),
    ...(party.kind === 'pod' ? { pod: party.pod } : {}),
    ...(party.kind === 'node' ? { node: { name: party.name, own: party.name === subject.node } } : {}),
    ...(party.kind === 'world' ? { world: true } : {}),
    ...(party.address === undefined ? {} : { address: party.address }),
  };
}

export function toRulePort({ destination, protocol, port }: ResolvedFlow): RulePort {
  return { protocol, port, namedPorts: destination.kind === 'pod' ? destination.pod.namedPorts : [] };
}

/** Finds both ends in the view and the addresses that they use. An unknown UID or node is an end that nobody has. */
export function resolveFlow(view: ClusterView, flow: PolicyFlow): ResolvedFlow {
  const family = flow.family ?? familyOfFlow(view, flow);
  const protocol =
    typeof flow.protocol === 'number' ? (protocolFromNumber(flow.protocol) ?? flow.protocol) : flow.protocol;
  const icmp = protocol === 'ICMP' || protocol === 'ICMPv6';
  return {
    source: resolveEnd(view, flow.source, family),
    destination: resolveEnd(view, flow.destination, family),
    protocol,
    port: icmp
      ? flow.icmp === undefined
        ? echoRequests[protocol]
        : icmpPort(flow.icmp.type, flow.icmp.code)
      : flow.port,
    ...(flow.request === undefined ? {} : { request: flow.request }),
    ...(flow.names === undefined ? {} : { names: flow.names }),
  };
}

/**
 * Whoever has the address: a pod, a node, nobody (a cluster address that no one, or more than one, claims), or the world.
 * Pods that share their node's network have no address of their own.
 */
export function resolveAddress(view: ClusterView, address: IpAddress): Party {
  const nodes = [...view.nodes].filter(([, node]) => node.addresses.includes(address));
  const pods = [...view.pods.values()].filter((pod) => !pod.hostNetwork && pod.addresses.includes(address));
  if (nodes.length + pods.length > 1) return { kind: 'unknown', address, reason: 'UNKNOWN_PEER' };
  const [pod] = pods;
  if (pod !== undefined) return { kind: 'pod', pod, address };
  const [node] = nodes;
  if (node !== undefined) return { kind: 'node', name: node[0], address };
  return resolveByPrefix(view, address);
}

function resolveByPrefix({ settings }: ClusterView, address: IpAddress): Party {
  const longest = (prefixes: readonly Prefix[] = []): number =>
    Math.max(-1, ...prefixes.filter((p) => prefixContains(p, address)).map((p) => prefixParts(p).length));
  const pods = longest(settings.podCidrs);
  const services = longest(settings.serviceCidrs);
  if (pods < 0 && services < 0) return { kind: 'world', address };
  return { kind: 'unknown', address, reason: pods >= services ? 'UNKNOWN_PEER' : 'NO_SERVICE_BACKEND' };
}

function resolveEnd(view: ClusterView, end: FlowEnd, family: Family): Party {
  if ('address' in end) return resolveAddress(view, end.address);
  const pod = 'pod' in end ? view.pods.get(end.pod) : undefined;
  const node = 'host' in end ? end.host : pod?.hostNetwork ? pod.node : undefined;
  const addresses = addressesOf(view, end);
  const address = addresses?.find((own) => familyOf(own) === family);
  const at = address === undefined ? {} : { address };
  if (addresses === undefined) return { kind: 'unknown', reason: 'UNKNOWN_PEER' };
  if (node !== undefined) return { kind: 'node', name: node, ...at };
  return pod === undefined ? { kind: 'unknown', reason: 'UNKNOWN_PEER' } : { kind: 'pod', pod, ...at };
}

/** @returns Undefined for a pod or node that is not in the view. */
function addressesOf(view: ClusterView, end: FlowEnd): readonly IpAddress[] | undefined {
  if ('address' in end) return [end.address];
  if ('host' in end) return view.nodes.get(end.host)?.addresses;
  const pod = view.pods.get(end.pod);
  return pod?.hostNetwork ? view.nodes.get(pod.node)?.addresses : pod?.addresses;
}

function familyOfFlow(view: ClusterView, { source, destination }: PolicyFlow): Family {
  const families = [source, destination].map((end) => new Set(addressesOf(view, end)?.map(familyOf)));
  return families.every((own) => own.size === 0 || own.has(4)) ? 4 : 6;
}
