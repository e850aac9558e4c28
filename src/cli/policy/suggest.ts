import { Document, isMap, isSeq } from 'yaml';
import { manifestFiles, readDocuments } from '../../api/manifest-file.ts';
import type { FlowEvent } from '../../model/flow.ts';
import type { Direction } from '../../model/verdict.ts';
import { readWorkload } from '../../policy/check/workloads.ts';
import { type SuggestedRule, type Suggestion, suggest } from '../../policy/suggest/suggest.ts';
import { type ClusterFlags, openCluster } from '../cluster.ts';
import { type FlowFlags, recordedFlows } from './flows.ts';
import { readClusterState } from './view.ts';

export interface SuggestFlags extends FlowFlags, ClusterFlags {
  readonly file: readonly string[];
  readonly namespace?: string;
  readonly direction?: Direction;
  readonly denied?: boolean;
  readonly output: 'yaml' | 'json';
}

/** Prints policies, and on standard error what is in none of them. @throws {MyelinError} */
export async function suggestPolicies(flags: SuggestFlags): Promise<void> {
  const flows = await recordedFlows(flags);
  const pods = flags.file.length > 0 ? podsOf(flags.file) : await podsOfCluster(flags);
  const { policies, leftOut } = suggest(flows, pods, {
    ...(flags.namespace === undefined ? {} : { namespace: flags.namespace }),
    ...(flags.direction === undefined ? {} : { directions: [flags.direction] }),
    includeDenied: flags.denied === true,
  });
  if (flags.output === 'json') console.log(JSON.stringify({ items: policies.map(toObject), leftOut }, null, 2));
  else for (const policy of policies) process.stdout.write(toYaml(policy, flows));
  for (const line of leftOut) console.error(`left out: ${line}`);
  console.error(
    `${policies.length} policies for ${flows.length} recorded flows; ${leftOut.length} sorts of them left out`,
  );
}

function podsOf(files: readonly string[]) {
  return manifestFiles(files)
    .flatMap(readDocuments)
    .flatMap(({ value }) => readWorkload(value) ?? []);
}

async function podsOfCluster(flags: ClusterFlags) {
  const cluster = await openCluster(flags);
  try {
    return (await readClusterState(cluster.api)).state.view.pods.values();
  } finally {
    cluster.close();
  }
}

function toObject({ namespace, name, labels, directions, ingress, egress }: Suggestion) {
  const has = (direction: Direction) => directions.includes(direction);
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace },
    spec: {
      podSelector: { matchLabels: labels },
      policyTypes: [...(has('ingress') ? ['Ingress'] : []), ...(has('egress') ? ['Egress'] : [])],
      ...(has('ingress') ? { ingress: ingress.map(({ peers, ports }) => ({ from: peers, ports })) } : {}),
      ...(has('egress') ? { egress: egress.map(({ peers, ports }) => ({ to: peers, ports })) } : {}),
    },
  };
}

/** One document, each rule under the connections that it is for. */
function toYaml(policy: Suggestion, flows: readonly FlowEvent[]): string {
  const document = new Document(toObject(policy));
  const times = flows.map(({ time }) => time);
  const day = (time: number) => `${new Date(time).toISOString().slice(0, 19)}Z`;
  const since = `${day(Math.min(...times))} to ${day(Math.max(...times))}`;
  document.commentBefore = ` What was seen from ${since}, and nothing else.`;
  comment(document, 'ingress', policy.ingress);
  comment(document, 'egress', policy.egress);
  return `---\n${document.toString({ lineWidth: 0 })}`;
}

function comment(document: Document, direction: Direction, rules: readonly SuggestedRule[]): void {
  const list = document.getIn(['spec', direction]);
  if (!isSeq(list)) return;
  if (rules.length === 0) {
    list.comment = ' none was seen';
    return;
  }
  for (const [index, { reasons }] of rules.entries()) {
    const rule = list.items[index];
    if (isMap(rule)) rule.commentBefore = reasons.map((reason) => ` ${reason}`).join('\n');
  }
}
