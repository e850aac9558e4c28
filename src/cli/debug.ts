import { type Command, Option } from 'commander';
import { type KeyReport, keySchema } from '../agent/wire.ts';
import { askAgents, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';

interface DebugFlags extends AgentFlags {
  readonly output: 'tshark' | 'json';
}

/** Adds `debug` and what is under it. */
export function registerDebug(program: Command): void {
  const debug = program.command('debug').description('for whoever looks into Myelin itself');
  agentFlags(
    debug
      .command('keys')
      .description('the keys of the tunnels in use, so that a capture of the wire can be read')
      .addOption(new Option('-o, --output <form>').choices(['tshark', 'json']).default('tshark')),
  )
    .addHelpText(
      'after',
      `
Works only where the agent was started with --allow-key-export, as root, for keys agreed on since then; each use leaves a
warning event on the Node (kubectl get events). Who has the keys can read everything that they seal: keep them out of
tickets, and renew (restart the pods) when done.

Example:
  myelin debug keys > ~/.config/wireshark/esp_sa
  tshark -r wire.pcap -o esp.enable_encryption_decode:TRUE`,
    )
    .action(keys);
}

async function keys(flags: DebugFlags): Promise<void> {
  const ask = { method: 'POST', path: '/debug/keys' } as const;
  const lists = await askAgents(findAgents(flags), ask, (value) => keySchema.array().parse(value));
  const all = lists.flat();
  if (flags.output === 'json') console.log(JSON.stringify(all, null, 2));
  else for (const line of new Set(all.map(wiresharkLine))) console.log(line);
}

/** A line of Wireshark's table `esp_sa`. */
function wiresharkLine({ spi, source, destination, secret }: KeyReport): string {
  const family = source.includes(':') ? 'IPv6' : 'IPv4';
  const hex = `0x${spi.toString(16).padStart(8, '0')}`;
  const fields = [family, source, destination, hex, 'AES-GCM with 16 octet ICV [RFC4106]', `0x${secret}`, 'NULL', ''];
  return fields.map((field) => JSON.stringify(field)).join(',');
}
