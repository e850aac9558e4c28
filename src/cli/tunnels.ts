import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type TunnelReport, tunnelSchema } from '../agent/wire.ts';
import { formatBytes } from '../observe/format.ts';
import { type AgentAddress, askAgents, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { formatDuration, paint, table } from './output.ts';
import { trace } from './trace.ts';

const states = ['up', 'rekeying', 'opening', 'waiting', 'down'] as const;

export interface TunnelFilter {
  /** `namespace/name`, at either end. */
  readonly pod?: string;
  /** At either end. */
  readonly namespace?: string;
  readonly peerNode?: string;
  readonly state?: string;
}

interface TunnelsFlags extends AgentFlags, TunnelFilter {
  readonly output: 'text' | 'wide' | 'json';
  readonly watch?: number | true;
}

export function registerTunnels(program: Command): void {
  const tunnelsCommand = agentFlags(
    program
      .command('tunnels')
      .description('the encrypted tunnels: which pods, proved as whom, by what cipher and key exchange')
      .option('--pod <pod>', 'only tunnels of this pod (namespace/name)')
      .option('-n, --namespace <name>', 'only tunnels with an end in this namespace')
      .option('--peer-node <name>', 'only tunnels to this node')
      .addOption(new Option('--state <state>', 'only tunnels in this state').choices(states))
      .option('-w, --watch [seconds]', 'again and again', parseSeconds)
      .addOption(new Option('-o, --output <form>').choices(['text', 'wide', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
Examples:
  myelin tunnels --state waiting                     # which are not up, and why
  myelin tunnels -n shop --watch
  myelin tunnels -o json | jq '.[] | select(.group == "X25519")'
  myelin tunnels trace shop/frontend-x2x4z shop/cart-7k9qp`,
    )
    .action(tunnels);
  agentFlags(
    tunnelsCommand
      .command('trace')
      .description('make a handshake of two pods and say what happens, step by step')
      .argument('<source>', 'namespace/pod, on a node whose agent answers here')
      .argument('<destination>', 'likewise, anywhere')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
The handshake is a real one: where a tunnel is up its keys are replaced, without a packet lost. Exits with 3 where none
comes about.`,
    )
    .action((source: string, destination: string, _: unknown, command: Command) =>
      // The command above it takes some of the same options, and takes them first.
      trace(source, destination, command.optsWithGlobals()),
    );
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds >= 0.1 && seconds <= 3600)) throw new InvalidArgumentError('expected a number of seconds');
  return seconds;
}

export async function readTunnels(agents: readonly AgentAddress[]): Promise<TunnelReport[]> {
  const lists = await askAgents(agents, { path: '/tunnels' }, (value) => tunnelSchema.array().parse(value));
  return lists.flat();
}

/** Those that are asked for. */
function filterTunnels(all: readonly TunnelReport[], filter: TunnelFilter): TunnelReport[] {
  const { pod, namespace, state, peerNode } = filter;
  return all.filter(
    ({ localPod, remotePod, remoteNode, state: is }) =>
      (pod === undefined || localPod === pod || remotePod === pod) &&
      (namespace === undefined || [localPod, remotePod].some((name) => name.startsWith(`${namespace}/`))) &&
      (peerNode === undefined || remoteNode === peerNode) &&
      (state === undefined || is === state),
  );
}

async function tunnels(flags: TunnelsFlags): Promise<void> {
  const show = async () => {
    const chosen = filterTunnels(await readTunnels(findAgents(flags)), flags);
    if (flags.output === 'json') return JSON.stringify(chosen, null, flags.watch === undefined ? 2 : 0);
    return tunnelTable(chosen, flags.output === 'wide');
  };
  if (flags.watch === undefined) {
    console.log(await show());
    return;
  }
  const seconds = flags.watch === true ? 2 : flags.watch;
  for (;;) {
    const text = await show();
    // A terminal shows the newest in place of the one before; whatever reads a pipe gets one after the other.
    if (process.stdout.isTTY === true) process.stdout.write('\u001b[2J\u001b[H');
    console.log(text);
    await sleep(seconds * 1000);
  }
}

const hex = (spi: number | undefined) => (spi === undefined ? '–' : `0x${spi.toString(16).padStart(8, '0')}`);

export function tunnelTable(rows: readonly TunnelReport[], wide: boolean): string {
  return table<TunnelReport>(
    [
      { title: 'NODE', value: (t) => t.node },
      { title: 'POD', value: (t) => (wide ? t.localSpiffeId : t.localPod) },
      { title: 'PEER', value: (t) => (wide ? t.remoteSpiffeId : t.remotePod) },
      { title: 'PEER NODE', value: (t) => t.remoteNode },
      { title: 'STATE', value: (t) => (t.state === 'up' ? paint('green', t.state) : paint('yellow', t.state)) },
      { title: 'CIPHER', value: (t) => t.cipher },
      { title: 'KEY EXCHANGE', value: (t) => t.group },
      { title: 'RADIUS', value: (t) => t.radius },
      { title: 'SPI IN', value: (t) => hex(t.spiIn) },
      { title: 'SPI OUT', value: (t) => hex(t.spiOut) },
      {
        title: 'AGE',
        value: (t) => (t.establishedAt === undefined ? '–' : formatDuration(Date.now() - t.establishedAt)),
        align: 'right',
      },
      { title: 'IN', value: (t) => formatBytes(t.bytesIn), align: 'right' },
      { title: 'OUT', value: (t) => formatBytes(t.bytesOut), align: 'right' },
      { title: 'WHY DOWN', value: (t) => (t.state === 'up' ? '' : whyDown(t)) },
    ],
    rows,
  );
}

/** Why a tunnel is not up, in words a person can act on. */
function whyDown({ state, lastError }: TunnelReport): string {
  if (lastError !== undefined) return lastError;
  if (state === 'opening') return 'the first handshake is under way';
  return state === 'rekeying' ? '' : 'no packet has asked for it since it ended';
}
