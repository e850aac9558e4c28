import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { ProbeAnswer, ProbeRequest } from '../programs/probing.ts';

/** What to try: a probe without the number that only the wire needs. */
export type ProbeTarget = ProbeRequest extends infer Request
  ? Request extends ProbeRequest
    ? Omit<Request, 'id'>
    : never
  : never;

export type ProbeResult = Omit<ProbeAnswer, 'id'>;

/** The `error` of probes that were under way, or could not begin, when the prober ended. */
export const proberEnded = 'the prober ended';

/**
 * A process that tries connections from where it was started: a node's namespace, or a pod's. It is started with the
 * first probe, and again after it has ended.
 */
export class Prober {
  readonly #command: readonly string[];
  readonly #waiting = new Map<number, (answer: ProbeResult) => void>();
  #child: ChildProcess | undefined;
  #next = 1;
  #closed = false;

  /** @param command Starts `prober.mjs` where the probes are to come from. */
  constructor(command: readonly string[]) {
    this.#command = command;
  }

  /** @returns What came of it; an unsuccessful probe, or a prober that ended, is no exception. */
  probe(target: ProbeTarget): Promise<ProbeResult> {
    if (this.#closed) return Promise.resolve({ ok: false, ms: 0, error: 'closed' });
    const child = this.#child ?? this.#start();
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      child.stdin?.write(`${JSON.stringify({ ...target, id })}\n`);
    });
  }

  /** Ends the process. Probes under way answer with an error. */
  close(): void {
    this.#closed = true;
    this.#child?.stdin?.end();
    this.#child?.kill('SIGKILL');
  }

  #start(): ChildProcess {
    const [file = '', ...args] = this.#command;
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#child = child;
    const end = () => {
      if (this.#child !== child) return;
      this.#child = undefined;
      const waiting = [...this.#waiting.values()];
      this.#waiting.clear();
      for (const resolve of waiting) resolve({ ok: false, ms: 0, error: proberEnded });
    };
    child.once('error', end).once('exit', end);
    child.stdin?.on('error', () => {});
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => {
        const { id, ...answer }: ProbeAnswer = JSON.parse(line);
        this.#waiting.get(id)?.(answer);
        this.#waiting.delete(id);
      });
    return child;
  }
}
