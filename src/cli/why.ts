import { type Command, InvalidArgumentError, Option } from 'commander';
import { type WhyAnswer, type WhyQuestion, whyAnswerSchema, whyQuestionSchema } from '../agent/wire.ts';
import { type AgentAddress, askAgents, findAgents } from './agents.ts';
import { type AgentFlags, agentFlags } from './flags.ts';
import { paint } from './output.ts';

interface WhyFlags extends AgentFlags {
  readonly port: number;
  readonly protocol: string;
  readonly http?: readonly [method: string, target: string];
  readonly header: readonly (readonly [name: string, value: string])[];
  readonly host?: string;
  /** True: TLS that names no server. */
  readonly tls?: string | true;
  readonly output: 'text' | 'json';
}

export function registerWhy(program: Command): void {
  agentFlags(
    program
      .command('why')
      .description('which rule decides about a flow, and why')
      .argument('<source>', 'namespace/pod, an IP address, host or world')
      .argument('<destination>', 'likewise')
      .option('-p, --port <port>', 'destination port', parsePort, 0)
      .addOption(new Option('--protocol <name>').choices(['TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6']).default('TCP'))
      .option('--http <request>', 'an HTTP request on the connection: GET /path', parseRequest)
      .option('--host <host>', 'the request’s Host; without it, it has none')
      .option('--header <line>', 'a header of the request: "name: value"; may be given several times', addHeader, [])
      .option('--tls [name]', 'TLS on the connection, to the server of this name (SNI); without a name, it names none')
      .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text')),
  )
    .addHelpText(
      'after',
      `
The answer is the reference decision's; each side's node says whether its datapath holds the same.
Exits with 0 for allowed, 3 for denied.

Examples:
  myelin why boutique/frontend-x2x4z boutique/cartservice-7k9qp --port 7070
  myelin why world boutique/frontend-x2x4z --port 8080
  myelin why boutique/frontend boutique/catalogue --port 3550 --http 'GET /products?q=a' --host catalogue
  myelin why boutique/checkout 203.0.113.9 --port 443 --tls pay.example.com`,
    )
    .action(why);
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new InvalidArgumentError('expected a port, 0 to 65535');
  return port;
}

function parseRequest(text: string): [method: string, target: string] {
  const [, method, target] = /^(\S+) +(\S+)$/.exec(text.trim()) ?? [];
  if (method === undefined || target === undefined)
    throw new InvalidArgumentError('expected a method and a target, as in "GET /path"');
  return [method, target];
}

function addHeader(
  text: string,
  before: readonly (readonly [name: string, value: string])[],
): readonly (readonly [name: string, value: string])[] {
  const [, name, value] = /^([^:\s]+): *(.*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError('expected "name: value"');
  return [...before, [name, value]];
}

/** Asks every agent and joins the sides: a pod's own node is the one that can compare with its datapath. */
async function askWhy(agents: readonly AgentAddress[], question: WhyQuestion): Promise<WhyAnswer> {
  const ask = { method: 'POST', path: '/why', body: question } as const;
  const answers = await askAgents(agents, ask, (value) => whyAnswerSchema.parse(value));
  // Who compares with a datapath knows most: also what its pods were told by DNS.
  const compared = ({ sides }: WhyAnswer) => sides.filter(({ datapath }) => datapath !== undefined).length;
  const [first] = answers.toSorted((a, b) => compared(b) - compared(a));
  if (first === undefined) throw new Error('no agents were asked');
  const sides = first.sides.map((side) => {
    const seen = answers
      .flatMap((answer) => answer.sides)
      .find((other) => other.direction === side.direction && other.datapath !== undefined);
    return seen ?? side;
  });
  return { ...first, verdict: sides.every(({ verdict }) => verdict === 'allow') ? 'allow' : 'deny', sides };
}

async function why(source: string, destination: string, flags: WhyFlags): Promise<void> {
  const [method, target] = flags.http ?? [];
  if (method === undefined && (flags.host !== undefined || flags.header.length > 0))
    throw new InvalidArgumentError('--host and --header are about a request: give it with --http "GET /path"');
  const http = method === undefined ? undefined : { method, target, host: flags.host, headers: flags.header };
  if (method !== undefined && flags.tls !== undefined)
    throw new InvalidArgumentError('a connection begins with --http or with --tls: ask about one of them');
  const tls = flags.tls === undefined ? undefined : { serverName: flags.tls === true ? undefined : flags.tls };
  const { port, protocol } = flags;
  const question = whyQuestionSchema.parse({ source, destination, port, protocol, http, tls });
  const answer = await askWhy(findAgents(flags), question);
  if (flags.output === 'json') console.log(JSON.stringify(answer, null, 2));
  else {
    const verdict = answer.verdict === 'allow' ? paint('green', 'allowed') : paint('red', 'denied');
    console.log(
      `${answer.source} → ${answer.destination} ${question.protocol}${question.port === 0 ? '' : ` ${question.port}`}: ${verdict}`,
    );
    for (const side of answer.sides) {
      const datapath =
        side.datapath === undefined
          ? ''
          : paint(side.datapath === 'agrees' ? 'dim' : 'red', `  (the datapath ${side.datapath})`);
      console.log(
        `  ${side.direction.padEnd(8)} ${side.verdict === 'allow' ? paint('green', 'allow') : paint('red', 'deny ')} ${side.by}${datapath}`,
      );
    }
    for (const line of answer.explanation) console.log(`  ${line}`);
    if (question.port === 0 && ['TCP', 'UDP', 'SCTP'].includes(question.protocol))
      console.log(
        paint('dim', '  No port was asked about, so rules for single ports decide nothing here: add --port.'),
      );
  }
  // Where an agent did not answer, that is said already, and counts more.
  if (answer.verdict === 'deny') process.exitCode ??= 3;
}
