import { type Command, Option } from 'commander';
import { type TunnelReport, tunnelSchema } from '../agent/wire.ts';
import { formatBytes } from '../observe/format.ts';
import { type AgentAddress, askAgent, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { formatDuration, paint, table } from './output.ts';

interface TunnelsFlags extends AgentFlags {
  readonly output: 'text' | 'wide' | 'json';
  readonly pod?: string;
}

export function registerTunnels(program: Command): void {
  agentFlags(
    program
      .command('tunnels')
      .description('the encrypted tunnels: which pods, proved as whom, by what cipher and key exchange')
      .option('--pod <pod>', 'only tunnels of this pod (namespace/name)')
      .addOption(new Option('-o, --output <form>').choices(['text', 'wide', 'json']).default('text')),
  ).action(tunnels);
}

export async function readTunnels(agents: readonly AgentAddress[]): Promise<TunnelReport[]> {
  const lists = await Promise.all(
    agents.map((agent) => askAgent(agent, { path: '/tunnels' }, (value) => tunnelSchema.array().parse(value))),
  );
  return lists.flat();
}

async function tunnels(flags: TunnelsFlags): Promise<void> {
  const all = await readTunnels(findAgents(flags));
  const chosen = all.filter(
    ({ localPod, remotePod }) => flags.pod === undefined || localPod === flags.pod || remotePod === flags.pod,
  );
  if (flags.output === 'json') console.log(JSON.stringify(chosen, null, 2));
  else console.log(tunnelTable(chosen, flags.output === 'wide'));
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
      { title: 'WHY DOWN', value: (t) => (t.state === 'up' ? '' : (t.lastError ?? '')) },
    ],
    rows,
  );
}
