import type { Selector } from '../model/labels.ts';
import type { PortRange } from '../model/port.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Direction, RuleRef } from '../model/verdict.ts';

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
  /** The pods whose traffic the policy is about. */
  readonly subject: PodMatch;
  /** In these directions a selected pod is denied whatever no rule allows. */
  readonly isolates: readonly Direction[];
  /** In the order of the manifest, every direction's rules together. */
  readonly rules: readonly Rule[];
  /** Set where the object was not understood: the policy then isolates in both directions and has no rules. */
  readonly broken?: string;
}

export interface Rule {
  /** Also says the direction. */
  readonly ref: RuleRef;
  /** The other end of the connection; `any` is every pod, node and address. An empty list matches nobody. */
  readonly peers: readonly PeerMatch[] | 'any';
  /** The destination's port; `any` is every protocol too, also those without ports. An empty list matches nothing. */
  readonly ports: readonly PortMatch[] | 'any';
  readonly verdict: 'allow' | 'deny';
  readonly level: Level;
  /** Order within the level, the lower first; the priority of those kinds that have one, else 0. */
  readonly priority: number;
}

/**
 * Where a rule stands in the order of evaluation: the higher level decides. Isolation (deny what nothing allowed) stands
 * between `allow` and `baseline`; the numbers leave room on both sides and fit the top four bits of an entry's precedence.
 */
export const levels = { admin: 12, deny: 9, allow: 6, baseline: 3 } as const;
export type Level = keyof typeof levels;

export type PeerMatch =
  | ({ readonly kind: 'pods' } & PodMatch)
  /** Every address in `cidr` and in none of `except`, whoever has it: pods, nodes and the world alike. */
  | { readonly kind: 'cidr'; readonly cidr: Prefix; readonly except: readonly Prefix[] };

/** Pods by namespace and labels. A pod that shares its node's network is never matched: it counts as its node. */
export interface PodMatch {
  readonly namespaces: NamespaceMatch;
  readonly pods: Selector;
}

/** A namespace by name, or all those whose labels are selected (never one whose labels are not known). */
export type NamespaceMatch = { readonly name: string } | { readonly selector: Selector };

/** A protocol with ports, and the destination's ports: a range, or a name that each destination pod resolves for itself. */
export interface PortMatch {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: PortRange | { readonly name: string };
}

/** Policies in the order in which the first of several equal rules is named: kind, namespace, name (by code unit). */
export function comparePolicies(a: Policy, b: Policy): number {
  return compareText(a.kind, b.kind) || compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}

/**
 * Rules in the order in which they decide: level, priority, deny before allow, then kind, namespace, name and index.
 * Of all the rules that match a flow, the first in this order is the one that decided.
 */
export function compareRules(a: Rule, b: Rule): number {
  return (
    levels[b.level] - levels[a.level] ||
    a.priority - b.priority ||
    Number(a.verdict === 'allow') - Number(b.verdict === 'allow') ||
    compareText(a.ref.kind, b.ref.kind) ||
    compareText(a.ref.namespace, b.ref.namespace) ||
    compareText(a.ref.name, b.ref.name) ||
    a.ref.index - b.ref.index
  );
}

/** The policy as a whole, as the decider of what none of its rules allowed. */
export function policyRef(policy: Policy, direction: Direction): RuleRef {
  return { kind: policy.kind, namespace: policy.namespace, name: policy.name, direction, index: -1 };
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
