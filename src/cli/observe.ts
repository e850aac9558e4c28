import { type Command, Option } from 'commander';
import { flowSchema } from '../agent/wire.ts';
import type { FlowEvent } from '../model/flow.ts';
import { filterToQuery, parseFilter } from '../observe/filter.ts';
import { formatFlow } from '../observe/format.ts';
import { type AgentAddress, askAgent, findAgents, followAgent } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { hasColour } from './output.ts';

interface ObserveFlags extends AgentFlags {
  readonly follow?: boolean;
  readonly last: string;
  readonly output: 'text' | 'json';
  readonly pod?: string;
  readonly from?: string;
  readonly to?: string;
  readonly namespace?: string;
  readonly verdict?: string;
  readonly port?: string;
  readonly protocol?: string;
  readonly address?: string;
}

export function registerObserve(program: Command): void {
  agentFlags(
    program
      .command('observe')
      .description('who talks to whom, and which rule decided')
      .option('-f, --follow', 'go on as flows happen')
      .option('--last <n>', 'how many past flows to show', '50')
      .option('--pod <pod>', 'either end: namespace/name, namespace/, name, or a Deployment’s name')
      .option('--from <pod>', 'the source: as --pod, or world, host, node')
      .option('--to <pod>', 'the destination, likewise')
      .option('-n, --namespace <name>', 'a namespace of either end')
      .addOption(new Option('--verdict <verdict>').choices(['allow', 'deny']))
      .option('--port <port>', 'destination port')
      .option('--protocol <name>', 'TCP, UDP, SCTP, ICMP, ICMPv6 or a number')
      .option('--address <ip>', 'an address of either end')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
Examples:
  myelin observe --follow --verdict deny
  myelin observe --pod boutique/cart --port 6379
  myelin observe -o json --last 1000 | jq 'select(.verdict=="deny") | .rule'`,
    )
    .action(observe);
}

async function observe(flags: ObserveFlags): Promise<void> {
  const { pod, from, to, namespace, verdict, port, protocol, address } = flags;
  const filter = parseFilter({ pod, from, to, namespace, verdict, port, protocol, address });
  const query = new URLSearchParams({ ...filterToQuery(filter), last: flags.last });
  const agents = findAgents(flags);
  const colour = hasColour();
  const print = (flow: FlowEvent) =>
    process.stdout.write(flags.output === 'json' ? `${JSON.stringify(flow)}\n` : `${formatFlow(flow, colour)}\n`);
  const ask = (agent: AgentAddress) =>
    askAgent(agent, { path: `/flows?${query}` }, (value) => flowSchema.array().parse(value));
  const past = (await Promise.all(agents.map(ask))).flat();
  for (const flow of past.sort((a, b) => a.time - b.time).slice(-Number(flags.last))) print(flow);
  if (flags.follow !== true) return;
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  await Promise.all(
    agents.map(async (agent) => {
      query.set('follow', '1');
      for await (const flow of followAgent(agent, { path: `/flows?${query}`, signal: stop.signal }, (value) =>
        flowSchema.parse(value),
      ))
        print(flow);
    }),
  );
}
