import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { kinds, type NetworkPolicy, objectKey } from '../../src/api/kinds.ts';
import { familyOf } from '../../src/model/address.ts';
import { type Agents, agentsOf, endName } from '../support/agents.ts';
import { TestLab, type TestPod } from '../support/lab.ts';
import { e2eUid, e2eVerdicts } from '../support/netpol-e2e.ts';
import { SctpProbes } from '../support/sctp-probe.ts';
import { type E2ePod, type E2eStep, e2eCases } from '../support/shared.ts';

/*
 * Kubernetes' own NetworkPolicy suite with real packets: as there, every pod of a step is probed by every other at the
 * address of a Service that has it alone behind it, and a policy has ten seconds to be in force. What the agents say of a
 * pair is waited for first; from then on nothing that is denied may get through even once, and every denial must have been
 * seen and must name its policy. Where no policy speaks of IPv4 blocks, the same holds over IPv6.
 */

const cases = e2eCases();
const convergeMs = 10_000;
const allowedMs = 4000;
/** Of attempts that must fail. Long enough for a handshake; that it was a denial is known from who denied it. */
const deniedMs = 700;
/** Denials of one pair are reported once in so long. */
const denyReportMs = 1000;
const nodes = ['node-1', 'node-2'] as const;

/** A pair of pods, by one of the addresses of the Service. */
interface Attempt {
  readonly from: string;
  readonly to: string;
  readonly family: 4 | 6;
  readonly allowed: boolean;
}

let lab: TestLab;
let agents: Agents;
let sctp: SctpProbes;
const pods = new Map<string, TestPod>();
/** Of each pod's Service: IPv4, then IPv6. */
const services = new Map<string, readonly string[]>();
const labelsNow = new Map<string, Readonly<Record<string, string>>>();

const steps = cases.flatMap(({ Steps }) => Steps);
/** All pods of the suite, once each: whom a step does not name is nobody's business in it. */
const everyPod = new Map(steps.flatMap((step) => step.Pods.map((pod) => [e2eUid(pod), pod])));
const namespaces = [...new Set([...everyPod.values()].map(({ Namespace }) => Namespace))];

/** A pod with the ports that it has in any step, and its Service. */
async function createPod(pod: E2ePod, node: string): Promise<void> {
  const { Namespace: namespace, Name: name } = pod;
  const uid = e2eUid(pod);
  const all = steps.flatMap((step) => step.Pods).filter((each) => e2eUid(each) === uid);
  const ports = [...new Map(all.flatMap(({ Ports }) => Ports.map((port) => [port.name, port]))).values()];
  const made = lab
    .pod(name, namespace)
    .on(node)
    .with(({ metadata, spec }) => {
      metadata.labels = { pod: name };
      const sctpOnly = ports.every(({ protocol }) => protocol === 'SCTP');
      spec.containers = [{ name: 'serve', image: sctpOnly ? 'pause' : 'agnhost', ports: [...ports] }];
    });
  pods.set(uid, await made.create());
  labelsNow.set(`Pod ${uid}`, { pod: name });
  const servicePorts = ports.map(({ containerPort: port, ...rest }) => ({ ...rest, port }));
  const addresses = await lab.service(`s-${name}`, { selector: { pod: name }, ports: servicePorts }, namespace);
  assert.equal(addresses.length, 2);
  services.set(uid, addresses);
}

/** Makes the cluster what the step says: labels and policies, nothing else. */
async function enter(step: E2eStep): Promise<void> {
  const ofNamespaces = step.Namespaces.map(({ Name, Labels }) =>
    relabel('Namespace', Name, Labels, (labels) =>
      lab.api.patch(kinds.Namespace, { name: Name }, { type: 'merge', patch: { metadata: { labels } } }),
    ),
  );
  const ofPods = step.Pods.map((pod) =>
    relabel('Pod', e2eUid(pod), pod.Labels, (labels) =>
      lab.api.patch(
        kinds.Pod,
        { namespace: pod.Namespace, name: pod.Name },
        { type: 'merge', patch: { metadata: { labels } } },
      ),
    ),
  );
  const wanted = (step.Policies ?? []).map((policy) => policyHere(step, policy));
  const { entries } = await lab.api.list(kinds.NetworkPolicy);
  const present = new Set(entries.map(({ key }) => key));
  const put = wanted.map((policy) =>
    present.has(objectKey(policy))
      ? lab.api.replace(kinds.NetworkPolicy, policy)
      : lab.api.create(kinds.NetworkPolicy, policy),
  );
  const removed = [...present.difference(new Set(wanted.map(objectKey)))].map((key) => {
    const [namespace = '', name = ''] = key.split('/');
    return lab.api.delete(kinds.NetworkPolicy, { namespace, name });
  });
  await Promise.all([...ofNamespaces, ...ofPods, ...put, ...removed]);
}

async function relabel(
  kind: string,
  name: string,
  labels: Readonly<Record<string, string>>,
  patch: (labels: Record<string, string | null>) => Promise<unknown>,
): Promise<void> {
  const key = `${kind} ${name}`;
  const gone = Object.keys(labelsNow.get(key) ?? {}).filter((label) => !(label in labels));
  const added = Object.entries(labels).filter(([label, value]) => labelsNow.get(key)?.[label] !== value);
  labelsNow.set(key, labels);
  if (gone.length + added.length > 0)
    await patch({ ...Object.fromEntries(gone.map((label) => [label, null])), ...Object.fromEntries(added) });
}

/** A policy of the suite, as it is but for the addresses that its blocks name: here the same pods have others. */
function policyHere(step: E2eStep, policy: unknown): NetworkPolicy {
  let text = JSON.stringify(policy);
  for (const pod of step.Pods) text = text.replaceAll(`"${pod.IP}/32"`, `"${pods.get(e2eUid(pod))?.addresses[0]}/32"`);
  return kinds.NetworkPolicy.schema.parse({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    ...JSON.parse(text),
  });
}

/** @returns What is not as the suite says, one line for each pair. */
async function judge(step: E2eStep): Promise<string[]> {
  const began = Date.now();
  const verdicts = e2eVerdicts(step);
  const question = { protocol: step.Protocol, port: step.Port };
  const unsettled = await Promise.all(
    verdicts.map(async ({ from, to, allowed }) => {
      const want = allowed ? 'allow' : 'deny';
      const problem = await agents.settled({ source: from, destination: to, ...question }, want, convergeMs);
      return problem === undefined ? [] : [`${from} → ${to}: expected ${want}, but ${problem}`];
    }),
  );
  if (unsettled.flat().length > 0) return unsettled.flat();
  const families = JSON.stringify(step.Policies).includes('ipBlock') ? ([4] as const) : ([4, 6] as const);
  const attempts = verdicts.flatMap(({ from, to, allowed }) =>
    families.map((family) => ({ from, to, family, allowed })),
  );
  let open: readonly Attempt[] = attempts;
  for (;;) {
    const since = Date.now();
    const came = await attemptAll(step, open);
    const leaked = open.filter(({ allowed }, i) => !allowed && came[i] === true);
    if (leaked.length > 0) return leaked.map((attempt) => `${nameOf(attempt)}: expected deny, and it got through`);
    const late = open.filter(({ allowed }, i) => allowed && came[i] !== true);
    const denied = open.filter(({ allowed }) => !allowed);
    const unexplained = await withoutReason(step, denied, since);
    if (late.length + unexplained.length === 0) return [];
    if (Date.now() > began + convergeMs)
      return [
        ...late.map((attempt) => `${nameOf(attempt)}: expected allow, no answer`),
        ...unexplained.map(({ attempt, seen }) => `${nameOf(attempt)}: denied, but the nodes say ${seen}`),
      ];
    // The same denial in the step before was reported, and this one is counted with the next report only.
    if (unexplained.length > 0) await sleep(denyReportMs);
    open = [...late, ...unexplained.map(({ attempt }) => attempt)];
  }
}

function nameOf({ from, to, family }: Attempt): string {
  return `${from} → ${to} over IPv${family}`;
}

async function attemptAll({ Protocol, Port }: E2eStep, attempts: readonly Attempt[]): Promise<boolean[]> {
  const ends = attempts.map(({ from, to, family, allowed }) => {
    const [source, target, host] = [pods.get(from), pods.get(to), services.get(to)?.[family === 4 ? 0 : 1]];
    assert.ok(source !== undefined && target !== undefined && host !== undefined);
    return { from: source, to: target, host, port: Port, timeoutMs: allowed ? allowedMs : deniedMs };
  });
  if (Protocol === 'SCTP') {
    const expected = attempts.filter(({ allowed }) => allowed).length;
    return await sctp.arrive(ends, { expected, patienceMs: allowedMs, settleMs: deniedMs });
  }
  const protocol = Protocol === 'TCP' ? 'tcp' : 'udp';
  return await Promise.all(
    ends.map(({ from, host, port, timeoutMs }) => lab.reaches(from, host, { protocol, port, timeoutMs })),
  );
}

/** @returns What was denied and no node says so, by a policy of the step; with what they say in its place. */
async function withoutReason(
  step: E2eStep,
  denied: readonly Attempt[],
  since: number,
): Promise<{ attempt: Attempt; seen: string }[]> {
  if (denied.length === 0) return [];
  const policies = (step.Policies ?? []).map((policy) => objectKey(policyHere(step, policy)));
  const denials = await agents.denials({ protocol: step.Protocol, port: String(step.Port) }, since);
  return denied.flatMap((attempt) => {
    const { from, to, family } = attempt;
    const own = denials.filter(
      ({ source, destination }) =>
        endName(source) === from && endName(destination) === to && familyOf(destination.address) === family,
    );
    const named = own.some(({ rule }) => rule !== undefined && policies.includes(`${rule.namespace}/${rule.name}`));
    return named ? [] : [{ attempt, seen: own.length === 0 ? 'nothing' : JSON.stringify(own) }];
  });
}

describe('Kubernetes’ own NetworkPolicy suite, with real packets', () => {
  before(async () => {
    lab = await TestLab.up({ nodes: nodes.length });
    agents = agentsOf(lab);
    sctp = new SctpProbes(lab, agents);
    await Promise.all(namespaces.map((name) => lab.namespace(name)));
    await Promise.all([...everyPod.values()].map((pod, i) => createPod(pod, nodes[i % nodes.length] ?? 'node-1')));
  });
  after(async () => {
    sctp?.close();
    await lab?.down();
  });

  for (const { Suite, Name, Steps } of cases)
    test(`${Suite} ${Name}`, async () => {
      for (const [index, step] of Steps.entries()) {
        await enter(step);
        const wrong = await judge(step);
        assert.ok(wrong.length === 0, `step ${index}, ${step.Protocol} ${step.Port}:\n  ${wrong.join('\n  ')}`);
      }
    });
});
