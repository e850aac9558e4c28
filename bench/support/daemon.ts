import { type ChildProcess, spawn } from 'node:child_process';

/** A program in a network namespace that is ended, by its own id, when the measurement is over. */
export interface Daemon {
  readonly child: ChildProcess;
  /** What it has printed so far, both streams. */
  output(): string;
  close(): Promise<void>;
}

/** @param options.netns Path of the namespace. */
export function startDaemon(
  command: string,
  args: readonly string[],
  options: { netns: string; env?: Readonly<Record<string, string>> },
): Daemon {
  const child = spawn('nsenter', [`--net=${options.netns}`, '--', command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
    });
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  return {
    child,
    output: () => text,
    async close() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Asks again and again, for at most `seconds`. @throws {Error} with `what` when it never becomes so. */
export async function waitUntil(what: string, seconds: number, ask: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await ask())) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((wait) => setTimeout(wait, 50));
  }
}
