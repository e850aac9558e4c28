import { Agent, request } from 'node:http';
import { performance } from 'node:perf_hooks';
import { RedisPinger } from './redis.ts';
import type { Target } from './targets.ts';

/** What came of one call; `calls` is what the callee says of its own. */
export interface Call {
  readonly name: string;
  readonly address: string;
  readonly ok: boolean;
  readonly status?: number;
  readonly ms: number;
  readonly error?: string;
  readonly calls?: unknown;
}

/** Names on the way from the outside to here. A callee that is on it is not called again, so no request goes in circles. */
export const pathHeader = 'x-myelin-path';
/** Longer than any chain of a sensible application, short enough to end a mistake. */
const deepest = 5;
/** Each level has less patience than the one above, so that a caller hears of its callee's timeout instead of its own. */
const patienceMs = [3000, 2000, 1300, 800, 500];
const largestAnswer = 64 * 1024;

const agent = new Agent({ keepAlive: true, maxSockets: 32, keepAliveMsecs: 15_000 });
const redis = new Map<string, RedisPinger>();

/** @param header The value of {@link pathHeader}, if the request had one. */
export function readPath(header: string | undefined): string[] {
  return header === undefined || header === '' ? [] : header.split(',').slice(0, deepest);
}

/**
 * Calls every target that is not on the path yet, all at once.
 * @param path Names of those who wait for this answer, the outermost first.
 */
export async function callAll(targets: readonly Target[], path: readonly string[]): Promise<Call[]> {
  const patience = patienceMs[path.length];
  if (patience === undefined) return [];
  return await Promise.all(
    targets.filter(({ name }) => !path.includes(name)).map((target) => callOne(target, path, patience)),
  );
}

async function callOne(target: Target, path: readonly string[], timeoutMs: number): Promise<Call> {
  const from = performance.now();
  const result = await (target.protocol === 'redis' ? ping(target, timeoutMs) : get(target, path, timeoutMs)).catch(
    (error: NodeJS.ErrnoException) => ({ ok: false, error: error.code ?? error.message }),
  );
  return {
    name: target.name,
    address: `${target.host}:${target.port}`,
    ms: Math.round((performance.now() - from) * 100) / 100,
    ...result,
  };
}

type Outcome = Pick<Call, 'ok' | 'status' | 'error' | 'calls'>;

async function ping({ host, port }: Target, timeoutMs: number): Promise<Outcome> {
  const key = `${host}:${port}`;
  const pinger = redis.get(key) ?? new RedisPinger(host, port);
  redis.set(key, pinger);
  await pinger.ping(timeoutMs);
  return { ok: true };
}

function get({ name, host, port }: Target, path: readonly string[], timeoutMs: number): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const headers = { [pathHeader]: [...path, name].join(',') };
    const call = request({ host, port, path: '/', agent, headers }, (response) => {
      const status = response.statusCode ?? 0;
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        if (text.length < largestAnswer) text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => {
        clearTimeout(timer);
        resolve({ ok: status < 400, status, ...callsIn(text) });
      });
    });
    const timer = setTimeout(() => call.destroy(new Error('timeout')), timeoutMs);
    call.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    call.end();
  });
}

/** What the callee says that it called, if it is a stand-in too. */
function callsIn(text: string): { calls?: unknown } {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && 'calls' in value && Array.isArray(value.calls))
      return value.calls.length === 0 ? {} : { calls: value.calls };
  } catch {
    // Not a stand-in, and nothing to tell.
  }
  return {};
}
