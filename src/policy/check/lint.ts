import type { PodView } from '../../model/endpoint.ts';
import type { Labels } from '../../model/labels.ts';
import { prefixWithin } from '../../model/prefix.ts';
import { describePeer, describePort } from '../explain/describe.ts';
import { isAbout, matchesNamespace, matchesPeer, selectsPod } from '../match.ts';
import type { NameMatch, PeerMatch, Policy, PortMatch, Rule } from '../rule.ts';
import type { ClusterView } from '../view.ts';
import type { CheckPod } from './workloads.ts';

/** What policies are held against. */
export interface CheckCluster {
  readonly pods: readonly CheckPod[];
  readonly namespaces: ReadonlyMap<string, Labels>;
  /** All that there is, and not only what some files have: what is not here is nowhere. */
  readonly complete: boolean;
}

export interface Lint {
  readonly code: 'no-pods' | 'no-peers' | 'no-port' | 'never';
  /** Undefined: of the policy's subject. */
  readonly rule?: Rule;
  /** Of the manifest, where it is neither the rule nor the subject. */
  readonly path?: readonly string[];
  readonly message: string;
}

/** What of a policy comes to nothing among these pods, or among any. Says nothing of pods where there are none at all. */
export function lintPolicy(policy: Policy, cluster: CheckCluster): Lint[] {
  const view = viewOf(cluster);
  const subjects = cluster.pods.filter((pod) => selectsPod(view, policy.subject, pod));
  const found: Lint[] = lintOptions(policy);
  if (cluster.pods.length > 0 && subjects.length === 0 && isKnown(policy.subject, cluster, view))
    found.push({ code: 'no-pods', message: `selects no pod: there are no ${describePeer(policy.subject)}` });
  for (const rule of policy.rules) {
    const dead = deadReason(rule);
    if (dead !== undefined) {
      found.push({ code: 'never', rule, message: `can never decide: ${dead}` });
      continue;
    }
    if (cluster.pods.length === 0) continue;
    const about = subjects.filter((pod) => rule.subject === undefined || isAbout(view, rule, pod));
    found.push(...lintPeers(rule, cluster, view), ...lintPorts(rule, about, cluster, view));
  }
  return found;
}

/** Options for what is denied, of a policy that denies nothing. */
function lintOptions({ options = {}, isolates, rules }: Policy): Lint[] {
  if (isolates.length > 0 || rules.some(({ verdict, requests }) => verdict === 'deny' || requests !== undefined))
    return [];
  return (['denied', 'established'] as const)
    .filter((name) => options[name] !== undefined)
    .map((name): Lint => {
      const path = ['metadata', 'annotations', `myelin.dev/${name}`];
      return { code: 'never', path, message: 'comes to nothing: the policy denies nothing' };
    });
}

function viewOf({ pods, namespaces }: CheckCluster): ClusterView {
  return {
    pods: new Map(pods.map((pod): [string, PodView] => [pod.uid, pod])),
    namespaces,
    nodes: new Map(),
    policies: [],
    settings: {},
  };
}

function deadReason({ peers, ports }: Rule): string | undefined {
  if (peers !== 'any' && peers.every(isNobody)) return 'it is about nobody';
  return ports !== 'any' && ports.length === 0 ? 'it is about no port' : undefined;
}

function isNobody(peer: PeerMatch | NameMatch): boolean {
  if (peer.kind === 'some') return peer.of.every(isNobody);
  if (peer.kind === 'all') return peer.of.some(isNobody);
  return peer.kind === 'cidr' && peer.except.some((hole) => prefixWithin(peer.cidr, hole));
}

/** Peers that are pods, of which there is none. */
function lintPeers(rule: Rule, cluster: CheckCluster, view: ClusterView): Lint[] {
  if (rule.peers === 'any') return [];
  const reachable = cluster.pods.filter((pod) => !pod.hostNetwork);
  return rule.peers
    .filter((peer) => isOfPods(peer) && isKnown(peer, cluster, view))
    .filter((peer) => !reachable.some((pod) => matchesPeer(view, peer, { pod })))
    .map((peer): Lint => ({ code: 'no-peers', rule, message: `matches no pod: there are no ${describePeer(peer)}` }));
}

/** Whether only a pod can be what the peer matches. */
function isOfPods(peer: PeerMatch | NameMatch): boolean {
  if (peer.kind === 'all') return peer.of.some(isOfPods);
  if (peer.kind === 'some') return peer.of.length > 0 && peer.of.every(isOfPods);
  return ['pods', 'account', 'namespace', 'principal', 'authenticated'].includes(peer.kind);
}

/** Whether the pods that a peer asks for would be among these, if they were anywhere: files need not have everything. */
function isKnown(
  peer: PeerMatch | NameMatch,
  { complete, pods, namespaces }: CheckCluster,
  view: ClusterView,
): boolean {
  if (complete) return true;
  if (peer.kind === 'all' || peer.kind === 'some')
    return peer.of.every((one) => isKnown(one, { complete, pods, namespaces }, view));
  if (peer.kind === 'namespace')
    return peer.match.op === 'exact' && pods.some((pod) => matchesPeer(view, peer, { pod }));
  if (peer.kind !== 'pods') return false;
  return pods.some((pod) => matchesNamespace(peer.namespaces, pod.namespace, namespaces.get(pod.namespace)));
}

/** Ports that none of the pods declares that the rule lets packets to. Pods that declare no ports at all may have any. */
function lintPorts(rule: Rule, subjects: readonly CheckPod[], cluster: CheckCluster, view: ClusterView): Lint[] {
  if (rule.ports === 'any') return [];
  const { peers } = rule;
  const targets =
    rule.ref.direction === 'ingress'
      ? subjects
      : peers === 'any' || !peers.every(isOfPods)
        ? []
        : cluster.pods.filter((pod) => !pod.hostNetwork && peers.some((peer) => matchesPeer(view, peer, { pod })));
  if (targets.length === 0 || targets.some((pod) => pod.ports.length === 0)) return [];
  return rule.ports
    .filter((match) => !targets.some((pod) => hasPort(pod, match)))
    .map(
      (match): Lint => ({
        code: 'no-port',
        rule,
        message: `no pod that it is about has ${describePort(match)}: ${declared(targets)}`,
      }),
    );
}

function hasPort(pod: CheckPod, match: PortMatch): boolean {
  if (!('port' in match)) return true;
  const wanted = match.port;
  if ('from' in wanted)
    return pod.ports.some(
      ({ protocol, port }) => protocol === match.protocol && wanted.from <= port && port <= wanted.to,
    );
  return pod.namedPorts.some(({ name, protocol }) => name === wanted.name && protocol === match.protocol);
}

/** More than these are not read. */
const mostListed = 6;

function declared(pods: readonly CheckPod[]): string {
  const all = [
    ...new Set(
      pods.flatMap((pod) =>
        pod.ports.map(({ protocol, port }) => {
          const named = pod.namedPorts.find((one) => one.protocol === protocol && one.port === port);
          return `${protocol} ${port}${named === undefined ? '' : ` (${named.name})`}`;
        }),
      ),
    ),
  ].sort();
  const more = all.length > mostListed ? ` and ${all.length - mostListed} more` : '';
  return `they have ${all.slice(0, mostListed).join(', ')}${more}`;
}
