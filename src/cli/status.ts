import { type Command, Option } from 'commander';
import { type StatusReport, statusSchema } from '../agent/wire.ts';
import { askAgents, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { counts, formatDuration, paint, table } from './output.ts';

interface StatusFlags extends AgentFlags {
  readonly output: 'text' | 'json';
}

export function registerStatus(program: Command): void {
  agentFlags(
    program
      .command('status')
      .description('how the agents of this machine are, and what needs attention')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText('after', '\nExits with 1 if any condition is not well.')
    .action(status);
}

async function status(flags: StatusFlags): Promise<void> {
  const reports = await askAgents(findAgents(flags), { path: '/status' }, (value) => statusSchema.parse(value));
  if (flags.output === 'json') console.log(JSON.stringify(reports, null, 2));
  else console.log(reports.map(formatStatus).join('\n\n'));
  if (reports.some((report) => report.conditions.some(({ ok }) => !ok))) process.exitCode = 1;
}

type Usage = StatusReport['policy']['maps'][string];

function formatUsage({ used, capacity, grownFrom }: Usage): string {
  return `${used} of ${capacity}${grownFrom === undefined ? '' : ` (grown from ${grownFrom})`}`;
}

function formatStatus(report: StatusReport): string {
  const age = formatDuration(Date.now() - Date.parse(report.startedAt));
  const lines = [`${paint('bold', report.node)}  ${report.driver} driver, up ${age}, ${report.endpoints} endpoints`];
  for (const { name, ok, message } of report.conditions)
    lines.push(`  ${ok ? paint('green', '✓') : paint('red', '✗')} ${name.padEnd(12)} ${message}`);
  const { policy, tunnels } = report;
  lines.push(
    `  policy        revision ${policy.revision}: ${policy.policies} policies, ${policy.ruleSets} rule sets, ${policy.identities} identities`,
    `  tunnels       ${tunnels.up} up, ${tunnels.opening} opening, ${tunnels.failed} failed${counts('; refused: ', tunnels.refusals)}`,
  );
  const maps = Object.entries(policy.maps);
  lines.push(`  map entries   ${maps.map(([map, usage]) => `${map} ${formatUsage(usage)}`).join(', ')}`);
  const bytes = maps.reduce((sum, [, usage]) => sum + (usage.bytes ?? 0), 0);
  if (bytes > 0) lines.push(`  map memory    ${(bytes / 2 ** 20).toFixed(1)} MiB of these`);
  for (const [map, { used, capacity, most = capacity }] of maps)
    if (used > most / 2)
      lines.push(paint('yellow', `  map ${map} is ${Math.round((100 * used) / most)} % full (${used} of ${most})`));
  const drops = [
    ...Object.entries(report.drops.datapath).map(([reason, packets]) => ({ where: 'datapath', reason, packets })),
    ...Object.entries(report.drops.tunnel).map(([reason, packets]) => ({ where: 'tunnel', reason, packets })),
  ].filter(({ packets }) => packets > 0);
  if (drops.length > 0) {
    const text = table(
      [
        { title: 'DROPPED BY', value: (d: (typeof drops)[number]) => d.where },
        { title: 'REASON', value: (d) => d.reason },
        { title: 'PACKETS', value: (d) => String(d.packets), align: 'right' },
      ],
      drops,
    );
    lines.push(text.replaceAll(/^/gm, '  '));
  }
  return lines.join('\n') + counts('\n  flows lost: ', report.losses);
}
