import { endpointSchema, type TraceAnswer, traceAnswerSchema } from '../agent/wire.ts';
import { MyelinError } from '../model/error.ts';
import { type AgentAddress, askAgent, findAgents } from './agents.ts';
import type { AgentFlags } from './flags.ts';
import { paint } from './output.ts';

interface TraceFlags extends AgentFlags {
  readonly output: 'text' | 'wide' | 'json';
}

/** Walks through a handshake of two pods. */
export async function trace(source: string, destination: string, flags: TraceFlags): Promise<void> {
  const agent = await hostOf(source, findAgents(flags));
  const body = { source, destination };
  const answer = await askAgent(agent, { method: 'POST', path: '/tunnels/trace', body }, (value) =>
    traceAnswerSchema.parse(value),
  );
  console.log(flags.output === 'json' ? JSON.stringify(answer, null, 2) : formatTrace(answer));
  const isFine = answer.trace === undefined ? answer.node === answer.peerNode : answer.trace.outcome === 'done';
  if (!isFine) process.exitCode = 3;
}

async function hostOf(pod: string, agents: readonly AgentAddress[]): Promise<AgentAddress> {
  const found = await Promise.all(
    agents.map(async (agent) => {
      const endpoints = await askAgent(agent, { path: '/endpoints' }, (value) => endpointSchema.array().parse(value));
      return endpoints.some(({ namespace, pod: name }) => `${namespace}/${name}` === pod) ? [agent] : [];
    }),
  );
  const [host] = found.flat();
  if (host !== undefined) return host;
  throw new MyelinError(
    'NotHere',
    `no agent that answers here has the pod ${pod}: run this on its node (asked: ${agents.map(({ node }) => node).join(', ')})`,
  );
}

/** For people: what happened when, what was checked, and what came of it. */
function formatTrace(answer: TraceAnswer): string {
  const { source, destination, node, peerNode, trace: made, tunnel, note, firstPacketMs } = answer;
  const lines = [`${paint('bold', source)} on ${node} → ${paint('bold', destination)} on ${peerNode}`];
  if (note !== undefined) lines.push(note);
  if (made !== undefined) {
    lines.push('', made.role === 'initiator' ? 'this side began' : 'the peer began, this side answered');
    const time = (ms: number) => `${ms.toFixed(0).padStart(7)} ms  `;
    for (const { step, ms, detail } of made.steps)
      lines.push(`${time(ms)}${step}${detail === '' ? '' : paint('dim', `: ${detail}`)}`);
    lines.push('', 'the peer’s certificate');
    const marks = { passed: paint('green', '✓'), failed: paint('red', '✗'), 'not reached': paint('dim', '–') };
    for (const { check, result, detail } of made.checks)
      lines.push(`  ${marks[result]} ${check}${detail === '' ? '' : paint('dim', `: ${detail}`)}`);
    lines.push('');
    lines.push(
      made.outcome === 'done'
        ? paint('green', 'the handshake is done')
        : `${paint('red', `no tunnel (${made.outcome})`)}: ${made.problem}`,
    );
  }
  if (tunnel !== undefined) {
    const { state, cipher, group, radius, spiIn = 0, spiOut = 0, expiresAt, lastError } = tunnel;
    const spi = (value: number) => `0x${value.toString(16).padStart(8, '0')}`;
    lines.push(
      state === 'up' || state === 'rekeying'
        ? `tunnel ${state}: ${cipher}, ${group}, breach radius ${radius}, SPI ${spi(spiIn)} in, ${spi(spiOut)} out${
            expiresAt === undefined ? '' : `, until ${new Date(expiresAt).toISOString()}`
          }`
        : `tunnel ${state}${lastError === undefined ? '' : `: ${lastError}`}`,
    );
    if (made?.outcome === 'done')
      lines.push(
        firstPacketMs === undefined
          ? 'no packet has left under this key yet: nobody sends'
          : `the first packet had left ${firstPacketMs} ms after the handshake`,
      );
  }
  return lines.join('\n');
}
