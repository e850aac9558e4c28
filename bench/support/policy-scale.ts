import { readFileSync } from 'node:fs';
import { changed } from '../../src/model/versions.ts';
import { compile } from '../../src/policy/compile.ts';
import { diff } from '../../src/policy/diff.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { cluster, podAt, policyAt, scale } from './policy-cluster.ts';

/** A process of its own, so that its memory is the compiler's: with the whole cluster in it, as an agent has it. */

const node = 'node-7';
const changes = Number(process.argv[2] ?? 300);
/** Changes that are not measured: an agent lives for months, and its code is compiled with the first few. */
const warmUp = 24;

function rssMib(what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(new RegExp(`${what}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024;
}

/** Of this thread: what a change costs, also where others use the machine. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

let view = cluster();
const before = performance.now();
let image: PolicyImage = compile(view, node);
diff(undefined, image);
const fullMs = performance.now() - before;

const local = [...view.pods.values()].filter((pod) => pod.node === node);
/** What comes one at a time in a cluster: pods anywhere and here, labels, policies of teams here and elsewhere. */
const kinds: readonly [string, (nth: number) => ClusterView][] = [
  [
    'a remote pod’s labels',
    (nth) => withPod((nth * 7919) % scale.pods, { labels: { app: `service-${nth % 20}`, tier: 'back' } }),
  ],
  ['a local pod’s labels', (nth) => withPod(localAt(nth), { labels: { app: `service-${nth % 20}`, tier: 'front' } })],
  ['a policy of a team here', (nth) => withPolicy(teamOf(localAt(nth)) + scale.namespaces * (nth % 9), nth)],
  ['a policy elsewhere', (nth) => withPolicy((nth * 104_729) % scale.policies, nth)],
  ['a pod that goes', (nth) => ({ ...view, pods: changed(view.pods, new Map([[`pod-${nth * 31}`, undefined]])) })],
  ['a pod that comes', (nth) => withPod(scale.pods + nth, {})],
];

function localAt(nth: number): number {
  return Number((local[nth % local.length]?.uid ?? 'pod-0').slice(4));
}
function teamOf(pod: number): number {
  return pod % scale.namespaces;
}
function withPod(i: number, change: Parameters<typeof podAt>[1]): ClusterView {
  const pod = podAt(i, change);
  return { ...view, pods: changed(view.pods, new Map([[pod.uid, pod]])) };
}
function withPolicy(i: number, version: number): ClusterView {
  const [made] = policyAt(i, version);
  if (made === undefined) throw new Error('no policy');
  const others = view.policies.filter(
    (one) => one.name !== made.name || one.kind !== made.kind || one.namespace !== made.namespace,
  );
  return { ...view, policies: [...others, made] };
}

const times: { kind: string; ms: number; cpuMs: number }[] = [];
for (let nth = 0; nth < warmUp + changes; nth++) {
  const [kind, change] = kinds[nth % kinds.length] ?? ['', () => view];
  view = change(nth);
  const [start, cpu] = [performance.now(), cpuMs()];
  const next = compile(view, node, image);
  const operations = diff(image, next);
  if (nth >= warmUp) times.push({ kind, ms: performance.now() - start, cpuMs: cpuMs() - cpu });
  image = next;
  if (operations.length === 0 && kind === 'a pod that comes') throw new Error('a new pod changed nothing');
}
const entries = [...image.ruleSets.values()].reduce((sum, set) => sum + set.entries.length, 0);
const sizes = { identities: image.identities.size, ruleSets: image.ruleSets.size, entries, rules: image.rules.size };
process.stdout.write(
  `${JSON.stringify({ fullMs, times, peakMib: rssMib('VmHWM'), residentMib: rssMib('VmRSS'), sizes })}\n`,
);
