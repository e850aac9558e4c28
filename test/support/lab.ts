import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type KubeObject, kinds, type Live, type Pod, type Service } from '../../src/api/kinds.ts';
import { loadManifests } from '../../src/api/manifest.ts';
import { run } from '../../src/kernel/command.ts';
import { Capture, type CaptureOptions } from '../../src/lab/capture.ts';
import { down } from '../../src/lab/down.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { deleteObjects } from '../../src/lab/manifests.ts';
import { type ProbeResult, Prober, type ProbeTarget, proberEnded } from '../../src/lab/runner/prober.ts';
import { listLabs } from '../../src/lab/state.ts';
import { type UpOptions, up } from '../../src/lab/up.ts';
import { PodBuilder } from './pod-builder.ts';

/*
 * A cluster for a test. Bring one up once per file (two nodes without name service take about three seconds), make what the
 * test needs, probe, and take it down in `after`:
 *
 *   const lab = await TestLab.up({ nodes: 2 });
 *   after(() => lab.down());
 *   const web = await lab.pod('web').on('node-1').serving(80).create();
 *   const client = await lab.pod('client').on('node-2').create();
 *   assert.ok(await lab.reaches(client, web, { port: 80 }));
 */

/** A pod that is up. */
export interface TestPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  /** IPv4, then IPv6. */
  readonly addresses: readonly [string, string];
}

/** Where probes come from: a pod, a node's name, or `world`. */
export type Source = TestPod | string;

export interface Destination {
  readonly port: number;
  readonly protocol?: 'tcp' | 'udp' | 'http';
  /** Default 4. */
  readonly family?: 4 | 6;
  /** Default: long enough for a first packet and its handshake, short enough to wait for nothing. */
  readonly timeoutMs?: number;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

const probeTimeoutMs = 1500;

export class TestLab {
  readonly lab: Lab;
  readonly #probers = new Map<string, Promise<Prober>>();
  readonly #captures = new Set<Capture>();

  private constructor(lab: Lab) {
    this.lab = lab;
  }

  /** Brings up a lab of a name of its own; without name service unless asked for. */
  static async up(options: UpOptions = {}): Promise<TestLab> {
    const name = options.name ?? `t${process.pid.toString(36)}-${randomBytes(3).toString('hex')}`;
    const lab = await up({ nodes: 2, dns: false, readyTimeoutMs: 60_000, ...options, name });
    return new TestLab(lab);
  }

  get name(): string {
    return this.lab.name;
  }

  get api() {
    return this.lab.api;
  }

  /** Applies objects, or the manifests of a path, and waits until all pods are ready. */
  async apply(what: string | readonly KubeObject[], namespace = 'default'): Promise<void> {
    if (typeof what === 'string') await this.lab.apply([what], { namespace });
    else await this.lab.applyObjects(what, { namespace });
    await this.lab.waitReady({ timeoutMs: 60_000 });
  }

  /** Deletes objects, or what the manifests of a path name, and waits until they are gone. */
  async remove(what: string | readonly KubeObject[], namespace = 'default'): Promise<void> {
    const objects = typeof what === 'string' ? loadManifests([what], { namespace }).map(({ object }) => object) : what;
    await deleteObjects(this.api, objects, { namespace });
  }

  async namespace(name: string, labels: Record<string, string> = {}): Promise<string> {
    await this.lab.applyObjects([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }]);
    return name;
  }

  /** A pod to be made; see {@link PodBuilder}. */
  pod(name: string, namespace = 'default'): PodBuilder {
    return new PodBuilder(this, name, namespace);
  }

  /** Makes a Service and waits for its endpoints. @returns Its addresses, of all its families. */
  async service(name: string, spec: Service['spec'], namespace = 'default'): Promise<string[]> {
    const families: Service['spec'] = { ipFamilyPolicy: 'PreferDualStack', ...spec };
    const service = await this.api.create(kinds.Service, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace },
      spec: families,
    });
    await this.eventually(async () => {
      const { entries } = await this.api.list(kinds.EndpointSlice, {
        namespace,
        labelSelector: `kubernetes.io/service-name=${name}`,
      });
      const endpoints = entries.flatMap(({ object }) => object?.endpoints ?? []);
      assert.ok(
        endpoints.some(({ conditions }) => conditions?.ready === true),
        `service ${name} has no ready endpoint`,
      );
    });
    return service.spec?.clusterIPs ?? [];
  }

  /** Applies one NetworkPolicy. Policies take effect a moment later: probe with {@link eventually}. */
  async policy(name: string, spec: object, namespace = 'default'): Promise<KubeObject> {
    const object = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace }, spec };
    await this.lab.applyObjects([object]);
    return object;
  }

  /** @returns The pod of that name, when it is ready. */
  async running(name: string, namespace = 'default'): Promise<TestPod> {
    let found: Live<Pod> | undefined;
    await this.eventually(
      async () => {
        found = await this.api.get(kinds.Pod, { namespace, name });
        const ready = found.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
        assert.ok(
          ready,
          `pod ${namespace}/${name} is not ready: ${found.status?.phase} ${found.status?.message ?? ''}`,
        );
      },
      { timeoutMs: 30_000 },
    );
    const [first = '', second = ''] = (found?.status?.podIPs ?? []).map(({ ip = '' }) => ip);
    const { uid = '' } = found?.metadata ?? {};
    return { namespace, name, uid, node: found?.spec.nodeName ?? '', addresses: [first, second] };
  }

  /** Tries one connection. To a pod: to its address of the family asked for; to a text: to that address or name. */
  async probe(from: Source, to: TestPod | string, destination: Destination): Promise<ProbeResult> {
    const { port, protocol = 'tcp', family = 4, timeoutMs = probeTimeoutMs } = destination;
    const host = typeof to === 'string' ? to : to.addresses[family === 4 ? 0 : 1];
    const target: ProbeTarget =
      protocol === 'http'
        ? { kind: 'http', host, port, timeoutMs, path: '/' }
        : { kind: protocol, host, port, timeoutMs };
    const result = await (await this.#prober(from)).probe(target);
    if (result.error !== proberEnded) return result;
    // Its pod has started again since it was last used.
    this.#probers.delete(typeof from === 'string' ? from : from.uid);
    return await (await this.#prober(from)).probe(target);
  }

  async reaches(from: Source, to: TestPod | string, destination: Destination): Promise<boolean> {
    return (await this.probe(from, to, destination)).ok;
  }

  /** Runs a command in a pod (as root with every privilege if asked), or in the namespace of a node or of `world`. */
  async exec(where: Source, command: readonly string[], options: { privileged?: boolean } = {}): Promise<ExecResult> {
    const line = await this.command(where, command, options);
    return await execute(line);
  }

  /** The command line that does what {@link exec} does, for a process that goes on. */
  async command(where: Source, command: readonly string[], options: { privileged?: boolean } = {}): Promise<string[]> {
    if (typeof where === 'string') return this.lab.hostCommand(where, command);
    return await this.lab.podCommand({ namespace: where.namespace, pod: where.name }, command, options);
  }

  /** Makes the world find pods, as the routers of a network do that knows where they are. */
  async routeWorld(): Promise<void> {
    const { world, nodes } = this.lab.plan;
    for (const { name, addresses } of nodes) {
      const { spec } = await this.api.get(kinds.Node, { name });
      for (const [i, prefix] of (spec?.podCIDRs ?? []).entries()) {
        const route = ['ip', 'route', 'add', prefix, 'via', addresses[i] ?? '', 'src', world.outside[i] ?? ''];
        const { code, stderr } = await this.exec('world', route);
        assert.equal(code, 0, stderr);
      }
    }
  }

  /**
   * A server that is not a pod: on a node, or in `world` (at 203.0.113.10 and 2001:db8::10). Answers over TCP (HTTP) and
   * UDP with the machine's name, until the lab goes down.
   * @param ports `80/TCP`, `81/UDP`
   */
  async serve(host: string, ...ports: readonly `${number}/${'TCP' | 'UDP'}`[]): Promise<void> {
    const program = [process.execPath, `${this.lab.plan.directory}/programs/agnhost.mjs`, ...ports];
    const [file = '', ...args] = this.lab.helperCommand(host, program);
    spawn(file, args, { stdio: 'ignore', detached: true }).unref();
    for (const each of ports) {
      const [port, protocol] = each.split('/');
      const target = { port: Number(port), protocol: protocol === 'UDP' ? 'udp' : 'tcp' } as const;
      await this.eventually(async () =>
        assert.ok(await this.reaches(host, '127.0.0.1', target), `${host} serves ${each}`),
      );
    }
  }

  /** From here on a frame of the underlay is one packet: what is dropped or captured can be counted, and has its length. */
  async singleFrames(): Promise<void> {
    for (const { netns } of this.lab.plan.nodes)
      await run('ethtool', ['-K', 'eth0', 'gso', 'off', 'tso', 'off', 'tx-udp-segmentation', 'off'], { netns });
  }

  /** Listens on the underlay from now on. */
  async capture(options: CaptureOptions = {}): Promise<Capture> {
    const capture = await Capture.start(this.lab, options);
    this.#captures.add(capture);
    return capture;
  }

  /** Tries an assertion until it holds. @throws its last failure */
  async eventually(assertion: () => Promise<void>, options: { timeoutMs?: number } = {}): Promise<void> {
    for (const end = Date.now() + (options.timeoutMs ?? 10_000); ; await sleep(50))
      try {
        return await assertion();
      } catch (error) {
        if (Date.now() > end) throw error;
      }
  }

  /** Takes everything down. Safe to call twice, and after a failure. */
  async down(): Promise<void> {
    for (const prober of await Promise.allSettled(this.#probers.values()))
      if (prober.status === 'fulfilled') prober.value.close();
    this.#probers.clear();
    await Promise.all([...this.#captures].map((capture) => capture.stop()));
    this.#captures.clear();
    await down(this.name);
    assert.ok(!listLabs().includes(this.name));
  }

  /** One of each place, also for probes that are asked for at the same time. */
  #prober(from: Source): Promise<Prober> {
    const key = typeof from === 'string' ? from : from.uid;
    const known = this.#probers.get(key);
    if (known !== undefined) return known;
    const started = this.#startProber(from);
    this.#probers.set(key, started);
    started.catch(() => this.#probers.delete(key));
    return started;
  }

  async #startProber(from: Source): Promise<Prober> {
    return new Prober(
      typeof from === 'string'
        ? this.lab.hostCommand(from, [process.execPath, `${this.lab.plan.directory}/programs/prober.mjs`])
        : await this.command(from, [process.execPath, '/.myelin/prober.mjs']),
    );
  }
}

function execute([file = '', ...args]: readonly string[]): Promise<ExecResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text;
      });
    child.once('error', reject);
    child.once('close', (code) => resolve({ ...output, code: code ?? -1 }));
  });
}
