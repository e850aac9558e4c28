import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestLab, TestPod } from './lab.ts';

/** How a stream of each kind is doing. */
export interface TrafficReport {
  /** In pieces of 8 KiB; `failure` is empty while all is well. */
  readonly tcp: { readonly sent: number; readonly echoed: number; readonly failure: string };
  /** In datagrams; `missing` are the numbers of those that have not come back (yet). */
  readonly udp: {
    readonly sent: number;
    readonly echoed: number;
    readonly missing: readonly number[];
    readonly errors: readonly string[];
  };
}

const program = join(import.meta.dirname, 'traffic-program.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', program];

/** Echoes over TCP and UDP at a port of a pod, until the pod ends or the lab goes down. @returns When it listens. */
export async function echo(lab: TestLab, pod: TestPod, port: number): Promise<ChildProcess> {
  const child = await begin(lab, pod, ['serve', String(port)]);
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve());
    child.once('exit', () => reject(new Error(`nobody echoes in ${pod.namespace}/${pod.name}`)));
  });
  return child;
}

/** A TCP connection and 100 UDP datagrams a second from one pod to another that echoes them. */
export class Traffic {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #answers: { resolve(line: string): void; reject(error: Error): void }[] = [];

  private constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.#name = name;
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => this.#answers.shift()?.resolve(line));
    child.once('exit', () => this.#ended());
  }

  /**
   * @param mark Stands in every packet: what a capture is searched for.
   * @returns When both have an echo.
   */
  static async start(
    lab: TestLab,
    from: TestPod,
    to: { readonly host: string; readonly port: number },
    mark: string,
  ): Promise<Traffic> {
    const child = await begin(lab, from, ['send', to.host, String(to.port), mark]);
    const traffic = new Traffic(child, `${from.name} → ${to.host}`);
    await lab.eventually(async () => {
      const { tcp, udp } = await traffic.report();
      assert.ok(
        tcp.echoed > 0 && udp.echoed > 0,
        `no traffic from ${traffic.#name}: ${tcp.failure}${udp.errors.join()}`,
      );
    });
    return traffic;
  }

  /** From where to where. */
  get name(): string {
    return this.#name;
  }

  report(): Promise<TrafficReport> {
    return this.#ask('report');
  }

  /** Sends no more, waits for what is on its way, and ends. */
  stop(): Promise<TrafficReport> {
    return this.#ask('stop');
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #ended(): void {
    for (const { reject } of this.#answers.splice(0))
      reject(new Error(`the traffic ${this.#name} has ended by itself`));
  }

  async #ask(question: string): Promise<TrafficReport> {
    const line = await new Promise<string>((resolve, reject) => {
      this.#answers.push({ resolve, reject });
      if (this.#child.exitCode !== null) this.#ended();
      this.#child.stdin?.write(`${question}\n`);
    });
    const report: TrafficReport = JSON.parse(line);
    return report;
  }
}

async function begin(lab: TestLab, pod: TestPod, args: readonly string[]): Promise<ChildProcess> {
  const [file = '', ...rest] = await lab.command(pod, [...node, ...args]);
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => {});
  return child;
}
