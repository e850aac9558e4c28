import { join } from 'node:path';
import { z } from 'zod';
import { percentile } from '../percentile.ts';
import { standBeside } from './beside.ts';
import type { Ran, Stage } from './stage.ts';

/** How one request fared, on one way to the catalogue. */
export interface RequestRow {
  readonly way: 'Myelin' | 'nothing between' | 'an nginx hop';
  readonly request: string;
  /** What it must be answered with there. */
  readonly expected: number;
  readonly statuses: readonly number[];
  /** Why there was no answer, and how often, in words; empty where there always was. */
  readonly failures: string;
  readonly count: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

export interface Requests {
  readonly rows: readonly RequestRow[];
  /** That the caller needed to the catalogue under Myelin: one, if denials leave it as it is. */
  readonly connections: number;
  /** Whether the caller and the catalogue are pods of one node. */
  readonly oneNode: boolean;
}

const rounds = 200;
/** What readers may ask of the catalogue, and what nobody may. */
const wanted = [
  { request: 'GET /products', allowed: true },
  { request: 'POST /products', allowed: false },
  { request: 'GET /admin', allowed: false },
  { request: 'GET /products/../%61dmin', allowed: false },
  { request: 'GET /products/7', allowed: true },
] as const;
const callers = ['frontend', 'checkout', 'recommendation'];

/**
 * Asks the shop's catalogue what its policy allows and what it does not, and the same program once with nothing between
 * caller and server, and once behind a proxy with the same rules.
 */
export async function askCatalogue(stage: Stage): Promise<Requests> {
  const catalogue = await stage.podOf('boutique', 'productcatalog');
  const pods = await Promise.all(callers.map((app) => stage.podOf('boutique', app)));
  const near = pods.find(({ spec }) => spec.nodeName === catalogue.spec.nodeName);
  const pod = near ?? pods[0];
  if (pod === undefined) throw new Error('nobody in the shop calls the catalogue');
  const own = await stage.inPod('boutique', pod.metadata.name, command('http://productcatalog:3550'));
  const { answers, connections } = read(own);
  const beside = await standBeside('productcatalog');
  try {
    const ask = async (port: number) => read(await stage.run(beside.command(command(`http://${beside.host}:${port}`))));
    const [bare, proxied] = [await ask(beside.ports.server), await ask(beside.ports.proxy)];
    const rows = [
      ...rowsOf('Myelin', answers, 403),
      ...rowsOf('nothing between', bare.answers, 200),
      ...rowsOf('an nginx hop', proxied.answers, 403),
    ];
    return { rows, connections, oneNode: near !== undefined };
  } finally {
    await beside.end();
  }
}

const answerSchema = z.object({
  request: z.string(),
  status: z.number(),
  failure: z.string().optional(),
  ms: z.number(),
});
const endSchema = z.object({ connections: z.number() });
type Answer = z.infer<typeof answerSchema>;

function command(base: string): string[] {
  const words = wanted.map(({ request }) => request.replace(' ', ':'));
  return [process.execPath, join(import.meta.dirname, 'caller.ts'), base, String(rounds), ...words];
}

function read({ stdout, stderr }: Ran): { answers: Answer[]; connections: number } {
  const values: unknown[] = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
  const end = endSchema.safeParse(values.at(-1));
  if (!end.success) throw new Error(`the catalogue’s caller did not come to its end: ${stderr}`);
  return { answers: z.array(answerSchema).parse(values.slice(0, -1)), connections: end.data.connections };
}

function rowsOf(way: RequestRow['way'], answers: readonly Answer[], denied: number): RequestRow[] {
  return wanted.map(({ request, allowed }) => {
    const own = answers.filter((answer) => answer.request === request);
    const times = own.map(({ ms }) => ms);
    return {
      way,
      request,
      expected: allowed ? 200 : denied,
      statuses: [...new Set(own.map(({ status }) => status))],
      failures: failuresOf(own),
      count: own.length,
      medianMs: percentile(times, 0.5),
      p99Ms: percentile(times, 0.99),
    };
  });
}

function failuresOf(answers: readonly Answer[]): string {
  const counts = new Map<string, number>();
  for (const { failure } of answers) if (failure !== undefined) counts.set(failure, (counts.get(failure) ?? 0) + 1);
  return [...counts].map(([failure, count]) => `${failure} ${count}×`).join(', ');
}
