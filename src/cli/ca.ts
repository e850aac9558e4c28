import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import type { CaClient, CaStatus } from '../controller/ca-client.ts';
import { type ClusterFlags, clusterFlags, openCluster } from './cluster.ts';
import { formatDuration, paint, table } from './output.ts';

interface CaFlags extends ClusterFlags {
  readonly output: 'text' | 'json';
}

/** Adds `ca` and what is under it. */
export function registerCa(program: Command): void {
  const ca = program
    .command('ca')
    .description('the cluster’s certificate authority: its roots, and how they are replaced')
    .addHelpText(
      'after',
      `
A root is replaced in three steps, so that at no moment somebody's certificate is not believed: a new root is published and
signs nothing; once every node can have heard of it, it signs and the old one's key is destroyed; once everything that the
old one signed has expired, it leaves the trust bundle. Each \`rotate\` takes the next step that is due.

Examples:
  myelin ca status
  myelin ca rotate
  myelin ca rotate --wait      # this step, and the one after it when its time has come`,
    );
  const command = (usage: string, description: string) =>
    clusterFlags(
      ca
        .command(usage)
        .description(description)
        .option('--controller <url>', 'where the controller is, such as https://controller:7443 (default: the lab’s)')
        .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
    );
  command('status', 'roots, what they may do, and the next step').action(status);
  command('rotate', 'take the next step of replacing the root')
    .option('--wait', 'where a new root has been published, wait until it may sign, and let it')
    .action(rotate);
}

async function status(flags: CaFlags): Promise<void> {
  await withCa(flags, async (ca) => show(await ca.status(), flags));
}

async function rotate(flags: CaFlags & { readonly wait?: boolean }): Promise<void> {
  await withCa(flags, async (ca) => {
    let now = await takeStep(ca, await ca.status());
    const next = now.roots.find((root) => root.status === 'next');
    if (flags.wait === true && next?.readyAt !== undefined) {
      await sleep(Math.max(0, next.readyAt - Date.now()) + 100);
      now = await ca.step('activate');
    }
    show(now, flags);
  });
}

/** @returns What there is after it. @throws {CaClientError} with when, where it is too early */
async function takeStep(ca: CaClient, { roots }: CaStatus): Promise<CaStatus> {
  if (roots.some((root) => root.status === 'next')) return await ca.step('activate');
  return await ca.step(roots.some((root) => root.status === 'previous') ? 'retire' : 'prepare');
}

async function withCa(flags: CaFlags, use: (ca: CaClient) => Promise<void>): Promise<void> {
  const cluster = await openCluster(flags);
  try {
    await use(cluster.ca());
  } finally {
    cluster.close();
  }
}

function show(now: CaStatus, { output }: CaFlags): void {
  console.log(output === 'json' ? JSON.stringify(now, null, 2) : formatCa(now, Date.now()));
}

const words = { next: 'published, signs nothing yet', signing: 'signs', previous: 'trusted still, signs nothing more' };

/** @param now Unix milliseconds. */
function formatCa(ca: CaStatus, now: number): string {
  const roots = table<CaStatus['roots'][number]>(
    [
      { title: 'ROOT', value: ({ id }) => id },
      { title: 'STATE', value: ({ status: is }) => (is === 'signing' ? paint('green', words[is]) : words[is]) },
      { title: 'AGE', value: ({ publishedAt }) => formatDuration(now - publishedAt), align: 'right' },
      {
        title: 'SIGNED UNTIL',
        value: ({ issuedUntil }) => (issuedUntil === 0 ? '–' : new Date(issuedUntil).toISOString()),
      },
    ],
    ca.roots,
  );
  const denied = Object.entries(ca.denied).map(([reason, count]) => `${reason} ${count}`);
  return [
    `${paint('bold', ca.trustDomain)}  trust bundle ${ca.sequence}, ${ca.issued} certificates signed since the controller started`,
    ...(denied.length === 0 ? [] : [`refused: ${denied.join(', ')}`]),
    roots,
    `next: ${nextStep(ca, now)}`,
  ].join('\n');
}

function nextStep({ roots }: CaStatus, now: number): string {
  const next = roots.find((root) => root.status === 'next');
  if (next !== undefined)
    return next.readyAt !== undefined && now < next.readyAt
      ? `${next.id} may sign in ${formatDuration(next.readyAt - now)}`
      : `'myelin ca rotate' lets ${next.id} sign`;
  const previous = roots.find((root) => root.status === 'previous');
  if (previous === undefined) return `'myelin ca rotate' publishes a new root`;
  return now <= previous.issuedUntil
    ? `${previous.id} can leave in ${formatDuration(previous.issuedUntil - now)}, when all it signed has expired`
    : `'myelin ca rotate' takes ${previous.id} out of the trust bundle`;
}
