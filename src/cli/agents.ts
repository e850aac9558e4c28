import { globSync } from 'node:fs';
import { request } from 'node:http';
import { basename, dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { MyelinError } from '../model/error.ts';

export class AgentUnreachableError extends MyelinError<'AgentUnreachable' | 'AgentRefused'> {}

/** An agent of this machine, found by its socket. */
export interface AgentAddress {
  readonly node: string;
  readonly socket: string;
}

/** Where to look for agents, as the global options say. */
export interface AgentChoice {
  readonly runDir?: string;
  readonly lab?: string;
  readonly node?: string;
}

/**
 * The agents that a command is about: the one of `runDir`; else the machine's own; else every node of the lab.
 * @throws {AgentUnreachableError} when there is none.
 */
export function findAgents(choice: AgentChoice): AgentAddress[] {
  const patterns =
    choice.runDir !== undefined
      ? [`${choice.runDir}/agent.sock`]
      : ['/run/myelin/agent.sock', `/run/myelin/lab/${choice.lab ?? '*'}/*/agent.sock`];
  for (const pattern of patterns) {
    const found = globSync(pattern)
      .map((socket) => ({ node: basename(dirname(socket)), socket }))
      .filter(({ node }) => choice.node === undefined || node === choice.node)
      .sort((a, b) => (a.node < b.node ? -1 : 1));
    if (found.length > 0) return found;
  }
  throw new AgentUnreachableError(
    'AgentUnreachable',
    `no agent answers at ${patterns.join(' or ')}: start one, or try 'myelin lab up'`,
  );
}

interface Ask {
  readonly method?: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
  readonly signal?: AbortSignal;
}

/**
 * One JSON question to an agent.
 * @throws {AgentUnreachableError} with the agent's own message where it refused.
 */
export async function askAgent<T>(agent: AgentAddress, ask: Ask, parse: (value: unknown) => T): Promise<T> {
  const response = await open(agent, ask);
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(Buffer.from(chunk));
  const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  if (response.statusCode !== 200) {
    const message =
      typeof value === 'object' && value !== null && 'message' in value ? String(value.message) : 'no reason given';
    throw new AgentUnreachableError('AgentRefused', `the agent of ${agent.node} refuses: ${message}`);
  }
  return parse(value);
}

/** The lines of an agent's endless answer, each one JSON value. Ends when the agent goes or the signal fires. */
export async function* followAgent<T>(agent: AgentAddress, ask: Ask, parse: (value: unknown) => T): AsyncGenerator<T> {
  const response = await open(agent, ask);
  try {
    for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY }))
      if (line !== '') yield parse(JSON.parse(line));
  } catch (error) {
    if (ask.signal?.aborted !== true) throw error;
  }
}

function open(agent: AgentAddress, { method = 'GET', path, body, signal }: Ask) {
  return new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    const call = request(
      { socketPath: agent.socket, method, path, ...(signal === undefined ? {} : { signal }) },
      resolve,
    );
    call.on('error', (cause) =>
      reject(
        new AgentUnreachableError('AgentUnreachable', `the agent of ${agent.node} does not answer at ${agent.socket}`, {
          cause,
        }),
      ),
    );
    if (body !== undefined) call.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    else call.end();
  });
}
