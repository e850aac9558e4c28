import { z } from 'zod';
import type { FlowEvent } from '../../model/flow.ts';
import { formatRule } from '../../model/verdict.ts';
import { percentile } from '../percentile.ts';

/** One answer of the shopper; `body` is what the front end said of its own calls. */
const answerSchema = z.object({ ok: z.boolean(), status: z.number(), body: z.string(), ms: z.number() });
export type Answer = z.infer<typeof answerSchema>;

interface Call {
  readonly name: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly calls?: unknown;
}

const callSchema: z.ZodType<Call> = z.looseObject({ name: z.string(), ok: z.boolean(), ms: z.number() });
const pageSchema = z.looseObject({ service: z.string(), calls: z.array(callSchema) });

/** A service that calls another, as the callers saw it and as the datapath decided it. */
export interface Edge {
  readonly from: string;
  readonly to: string;
  readonly requests: number;
  readonly failed: number;
  /** Milliseconds, of those that were answered. */
  readonly medianMs: number;
  readonly verdict: 'allow' | 'deny';
  /** The rules, or the reason, at either end. */
  readonly decidedBy: readonly string[];
  readonly acrossNodes: boolean;
}

/** @param lines What the shopper printed. */
export function parseAnswers(lines: string): Answer[] {
  return lines
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => answerSchema.parse(JSON.parse(line)));
}

/**
 * Joins what the services said of their calls with what the datapath said of the connections.
 * @param service The name of a pod's service: its Deployment.
 */
export function callGraph(
  caller: string,
  answers: readonly Answer[],
  flows: readonly FlowEvent[],
  service: (podName: string) => string,
): Edge[] {
  const tallies = new Map<string, { from: string; to: string; ms: number[]; failed: number }>();
  const count = (from: string, to: string, ok: boolean, ms: number) => {
    const key = `${from} ${to}`;
    const tally = tallies.get(key) ?? { from, to, ms: [], failed: 0 };
    if (ok) tally.ms.push(ms);
    else tally.failed++;
    tallies.set(key, tally);
  };
  const walk = (from: string, calls: unknown) => {
    const parsed = z.array(callSchema).safeParse(calls);
    for (const call of parsed.success ? parsed.data : []) {
      count(from, call.name, call.ok, call.ms);
      walk(call.name, call.calls);
    }
  };
  for (const answer of answers) {
    const page = answer.ok ? pageSchema.parse(JSON.parse(answer.body)) : undefined;
    count(caller, page?.service ?? 'frontend', answer.ok, answer.ms);
    if (page !== undefined) walk(page.service, page.calls);
  }
  return [...tallies.values()].map(({ from, to, ms, failed }) => {
    const seen = flows.filter(
      ({ source, destination }) =>
        source.kind === 'pod' &&
        destination.kind === 'pod' &&
        service(source.name) === from &&
        service(destination.name) === to,
    );
    return {
      from,
      to,
      requests: ms.length + failed,
      failed,
      medianMs: ms.length === 0 ? 0 : percentile(ms, 0.5),
      verdict: seen.some(({ verdict }) => verdict === 'deny') ? 'deny' : 'allow',
      decidedBy: decidedBy(seen),
      acrossNodes: seen.some(
        ({ source, destination }) =>
          source.kind === 'pod' && destination.kind === 'pod' && source.node !== destination.node,
      ),
    };
  });
}

/** One phrase an end, egress first. */
function decidedBy(flows: readonly FlowEvent[]): string[] {
  return (['egress', 'ingress'] as const).flatMap((direction) => {
    const decided = flows.find(
      (flow) => flow.direction === direction && flow.kind !== 'deny' && flow.rule !== undefined,
    );
    return decided?.rule === undefined ? [] : [formatRule(decided.rule)];
  });
}
