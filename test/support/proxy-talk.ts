import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Source, TestLab } from './lab.ts';

const program = join(import.meta.dirname, 'proxy-talk-program.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', program];

/** What came of a question; nothing within its time is an error of its own. */
export interface Answer {
  readonly status?: number | undefined;
  readonly grpc?: string | undefined;
  readonly text?: string | undefined;
  readonly error?: string | undefined;
}

const answerSchema = z.object({
  status: z.number().optional(),
  grpc: z.string().optional(),
  text: z.string().optional(),
  error: z.string().optional(),
});

export interface Question {
  readonly op: 'grpc' | 'http' | 'tls' | 'echo' | 'close';
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  /** Of a connection that is kept. */
  readonly name?: string;
  /** Of TLS, the server's name; of an echo, the word. */
  readonly text?: string;
}

const patienceMs = 5000;

/** The program of proxy-talk-program.ts in a pod; ends with the lab's pod, or when it is closed. */
export class ProxyTalker {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdin?.on('error', () => {});
    if (child.stdout === null) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#lines.push(line);
      else next(line);
    });
  }

  /** @param args `serve GRPC-PORT HTTP-PORT TLS-PORT`, or nothing. */
  static async start(lab: Pick<TestLab, 'command'>, pod: Source, ...args: readonly string[]): Promise<ProxyTalker> {
    const [file = '', ...rest] = await lab.command(pod, [...node, ...(args.length === 0 ? ['talk'] : args)]);
    const talker = new ProxyTalker(spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] }));
    if ((await talker.#line()) !== '"ready"') throw new Error('nobody talks');
    return talker;
  }

  /** One question after the other. */
  async ask({ host = '', port = 0, path = '/', ...question }: Question): Promise<Answer> {
    const line = this.#line();
    this.#child.stdin?.write(`${JSON.stringify({ host, port, path, ...question })}\n`);
    const heard = await Promise.race([line, sleep(patienceMs, '{"error":"silence"}', { ref: false })]);
    return answerSchema.parse(JSON.parse(heard));
  }

  /** Of a server: what has reached it since this was asked last. */
  take(): string[] {
    return this.#lines.splice(0).map((line) => String(JSON.parse(line)));
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }

  #line(): Promise<string> {
    const known = this.#lines.shift();
    return known === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(known);
  }
}
