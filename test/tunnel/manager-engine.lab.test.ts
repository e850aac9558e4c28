import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { toPem } from '../../src/identity/certificate.ts';
import { run } from '../../src/kernel/command.ts';
import type { TunnelStatus } from '../../src/tunnel/status.ts';
import { issueSvid, podIdentity, trustDomain } from '../identity/fixtures.ts';
import { Capture } from '../support/capture.ts';
import { EngineLab, type EngineNode } from '../support/engine-lab.ts';
import type { HostConfig } from './manager-host.ts';

const program = fileURLToPath(new URL('manager-host.ts', import.meta.url));

/** The tunnels of one node, in a process in that node's namespace, as an agent's are. */
class Host {
  readonly #netns: string;
  config: HostConfig;
  #process: ChildProcess | undefined;
  #lines: AsyncIterator<string> | undefined;

  constructor(netns: string, config: HostConfig) {
    this.#netns = netns;
    this.config = config;
  }

  async start(): Promise<void> {
    const child = spawn('nsenter', [`--net=${this.#netns}`, process.execPath, program, JSON.stringify(this.config)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#process = child;
    const lines: Interface = createInterface({ input: child.stdout });
    this.#lines = lines[Symbol.asyncIterator]();
    assert.ok('ready' in (await this.#next<object>()));
  }

  async ask<T>(command: 'list' | 'statistics' | 'driver' | 'proofs' | 'soft' | 'forgetFirst'): Promise<T> {
    this.#process?.stdin?.write(`${command}\n`);
    return await this.#next<T>();
  }

  list(): Promise<TunnelStatus[]> {
    return this.ask('list');
  }

  /** As an agent is ended: what is installed stays. */
  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null) return;
    const exited = once(child, 'exit');
    child.stdin?.end();
    await exited;
  }

  async #next<T>(): Promise<T> {
    const line = await this.#lines?.next();
    assert.ok(line !== undefined && line.done !== true, 'the host has ended');
    return JSON.parse(line.value);
  }
}

describe('tunnels over two engines', () => {
  let lab: EngineLab;
  let hosts: [Host, Host];
  const names = ['web', 'db'] as const;

  before(async () => {
    lab = await EngineLab.open();
    const ca = await CertificateAuthority.open({ trustDomain });
    const nodes = lab.nodes.map(({ underlay }, i) => ({ name: `node-${i + 1}`, address: underlay }));
    const pods = await Promise.all(
      lab.nodes.map(async ({ addresses }, i) => {
        const svid = await issueSvid(ca, podIdentity(names[i] ?? '', { addresses }));
        const privateKey = svid.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
        const { pod } = podIdentity(names[i] ?? '');
        return { pod, spiffeId: svid.spiffeId, addresses, pem: { chain: toPem(svid.chain), privateKey } };
      }),
    );
    const host = async (me: EngineNode, i: 0 | 1): Promise<Host> => {
      // One driver an engine: the lab's own lets go.
      await me.driver.close();
      const [mine, other, node, otherNode] = [pods[i], pods[1 - i], nodes[i], nodes[1 - i]];
      assert.ok(mine && other && node && otherNode);
      const { chain, privateKey } = await ca.issueNode(node.name);
      const { pem: _, ...peer } = other;
      return new Host(me.netns, {
        trustDomain,
        roots: toPem(ca.bundle.roots),
        socket: me.socket,
        node: { chain, privateKey },
        nodes,
        pods: [mine],
        peers: [{ ...peer, node: otherNode }],
        lifetimeSeconds: 4,
        graceMs: 1000,
      });
    };
    hosts = [await host(lab.nodes[0], 0), await host(lab.nodes[1], 1)];
    await Promise.all(hosts.map((each) => each.start()));
  });
  after(async () => {
    for (const host of hosts ?? []) await host.stop();
    await lab.close();
  });

  const ping = async (family: 0 | 1, ...args: string[]) => {
    const [a, b] = lab.nodes;
    const { stdout } = await run('ping', [...args, b.addresses[family]], { netns: a.pod, timeout: 40_000 });
    return stdout;
  };

  test('the first packet of a pair is held, and arrives; on the wire there is the handshake and ESP only', async () => {
    const [a] = lab.nodes;
    const capture = await Capture.start(a.netns, 'eth0', `${lab.directory}/first.pcap`);
    const pattern = 'c0ffee5ec4e7c0ffee5ec4e7c0ffee5e';
    const out = await ping(0, '-c', '1', '-W', '3', '-s', '400', '-p', pattern);
    assert.match(out, /1 received, 0% packet loss/);
    await ping(1, '-c', '2', '-i', '0.05', '-W', '3', '-s', '400', '-p', pattern);
    const frames = await capture.stop();
    const kinds = new Map<string, number>();
    for (const frame of frames) {
      assert.ok(!frame.includes(Buffer.from(pattern, 'hex')), 'plaintext on the underlay');
      const ports = frame.readUInt16BE(12) === 0x0800 ? [frame.readUInt16BE(34), frame.readUInt16BE(36)] : [];
      const kind = ports.includes(4747)
        ? 'handshake'
        : ports.includes(4500)
          ? 'esp'
          : ports.length > 0
            ? 'other'
            : 'link';
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
    assert.equal(kinds.get('other'), undefined);
    assert.equal(kinds.get('esp'), 6);
    const [here, there] = [await hosts[0].list(), await hosts[1].list()];
    assert.equal(here.length, 1);
    assert.equal(here[0]?.state, 'up');
    assert.equal(here[0]?.group, 'X25519MLKEM768');
    assert.equal(here[0]?.spiIn, there[0]?.spiOut);
    assert.equal(here[0]?.packetsOut, 3);
    assert.deepEqual(Object.values(await hosts[1].ask<Record<string, string>>('proofs')), [
      podIdentity('web').pod.uid,
      podIdentity('web').pod.uid,
    ]);
  });

  test('keys are replaced again and again under traffic, and nothing is lost', async () => {
    const before = await hosts[0].list();
    const out = await ping(0, '-c', '1000', '-i', '0.01', '-q');
    assert.match(out, /1000 packets transmitted, 1000 received, 0% packet loss/);
    const [after_] = await hosts[0].list();
    assert.ok((after_?.rekeys ?? 0) - (before[0]?.rekeys ?? 0) >= 2, `${after_?.rekeys} rekeys`);
    assert.equal(after_?.state, 'up');
  });

  const isUp = async (host: Host) => (await host.list())[0]?.state === 'up';
  const until = async (what: string, condition: () => Promise<boolean>) => {
    for (let i = 0; !(await condition()); i++) {
      assert.ok(i < 400, `never came: ${what}`);
      await wait(25);
    }
  };

  test('the tunnels’ process ends and comes back: traffic never notices, and renewal goes on', async () => {
    // Keys that outlive the time in which nobody could renew them, as real ones do.
    for (const host of hosts) {
      await host.stop();
      host.config = { ...host.config, lifetimeSeconds: 600 };
      await host.start();
    }
    // On a slow machine the short key has ended meanwhile, and only packets bring up the next one.
    await ping(0, '-c', '10', '-i', '0.1', '-W', '5', '-q').catch(() => '');
    await hosts[0].ask('soft');
    await until('a long key', async () => ((await hosts[0].list())[0]?.expiresAt ?? 0) > Date.now() + 60_000);
    await until('both up', async () => (await isUp(hosts[0])) && (await isUp(hosts[1])));
    const pinging = ping(1, '-c', '300', '-i', '0.01', '-q');
    await wait(500);
    await hosts[0].stop();
    await wait(300);
    await hosts[0].start();
    assert.match(await pinging, /300 packets transmitted, 300 received, 0% packet loss/);
    const [row] = await hosts[0].list();
    assert.equal(row?.remoteSpiffeId, 'spiffe://cluster.local/ns/shop/sa/db');
    assert.equal(row?.group, 'X25519MLKEM768');
    const again = ping(0, '-c', '100', '-i', '0.01', '-q');
    await hosts[0].ask('soft');
    assert.match(await again, / 0% packet loss/);
    await until('a rekey', async () => ((await hosts[0].list())[0]?.rekeys ?? 0) >= 1);
  });

  test('an engine that dies takes its keys with it; both directions are back at once', async () => {
    const [a] = lab.nodes;
    process.kill(a.enginePid, 'SIGKILL');
    // The engine's device is persistent; whoever waits for an answer asks again.
    await wait(100);
    await hosts[0].stop();
    await lab.startEngine(a);
    await a.driver.close();
    await hosts[0].start();
    assert.match(await ping(0, '-c', '20', '-i', '0.05', '-W', '2', '-q'), / (20|19) received/);
  });

  test('a pod that is gone has no key left', async () => {
    await hosts[1].ask('forgetFirst');
    assert.deepEqual(await hosts[1].list(), []);
    assert.deepEqual(await hosts[1].ask('proofs'), {});
    const { sas } = await hosts[1].ask<{ sas: { in: number; out: number } }>('driver');
    assert.deepEqual(sas, { in: 0, out: 0 });
    await assert.rejects(ping(0, '-c', '2', '-i', '0.1', '-W', '1'));
  });
});
