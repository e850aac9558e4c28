import { readFileSync } from 'node:fs';
import { flowSchema } from '../../agent/wire.ts';
import { MyelinError } from '../../model/error.ts';
import type { FlowEvent } from '../../model/flow.ts';
import { askAgents, findAgents } from '../agents.ts';
import type { AgentFlags } from '../flags.ts';

export interface FlowFlags extends AgentFlags {
  readonly flows?: string;
  readonly last: string;
}

/**
 * Recorded flows: of a file (`-`: standard input) as `myelin observe -o json` prints them, else what the agents remember.
 * @throws {MyelinError} `InvalidFlows` where a line of the file is no flow
 */
export async function recordedFlows(flags: FlowFlags): Promise<FlowEvent[]> {
  if (flags.flows === undefined) {
    const answers = await askAgents(findAgents(flags), { path: `/flows?last=${flags.last}` }, (value) =>
      flowSchema.array().parse(value),
    );
    return answers.flat().sort((a, b) => a.time - b.time);
  }
  const lines = readFileSync(flags.flows === '-' ? 0 : flags.flows, 'utf8').split('\n');
  return lines.flatMap((line, index) => (line.trim() === '' ? [] : [readFlow(line, `${flags.flows}:${index + 1}`)]));
}

function readFlow(line: string, place: string): FlowEvent {
  try {
    return flowSchema.parse(JSON.parse(line));
  } catch (cause) {
    throw new MyelinError('InvalidFlows', `${place}: not a flow as 'myelin observe -o json' prints them`, { cause });
  }
}
