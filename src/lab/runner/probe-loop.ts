import { setTimeout as sleep } from 'node:timers/promises';
import type { Container, Probe } from '../../api/kinds.ts';
import type { IpAddress } from '../../model/address.ts';
import type { ProbeResult, Prober, ProbeTarget } from './prober.ts';

/** What a probe concludes after so many equal answers in a row. */
export class Threshold {
  readonly #needed: { readonly success: number; readonly failure: number };
  #state: boolean | undefined;
  #last: boolean | undefined;
  #inARow = 0;

  /** @param state What holds until the first conclusion; undefined: nothing, so the first one is news either way. */
  constructor({ successThreshold = 1, failureThreshold = 3 }: Probe, state?: boolean) {
    this.#needed = { success: successThreshold, failure: failureThreshold };
    this.#state = state;
  }

  /** @returns The new conclusion, or undefined where it is the old one. */
  observe(ok: boolean): boolean | undefined {
    this.#inARow = ok === this.#last ? this.#inARow + 1 : 1;
    this.#last = ok;
    if (this.#inARow < this.#needed[ok ? 'success' : 'failure'] || ok === this.#state) return undefined;
    this.#state = ok;
    return ok;
  }
}

export interface ProbeLoopOptions {
  readonly probe: Probe;
  /** What holds before the probe has concluded anything. */
  readonly initially?: boolean;
  /** Seconds; waits no longer than this before the first try, whatever the probe says. */
  readonly longestDelay?: number;
  /** Tries more often than the probe says until the first success: what is waited for is minutes on a real node, not here. */
  readonly eager?: boolean;
  readonly perform: () => Promise<ProbeResult>;
  readonly onConclusion: (ok: boolean, result: ProbeResult) => void;
  readonly signal: AbortSignal;
}

const eagerMs = 200;

/** Probes until the signal fires. Never rejects. */
export async function runProbe(options: ProbeLoopOptions): Promise<void> {
  const { probe, signal, longestDelay = Number.POSITIVE_INFINITY } = options;
  const { initialDelaySeconds = 0, periodSeconds = 10 } = probe;
  const threshold = new Threshold(probe, options.initially);
  let eager = options.eager === true;
  const pause = (seconds: number) => sleep(seconds * 1000, undefined, { signal, ref: false }).catch(() => undefined);
  await pause(Math.min(initialDelaySeconds, longestDelay));
  while (!signal.aborted) {
    const result = await options.perform();
    if (signal.aborted) return;
    if (result.ok) eager = false;
    const conclusion = threshold.observe(result.ok);
    if (conclusion !== undefined) options.onConclusion(conclusion, result);
    await pause(eager ? Math.min(periodSeconds, eagerMs / 1000) : periodSeconds);
  }
}

/** How a probe is tried: from the node's namespace, or (exec) in the container. */
export interface ProbeMeans {
  readonly container: Container;
  /** The pod's address; its node's, for a pod that shares its node's network. */
  readonly address: IpAddress;
  readonly prober: Prober;
  /** Runs a command in the container. @returns Whether it exited with 0. */
  readonly exec: (command: readonly string[], timeoutMs: number) => Promise<ProbeResult>;
}

/** Tries a probe once. @throws nothing: what cannot be tried has failed. */
export async function tryProbe(probe: Probe, means: ProbeMeans): Promise<ProbeResult> {
  const { exec, httpGet, tcpSocket, grpc, timeoutSeconds = 1 } = probe;
  const timeoutMs = timeoutSeconds * 1000;
  if (exec !== undefined) return await means.exec(exec.command ?? [], timeoutMs);
  const at = (port: number | string, host?: string) => {
    const number = portNumber(means.container, port);
    return number === undefined ? undefined : { host: host ?? means.address, port: number, timeoutMs };
  };
  let target: ProbeTarget | undefined;
  if (httpGet !== undefined) {
    const where = at(httpGet.port, httpGet.host);
    const headers = (httpGet.httpHeaders ?? []).map(({ name, value }) => [name, value]);
    const tls = httpGet.scheme === 'HTTPS';
    target = where && { ...where, kind: 'http', path: httpGet.path ?? '/', headers: Object.fromEntries(headers), tls };
  } else if (tcpSocket !== undefined) {
    const where = at(tcpSocket.port, tcpSocket.host);
    target = where && { ...where, kind: 'tcp' };
  } else if (grpc !== undefined) {
    const where = at(grpc.port);
    target = where && { ...where, kind: 'grpc', service: grpc.service ?? '' };
  }
  if (target === undefined) return { ok: false, ms: 0, error: 'the probe names no port of the container' };
  return await means.prober.probe(target);
}

function portNumber(container: Container, port: number | string): number | undefined {
  if (typeof port === 'number') return port;
  return (container.ports ?? []).find(({ name }) => name === port)?.containerPort;
}
