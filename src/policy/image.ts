import type { IpAddress } from '../model/address.ts';
import type { NamedPort } from '../model/endpoint.ts';
import type { IdentityNumber } from '../model/identity.ts';
import type { Labels } from '../model/labels.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Direction, RuleRef } from '../model/verdict.ts';
import type { RuleSetMatcher } from './http/readable.ts';
import type { NameMatcher } from './names/matcher.ts';

export type { ClusterView, NodeView, PolicySettings } from './view.ts';

/**
 * Everything one node's datapath needs to know of policy, as pure data: one revision of the maps.
 * All numbers are this node's own. A number, once given, is not given to anything else for as long as the numbering lives
 * (see `Counters`), so that a stale number somewhere in the datapath never means somebody else.
 */
export interface PolicyImage {
  readonly node: string;
  /** What each identity number stands for, the reserved ones left out. */
  readonly identities: ReadonlyMap<IdentityNumber, IdentityClass>;
  /** Map `peers`: every pod that has an endpoint, and every node, by address. */
  readonly peers: ReadonlyMap<IpAddress, PeerEntry>;
  /** Map `prefixes` (longest match over ::ffff:a.b.c.d and IPv6 alike), asked where `peers` has no answer; a miss is the world. */
  readonly prefixes: ReadonlyMap<Prefix, PrefixEntry>;
  /** Maps `rule_sets` and `policy`, by set id (from 1; 0 is "not loaded"). */
  readonly ruleSets: ReadonlyMap<number, RuleSet>;
  /** The pods of this node that have an endpoint, by UID. */
  readonly endpoints: ReadonlyMap<string, EndpointEntry>;
  /** What the rule numbers in entries, rule sets and events stand for. */
  readonly rules: ReadonlyMap<number, RuleRef>;
  /** Addresses that more than one pod or node claims. Nobody has them (`UNKNOWN_PEER`) until one claim is left. */
  readonly conflicts: readonly AddressConflict[];
  /** Map `name_patterns`: what numbers of patterns of DNS names stand for. They keep their meaning over a restart. */
  readonly patterns: ReadonlyMap<IdentityNumber, string>;
  /** Maps `name_…`, by id (from 1). */
  readonly matchers: ReadonlyMap<number, NameMatcher>;
  readonly counters: Counters;
}

export interface AddressConflict {
  readonly address: IpAddress;
  /** The UIDs of the pods and the names of the nodes that claim it, sorted. */
  readonly owners: readonly string[];
}

/** The next numbers to give out. They only grow; identity numbers start over at the end of their 24 bits. */
export interface Counters {
  readonly identity: number;
  readonly ruleSet: number;
  readonly rule: number;
  readonly pattern: number;
  readonly matcher: number;
}

/**
 * Peers that no policy of this node can tell apart. Where a policy of the node names CIDRs, an address's `region` (the
 * longest of those prefixes that holds it; absent if none does) is part of its class, so the two addresses of a dual-stack
 * pod may be of two classes.
 */
export type IdentityClass = {
  /** Equal for equal classes, also of different images; says nothing else. */
  readonly key: string;
} & (
  | {
      readonly kind: 'pod';
      readonly namespace: string;
      readonly serviceAccount: string;
      /** Without labels that differ from replica to replica (`pod-template-hash` and its like) unless a policy names them. */
      readonly labels: Labels;
      readonly namedPorts: readonly NamedPort[];
      readonly region?: Prefix;
    }
  | {
      readonly kind: 'this-node' | 'other-node';
      /** Those that some policy of this node names. */
      readonly labels: Labels;
      readonly region?: Prefix;
    }
  | { readonly kind: 'world'; readonly region: Prefix }
);

/** `kind` in the values of the maps `peers` and `prefixes`. */
export const peerKinds = {
  'local-pod': 1,
  'remote-pod': 2,
  'this-node': 3,
  'other-node': 4,
  'unknown-pod': 5,
  world: 6,
  'unknown-service': 7,
} as const;

export interface PeerEntry {
  readonly identity: IdentityNumber;
  readonly kind: 'local-pod' | 'remote-pod' | 'this-node' | 'other-node';
  /** The pod's UID, or the node's name. */
  readonly owner: string;
}

export interface PrefixEntry {
  /** `any` (0) where `kind` alone is the verdict. */
  readonly identity: IdentityNumber;
  /** A pod CIDR (no known pod: UNKNOWN_PEER), the world, a service CIDR (no such service: NO_SERVICE_BACKEND). */
  readonly kind: 'unknown-pod' | 'world' | 'unknown-service';
}

export interface EndpointEntry {
  /** What the pod's own packets carry as source identity, by the family of the packet; `any` (0) where it has no such address. */
  readonly identity4: IdentityNumber;
  readonly identity6: IdentityNumber;
  readonly addresses: readonly IpAddress[];
  /** By stage; those of admin and mesh are `noSet` where no policy of the stage selects the pod. */
  readonly ingressAdminSet: number;
  readonly ingressSet: number;
  readonly ingressMeshSet: number;
  readonly egressAdminSet: number;
  readonly egressSet: number;
  readonly egressMeshSet: number;
  /** The matcher of the names that egress policy is about; 0 where it is about none. */
  readonly names: number;
  /** Where audited policies are about the pod: the sets that would be asked if they were enforced beside the others. */
  readonly audit?: SetIds;
}

/**
 * What is asked one after the other about a flow, each a rule set: the network gate's admin level, which decides or
 * leaves it to the next; the rest of the network gate; the mesh gate, which is asked about what the network gate allows.
 * The admin level has sets of its own because its policies are about many pods, which can so share them.
 */
export const stages = ['admin', 'network', 'mesh'] as const;
export type Stage = (typeof stages)[number];

/** In place of a rule set of the stages admin and mesh: nothing to ask. */
export const noSet = 0;

export type SetIds = Omit<EndpointEntry, 'identity4' | 'identity6' | 'addresses' | 'names' | 'audit'>;

export function setIdOf(endpoint: SetIds, direction: Direction, stage: Stage): number {
  return endpoint[setNames[direction][stage]];
}

export const setNames = {
  ingress: { admin: 'ingressAdminSet', network: 'ingressSet', mesh: 'ingressMeshSet' },
  egress: { admin: 'egressAdminSet', network: 'egressSet', mesh: 'egressMeshSet' },
} as const satisfies Record<Direction, Record<Stage, keyof SetIds>>;

/**
 * What goes with a denial or an allowance, bits of `flags` in the values of the maps `policy` and (for what isolation
 * denies) `rule_sets`. No image has `audit`: what audited policies would say is in sets of their own (`EndpointEntry.audit`).
 */
export const optionFlags = { log: 2, reject: 4, audit: 8, keep: 16, reset: 32 } as const;

/** `flags` in the value of the map `rule_sets`, beside `optionFlags`. */
export const ruleSetFlags = { isolated: 1 } as const;

export interface RuleSet {
  readonly id: number;
  /** Which rules the set was made of; equal for sets of two images that differ only in who the peers are. */
  readonly key: string;
  readonly direction: Direction;
  readonly stage: Stage;
  /** Bit 0 to 16: entries of that port-prefix length exist for an exact protocol; `anyProtocolProbe`: entries for any protocol exist. */
  readonly probes: number;
  /** `ruleSetFlags` and `optionFlags`. */
  readonly flags: number;
  /** The rule that is named where isolation denies; `reservedRules.none` where the set does not isolate. */
  readonly rule: number;
  /** In the order of their keys (`entryKey`). */
  readonly entries: readonly PolicyEntry[];
  /** What its rules ask of HTTP requests; absent: nothing. */
  readonly matcher?: RuleSetMatcher;
  /** Why what its rules ask of requests is not read, but taken strictly (`withoutRequests`). */
  readonly unread?: string;
}

/** The bit of `RuleSet.probes` for entries with protocol 0, which have port 0 and port length 0 too. */
export const anyProtocolProbe = 1 << 17;

/** `verdict` in the value of the map `policy`. */
export const verdictCodes = { none: 0, allow: 1, deny: 2, pass: 3, proxy: 4 } as const;

/** One entry of the map `policy`; key: set, identity, port, protocol, portLength. No two of a set have the same key. */
export interface PolicyEntry {
  /** 0 matches every identity. */
  readonly identity: IdentityNumber;
  /** IP protocol number; 0 matches every protocol. */
  readonly protocol: number;
  /** Host order, bits after `portLength` zero. */
  readonly port: number;
  readonly portLength: number;
  /** 32 bits unsigned; of the entries that match, the highest decides. No two rules of one set have the same. */
  readonly precedence: number;
  readonly rule: number;
  /**
   * `pass`: as if no entry had matched. `none`: only rules that ask something of requests stand here. `proxy`: the rule asks
   * something of requests that only the proxy reads, so the proxy judges the connection by all rules; of TCP only.
   */
  readonly verdict: 'allow' | 'deny' | 'pass' | 'proxy' | 'none';
  /** `optionFlags`. */
  readonly flags: number;
  /** Which alternatives of the set's matcher stand here beside it, in order; absent: none. */
  readonly requests?: readonly number[];
}

/**
 * Rule numbers that stand for no policy's rule. They are in every image's `rules`, bar `none`. The two exemptions have no
 * entries: whoever evaluates an image lets these packets pass before asking for entries.
 */
export const reservedRules = {
  /** No rule: nothing selects the pod, and the default allows. */
  none: 0,
  /** The pod's own node reaches it always (kubelet probes): ingress from identity `host`. */
  ownNode: 1,
  /** A pod reaches itself always, at its own addresses and so through its services. */
  self: 2,
  /** Nothing selects the pod, and the default is deny. */
  defaultDeny: 3,
} as const;

/** What `PolicyImage.rules` says of the reserved numbers. */
export const reservedRuleRefs: ReadonlyMap<number, RuleRef> = new Map([
  [reservedRules.ownNode, { kind: 'Myelin', namespace: '', name: 'own-node', direction: 'ingress', index: -1 }],
  [reservedRules.self, { kind: 'Myelin', namespace: '', name: 'self', direction: 'egress', index: -1 }],
  [reservedRules.defaultDeny, { kind: 'Myelin', namespace: '', name: 'default-deny', direction: 'ingress', index: -1 }],
]);

/** The first number that is given to a policy's rule. */
export const firstFreeRule = 16;
