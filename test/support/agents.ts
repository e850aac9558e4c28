import { setTimeout as sleep } from 'node:timers/promises';
import {
  type TunnelReport,
  tunnelSchema,
  type WhyAnswer,
  type WhyQuestion,
  whyAnswerSchema,
} from '../../src/agent/wire.ts';
import { askAgent } from '../../src/cli/agents.ts';
import { Stage } from '../../src/cli/demo/stage.ts';
import type { Lab } from '../../src/lab/lab.ts';
import type { FlowEvent, FlowPeer } from '../../src/model/flow.ts';

/** What all agents of a lab say, for tests that hold it against what packets do. */
export class Agents extends Stage {
  /** Every node's own answer: they may differ while a change is on its way. */
  async why(question: WhyQuestion): Promise<WhyAnswer[]> {
    return await Promise.all(
      this.agents.map((agent) =>
        askAgent(agent, { method: 'POST', path: '/why', body: question }, (value) => whyAnswerSchema.parse(value)),
      ),
    );
  }

  async tunnels(node: string): Promise<TunnelReport[]> {
    const agent = this.agents.find((each) => each.node === node);
    if (agent === undefined) throw new Error(`there is no agent of ${node}`);
    return await askAgent(agent, { path: '/tunnels' }, (value) => tunnelSchema.array().parse(value));
  }

  /** Another proxy takes the place of the node's. */
  async replaceProxy(node: string): Promise<void> {
    const agent = this.agents.find((each) => each.node === node);
    if (agent === undefined) throw new Error(`there is no agent of ${node}`);
    await askAgent(agent, { method: 'POST', path: '/proxy/replace', body: {} }, () => undefined);
  }

  /**
   * Waits until every node decides so, and has it in its datapath.
   * @returns What is different still after `timeoutMs`, in words; undefined when nothing is.
   */
  async settled(question: WhyQuestion, verdict: 'allow' | 'deny', timeoutMs = 10_000): Promise<string | undefined> {
    for (const end = Date.now() + timeoutMs; ; await sleep(50)) {
      const answers = await this.why(question).catch((error: unknown) => String(error));
      const problem = typeof answers === 'string' ? answers : disagreement(answers, verdict);
      if (problem === undefined || Date.now() > end) return problem;
    }
  }

  /** Drops that were seen since then: why, where, and by which rule. */
  async denials(query: Record<string, string>, sinceMs: number): Promise<FlowEvent[]> {
    return (await this.flows({ ...query, verdict: 'deny' })).filter(({ time }) => time >= sinceMs);
  }
}

/** The agents of a lab. */
export function agentsOf({ lab }: { readonly lab: Lab }): Agents {
  return new Agents(lab);
}

/** `namespace/name` of a pod, or what kind of peer it is. */
export function endName(end: FlowPeer): string {
  return end.kind === 'pod' ? `${end.namespace}/${end.name}` : end.kind;
}

function disagreement(answers: readonly WhyAnswer[], verdict: 'allow' | 'deny'): string | undefined {
  for (const answer of answers) {
    const said = answer.sides.map(({ direction, verdict: own, by }) => `${direction} ${own}: ${by}`).join('; ');
    if (answer.verdict !== verdict) return `an agent says ${answer.verdict} (${said})`;
    if (answer.sides.some(({ datapath }) => datapath === 'differs')) return `a datapath differs (${said})`;
  }
  return undefined;
}
