import { type Command, Option } from 'commander';
import { flowSchema, statusSchema } from '../agent/wire.ts';
import type { FlowEvent } from '../model/flow.ts';
import { filterToQuery, parseFilter, parseLast } from '../observe/filter.ts';
import { formatFlow } from '../observe/format.ts';
import { type AgentAddress, askAgents, askEach, findAgents, followAgent } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { counts, hasColour, paint } from './output.ts';

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
  readonly http?: boolean;
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
      .addOption(new Option('--verdict <verdict>').choices(['allow', 'deny', 'audit']))
      .option('--port <port>', 'destination port')
      .option('--protocol <name>', 'TCP, UDP, SCTP, ICMP, ICMPv6 or a number')
      .option('--address <ip>', 'an address of either end')
      .option('--http', 'HTTP requests that policy was asked about, in place of connections')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
Examples:
  myelin observe --follow --verdict deny
  myelin observe --pod boutique/cart --port 6379
  myelin observe --http --verdict deny
  myelin observe -o json --last 1000 | jq 'select(.verdict=="deny") | .rule'`,
    )
    .action(observe);
}

async function observe(flags: ObserveFlags): Promise<void> {
  const { pod, from, to, namespace, verdict, port, protocol, address } = flags;
  const http = flags.http === true ? 'only' : undefined;
  const filter = parseFilter({ pod, from, to, namespace, verdict, port, protocol, address, http });
  const last = parseLast(flags.last);
  const query = new URLSearchParams({ ...filterToQuery(filter), last: String(last) });
  const agents = findAgents(flags);
  const colour = hasColour();
  const print = (flow: FlowEvent) =>
    process.stdout.write(flags.output === 'json' ? `${JSON.stringify(flow)}\n` : `${formatFlow(flow, colour)}\n`);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  if (flags.follow !== true) {
    const past = await askAgents(agents, { path: `/flows?${query}` }, (value) => flowSchema.array().parse(value));
    for (const flow of newest(past, last)) print(flow);
    return sayLosses(agents);
  }
  const ask = { path: `/flows?${query}&follow=1`, signal: stop.signal };
  const followed = await askEach(agents, (agent) => followAgent(agent, ask, (value) => flowSchema.parse(value)));
  const past = await Promise.all(followed.map(({ past: count, lines }) => take(lines, count)));
  for (const flow of newest(past, last)) print(flow);
  await Promise.all(
    followed.map(async ({ lines }) => {
      for await (const flow of lines) print(flow);
    }),
  );
  if (!stop.signal.aborted) return;
  await sayLosses(agents);
}

/** The newest of several nodes' flows, oldest first. */
function newest(past: readonly (readonly FlowEvent[])[], last: number): FlowEvent[] {
  const all = past.flat().sort((a, b) => a.time - b.time);
  return all.slice(Math.max(0, all.length - last));
}

async function take<T>(lines: AsyncGenerator<T>, count: number): Promise<T[]> {
  const taken: T[] = [];
  while (taken.length < count) {
    const { value, done } = await lines.next();
    if (done === true) break;
    taken.push(value);
  }
  return taken;
}

/** Beside the flows, what of them nobody will see: on standard error, so that what reads the flows is not disturbed. */
async function sayLosses(agents: readonly AgentAddress[]): Promise<void> {
  for (const { node, losses } of await askAgents(agents, { path: '/status' }, (value) => statusSchema.parse(value))) {
    const text = counts('', losses);
    if (text !== '') console.error(paint('yellow', `flows lost on ${node}: ${text}`, process.stderr));
  }
}
