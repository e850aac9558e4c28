import type { Selector } from '../model/labels.ts';
import type { PortRange } from '../model/port.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Direction, RuleRef } from '../model/verdict.ts';
import { type DomainPattern, matchesServerName, type Request, type RequestMatch } from './request.ts';
import type { TlsUse } from './tls.ts';

/**
 * The one form that every policy API is turned into. Deciding and compiling know only this form; a front end per API
 * (network-policy/ is the first) knows the API's defaults and validation and nothing of how decisions are made.
 */
export interface Policy {
  /** The API kind, as people know it: `NetworkPolicy`. */
  readonly kind: string;
  /** Empty for kinds without a namespace. */
  readonly namespace: string;
  readonly name: string;
  readonly gate: Gate;
  /** The pods whose traffic the policy is about; never anything but pods, whatever else it matches. */
  readonly subject: PeerMatch;
  /** In these directions a selected pod is denied whatever no rule allows. */
  readonly isolates: readonly Direction[];
  /** In the order of the manifest, every direction's rules together. */
  readonly rules: readonly Rule[];
  readonly options?: PolicyOptions;
  /** What of the object cannot be enforced. `rules` and `isolates` are already as strict as that asks for. */
  readonly limits?: readonly Limit[];
  /** Set where the object was not understood: the policy then closes what it selects. */
  readonly broken?: string;
  /** Of kinds whose objects overrule each other: what `settle` weighs. The rules are the object's own, as if it stood alone. */
  readonly authentication?: Authentication;
}

/** Whether pods ask for proof of who calls them (Istio's PeerAuthentication). */
export interface Authentication {
  readonly scope: 'mesh' | 'namespace' | 'workload';
  /** RFC 3339: of several of one scope the oldest counts. Absent: younger than all others. */
  readonly created?: string;
  readonly mode: AuthenticationMode;
  /** By port of the pod. */
  readonly ports: readonly { readonly port: number; readonly mode: AuthenticationMode }[];
}
/** `inherit`: as the next wider scope has it. */
export type AuthenticationMode = 'inherit' | 'optional' | 'required';

/** Each gate decides on its own, with its own order, and a flow must pass both: Istio's policies are the second. */
export const gates = ['network', 'mesh'] as const;
export type Gate = (typeof gates)[number];

/** A field of an object that nothing here can enforce, and why: for the object's status. */
export interface Limit {
  /** `spec.ingress[0].from[1].gateways`. */
  readonly field: string;
  readonly reason: string;
}

/** Who reads requests: `never` the proxy; always the proxy (`required`); the kernel what it can, else the proxy (`auto`). */
export type ProxyUse = 'auto' | 'never' | 'required';

export interface PolicyOptions {
  /** What happens to a connection that was admitted and that this policy now denies. Default `re-evaluate`: it is denied. */
  readonly established?: 're-evaluate' | 'keep' | 'reset';
  /** What the sender of a denied packet is told. Default `drop`: nothing. */
  readonly denied?: 'drop' | 'reject';
  /** An audited policy decides nothing; what it would have denied is said in events. Default `enforce`. */
  readonly mode?: 'enforce' | 'audit';
  /** Default `auto`. */
  readonly proxy?: ProxyUse;
  /** What is said where the policy as a whole denies, and where rules of it decide that have no text of their own. */
  readonly log?: string;
  readonly description?: string;
}

export interface Rule {
  /** Also says the direction. */
  readonly ref: RuleRef;
  /** Of the policy's subjects, only those that match at one of their addresses. Absent: all of them. */
  readonly subject?: PeerMatch;
  /** The other end of the connection; `any` is every pod, node and address. An empty list matches nobody. */
  readonly peers: readonly (PeerMatch | NameMatch)[] | 'any';
  /** The destination's port; `any` is every protocol too, also those without ports. An empty list matches nothing. */
  readonly ports: readonly PortMatch[] | 'any';
  /** `pass`, at the levels admin and baseline only: no further rule of that level is asked. */
  readonly verdict: 'allow' | 'deny' | 'pass';
  readonly level: Level;
  /** Order within the level, the lower first; the priority of those kinds that have one, else 0. */
  readonly priority: number;
  /** One of these the request must match; absent: every request, also what is no request at all. */
  readonly requests?: readonly RequestMatch[];
  /** Of rules that allow and ask for requests: how these come out of TLS and go on in it. */
  readonly tls?: TlsUse;
  /** Not empty: each verdict of this rule is said in an event, with this text. */
  readonly log?: string;
  readonly description?: string;
}

/**
 * Where a rule stands in the order of evaluation: the higher level decides. Isolation (deny what nothing allowed) stands
 * between `allow` and `baseline`; the numbers leave room on both sides and fit the top four bits of an entry's precedence.
 * Only the network gate has rules of the levels admin and baseline.
 */
export const levels = { admin: 12, deny: 9, allow: 6, baseline: 3 } as const;
export type Level = keyof typeof levels;

export type PeerMatch =
  | ({ readonly kind: 'pods' } & PodMatch)
  | CidrMatch
  /** A node's own processes and the pods that share its network; `own`: the node that the subject is on. */
  | { readonly kind: 'node'; readonly which: 'own' | 'other' | 'any'; readonly labels?: Selector }
  /** Whoever is neither pod nor node nor at an address of the cluster's. */
  | { readonly kind: 'world' }
  /** Pods by the name of their service account. */
  | { readonly kind: 'account'; readonly match: TextMatch }
  /** Pods by the name of their namespace. */
  | { readonly kind: 'namespace'; readonly match: TextMatch }
  /** Pods by their identity, `<trust domain>/ns/<namespace>/sa/<service account>`. */
  | { readonly kind: 'principal'; readonly match: TextMatch }
  /** Whose identity is proven: every pod, because only proof makes a packet a pod's. */
  | { readonly kind: 'authenticated' }
  /** Everybody where the list is empty. */
  | { readonly kind: 'all'; readonly of: readonly PeerMatch[] }
  /** Nobody where the list is empty. */
  | { readonly kind: 'some'; readonly of: readonly PeerMatch[] }
  | { readonly kind: 'not'; readonly peer: PeerMatch };

/**
 * Addresses of the world that the subject has learnt under such a name, of egress rules only. What one pod has learnt is
 * nothing that others' addresses could be told apart by, so names stand beside other peers and not within them.
 */
export interface NameMatch {
  readonly kind: 'name';
  readonly pattern: DomainPattern;
}

/** Every address in `cidr` and in none of `except`, whoever has it: pods, nodes and the world alike. */
export interface CidrMatch {
  readonly kind: 'cidr';
  readonly cidr: Prefix;
  readonly except: readonly Prefix[];
  /** No pod's or node's address, as Cilium has it. */
  readonly worldOnly?: true;
}

/** Pods by namespace and labels. A pod that shares its node's network is never matched: it counts as its node. */
export interface PodMatch {
  readonly namespaces: NamespaceMatch;
  readonly pods: Selector;
}

/** A namespace by name, or all those whose labels are selected (never one whose labels are not known). */
export type NamespaceMatch = { readonly name: string } | { readonly selector: Selector };

/** A text that is there, by all or one end of it, or by its not being empty. */
export type TextMatch =
  | { readonly op: 'exact' | 'prefix' | 'suffix'; readonly text: string }
  | { readonly op: 'present' };

export type PortMatch = TransportMatch | IcmpMatch;

/** A protocol with ports, and the destination's ports: a range, or a name that each destination pod resolves for itself. */
export interface TransportMatch {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: PortRange | { readonly name: string };
}

/** The message that opens: what answers it, and errors about it, belong to what it opened. A code needs a type beside it. */
export interface IcmpMatch {
  readonly protocol: 'ICMP' | 'ICMPv6';
  readonly type?: number;
  readonly code?: number;
}

/** Policies in the order in which the first of several equal rules is named: kind, namespace, name (by code unit). */
export function comparePolicies(a: Policy, b: Policy): number {
  return compareText(a.kind, b.kind) || compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}

/**
 * Rules in the order in which they decide: level, priority, deny before pass before allow, then kind, namespace, name and index.
 * Of all the rules that match a flow, the first in this order is the one that decided.
 */
export function compareRules(a: Rule, b: Rule): number {
  return (
    levels[b.level] - levels[a.level] ||
    a.priority - b.priority ||
    verdictOrder[a.verdict] - verdictOrder[b.verdict] ||
    compareText(a.ref.kind, b.ref.kind) ||
    compareText(a.ref.namespace, b.ref.namespace) ||
    compareText(a.ref.name, b.ref.name) ||
    a.ref.index - b.ref.index
  );
}

/** A peer of one piece. */
export type PeerLeaf = Exclude<PeerMatch, { kind: 'all' | 'some' | 'not' }> | NameMatch;

/** The peers that a peer is made of, itself where it is of one piece; those that are negated too. */
export function* leavesOf(peer: PeerMatch | NameMatch): Generator<PeerLeaf> {
  if (peer.kind === 'not') yield* leavesOf(peer.peer);
  else if (peer.kind === 'all' || peer.kind === 'some') for (const one of peer.of) yield* leavesOf(one);
  else yield peer;
}

/** All that the rules' peers are made of. */
export function* leavesOfRules(rules: Iterable<Rule>): Generator<PeerLeaf> {
  for (const { peers } of rules) if (peers !== 'any') for (const peer of peers) yield* leavesOf(peer);
}

/**
 * A rule as it can be enforced where connections are seen and requests are not: what it allows of some requests is not
 * allowed, what it denies or passes over of some is denied whole.
 * @returns The rule itself where it asks nothing of requests; undefined where nothing is left of it.
 */
export function withoutRequests(rule: Rule): Rule | undefined {
  if (rule.requests === undefined) return rule;
  if (rule.verdict === 'allow') return undefined;
  const known = stricter.get(rule);
  if (known !== undefined) return known;
  const { requests: _, ...rest } = rule;
  const made: Rule = { ...rest, verdict: 'deny' };
  stricter.set(rule, made);
  return made;
}

/**
 * Whether what a rule asks of HTTP requests may be so of one inside a TLS connection, where nobody reads it: then a rule
 * that denies such requests denies the connection.
 */
export function mayBeWithin(request: Request, requests: readonly RequestMatch[] = []): boolean {
  if (request.kind !== 'tls') return false;
  return requests.some((match) => match.kind === 'http' && matchesServerName(request.serverName, match.serverName));
}

/** One for each rule, so that equal rules stay the same object. */
const stricter = new WeakMap<Rule, Rule>();

const verdictOrder = { deny: 0, pass: 1, allow: 2 } as const;

/** The policy as a whole, as the decider of what none of its rules allowed. */
export function policyRef(policy: Policy, direction: Direction): RuleRef {
  const { kind, namespace, name, options: { log } = {} } = policy;
  return { kind, namespace, name, direction, index: -1, ...(log === undefined ? {} : { log }) };
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
