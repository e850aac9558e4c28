import type { Selector, SelectorOperator, SelectorRequirement } from '../../model/labels.ts';
import { parsePrefix } from '../../model/prefix.ts';
import type { PeerMatch } from '../rule.ts';
import { type EndpointSelectorSpec, splitKey } from './schema.ts';

/** Where a selector of endpoints looks: one namespace's pods, every pod, or (in a bare list of rules) everybody. */
export type Scope = { readonly namespace: string } | 'pods' | 'everybody';

export interface SelectorMatch {
  readonly peer: PeerMatch;
  /** Why a part of it cannot be known here; `peer` then takes that part as `unknown` says. */
  readonly limits: readonly string[];
}

interface Requirement {
  readonly source: string;
  readonly key: string;
  readonly operator: SelectorOperator;
  readonly values: readonly string[];
}

/** What Cilium calls its one cluster where nobody has named it. */
const ownCluster = 'default';
const podNamespace = 'io.kubernetes.pod.namespace';
const namespaceLabels = 'io.cilium.k8s.namespace.labels.';
const serviceAccount = 'io.cilium.k8s.policy.serviceaccount';
const cluster = 'io.cilium.k8s.policy.cluster';

export const everybody: PeerMatch = { kind: 'all', of: [] };
export const nobody: PeerMatch = { kind: 'some', of: [] };
/** By the one thing that every pod has. */
export const everyPod: PeerMatch = { kind: 'namespace', match: { op: 'present' } };
export const everyNode: PeerMatch = { kind: 'node', which: 'any' };
const inFamily = (text: string): PeerMatch => ({
  kind: 'all',
  of: [{ kind: 'world' }, { kind: 'cidr', cidr: parsePrefix(text), except: [] }],
});

/** Who could be the API server: it is no pod with an address of its own. */
export const possibleApiServer: PeerMatch = { kind: 'some', of: [everyNode, { kind: 'world' }] };
/** Who knows the cluster's services knows the entity; a label could stand in any expression. */
const noApiServer = 'the API server is known as the entity kube-apiserver, not by its label';

/**
 * Cilium's reserved identities, which `reserved:` labels and entities name. Some of them nobody ever has here: a pod is
 * known before it may send, nodes probe their own pods without asking policy, and no pod is left unmanaged.
 */
const reserved: Readonly<Record<string, PeerMatch>> = {
  world: { kind: 'world' },
  'world-ipv4': inFamily('0.0.0.0/0'),
  'world-ipv6': inFamily('::/0'),
  host: { kind: 'node', which: 'own' },
  'remote-node': { kind: 'node', which: 'other' },
  init: nobody,
  ingress: nobody,
  health: nobody,
  unmanaged: nobody,
  none: nobody,
};

/** @returns Undefined for the API server, which is not known, and for what is no reserved identity. */
export function reservedPeer(name: string): PeerMatch | undefined {
  return Object.hasOwn(reserved, name) ? reserved[name] : undefined;
}

/**
 * Whom a selector over Cilium's labels selects.
 * @param unknown What is taken for whatever is not known here: `nobody` keeps a rule that allows from opening anything,
 * `everybody` keeps one that denies from missing anything.
 */
export function matchSelector(
  selector: EndpointSelectorSpec,
  scope: Scope,
  unknown: 'nobody' | 'everybody',
): SelectorMatch {
  const all = requirements(selector);
  const limits: string[] = [];
  // A selector that names a reserved identity is about that identity, wherever the policy is.
  const scoped = scope !== 'everybody' && !all.some(({ source }) => source === 'reserved');
  const ofPods = scoped || all.some((one) => isPodLabel(one) && isPositive(one));
  const podLabels = all.filter((one) => ofPods && isPlainLabel(one));
  const namespaced = all.filter((one) => ofPods && isNamespaceLabel(one));
  const named = namespaced.length === 0 ? all.find(namesOneNamespace) : undefined;
  const rest = all.filter((one) => one !== named && !podLabels.includes(one) && !namespaced.includes(one));
  const peers = rest.map((one) => {
    const peer = matchRequirement(one);
    if (typeof peer !== 'string') return peer;
    limits.push(peer);
    return unknown === 'nobody'
      ? nobody
      : one.key === 'kube-apiserver' && isPositive(one)
        ? possibleApiServer
        : everybody;
  });
  const kept = scoped && typeof scope === 'object' && !all.some(namesNamespace) ? scope.namespace : undefined;
  const namespace = named?.values[0] ?? kept;
  if (podLabels.length > 0 || namespaced.length > 0 || namespace !== undefined)
    peers.unshift(podsOf(namespace, podLabels, namespaced));
  else if (scoped && !all.some((one) => namesNamespace(one) && isPositive(one))) peers.unshift(everyPod);
  const [only] = peers;
  return { peer: only !== undefined && peers.length === 1 ? only : { kind: 'all', of: peers }, limits };
}

/** Labels of pods and of their namespaces in one match, which is how the compiler likes them best. */
function podsOf(
  own: string | undefined,
  labels: readonly Requirement[],
  namespaced: readonly Requirement[],
): PeerMatch {
  const pods = toSelector(labels);
  const selector = toSelector(namespaced.map((one) => ({ ...one, key: one.key.slice(namespaceLabels.length) })));
  if (own === undefined) return { kind: 'pods', namespaces: { selector }, pods };
  return { kind: 'pods', namespaces: { name: own }, pods };
}

function requirements({ matchLabels, matchExpressions }: EndpointSelectorSpec): Requirement[] {
  return [
    ...Object.entries(matchLabels ?? {}).map(
      ([key, value]): Requirement => ({ ...splitKey(key), operator: 'In', values: [value] }),
    ),
    ...(matchExpressions ?? []).map(
      ({ key, operator, values }): Requirement => ({ ...splitKey(key), operator, values: values ?? [] }),
    ),
  ];
}

function isPositive({ operator }: Requirement): boolean {
  return operator === 'In' || operator === 'Exists';
}

/** Of a source that Kubernetes' labels have. */
function isPodLabel({ source }: Requirement): boolean {
  return source === 'k8s' || source === 'any';
}

function isNamespaceLabel(one: Requirement): boolean {
  return isPodLabel(one) && one.key.startsWith(namespaceLabels);
}

/** Says itself in which namespaces it looks, so that it is not kept to its own. */
function namesNamespace(one: Requirement): boolean {
  return isPodLabel(one) && (one.key === podNamespace || one.key.startsWith(namespaceLabels));
}

function namesOneNamespace(one: Requirement): boolean {
  return isPodLabel(one) && one.key === podNamespace && one.operator === 'In' && one.values.length === 1;
}

/** One of the pod's own labels, and nothing that Cilium adds to them. */
function isPlainLabel(one: Requirement): boolean {
  return (
    isPodLabel(one) &&
    ![podNamespace, serviceAccount, cluster].includes(one.key) &&
    !isNamespaceLabel(one) &&
    !couldBeReserved(one)
  );
}

/** `any:host` is also said of the identity `reserved:host`, whose label has no value. */
function couldBeReserved({ source, key, operator, values }: Requirement): boolean {
  return (
    source === 'any' &&
    (key === 'kube-apiserver' || reservedPeer(key) !== undefined) &&
    (operator !== 'In' || values.includes(''))
  );
}

/** @returns The peers, or why they cannot be known. */
function matchRequirement(one: Requirement): PeerMatch | string {
  const positive = matchPositive(one);
  if (typeof positive === 'string' || isPositive(one)) return positive;
  return { kind: 'not', peer: positive };
}

/** Who has the label, with one of the values where the requirement has values: what `NotIn` and `DoesNotExist` deny. */
function matchPositive(one: Requirement): PeerMatch | string {
  const { source, key, operator, values } = one;
  const texts = operator === 'In' || operator === 'NotIn' ? values : undefined;
  if (source === 'reserved') {
    if (texts !== undefined && !texts.includes('')) return nobody;
    if (key === 'kube-apiserver') return noApiServer;
    return reservedPeer(key) ?? `there is no reserved identity ${key}`;
  }
  if (!isPodLabel(one)) return `labels of the source ${source} are not known`;
  if (key === podNamespace) return byText('namespace', texts);
  if (key === serviceAccount) return byText('account', texts);
  // There is one cluster, and nothing says its name: one that is not Cilium's default may be its own or another's.
  if (key === cluster)
    return texts === undefined || texts.includes(ownCluster)
      ? everyPod
      : `whether this cluster is named ${texts.join(' or ')} is not known`;
  const label: Requirement = { ...one, operator: texts === undefined ? 'Exists' : 'In' };
  const pods = isNamespaceLabel(one) ? podsOf(undefined, [], [label]) : podsOf(undefined, [label], []);
  if (!couldBeReserved(one)) return pods;
  const identity = reservedPeer(key);
  return identity === undefined ? noApiServer : { kind: 'some', of: [pods, identity] };
}

function byText(kind: 'namespace' | 'account', texts: readonly string[] | undefined): PeerMatch {
  if (texts === undefined) return { kind, match: { op: 'present' } };
  const peers = texts.map((text): PeerMatch => ({ kind, match: { op: 'exact', text } }));
  const [only] = peers;
  return only !== undefined && peers.length === 1 ? only : { kind: 'some', of: peers };
}

function toSelector(labels: readonly Requirement[]): Selector {
  const matchLabels: Record<string, string> = {};
  const matchExpressions: SelectorRequirement[] = [];
  for (const { key, operator, values } of labels) {
    const [value] = values;
    // `k8s:app` and `any:app` are one key here: what comes second stands beside it.
    if (
      operator === 'In' &&
      values.length === 1 &&
      value !== undefined &&
      key !== '__proto__' &&
      !Object.hasOwn(matchLabels, key)
    )
      matchLabels[key] = value;
    else matchExpressions.push({ key, operator, ...(values.length === 0 ? {} : { values }) });
  }
  return {
    ...(Object.keys(matchLabels).length === 0 ? {} : { matchLabels }),
    ...(matchExpressions.length === 0 ? {} : { matchExpressions }),
  };
}

/** A selector over nodes' or services' own labels. @returns Undefined where it asks for what is no label of those. */
export function nodeLabels(selector: EndpointSelectorSpec): Selector | undefined {
  const all = requirements(selector);
  return all.every(({ source }) => ['any', 'k8s', 'node'].includes(source)) ? toSelector(all) : undefined;
}
