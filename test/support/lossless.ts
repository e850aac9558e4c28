import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TunnelReport } from '../../src/agent/wire.ts';
import { run } from '../../src/kernel/command.ts';
import { pkiPaths } from '../../src/lab/pki.ts';
import type { AgentSettings } from '../../src/lab/services.ts';
import type { UpOptions } from '../../src/lab/up.ts';
import { type Agents, agentsOf } from './agents.ts';
import { TestLab, type TestPod } from './lab.ts';
import { type MeterOptions, type MeterReport, StreamMeter } from './meter.ts';

/*
 * A lab of two nodes, pairs of pods across them, and what became of every packet of theirs while something happened: 1,000
 * datagrams a second in each direction and a TCP transfer.
 */

export const nodes = ['node-1', 'node-2'] as const;
export type NodeName = (typeof nodes)[number];

/** A pod on each node. */
export interface PodPair {
  readonly here: TestPod;
  readonly there: TestPod;
}

export interface Outcome extends MeterReport {
  /** Packets that the nodes dropped meanwhile, by node and reason: datapath and engine. */
  readonly drops: Readonly<Record<string, number>>;
  /** Datagrams to the engines that their sockets had no room for. */
  readonly socketDrops: number;
}

export class LossLab {
  readonly lab: TestLab;
  readonly agents: Agents;
  #pairs = 0;

  private constructor(lab: TestLab) {
    this.lab = lab;
    this.agents = agentsOf(lab);
  }

  static async up(options: UpOptions = {}): Promise<LossLab> {
    return new LossLab(await TestLab.up({ nodes: 2, ...options }));
  }

  down(): Promise<void> {
    return this.lab.down();
  }

  singleFrames(): Promise<void> {
    return this.lab.singleFrames();
  }

  /** Two pods that have not talked yet: `here` on node-1, `there` on node-2. */
  async pair(): Promise<PodPair> {
    const number = ++this.#pairs;
    const [here, there] = await Promise.all([
      this.lab.pod(`here-${number}`).on('node-1').create(),
      this.lab.pod(`there-${number}`).on('node-2').create(),
    ]);
    return { here, there };
  }

  async meter({ here, there }: PodPair, options: MeterOptions & { family?: 4 | 6 } = {}): Promise<StreamMeter> {
    const { family = 4, ...rest } = options;
    const end = (pod: TestPod) => ({
      name: pod.name,
      address: pod.addresses[family === 4 ? 0 : 1],
      command: (program: readonly string[]) => this.lab.command(pod, program, { privileged: true }),
    });
    return await StreamMeter.between(end(here), end(there), rest);
  }

  /**
   * Lets a pair talk while something happens: half a second before, and half a second after.
   * @param happening Told the meter, for what has to wait until so much has come.
   */
  async during(
    pair: PodPair,
    happening: (meter: StreamMeter) => Promise<void>,
    options: MeterOptions & { family?: 4 | 6 } = {},
  ): Promise<Outcome> {
    const meter = await this.meter(pair, options);
    const calm = 500;
    try {
      const before = await this.#losses();
      await meter.go();
      await meter.progress(calm);
      await happening(meter);
      await meter.progress(calm);
      const report = await meter.finish();
      const after = await this.#losses();
      const drops: Record<string, number> = {};
      for (const [reason, count] of Object.entries(after.drops)) {
        const more = count - (before.drops[reason] ?? 0);
        if (more !== 0) drops[reason] = more;
      }
      return { ...report, drops, socketDrops: after.socketDrops - before.socketDrops };
    } finally {
      meter.quit();
    }
  }

  /** The agent's row of a pair's tunnel; undefined while it has none. */
  async tunnel(node: NodeName, { here, there }: PodPair): Promise<TunnelReport | undefined> {
    const own = node === 'node-1' ? here : there;
    const rows = await this.agents.tunnels(node);
    return rows.find(({ localPod }) => localPod === `${own.namespace}/${own.name}`);
  }

  /** Waits until a pair's keys have been replaced so many times more, as `node` counts. */
  async rekeyed(node: NodeName, pair: PodPair, times: number, timeoutMs = 30_000): Promise<void> {
    const before = (await this.tunnel(node, pair))?.rekeys ?? 0;
    await this.lab.eventually(
      async () => {
        const rekeys = (await this.tunnel(node, pair))?.rekeys ?? 0;
        assert.ok(rekeys >= before + times, `${rekeys - before} of ${times} renewals`);
      },
      { timeoutMs },
    );
  }

  /** Until the agent answers. */
  async answers(node: NodeName): Promise<void> {
    await this.lab.eventually(async () => void (await this.agents.status(node)), { timeoutMs: 30_000 });
  }

  /** Ends a node's agent and starts another in its place, with other settings perhaps; resolves when it answers. */
  async restartAgent(node: NodeName, settings: AgentSettings = {}, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM') {
    await this.lab.lab.stopAgent(node, signal);
    this.lab.lab.startAgent(node, settings);
    await this.answers(node);
  }

  /** As {@link restartAgent}, but the new one's wall clock is so many seconds ahead of everybody else's. */
  async restartWithClock(node: NodeName, seconds: number, settings: AgentSettings = {}): Promise<void> {
    await this.lab.lab.stopAgent(node);
    const { LD_PRELOAD: preload, CLOCK_SHIFT: shift } = process.env;
    Object.assign(process.env, { LD_PRELOAD: clockShift(), CLOCK_SHIFT: String(seconds) });
    try {
      this.lab.lab.startAgent(node, settings);
    } finally {
      for (const [name, value] of Object.entries({ LD_PRELOAD: preload, CLOCK_SHIFT: shift }))
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
    }
    await this.answers(node);
  }

  /** What the pods' namespace asks of its tunnels. A change has all that are up renewed. */
  async setRadius(radius: 'pod' | 'node'): Promise<void> {
    const metadata = { name: 'default', annotations: { 'myelin.dev/breach-radius': radius } };
    await this.lab.lab.applyObjects([{ apiVersion: 'v1', kind: 'Namespace', metadata }]);
  }

  /** The node's engine. */
  engineOf(node: NodeName): number {
    const pids = readFileSync(`${this.lab.lab.nodeCgroup(node)}/cgroup.procs`, 'utf8')
      .trim()
      .split('\n');
    const engine = pids.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('myelin-engine'));
    assert.ok(engine !== undefined, `no engine runs on ${node}`);
    return Number(engine);
  }

  /** Asks the controller as an administrator. @returns What it answered. */
  async administer(method: 'GET' | 'POST', path: string, body?: object): Promise<unknown> {
    const { plan } = this.lab.lab;
    const pki = pkiPaths(plan);
    const { stdout } = await run(
      'curl',
      [
        ...['-sS', '--fail-with-body', '-m', '10', '-X', method],
        ...['--cacert', pki.bundle, '--cert', pki.certificate('admin'), '--key', pki.key('admin')],
        ...(body === undefined ? [] : ['-H', 'content-type: application/json', '-d', JSON.stringify(body)]),
        `https://${plan.control.addresses[0]}:7443${path}`,
      ],
      { netns: plan.control.netns },
    );
    const answer: unknown = JSON.parse(stdout);
    return answer;
  }

  async #losses(): Promise<{ drops: Record<string, number>; socketDrops: number }> {
    const drops: Record<string, number> = {};
    let socketDrops = 0;
    for (const node of nodes) {
      const { drops: said } = await this.#status(node);
      for (const [reason, count] of Object.entries({ ...said.datapath, ...said.tunnel }))
        drops[`${node} ${reason}`] = count;
      const { netns } = this.lab.lab.node(node);
      const { stdout } = await run('cat', ['/proc/net/snmp', '/proc/net/snmp6'], { netns });
      socketDrops += receiveBufferErrors(stdout);
    }
    return { drops, socketDrops };
  }

  async #status(node: NodeName) {
    for (let tries = 0; ; tries++)
      try {
        return await this.agents.status(node);
      } catch (error) {
        if (tries >= 100) throw error;
        await sleep(100);
      }
  }
}

/** Compiles what shifts a process's clock. @returns Its path. */
function clockShift(): string {
  const library = resolve(import.meta.dirname, '../../build/test/clock-shift.so');
  mkdirSync(join(library, '..'), { recursive: true });
  const fresh = `${library}.${process.pid}`;
  const source = join(import.meta.dirname, 'clock-shift.c');
  execFileSync('clang-14', ['-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', fresh, source, '-ldl']);
  renameSync(fresh, library);
  return library;
}

/** Of /proc/net/snmp (a line of names, a line of values) and /proc/net/snmp6 (a name and a value each). */
function receiveBufferErrors(text: string): number {
  const lines = text.split('\n');
  const [names = '', values = ''] = lines.filter((line) => line.startsWith('Udp: '));
  const column = names.split(' ').indexOf('RcvbufErrors');
  const v6 = lines
    .find((line) => line.startsWith('Udp6RcvbufErrors'))
    ?.trim()
    .split(/\s+/)[1];
  return Number(values.split(' ')[column] ?? 0) + Number(v6 ?? 0);
}

/** Nothing was lost or doubled, in either direction, and the transfer is whole. */
export function assertLossless(outcome: Outcome): void {
  assertBounded(outcome, { there: 0, back: 0 });
}

/** At most so many were lost; nothing was doubled, and the transfer is whole. What the machine itself lost does not count. */
export function assertBounded(outcome: Outcome, most: { readonly there: number; readonly back: number }): void {
  const text = JSON.stringify(outcome);
  for (const way of ['there', 'back'] as const) {
    const { lost, lostByHost, doubled } = outcome[way];
    assert.ok(lost - lostByHost <= most[way], `${lost} lost ${way}, ${lostByHost} of them by the host: ${text}`);
    assert.equal(doubled, 0, `${way}: ${text}`);
  }
  const { tcp } = outcome;
  assert.deepEqual(
    { state: tcp.state, missing: tcp.sent - tcp.received, failure: tcp.failure },
    { state: 'ended', missing: 0, failure: '' },
    text,
  );
}

/** One line for people: what the numbers in docs/TUNNELS.md are taken from. */
export function say(what: string, { there, back, tcp, drops }: Outcome): void {
  const way = ({ sent, lost, overtaken, gapMs, sendGapMs }: MeterReport['there']) =>
    `${lost}/${sent} lost, ${overtaken} overtaken, gap ${gapMs.toFixed(1)} ms (sender ${sendGapMs.toFixed(1)})`;
  console.log(
    `# ${what}: there ${way(there)}; back ${way(back)}; TCP ${tcp.state} ${tcp.received} bytes, ` +
      `${tcp.retransmits} retransmits, gap ${tcp.gapMs.toFixed(1)} ms; drops ${JSON.stringify(drops)}`,
  );
}
