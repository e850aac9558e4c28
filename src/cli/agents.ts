import { existsSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { basename, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pastHeader } from '../agent/wire.ts';
import { labDirectory } from '../lab/plan.ts';
import { planOfState, readState, soleLab } from '../lab/state.ts';
import { MyelinError } from '../model/error.ts';
import { paint } from './output.ts';

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

const ownRunDir = '/run/myelin';

/**
 * The agents that a command is about: the one of `runDir`; else every node of the lab that is named, by hand or by
 * MYELIN_LAB; else the machine's own; else every node of the only lab. A lab's nodes are there also while nobody answers.
 * @throws {AgentUnreachableError} when there is none. @throws {LabError} where it is not clear which lab is meant
 */
export function findAgents(choice: AgentChoice): AgentAddress[] {
  const found = everyAgent(choice);
  const chosen = found.filter(({ node }) => choice.node === undefined || node === choice.node);
  if (chosen.length > 0) return chosen;
  throw new AgentUnreachableError(
    'AgentUnreachable',
    `there is no node ${choice.node}; there are ${found.map(({ node }) => node).join(', ')}`,
  );
}

function everyAgent({ runDir, lab }: AgentChoice): AgentAddress[] {
  if (runDir !== undefined) return [ownAgent(runDir)];
  const named = lab ?? process.env.MYELIN_LAB ?? '';
  if (named === '' && existsSync(`${ownRunDir}/agent.sock`)) return [ownAgent(ownRunDir)];
  const name = named === '' ? soleLab() : named;
  const state = readState(name);
  if (state !== undefined)
    return planOfState(state).nodes.map(({ name: node }) => ({
      node,
      socket: `${labDirectory(name)}/${node}/agent.sock`,
    }));
  throw new AgentUnreachableError(
    'AgentUnreachable',
    named === ''
      ? `no agent runs on this machine (${ownRunDir}/agent.sock) and there is no lab: try 'myelin lab up'`
      : `there is no lab ${name}: start it with 'myelin lab up --lab ${name}'`,
  );
}

/** Its name, as far as it can be told without asking it. */
function ownAgent(runDir: string): AgentAddress {
  return { node: basename(resolve(runDir)), socket: `${runDir}/agent.sock` };
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
  const value = await readAnswer(agent, response);
  if (response.statusCode !== 200) throw refusal(agent, value);
  return parse(value);
}

/**
 * One question to several agents. Who does not answer is named on standard error and makes the command fail, but does
 * not keep the others' answers back.
 * @throws {AgentUnreachableError} where nobody answered, or somebody refused
 */
export async function askAgents<T>(
  agents: readonly AgentAddress[],
  ask: Ask,
  parse: (value: unknown) => T,
): Promise<T[]> {
  return askEach(agents, (agent) => askAgent(agent, ask, parse));
}

/** As {@link askAgents}, for any way of asking. */
export async function askEach<T>(
  agents: readonly AgentAddress[],
  ask: (agent: AgentAddress) => Promise<T>,
): Promise<T[]> {
  const outcomes = await Promise.allSettled(agents.map(ask));
  const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
  const answers = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const grave = failures.find((error) => !isAway(error)) ?? (answers.length === 0 ? failures[0] : undefined);
  if (grave !== undefined) throw grave;
  for (const failure of failures) complain(failure);
  return answers;
}

function isAway(error: unknown): error is AgentUnreachableError {
  return error instanceof AgentUnreachableError && error.code === 'AgentUnreachable';
}

const said = new Set<string>();

/** Says once that an agent was not there, and that the command's answer is not whole. */
function complain({ message }: AgentUnreachableError): void {
  if (said.has(message)) return;
  said.add(message);
  console.error(`${paint('red', 'myelin:', process.stderr)} ${message}`);
  process.exitCode = 1;
}

/** An agent's endless answer, each line one JSON value. */
export interface Followed<T> {
  /** How many of the first lines are from before the question. */
  readonly past: number;
  /** Ends when the agent goes, which it says, or the signal fires. */
  readonly lines: AsyncGenerator<T>;
}

/** @throws {AgentUnreachableError} */
export async function followAgent<T>(
  agent: AgentAddress,
  ask: Ask,
  parse: (value: unknown) => T,
): Promise<Followed<T>> {
  const response = await open(agent, ask);
  if (response.statusCode !== 200) throw refusal(agent, await readAnswer(agent, response));
  return { past: Number(response.headers[pastHeader] ?? 0), lines: linesOf(agent, ask, response, parse) };
}

async function* linesOf<T>(
  agent: AgentAddress,
  ask: Ask,
  response: IncomingMessage,
  parse: (value: unknown) => T,
): AsyncGenerator<T> {
  let cause: unknown;
  try {
    for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY }))
      if (line !== '') yield parse(JSON.parse(line));
  } catch (error) {
    // A line that was cut short, or a connection that was.
    cause = error;
  }
  if (ask.signal?.aborted !== true) complain(wentAway(agent, cause));
}

function refusal(agent: AgentAddress, answer: unknown): AgentUnreachableError {
  const message =
    typeof answer === 'object' && answer !== null && 'message' in answer ? String(answer.message) : 'no reason given';
  return new AgentUnreachableError('AgentRefused', `the agent of ${agent.node} refuses: ${message}`);
}

async function readAnswer(agent: AgentAddress, response: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of response) chunks.push(Buffer.from(chunk));
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    throw wentAway(agent, cause);
  }
}

function wentAway(agent: AgentAddress, cause: unknown): AgentUnreachableError {
  return new AgentUnreachableError('AgentUnreachable', `the agent of ${agent.node} went away while it answered`, {
    cause,
  });
}

function open(agent: AgentAddress, { method = 'GET', path, body, signal }: Ask) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    const call = request(
      { socketPath: agent.socket, method, path, ...(signal === undefined ? {} : { signal }) },
      resolve,
    );
    call.on('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new AgentUnreachableError(
          'AgentUnreachable',
          cause.code === 'EACCES'
            ? `${agent.socket} is root's: run this with sudo`
            : `the agent of ${agent.node} does not answer at ${agent.socket}`,
          { cause },
        ),
      ),
    );
    if (body !== undefined) call.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    else call.end();
  });
}
