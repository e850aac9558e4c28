import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { isApiError } from '../api/client/error.ts';
import type { Api, ObjectRef } from '../api/client/types.ts';
import { kinds, type Live, ownKinds, type Resource, type Revocation } from '../api/kinds.ts';
import { MyelinError } from '../model/error.ts';
import { type ClusterFlags, clusterFlags, openCluster } from './cluster.ts';
import { formatDuration, paint, table } from './output.ts';

interface RevokeFlags extends ClusterFlags {
  readonly reason: string;
  readonly expires?: string;
  readonly output: 'text' | 'json';
}

type Target = Omit<Revocation['spec'], 'reason' | 'expires'>;

/** How long a revocation may take to be published before the command says so. */
const publishedWithinMs = 10_000;

/** Adds `revoke` and what is under it. */
export function registerRevoke(program: Command): void {
  const revoke = program
    .command('revoke')
    .description('take back the proof of a pod, a service account, a node or a certificate; or give it back')
    .addHelpText(
      'after',
      `
Tunnels of whoever is revoked end at once on every node, no new ones open, and its own node lets nothing of it pass, also
to the pods beside it. A revocation is an object of the API (kubectl get revocations): it holds until it is deleted, or
until it expires.

Examples:
  myelin revoke pod shop/cart-7k9qp --reason "odd requests since 14:02"
  myelin revoke serviceaccount shop/cart --expires 2h
  myelin revoke node node-3 --reason "stolen"
  myelin revoke serial 4f:03:…
  myelin revoke list
  myelin revoke undo node-node-3`,
    );
  const command = (usage: string, argument: string, about: string, description: string) =>
    clusterFlags(
      revoke
        .command(usage)
        .description(description)
        .argument(argument, about)
        .option('--reason <text>', 'why, for whoever finds it later', 'revoked by hand')
        .option('--expires <when>', 'a duration (90s, 30m, 2h, 7d) or a time (2026-12-01T00:00:00Z)', parseExpiry)
        .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
    );
  command('pod', '<pod>', 'namespace/name, or a UID', 'one pod').action((pod: string, flags: RevokeFlags) =>
    revokeIt(flags, async (api) => {
      const podUID = uid.test(pod) ? pod : await uidOf(api, pod);
      return { name: `pod-${podUID}`, target: { podUID } };
    }),
  );
  command('serviceaccount', '<account>', 'namespace/name', 'every pod of a service account')
    .alias('sa')
    .action((account: string, flags: RevokeFlags) =>
      revokeIt(flags, async (api) => {
        const { namespace, name } = namespaced(account);
        await noteAbsence(api, kinds.ServiceAccount, { namespace, name });
        return { name: `sa-${namespace}-${name}`, target: { serviceAccount: { namespace, name } } };
      }),
    );
  command('node', '<node>', 'its name', 'a node with every pod on it').action((node: string, flags: RevokeFlags) =>
    revokeIt(flags, async (api) => {
      await noteAbsence(api, kinds.Node, { name: node });
      return { name: `node-${node}`, target: { node } };
    }),
  );
  command('serial', '<serial>', 'hexadecimal', 'one certificate').action((serial: string, flags: RevokeFlags) =>
    revokeIt(flags, async () => ({ name: `serial-${serial.replaceAll(':', '').toLowerCase()}`, target: { serial } })),
  );
  clusterFlags(
    revoke
      .command('list')
      .description('what is revoked, why, and whether it is in force')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  ).action(list);
  clusterFlags(
    revoke.command('undo').description('believe it again').argument('<name...>', 'as `revoke list` says'),
  ).action(undo);
}

/** As Kubernetes gives them: a UUID, or (static pods) a digest. */
const uid = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})$/;

function namespaced(text: string): { namespace: string; name: string } {
  const [namespace = '', name = '', ...rest] = text.split('/');
  if (namespace === '' || name === '' || rest.length > 0)
    throw new MyelinError('BadName', `${JSON.stringify(text)} is not namespace/name`);
  return { namespace, name };
}

async function uidOf(api: Api, pod: string): Promise<string> {
  try {
    return (await api.get(kinds.Pod, namespaced(pod))).metadata.uid;
  } catch (error) {
    if (!isApiError(error, 'NotFound')) throw error;
    throw new MyelinError(
      'NoSuchPod',
      `there is no pod ${pod}: if it is gone already, revoke its UID or service account`,
    );
  }
}

/** What is not there can be revoked, before it comes or after it is gone; but it may be a slip of the pen. */
async function noteAbsence(api: Api, resource: Resource, ref: ObjectRef): Promise<void> {
  try {
    await api.get(resource, ref);
  } catch (error) {
    if (!isApiError(error, 'NotFound')) throw error;
    console.error(
      paint(
        'yellow',
        `there is no ${resource.singular} ${ref.namespace ?? ''}${ref.namespace ? '/' : ''}${ref.name} now: is the name right?`,
      ),
    );
  }
}

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** @returns RFC 3339, whole seconds. */
function parseExpiry(text: string): string {
  const [, count, unit] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const time =
    count === undefined || unit === undefined
      ? Date.parse(text)
      : Date.now() + Number(count) * (units[unit] ?? 1) * 1000;
  if (Number.isNaN(time)) throw new InvalidArgumentError('expected a duration such as 30m, or a time in RFC 3339');
  if (time <= Date.now()) throw new InvalidArgumentError('that is in the past');
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

async function revokeIt(
  flags: RevokeFlags,
  find: (api: Api) => Promise<{ readonly name: string; readonly target: Target }>,
): Promise<void> {
  const cluster = await openCluster(flags);
  try {
    const { api } = cluster;
    const { name, target } = await find(api);
    const spec = {
      ...target,
      reason: flags.reason,
      ...(flags.expires === undefined ? {} : { expires: flags.expires }),
    };
    await create(api, name, spec);
    const made = await published(api, name);
    if (flags.output === 'json') console.log(JSON.stringify(made, null, 2));
    else console.log(`${paint('bold', name)}: ${made.status?.conditions?.find(isEffective)?.message ?? 'revoked'}`);
  } finally {
    cluster.close();
  }
}

async function create(api: Api, name: string, spec: Revocation['spec']): Promise<void> {
  const object = { apiVersion: 'myelin.dev/v1alpha1', kind: 'Revocation', metadata: { name }, spec } as const;
  try {
    await api.create(ownKinds.Revocation, object);
  } catch (error) {
    // Somebody has been quicker, or the first answer was lost: the newest word counts.
    if (!isApiError(error, 'AlreadyExists')) throw error;
    await api.patch(ownKinds.Revocation, { name }, { type: 'merge', patch: { spec: { expires: null, ...spec } } });
  }
}

/** Waits until nodes are told. */
async function published(api: Api, name: string): Promise<Live<Revocation>> {
  for (const end = Date.now() + publishedWithinMs; ; await sleep(50)) {
    const found = await api.get(ownKinds.Revocation, { name });
    const condition = found.status?.conditions?.find(isEffective);
    if (condition?.status === 'True') return found;
    if (Date.now() > end)
      throw new MyelinError(
        'NotPublished',
        `${name} is written, but no controller has published it yet: is one running? It counts as soon as one does`,
      );
  }
}

const isEffective = ({ type }: { readonly type: string }) => type === 'Effective';

async function list(flags: ClusterFlags & { readonly output: 'text' | 'json' }): Promise<void> {
  const cluster = await openCluster(flags);
  try {
    const { entries } = await cluster.api.list(ownKinds.Revocation);
    if (flags.output === 'json') {
      console.log(
        JSON.stringify(
          entries.map(({ raw }) => raw),
          null,
          2,
        ),
      );
      return;
    }
    const all = entries.flatMap(({ object }) => object ?? []);
    if (entries.length > all.length)
      console.error(`${entries.length - all.length} of another version are not shown: kubectl get revocations -o yaml`);
    console.log(all.length === 0 ? 'nobody is revoked' : formatRevocations(all, Date.now()));
  } finally {
    cluster.close();
  }
}

/** @param now Unix milliseconds. */
function formatRevocations(all: readonly Live<Revocation>[], now: number): string {
  return table<Live<Revocation>>(
    [
      { title: 'NAME', value: ({ metadata }) => metadata.name },
      { title: 'TARGET', value: ({ status }) => status?.target ?? '' },
      {
        title: 'IN FORCE',
        value: ({ status }) => {
          const condition = status?.conditions?.find(isEffective);
          if (condition === undefined) return paint('yellow', 'not yet');
          return condition.status === 'True' ? paint('red', 'yes') : `no: ${condition.reason ?? ''}`;
        },
      },
      { title: 'REASON', value: ({ spec }) => spec.reason },
      { title: 'EXPIRES', value: ({ spec }) => spec.expires ?? 'never' },
      {
        title: 'AGE',
        value: ({ metadata }) => formatDuration(now - Date.parse(metadata.creationTimestamp ?? '')),
        align: 'right',
      },
    ],
    all,
  );
}

async function undo(names: readonly string[], flags: ClusterFlags): Promise<void> {
  const cluster = await openCluster(flags);
  try {
    for (const name of names) {
      await cluster.api.delete(ownKinds.Revocation, { name });
      console.log(`${name} is deleted: believed again, unless another revocation names it too`);
    }
  } finally {
    cluster.close();
  }
}
