import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Source, TestLab } from './lab.ts';

const program = join(import.meta.dirname, 'talk-program.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', program];

/** The program of talk-program.ts in a pod; ends with the lab's pod, or when it is closed. */
export class Talker {
  readonly #child: ChildProcess;
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #ready: Promise<string>;
  #last: Promise<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => this.#waiting.shift()?.(line));
    child.once('exit', () => {
      for (const resolve of this.#waiting.splice(0)) resolve('gone');
    });
    this.#ready = this.#line();
    this.#last = this.#ready;
  }

  /** @param args `serve PORT`, or nothing. */
  static async start(lab: Pick<TestLab, 'command'>, pod: Source, ...args: readonly string[]): Promise<Talker> {
    const [file = '', ...rest] = await lab.command(pod, [...node, ...args]);
    const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.on('error', () => {});
    const talker = new Talker(child);
    if ((await talker.#ready) !== 'ready')
      throw new Error(`nobody talks in ${typeof pod === 'string' ? pod : `${pod.namespace}/${pod.name}`}`);
    return talker;
  }

  /** One command after the other. @returns What came of it. */
  ask(command: string): Promise<string> {
    const answer = this.#last.then(() => {
      const line = this.#line();
      this.#child.stdin?.write(`${command}\n`);
      return line;
    });
    this.#last = answer;
    return answer;
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }

  #line(): Promise<string> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
