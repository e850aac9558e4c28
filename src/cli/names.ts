import { type Command, Option } from 'commander';
import { type NameReport, nameSchema } from '../agent/wire.ts';
import { askAgents, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { formatDuration, table } from './output.ts';

interface NamesFlags extends AgentFlags {
  readonly pod?: string;
  readonly output: 'text' | 'json';
}

export function registerNames(program: Command): void {
  agentFlags(
    program
      .command('names')
      .description('the addresses that pods were told by DNS, and which rules about names they count for')
      .option('--pod <pod>', 'only what this pod was told (namespace/name)')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
Only pods whose egress policy is about names are told anything that counts: an address is allowed from the moment its
answer passes until its TTL runs out, and what was opened by then goes on.

Examples:
  myelin names --pod shop/frontend-x2x4z
  myelin names -o json | jq '.[] | select(.name == "api.example.com")'`,
    )
    .action(names);
}

async function names(flags: NamesFlags): Promise<void> {
  const lists = await askAgents(findAgents(flags), { path: '/names' }, (value) => nameSchema.array().parse(value));
  const chosen = lists.flat().filter(({ pod }) => flags.pod === undefined || pod === flags.pod);
  if (flags.output === 'json') console.log(JSON.stringify(chosen, null, 2));
  else console.log(nameTable(chosen));
}

function nameTable(rows: readonly NameReport[]): string {
  const lasts = ({ patterns }: NameReport) => Math.max(...patterns.map(({ expiresAt }) => expiresAt)) - Date.now();
  return table<NameReport>(
    [
      { title: 'POD', value: ({ pod }) => pod },
      { title: 'NAME', value: ({ name }) => name },
      { title: 'ADDRESS', value: ({ address }) => address },
      { title: 'COUNTS FOR', value: ({ patterns }) => patterns.map(({ pattern }) => pattern).join(', ') },
      { title: 'FOR', value: (row) => formatDuration(Math.max(0, lasts(row))), align: 'right' },
    ],
    rows,
  );
}
