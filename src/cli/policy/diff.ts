import { describeSide } from '../../agent/why.ts';
import { manifestFiles, readDocuments } from '../../api/manifest-file.ts';
import { MyelinError } from '../../model/error.ts';
import { asIfEnforced } from '../../policy/audit.ts';
import type { Decision } from '../../policy/decide.ts';
import { type ChangedConnection, changedConnections } from '../../policy/suggest/changes.ts';
import { endName } from '../../policy/suggest/connections.ts';
import { type ClusterFlags, openCluster } from '../cluster.ts';
import { paint, table } from '../output.ts';
import { type FlowFlags, recordedFlows } from './flows.ts';
import { putPolicy, readClusterState } from './view.ts';

export interface DiffFlags extends FlowFlags, ClusterFlags {
  readonly file: readonly string[];
  readonly remove: readonly string[];
  readonly audited?: boolean;
  readonly namespace: string;
  readonly output: 'table' | 'json';
}

/** Prints which recorded connections would be decided otherwise; exits with 2 where there are any. @throws {MyelinError} */
export async function diffPolicies(flags: DiffFlags): Promise<void> {
  if (flags.file.length + flags.remove.length === 0 && flags.audited !== true)
    throw new MyelinError(
      'NothingChanges',
      'say what would change: policies to apply (-f), to delete (--remove), or what is audited to enforce (--audited)',
    );
  const flows = await recordedFlows(flags);
  const cluster = await openCluster(flags);
  const { state, context } = await readClusterState(cluster.api).finally(() => cluster.close());
  const before = state.view;
  const given = { ...context, defaultNamespace: flags.namespace };
  const broken: string[] = [];
  for (const file of flags.file.length === 0 ? [] : manifestFiles(flags.file))
    for (const { value } of readDocuments(file).flatMap(expand))
      for (const { kind, namespace, name, broken: message } of putPolicy(state, value, given))
        if (message !== undefined)
          broken.push(`${kind} ${namespace === '' ? name : `${namespace}/${name}`}: ${message}`);
  for (const policy of flags.remove) state.removePolicies(policy);
  const after = flags.audited === true ? asIfEnforced(state.view) : state.view;
  const { changed, judged, unknown } = changedConnections(before, after, flows);
  for (const line of broken) console.error(paint('red', line));
  if (flags.output === 'json') console.log(JSON.stringify(changed.map(toJson), null, 2));
  else if (changed.length > 0) print(changed);
  console.error(
    `${changed.length} of ${judged} sorts of recorded connections change; ${unknown.length} are of pods that nobody knows any more`,
  );
  const told = flags.audited === true ? flows.filter(({ kind }) => kind === 'audit').length : 0;
  if (told > 0)
    console.error(
      `the datapath has said ${told} times what audited policies would deny (myelin observe --verdict audit)`,
    );
  if (changed.length > 0) process.exitCode = 2;
}

/** `kind: List` stands for its items. */
function expand({ value }: { readonly value: unknown }): { value: unknown }[] {
  const isList = typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'List';
  if (!isList || !('items' in value) || !Array.isArray(value.items)) return [{ value }];
  return value.items.map((item: unknown) => ({ value: item }));
}

/** What decides: the side that denies, else what admits. */
function decidedBy({ verdict, egress, ingress }: Decision): string {
  const side = verdict === 'deny' && egress.verdict === 'deny' ? egress : ingress;
  const direction = side === egress ? 'egress' : 'ingress';
  return `${direction}: ${describeSide(side)}`;
}

function toJson({ connection, before, after }: ChangedConnection) {
  const { source, destination, protocol, port, count, first, last, node } = connection;
  return {
    source: endName(source, node),
    destination: endName(destination, node),
    ...{ protocol, port, count, first, last },
    before: { verdict: before.verdict, by: decidedBy(before) },
    after: { verdict: after.verdict, by: decidedBy(after) },
  };
}

function print(changed: readonly ChangedConnection[]): void {
  const verdict = (word: string) => paint(word === 'allow' ? 'green' : 'red', word);
  console.log(
    table<ReturnType<typeof toJson>>(
      [
        { title: 'FROM', value: ({ source }) => source },
        { title: 'TO', value: ({ destination }) => destination },
        { title: 'PORT', value: ({ protocol, port }) => (port === 0 ? String(protocol) : `${protocol} ${port}`) },
        { title: 'SEEN', value: ({ count }) => String(count), align: 'right' },
        { title: 'NOW', value: ({ before }) => verdict(before.verdict) },
        { title: 'THEN', value: ({ after }) => verdict(after.verdict) },
        { title: 'BY', value: ({ after }) => after.by },
      ],
      changed.map(toJson),
    ),
  );
}
