import { z } from 'zod';
import { everyPort } from '../../model/port.ts';
import type { Direction } from '../../model/verdict.ts';
import { type BrokenPolicy, type FieldIssue, formatIssues, type ParseResult, toIssues, toSelector } from '../issues.ts';
import { normalName } from '../request/domain.ts';
import type { Level, NameMatch, PeerMatch, Policy, PortMatch, Rule } from '../rule.ts';
import {
  type ClusterNetworkPolicySpec,
  clusterNetworkPolicySchema,
  type EgressPeer,
  mostRules,
  type ProtocolMatch,
  prioritySchema,
  subjectSchema,
  tierSchema,
} from './schema.ts';

const kind = 'ClusterNetworkPolicy';
const everyPod: PeerMatch = { kind: 'pods', namespaces: { selector: {} }, pods: {} };
const levelOf = { Admin: 'admin', Baseline: 'baseline' } as const satisfies Record<string, Level>;
const verdictOf = { Accept: 'allow', Deny: 'deny', Pass: 'pass' } as const satisfies Record<string, Rule['verdict']>;
/** A rule of either direction. */
interface DirectedRule {
  readonly name?: string | undefined;
  readonly action: keyof typeof verdictOf;
  readonly peers: readonly EgressPeer[];
  readonly protocols?: readonly ProtocolMatch[] | undefined;
}

const transports = ['TCP', 'UDP', 'SCTP'] as const;

/**
 * Validates a ClusterNetworkPolicy and turns it into the rule form.
 *
 * Rules of one policy decide in the order in which they are written; upstream leaves open which of several policies of one
 * tier and priority decides. Here it is the rule that stands first in its own policy, among equals the one that denies,
 * then the one that passes, and then the policy that comes first by name.
 * @param object As JSON or YAML gives it.
 */
export function parseClusterNetworkPolicy(object: unknown): ParseResult {
  const parsed = clusterNetworkPolicySchema.safeParse(object);
  if (parsed.success) return { ok: true, policy: toPolicy(parsed.data.metadata.name, parsed.data.spec) };
  const issues = parsed.error.issues.flatMap(toIssues);
  const broken = brokenPolicy(object, issues);
  return broken === undefined ? { ok: false, issues } : { ok: false, issues, broken };
}

function toPolicy(name: string, spec: ClusterNetworkPolicySpec): Policy {
  const toRules = (direction: Direction, list: readonly DirectedRule[]): Rule[] =>
    list.map((rule, index) => ({
      ref: { kind, namespace: '', name, direction, index },
      peers: rule.peers.flatMap((peer) => [...toPeers(peer), ...toNames(peer)]),
      ports: rule.protocols === undefined ? 'any' : rule.protocols.flatMap(toPorts),
      verdict: verdictOf[rule.action],
      level: levelOf[spec.tier],
      priority: priorityOf(spec.priority, index),
      ...(rule.name === undefined || rule.name === '' ? {} : { description: rule.name }),
    }));
  const { ingress = [], egress = [] } = spec;
  const rules = [
    ...toRules(
      'ingress',
      ingress.map(({ from, ...rule }) => ({ ...rule, peers: from })),
    ),
    ...toRules(
      'egress',
      egress.map(({ to, ...rule }) => ({ ...rule, peers: to })),
    ),
  ];
  return {
    kind,
    namespace: '',
    name,
    gate: 'network',
    subject: toSubject(spec.subject),
    isolates: [],
    rules,
  };
}

/** All rules of a policy come before those of a policy with a higher number, and each before those below it. */
function priorityOf(priority: number, index: number): number {
  return priority * mostRules + index;
}

function toSubject(subject: z.infer<typeof subjectSchema>): PeerMatch {
  return toPeers(subject)[0] ?? everyPod;
}

function toNames({ domainNames = [] }: EgressPeer): NameMatch[] {
  return domainNames.map((name) => ({ kind: 'name', pattern: { pattern: normalName(name).replace(/^\*\./, '**.') } }));
}

function toPeers({ namespaces, pods, nodes, networks = [] }: EgressPeer): PeerMatch[] {
  if (namespaces !== undefined) return [{ kind: 'pods', namespaces: { selector: toSelector(namespaces) }, pods: {} }];
  if (pods !== undefined)
    return [
      {
        kind: 'pods',
        namespaces: { selector: toSelector(pods.namespaceSelector ?? {}) },
        pods: toSelector(pods.podSelector),
      },
    ];
  if (nodes !== undefined) return [{ kind: 'node', which: 'any', labels: toSelector(nodes) }];
  return networks.map((cidr): PeerMatch => ({ kind: 'cidr', cidr, except: [] }));
}

function toPorts({ tcp, udp, sctp, destinationNamedPort: name }: ProtocolMatch): PortMatch[] {
  if (name !== undefined) return transports.map((protocol) => ({ protocol, port: { name } }));
  const given = [tcp, udp, sctp].flatMap((own, i) => (own === undefined ? [] : [{ own, protocol: transports[i] }]));
  return given.flatMap(({ own: { destinationPort }, protocol }) => {
    if (protocol === undefined) return [];
    const { number, range } = destinationPort ?? {};
    if (number !== undefined) return [{ protocol, port: { from: number, to: number } }];
    return [{ protocol, port: range === undefined ? everyPort : { from: range.start, to: range.end } }];
  });
}

/** Just enough of a foreign object to know whom it is about and when it is asked. */
const outline = z.looseObject({ metadata: z.looseObject({ name: z.string().min(1) }) });
const subjectOutline = z.looseObject({ spec: z.looseObject({ subject: subjectSchema }) });
const tierOutline = z.looseObject({ spec: z.looseObject({ tier: tierSchema, priority: prioritySchema }) });

/** Denies all, in both directions, from the place in the order where the policy stands; from the very first if that is not known. */
function brokenPolicy(object: unknown, issues: readonly FieldIssue[]): BrokenPolicy | undefined {
  const readable = outline.safeParse(object);
  if (!readable.success) return undefined;
  const { name } = readable.data.metadata;
  const subject = subjectOutline.safeParse(object);
  const place = tierOutline.safeParse(object);
  const { tier, priority } = place.success ? place.data.spec : { tier: 'Admin' as const, priority: 0 };
  const whom = subject.success ? 'the pods that it selects' : 'every pod of the cluster';
  return {
    kind,
    namespace: '',
    name,
    gate: 'network',
    subject: subject.success ? toSubject(subject.data.spec.subject) : everyPod,
    isolates: [],
    rules: (['ingress', 'egress'] as const).map((direction) => ({
      ref: { kind, namespace: '', name, direction, index: -1 },
      peers: 'any',
      ports: 'any',
      verdict: 'deny',
      level: levelOf[tier],
      priority: priorityOf(priority, 0),
    })),
    broken: `not understood, so it denies all traffic of ${whom}: ${formatIssues(issues)}`,
  };
}
