import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Source, TestLab } from './lab.ts';

/** Ends with its input: in a pod's process namespace, a signal to who started it would not reach it. */
const script = 'stdbuf -oL ping -n -O -i 0.2 "$0" & read -r _; kill $!';

/** What became of an echo request. */
export type Echo = 'answer' | 'prohibited' | 'silence';

/** One `ping` that goes on, five times a second with one ICMP identifier: as near to a connection as ICMP has it. */
export class Ping {
  readonly #child: ChildProcess;
  readonly #heard: ((echo: Echo) => void)[] = [];
  /** The last request of which is known what became of it. */
  #last = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', (line) => this.#hear(line));
  }

  static async start(lab: Pick<TestLab, 'command'>, pod: Source, address: string): Promise<Ping> {
    const [file = '', ...args] = await lab.command(pod, ['sh', '-c', script, address]);
    return new Ping(spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /** @returns What becomes of its requests from now on, once the same has become of so many in a row. */
  settled(many: number): Promise<Echo> {
    return new Promise((resolve) => {
      let last: Echo | undefined;
      let same = 0;
      this.#heard.push((echo) => {
        same = echo === last ? same + 1 : 1;
        last = echo;
        if (same === many) resolve(echo);
      });
    });
  }

  close(): void {
    this.#child.stdin?.end();
  }

  #hear(line: string): void {
    const number = Number(/icmp_seq=(\d+)/.exec(line)?.[1] ?? 0);
    // What was prohibited is also said to be without an answer, with the next.
    if (number <= this.#last) return;
    this.#last = number;
    const echo = line.includes('bytes from') ? 'answer' : line.startsWith('From ') ? 'prohibited' : 'silence';
    for (const tell of this.#heard) tell(echo);
  }
}
