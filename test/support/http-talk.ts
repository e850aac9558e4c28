import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Heard, Talk } from './http-program.ts';
import type { Source, TestLab } from './lab.ts';

/** Where programs run: a lab, or whoever else knows the command line for a place. */
type Places = Pick<TestLab, 'command'>;

const program = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, 'http-program.ts'),
];

async function start(lab: Places, where: Source, args: readonly string[], onLine: (line: string) => void) {
  const [file = '', ...rest] = await lab.command(where, [...program, ...args]);
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => {});
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'ready') resolve();
      else onLine(line);
    });
    child.once('exit', () => reject(new Error('the program ended')));
  });
  return child;
}

/** A server of HTTP in a pod, which says what it gets. */
export class HttpServer {
  readonly #child: ChildProcess;
  readonly #seen: string[];

  private constructor(child: ChildProcess, seen: string[]) {
    this.#child = child;
    this.#seen = seen;
  }

  static async start(lab: Places, where: Source, port: number): Promise<HttpServer> {
    const seen: string[] = [];
    return new HttpServer(await start(lab, where, ['serve', String(port)], (line) => seen.push(line)), seen);
  }

  /** @returns What it got since it was asked last: `METHOD URL LENGTH`. */
  take(): string[] {
    return this.#seen.splice(0);
  }

  close(): void {
    this.#child.stdin?.end();
    this.#child.kill();
  }
}

/** Says bytes of its own choice, from a pod or the world. */
export class HttpTalker {
  readonly #child: ChildProcess;
  readonly #waiting: ((line: string) => void)[];

  private constructor(child: ChildProcess, waiting: ((line: string) => void)[]) {
    this.#child = child;
    this.#waiting = waiting;
    child.once('exit', () => {
      for (const resolve of waiting.splice(0)) resolve('{"text":"","state":"reset"}');
    });
  }

  static async start(lab: Places, where: Source): Promise<HttpTalker> {
    const waiting: ((line: string) => void)[] = [];
    return new HttpTalker(await start(lab, where, ['talk'], (line) => waiting.shift()?.(line)), waiting);
  }

  async say(talk: Partial<Talk> & Pick<Talk, 'host' | 'port' | 'parts'>): Promise<Heard> {
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.#child.stdin?.write(`${JSON.stringify({ answers: 1, patience: 4000, ...talk })}\n`);
    const heard: Heard = JSON.parse(await answer);
    return heard;
  }

  close(): void {
    this.#child.stdin?.end();
    this.#child.kill();
  }
}

/** @returns The statuses of all answers in a text, in their order. */
export function statusesOf({ text }: Heard): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
}
