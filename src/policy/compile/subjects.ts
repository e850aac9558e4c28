import type { PodView } from '../../model/endpoint.ts';
import { labelsKey } from '../../model/labels.ts';
import type { Direction } from '../../model/verdict.ts';
import { differences } from '../../model/versions.ts';
import { deniesByDefault, enforced } from '../decide.ts';
import { optionFlags } from '../image.ts';
import { isAbout, selectsPod } from '../match.ts';
import { readerOf } from '../proxy/reader.ts';
import {
  comparePolicies,
  compareRules,
  type Gate,
  type PeerMatch,
  type Policy,
  type ProxyUse,
  policyRef,
  type Rule,
  withoutRequests,
} from '../rule.ts';
import type { ClusterView } from '../view.ts';
import type { AskedRule, Isolation, QuestionRule, StageRules, SubjectSide } from './asked.ts';
import { push } from './lists.ts';
import { withProxy } from './proxied.ts';

/** Both directions of a pod's traffic. */
export type SubjectSides = Readonly<Record<Direction, SubjectSide>> & {
  /** Where audited policies are about the pod: what would be asked of it if they were enforced beside the others. */
  readonly audited?: Readonly<Record<Direction, SubjectSide>>;
};

/** The pods that have an endpoint on a node, kept from one compilation to the next: only pods that differ are looked at. */
export class LocalPods {
  readonly #node: string;
  readonly #own = new Map<string, PodView>();
  #pods: ClusterView['pods'] = new Map();

  constructor(node: string) {
    this.#node = node;
  }

  /** @returns By UID in order. */
  of({ pods }: Pick<ClusterView, 'pods'>): PodView[] {
    for (const uid of differences(this.#pods, pods)) {
      const pod = pods.get(uid);
      if (pod?.node === this.#node && !pod.hostNetwork) this.#own.set(uid, pod);
      else this.#own.delete(uid);
    }
    this.#pods = pods;
    return [...this.#own.values()].sort((a, b) => (a.uid < b.uid ? -1 : 1));
  }
}

/** What the policies ask of each of the pods. Pods of one namespace and account with equal labels share the answer. */
export function subjectSides(view: ClusterView, pods: readonly PodView[]): Map<PodView, SubjectSides> {
  const { byNamespace, anywhere, audited, byAddress } = indexOf(view.policies);
  const found = answersIn(view, pods.length);
  const sides = new Map<PodView, SubjectSides>();
  for (const pod of pods) {
    const at = byAddress ? pod.addresses.join() : '';
    const key = `${pod.namespace} ${pod.serviceAccount} ${labelsKey(pod.labels)} ${pod.proxy ?? ''} ${at}`;
    let own = found.get(key);
    if (own === undefined) {
      const candidates = [...(byNamespace.get(pod.namespace) ?? []), ...anywhere];
      const selects = ({ subject }: Policy): boolean => selectsPod(view, subject, pod);
      const policies = candidates.filter(selects);
      const told = audited.filter(selects);
      const byDefault = deniesByDefault(view, pod.namespace);
      const about = ({ rule }: AskedRule): boolean => isAbout(view, rule, pod);
      const sidesBy = (all: Policy[]): Record<Direction, SubjectSide> => {
        all.sort(comparePolicies);
        const by = (direction: Direction) => side(all, direction, about, byDefault, pod.proxy ?? 'auto');
        return { egress: by('egress'), ingress: by('ingress') };
      };
      own = { ...sidesBy(policies), ...(told.length === 0 ? {} : { audited: sidesBy([...policies, ...told]) }) };
      found.set(key, own);
    }
    sides.set(pod, own);
  }
  return sides;
}

/**
 * @param policies Those that select the pod, in order.
 * @param about Whether a rule of theirs is about the pod, too.
 */
function side(
  policies: readonly Policy[],
  direction: Direction,
  about: (rule: AskedRule) => boolean,
  denyByDefault: boolean,
  proxy: ProxyUse,
): SubjectSide {
  const own = (gate: Gate): Policy[] => policies.filter((policy) => policy.gate === gate);
  const ordered = <R extends AskedRule>(rules: readonly R[]): R[] =>
    rules
      .filter((asked) => asked.rule.ref.direction === direction && about(asked))
      .sort((a, b) => compareRules(a.rule, b.rule));
  const asksNames = direction === 'egress' && policies.some(isAboutQuestions);
  const rulesOf = (gate: Gate): StageRules => ({
    rules: ordered(own(gate).flatMap((policy) => askedOf(policy, proxy))),
    isolation: isolationBy(own(gate), direction),
    ...(asksNames ? { questions: ordered(own(gate).flatMap(questionsOf)) } : {}),
  });
  const network = rulesOf('network');
  const mesh = rulesOf('mesh');
  const isAdmin = ({ rule }: AskedRule): boolean => rule.level === 'admin';
  // Isolation comes before the baseline, so where it is there is nothing for the baseline to decide.
  const after = (asked: AskedRule): boolean =>
    !isAdmin(asked) && !(network.isolation !== undefined && asked.rule.level === 'baseline');
  const part = (which: (asked: AskedRule) => boolean, isolation: Isolation | undefined): StageRules => ({
    rules: network.rules.filter(which),
    isolation,
    ...(network.questions === undefined ? {} : { questions: network.questions.filter(which) }),
  });
  const parts = {
    ...(hasRules(part(isAdmin, undefined)) ? { admin: part(isAdmin, undefined) } : {}),
    network: part(after, network.isolation ?? (denyByDefault ? { by: 'default' } : undefined)),
    ...(hasRules(mesh) || mesh.isolation !== undefined ? { mesh } : {}),
  };
  return proxy === 'never' ? parts : withProxy(parts);
}

function hasRules({ rules, questions = [] }: StageRules): boolean {
  return rules.length > 0 || questions.length > 0;
}

function isAboutQuestions({ rules }: Policy): boolean {
  return rules.some(
    ({ ref, requests = [] }) => ref.direction === 'egress' && requests.some(({ kind }) => kind === 'dns'),
  );
}

/** By policy, which is never changed in place. */
const questioned = new WeakMap<Policy, readonly QuestionRule[]>();

/** The rules as `decide` takes them for a DNS question: what they ask of other requests no question is. */
function questionsOf(policy: Policy): readonly QuestionRule[] {
  const known = questioned.get(policy);
  if (known !== undefined) return known;
  const made = policy.rules.flatMap((given): QuestionRule[] => {
    const { requests, ...rule } = given;
    const flags = flagsOf(policy) | logOf(given);
    if (requests === undefined) return [{ rule: given, flags }];
    const names = requests.flatMap((request) => (request.kind === 'dns' ? request.names : []));
    return names.length === 0 ? [] : [{ rule, flags, names }];
  });
  questioned.set(policy, made);
  return made;
}

/** By policy, which is never changed in place, and by what the pod says of the proxy. */
const asked: Readonly<Record<ProxyUse, WeakMap<Policy, readonly AskedRule[]>>> = {
  auto: new WeakMap(),
  never: new WeakMap(),
  required: new WeakMap(),
};

/** @param ofPod What the pod says of the proxy; the policy has a say too, unless the pod forbids it. */
function askedOf(policy: Policy, ofPod: ProxyUse): readonly AskedRule[] {
  const known = asked[ofPod].get(policy);
  if (known !== undefined) return known;
  const ofPolicy = policy.options?.proxy ?? 'auto';
  const use = ofPod === 'never' || ofPolicy === 'never' ? 'never' : ofPod === 'required' ? ofPod : ofPolicy;
  const flags = flagsOf(policy);
  const made = policy.rules.flatMap((given): AskedRule[] => {
    const options = { flags: flags | logOf(given) };
    const reader = readerOf(given, use);
    if (reader.by === 'proxy') return [{ rule: given, ...options, proxied: true }];
    if (reader.by === 'kernel')
      return [{ rule: given, ...options, http: reader.http, ...(use === 'never' ? { never: true } : {}) }];
    const rule = withoutRequests(given);
    return rule === undefined ? [] : [{ rule, ...options }];
  });
  asked[ofPod].set(policy, made);
  return made;
}

function logOf({ log }: Rule): number {
  return log === undefined || log === '' ? 0 : optionFlags.log;
}

function isolationBy(policies: readonly Policy[], direction: Direction): Isolation | undefined {
  const first = policies.find((policy) => policy.isolates.includes(direction));
  if (first === undefined) return undefined;
  const log = first.options?.log === undefined ? 0 : optionFlags.log;
  return { by: 'policy', ref: policyRef(first, direction), flags: flagsOf(first) | log };
}

function flagsOf({ options = {} }: Policy): number {
  const established = { 're-evaluate': 0, keep: optionFlags.keep, reset: optionFlags.reset };
  const denied = { drop: 0, reject: optionFlags.reject };
  return established[options.established ?? 're-evaluate'] | denied[options.denied ?? 'drop'];
}

/** Whether pods that differ in nothing but their addresses can be told apart by it. */
function tellsApart({ rules }: Policy): boolean {
  return rules.some(({ subject }) => subject !== undefined);
}

/** What has been found of policies that are still the same, and what else that depended on. */
interface Answers {
  readonly namespaces: ClusterView['namespaces'];
  readonly settings: readonly unknown[];
  readonly found: Map<string, SubjectSides>;
}

const answers = new WeakMap<readonly Policy[], Answers>();

/** @param pods How many there are to ask about: of many more, most are gone. */
function answersIn({ policies, namespaces, settings }: ClusterView, pods: number): Map<string, SubjectSides> {
  const { defaultDeny, namespaceDefaultDeny, trustDomain } = settings;
  const now = [defaultDeny, namespaceDefaultDeny, trustDomain];
  const known = answers.get(policies);
  if (
    known?.namespaces === namespaces &&
    known.settings.every((one, i) => one === now[i]) &&
    known.found.size <= 4 * pods + 100
  )
    return known.found;
  const found = new Map<string, SubjectSides>();
  answers.set(policies, { namespaces, settings: now, found });
  return found;
}

/** Most policies are about one namespace: no need to ask all of them about every pod. */
interface PolicyIndex {
  readonly byNamespace: ReadonlyMap<string, readonly Policy[]>;
  readonly anywhere: readonly Policy[];
  readonly audited: readonly Policy[];
  /** Whether pods that differ in nothing but their addresses can be told apart. */
  readonly byAddress: boolean;
}

/** By the very list, which is another one whenever a policy changes. */
const indexes = new WeakMap<readonly Policy[], PolicyIndex>();

function indexOf(policies: readonly Policy[]): PolicyIndex {
  const known = indexes.get(policies) ?? indexPolicies(policies);
  indexes.set(policies, known);
  return known;
}

function indexPolicies(policies: readonly Policy[]): PolicyIndex {
  const byNamespace = new Map<string, Policy[]>();
  const anywhere: Policy[] = [];
  const audited: Policy[] = [];
  for (const policy of policies) {
    if (!enforced(policy)) {
      audited.push(policy);
      continue;
    }
    const namespace = namespaceOf(policy.subject);
    if (namespace === undefined) anywhere.push(policy);
    else push(byNamespace, namespace, policy);
  }
  return { byNamespace, anywhere, audited, byAddress: policies.some(tellsApart) };
}

/** The one namespace that all who match are in; undefined where there need not be one. */
function namespaceOf(subject: PeerMatch): string | undefined {
  switch (subject.kind) {
    case 'pods':
      return 'name' in subject.namespaces ? subject.namespaces.name : undefined;
    case 'namespace':
      return subject.match.op === 'exact' ? subject.match.text : undefined;
    case 'all':
      return subject.of.map(namespaceOf).find((one) => one !== undefined);
    default:
      return undefined;
  }
}
