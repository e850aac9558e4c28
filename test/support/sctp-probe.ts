import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type MacAddress, parseIp, parseMac } from '../../src/model/address.ts';
import type { Agents } from './agents.ts';
import type { TestLab, TestPod } from './lab.ts';
import { concat, frame, ip, sctp, u16, u32 } from './packet.ts';

/*
 * SCTP where no kernel speaks it: INIT chunks put onto a pod's device as its own stack would, and seen, or not, at the
 * device of the pod that they are for.
 */

/** One INIT chunk: from where to where. `host` is any address, a Service's too. */
export interface SctpAttempt {
  readonly from: TestPod;
  readonly to: TestPod;
  readonly host: string;
  readonly port: number;
}

/** Who sends and who listens; the ports of the senders tell the attempts apart. */
export class SctpProbes {
  readonly #lab: TestLab;
  readonly #agents: Agents;
  readonly #ears = new Map<string, Ear>();
  readonly #links = new Map<string, { own: MacAddress; gateway: MacAddress }>();
  #nextPort = 20_000;

  constructor(lab: TestLab, agents: Agents) {
    this.#lab = lab;
    this.#agents = agents;
  }

  /**
   * Sends one INIT for each attempt, and looks for `patienceMs` at most whether it comes out at its destination.
   * @param expected How many will: when so many have come, only `settleMs` more is waited, for those that must not.
   * @returns Of each attempt whether it came.
   */
  async arrive(
    attempts: readonly SctpAttempt[],
    { expected, patienceMs, settleMs }: { expected: number; patienceMs: number; settleMs: number },
  ): Promise<boolean[]> {
    await Promise.all(attempts.flatMap(({ from, to }) => [this.#listen(to), this.#link(from)]));
    const numbered = attempts.map((attempt) => ({ attempt, source: this.#nextPort++ }));
    const bySender = Map.groupBy(numbered, ({ attempt }) => attempt.from);
    await Promise.all(
      [...bySender].map(async ([from, own]) => {
        const frames = await Promise.all(own.map(({ attempt, source }) => this.#init(attempt, source)));
        await this.#agents.injectFromPod(from.namespace, from.name, frames);
      }),
    );
    const seen = () => numbered.map(({ attempt, source }) => this.#ears.get(attempt.to.uid)?.heard(source) === true);
    for (const end = Date.now() + patienceMs; Date.now() < end; await sleep(20))
      if (seen().filter((came) => came).length >= expected) break;
    await sleep(settleMs);
    return seen();
  }

  close(): void {
    for (const ear of this.#ears.values()) ear.close();
    this.#ears.clear();
  }

  async #listen(pod: TestPod): Promise<void> {
    let ear = this.#ears.get(pod.uid);
    if (ear === undefined) {
      ear = new Ear(this.#lab, pod);
      this.#ears.set(pod.uid, ear);
    }
    await ear.listening;
  }

  async #link(pod: TestPod): Promise<{ own: MacAddress; gateway: MacAddress }> {
    const known = this.#links.get(pod.uid);
    if (known !== undefined) return known;
    const { stdout } = await this.#lab.exec(pod, ['sh', '-c', 'ip -o link show eth0; ip neigh show 169.254.1.1']);
    const [own, gateway] = [/link\/ether (\S+)/, /lladdr (\S+)/].map((pattern) => pattern.exec(stdout)?.[1] ?? '');
    const link = { own: parseMac(own ?? ''), gateway: parseMac(gateway ?? '') };
    this.#links.set(pod.uid, link);
    return link;
  }

  async #init({ from, host, port }: SctpAttempt, source: number): Promise<Buffer> {
    const { own, gateway } = await this.#link(from);
    const destination = parseIp(host);
    const address = from.addresses[host.includes(':') ? 1 : 0];
    // RFC 9260 section 3.3.2: initiate tag, receiver window, streams out and in, first TSN.
    const payload = concat(u32(source), u32(65_536), u16(4), u16(4), u32(1));
    const packet = ip({ source: parseIp(address), destination }, sctp({ source, destination: port, payload }));
    return Buffer.from(frame({ source: own, destination: gateway }, packet));
  }
}

/** A capture at a pod's own device. */
class Ear {
  readonly #ports = new Set<number>();
  #child: ChildProcess | undefined;
  #closed = false;
  readonly listening: Promise<void>;

  constructor(lab: TestLab, pod: TestPod) {
    this.listening = this.#start(lab, pod);
  }

  heard(port: number): boolean {
    return this.#ports.has(port);
  }

  close(): void {
    this.#closed = true;
    this.#child?.kill('SIGTERM');
  }

  async #start(lab: TestLab, pod: TestPod): Promise<void> {
    const tcpdump = ['tcpdump', '-l', '-n', '-i', 'eth0', '-Q', 'in', '-Z', 'root', 'sctp'];
    const [file = '', ...args] = await lab.command(pod, tcpdump, { privileged: true });
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    if (this.#closed) child.kill('SIGTERM');
    createInterface({ input: child.stdout }).on('line', (line) => {
      const source = /IP6? \S+\.(\d+) > \S+\.\d+: sctp .*\[INIT\]/.exec(line)?.[1];
      if (source !== undefined) this.#ports.add(Number(source));
    });
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        if (line.includes('listening on')) resolve();
      });
      child.once('exit', () => reject(new Error(`tcpdump in ${pod.namespace}/${pod.name} ended`)));
    });
  }
}
