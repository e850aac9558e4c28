import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { kinds } from '../../src/api/kinds.ts';
import { summarizeCapture } from '../../src/cli/demo/wire.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import { type Agents, agentsOf } from '../support/agents.ts';
import { TestLab, type TestPod } from '../support/lab.ts';
import { frame, rawIp } from '../support/packet.ts';
import { echo, Traffic, type TrafficReport } from '../support/traffic.ts';

/*
 * The promises that a person would try to break, with real traffic: processes are killed, nodes lose power, the API is out of
 * reach, while pods talk. Two nodes; on each a client that a policy admits, a stranger that it does not, and a server.
 */

const port = 9000;
const deniedMs = 1000;
const nodes = ['node-1', 'node-2'] as const;
type NodeName = (typeof nodes)[number];
const mark = `canary-${randomBytes(8).toString('hex')}`;

describe('what must hold, whatever happens', () => {
  let lab: TestLab;
  let agents: Agents;
  const pods = new Map<string, TestPod>();
  const pod = (role: 'client' | 'stranger' | 'server', node: NodeName): TestPod => {
    const found = pods.get(`${role}-${node}`);
    assert.ok(found !== undefined);
    return found;
  };

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    await Promise.all(
      nodes.flatMap((node) =>
        (['client', 'stranger', 'server'] as const).map(async (role) => {
          const name = `${role}-${node}`;
          const made = lab.pod(name).on(node).labelled({ role });
          // Whatever serves for a moment only is on another port.
          pods.set(name, await (role === 'server' ? made.serving(80, { port: 80, protocol: 'UDP' }) : made).create());
        }),
      ),
    );
    await Promise.all(nodes.map((node) => echo(lab, pod('server', node), port)));
    await lab.policy('servers', serversPolicy);
    for (const source of nodes)
      for (const destination of nodes) await settled(pod('stranger', source), pod('server', destination), 'deny');
  });
  after(() => lab?.down());

  const serversPolicy = {
    podSelector: { matchLabels: { role: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { role: 'client' } } }] }],
  };

  async function settled(from: TestPod, to: TestPod, verdict: 'allow' | 'deny'): Promise<void> {
    const [source, destination] = [from, to].map(({ namespace, name }) => `${namespace}/${name}`);
    assert.ok(source !== undefined && destination !== undefined);
    assert.equal(await agents.settled({ source, destination, protocol: 'TCP', port }, verdict), undefined);
  }

  /** From the client of node-1: to the server beside it, and to the one across. */
  async function traffic(): Promise<{ same: Traffic; across: Traffic; across6: Traffic }> {
    const client = pod('client', 'node-1');
    const to = (node: NodeName, family: 4 | 6 = 4) => ({
      host: pod('server', node).addresses[family === 4 ? 0 : 1],
      port,
    });
    const [same, across, across6] = await Promise.all([
      Traffic.start(lab, client, to('node-1'), mark),
      Traffic.start(lab, client, to('node-2'), mark),
      Traffic.start(lab, client, to('node-2', 6), mark),
    ]);
    return { same, across, across6 };
  }

  /** Waits until everything has come on by at least so many round trips. */
  async function progress(all: readonly Traffic[], steps: number): Promise<void> {
    const from = await Promise.all(all.map((each) => each.report()));
    await lab.eventually(
      async () => {
        const now = await Promise.all(all.map((each) => each.report()));
        for (const [i, { tcp, udp }] of now.entries()) {
          const before = from[i];
          assert.ok(before !== undefined);
          assert.equal(tcp.failure, '', all[i]?.name);
          assert.ok(tcp.echoed >= before.tcp.echoed + steps, `TCP stands still: ${all[i]?.name}`);
          assert.ok(udp.echoed >= before.udp.echoed + steps, `UDP stands still: ${all[i]?.name}`);
        }
      },
      { timeoutMs: 30_000 },
    );
  }

  function assertWhole(name: string, { tcp, udp }: TrafficReport): void {
    assert.deepEqual({ failure: tcp.failure, open: tcp.sent - tcp.echoed }, { failure: '', open: 0 }, name);
    assert.deepEqual({ missing: udp.missing, errors: udp.errors }, { missing: [], errors: [] }, name);
  }

  /** No stranger gets through to any server, over TCP, UDP, IPv4, IPv6; a client opens new connections to each. */
  async function assertEnforced(clients: boolean): Promise<void> {
    const attempts = nodes.flatMap((source) =>
      nodes.flatMap((destination) =>
        ([4, 6] as const).flatMap((family) =>
          (['tcp', 'udp'] as const).map((protocol) => ({ source, destination, family, protocol })),
        ),
      ),
    );
    const wrong = await Promise.all(
      attempts.map(async ({ source, destination, family, protocol }) => {
        const to = pod('server', destination);
        const way = { port: 80, family, protocol };
        const text = `${source} → ${destination} ${protocol}${family}`;
        const leaked = await lab.reaches(pod('stranger', source), to, { ...way, timeoutMs: deniedMs });
        const lost = clients && !(await lab.reaches(pod('client', source), to, { ...way, timeoutMs: 5000 }));
        return [...(leaked ? [`a stranger got in: ${text}`] : []), ...(lost ? [`a client did not: ${text}`] : [])];
      }),
    );
    assert.deepEqual(wrong.flat(), []);
  }

  async function answers(node: NodeName): Promise<void> {
    await lab.eventually(
      async () => {
        await agents.status(node);
      },
      { timeoutMs: 90_000 },
    );
  }

  /** The keys in use between two pods, as the agents know them. */
  async function spis(): Promise<string[]> {
    const lists = await Promise.all(nodes.map((node) => agents.tunnels(node)));
    return lists
      .flat()
      .flatMap(({ node, localPod, remotePod, state, spiIn, spiOut }) =>
        state === 'up' ? [`${node} ${localPod} ${remotePod} ${spiIn} ${spiOut}`] : [],
      );
  }

  /** What a capture saw while something happened: ESP, and nothing of the pods’. */
  async function sealed(during: () => Promise<void>): Promise<void> {
    const capture = await lab.capture();
    await during().catch(async (error: unknown) => {
      await capture.stop();
      throw error;
    });
    const { file, lost } = await capture.stop();
    const ports = { esp: 4500, handshake: 4747, api: 6443, controller: 7443 };
    const summary = summarizeCapture(file, { pods: lab.lab.plan.podCidrs, ports, canary: mark });
    assert.equal(lost, 0);
    assert.ok((summary.kinds.get('ESP in UDP')?.frames ?? 0) > 0, 'the capture saw no tunnel at all');
    assert.equal(summary.kinds.get('plaintext')?.frames ?? 0, 0, summary.oddities.join('; '));
    assert.equal(summary.canarySightings, 0);
  }

  test('the first packet between two pods is never lost, whoever they are and however many begin at once', async () => {
    const names = nodes.flatMap((node) => Array.from({ length: node === 'node-1' ? 5 : 4 }, (_, i) => ({ node, i })));
    const fresh = await Promise.all(names.map(({ node, i }) => lab.pod(`fresh-${node}-${i}`).on(node).create()));
    const [here, there] = nodes.map((node) => fresh.filter((each) => each.node === node));
    assert.ok(here !== undefined && there !== undefined);
    const pairs = here.flatMap((from) => there.map((to) => ({ from, to })));
    assert.equal(pairs.length, 20);
    const lost = await Promise.all(
      pairs.map(async ({ from, to }, i) => {
        const ping = ['ping', '-q', '-c', '20', '-i', '0.1', '-W', '10', to.addresses[i % 2]];
        const { stdout } = await lab.exec(
          from,
          ping.flatMap((word) => word ?? []),
          { privileged: true },
        );
        return /\b20 received/.test(stdout) ? [] : [`${from.name} → ${to.name}: ${stdout}`];
      }),
    );
    assert.deepEqual(lost.flat(), []);
    const made = fresh.map(({ namespace, name }) => lab.api.delete(kinds.Pod, { namespace, name }));
    await Promise.all(made);
  });

  test('all protocols: large datagrams in fragments, ICMP of both families; what is not understood is dropped and counted', async () => {
    const client = pod('client', 'node-1');
    const strangers = nodes.map((node) => pod('stranger', node));
    for (const { addresses } of strangers)
      for (const address of addresses) {
        const ping = ['ping', '-q', '-c', '3', '-i', '0.2', '-W', '5', '-s', '4000', address];
        const { stdout } = await lab.exec(client, ping, { privileged: true });
        assert.match(stdout, /\b3 received/, address);
      }
    const { stdout } = await lab.exec(client, ['sh', '-c', 'ip -o link show eth0; ip neigh show 169.254.1.1']);
    const [own = '', gateway = ''] = [/ether (\S+)/, /lladdr (\S+)/].map((pattern) => pattern.exec(stdout)?.[1] ?? '');
    // RFC 3692 leaves protocol 253 to experiments.
    const unknown = rawIp(
      { source: parseIp(client.addresses[0]), destination: parseIp(strangers[0]?.addresses[0] ?? '') },
      253,
      new Uint8Array(32),
    );
    const frames = [Buffer.from(frame({ source: parseMac(own), destination: parseMac(gateway) }, unknown))];
    const before = await agents.dropped('node-1', 'UNKNOWN_L4');
    await agents.injectFromPod(client.namespace, client.name, frames);
    await lab.eventually(async () => assert.equal(await agents.dropped('node-1', 'UNKNOWN_L4'), before + 1));
  });

  for (const node of nodes)
    test(`the agent of ${node} is killed, is away, and comes back: established traffic does not notice, policy holds`, async () => {
      const { same, across, across6 } = await traffic();
      const all = [same, across, across6];
      const late = `late-${node}`;
      try {
        await assertEnforced(true);
        const keys = await spis();
        await lab.lab.stopAgent(node, 'SIGKILL');
        await progress(all, 50);
        await assertEnforced(true);

        // Whatever is asked of the agent now waits for it: a policy that goes, a pod that comes.
        await lab.api.delete(kinds.NetworkPolicy, { namespace: 'default', name: 'servers' });
        await lab.api.create(kinds.Pod, {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: late, namespace: 'default' },
          spec: {
            nodeName: node,
            terminationGracePeriodSeconds: 0,
            containers: [{ name: 'main', image: 'pause' }],
          },
        });
        await sleep(2000);
        const waiting = await lab.api.get(kinds.Pod, { namespace: 'default', name: late });
        assert.equal(waiting.status?.phase ?? 'Pending', 'Pending');
        assert.deepEqual(waiting.status?.podIPs ?? [], []);
        for (const source of nodes) {
          const stranger = pod('stranger', source);
          const destination = { port: 80, timeoutMs: deniedMs };
          assert.equal(await lab.reaches(stranger, pod('server', node), destination), false, 'the last revision holds');
        }

        lab.lab.startAgent(node);
        await answers(node);
        const { addresses } = await lab.running(late);
        assert.ok(addresses.every((address) => address !== ''));
        await settled(pod('stranger', 'node-1'), pod('server', node), 'allow');
        assert.ok(await lab.reaches(pod('stranger', 'node-1'), pod('server', node), { port: 80, timeoutMs: 5000 }));
        await lab.policy('servers', serversPolicy);
        for (const source of nodes)
          for (const destination of nodes) await settled(pod('stranger', source), pod('server', destination), 'deny');
        await assertEnforced(true);
        await progress(all, 50);
        // The pairs that talked still use the keys that they had.
        const kept = new Set(await spis());
        assert.deepEqual(
          keys.filter((key) => key.includes('client-node-1') && !kept.has(key)),
          [],
        );
        for (const each of all) assertWhole(each.name, await each.stop());
      } finally {
        for (const each of all) each.kill();
        await lab.api.delete(kinds.Pod, { namespace: 'default', name: late }).catch(() => undefined);
      }
    });

  for (const node of nodes)
    test(`the engine of ${node} is killed: traffic goes on under new keys, and nothing is ever in clear`, async () => {
      const { same, across, across6 } = await traffic();
      const all = [same, across, across6];
      try {
        await sealed(async () => {
          const before = await spis();
          process.kill(engineOf(node), 'SIGKILL');
          await progress(all, 50);
          const now = await spis();
          const pair = (key: string) => key.includes('client-node-1') && key.includes('server-node-2');
          assert.ok(before.some(pair) && now.some(pair));
          assert.deepEqual(
            before.filter((key) => pair(key) && now.includes(key)),
            [],
            'a key outlived its engine',
          );
        });
        assertWhole(same.name, await same.stop());
        for (const each of [across, across6]) {
          const { tcp } = await each.stop();
          assert.deepEqual({ failure: tcp.failure, open: tcp.sent - tcp.echoed }, { failure: '', open: 0 }, each.name);
        }
        await assertEnforced(true);
      } finally {
        for (const each of all) each.kill();
      }
    });

  test('engine and agent die together: across nodes all stands still and nothing is in clear, until the agent is back', async () => {
    const { same, across, across6 } = await traffic();
    const all = [same, across, across6];
    try {
      await sealed(async () => {
        const engine = engineOf('node-1');
        await lab.lab.stopAgent('node-1', 'SIGKILL');
        process.kill(engine, 'SIGKILL');
        // What was on its way may still come.
        await sleep(500);
        const before = await Promise.all([across, across6].map((each) => each.report()));
        await progress([same], 100);
        const later = await Promise.all([across, across6].map((each) => each.report()));
        const echoes = (reports: readonly TrafficReport[]) => reports.map(({ tcp, udp }) => [tcp.echoed, udp.echoed]);
        assert.deepEqual(echoes(later), echoes(before), 'something came through without an engine');
        lab.lab.startAgent('node-1');
        await answers('node-1');
        await progress(all, 50);
      });
      assertWhole(same.name, await same.stop());
      await assertEnforced(true);
    } finally {
      for (const each of all) each.kill();
    }
  });

  function engineOf(node: NodeName): number {
    const pids = readFileSync(`${lab.lab.nodeCgroup(node)}/cgroup.procs`, 'utf8')
      .trim()
      .split('\n');
    const engine = pids.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('myelin-engine'));
    assert.ok(engine !== undefined, `no engine runs on ${node}`);
    return Number(engine);
  }

  test('the other node loses power: its pods come back under their addresses, nobody gets in meanwhile, nothing is in clear', async () => {
    const server = pod('server', 'node-2');
    const [client, stranger] = [pod('client', 'node-1'), pod('stranger', 'node-1')];
    assert.ok(await lab.reaches(client, server, { port: 80 }));
    await sealed(async () => {
      await lab.lab.restartNode('node-2');
      const strangers = { attempts: 0, leaks: 0 };
      let back = false;
      const trying = (async () => {
        while (!back) {
          strangers.attempts++;
          if (await lab.reaches(stranger, server, { port: 80, timeoutMs: 300 })) strangers.leaks++;
        }
      })();
      try {
        await answers('node-2');
        await lab.eventually(async () => assert.ok(await lab.reaches(client, server, { port: 80, timeoutMs: 500 })), {
          timeoutMs: 40_000,
        });
      } finally {
        back = true;
        await trying;
      }
      assert.ok(strangers.attempts > 0);
      assert.equal(strangers.leaks, 0);
    });
    for (const role of ['client', 'stranger', 'server'] as const) {
      const now = await lab.running(`${role}-node-2`);
      assert.deepEqual(now.addresses, pod(role, 'node-2').addresses);
    }
    await assertEnforced(true);
  });

  test('a pod that the agent cannot know gets nothing through, in either direction, until it is known', async () => {
    const { control } = lab.lab.plan;
    // Both ways: what the API has to tell would come in all the same, if only the acknowledgements were lost.
    const [api] = control.addresses;
    const cut = `add table inet cut
      add chain inet cut output { type filter hook output priority 0; }
      add rule inet cut output ip daddr ${api} tcp dport 6443 drop
      add chain inet cut input { type filter hook input priority 0; }
      add rule inet cut input ip saddr ${api} tcp sport 6443 drop`;
    const nft = async (script: string) => {
      const { status, stderr } = await agents.run(lab.lab.hostCommand('node-1', ['nft', '-f', '-']), `${script}\n`);
      assert.equal(status, 0, stderr);
    };
    await nft(cut);
    let connected = false;
    try {
      const before = await agents.dropped('node-1', 'ENDPOINT_NOT_READY');
      const unknown = await lab
        .pod('unknown')
        .on('node-1')
        .serving(81)
        .with(({ spec }) => {
          // Its node's probes are let through; here they would only say that the pod is up.
          delete spec.containers[0]?.readinessProbe;
        })
        .create();
      const ways = nodes.flatMap((node) =>
        (['tcp', 'udp'] as const).flatMap((protocol) =>
          ([4, 6] as const).map((family) => ({ other: pod('stranger', node), protocol, family })),
        ),
      );
      const attempt = async (timeoutMs: number) => {
        const out = ways.map(({ other, family }) =>
          lab.exec(unknown, ['ping', '-c', '1', '-W', '1', other.addresses[family === 4 ? 0 : 1]], {
            privileged: true,
          }),
        );
        const into = ways.map(({ other, protocol, family }) =>
          lab.reaches(other, unknown, { port: 81, protocol, family, timeoutMs }),
        );
        return { out: (await Promise.all(out)).map(({ code }) => code === 0), into: await Promise.all(into) };
      };
      const { out, into } = await attempt(deniedMs);
      assert.deepEqual(
        [...out, ...into].filter((came) => came),
        [],
      );
      assert.ok((await agents.dropped('node-1', 'ENDPOINT_NOT_READY')) > before);
      await nft('delete table inet cut');
      connected = true;
      await lab.eventually(
        async () => {
          const known = await attempt(3000);
          // UDP is not served: only that a connection is possible counts.
          assert.ok(known.out.every((came) => came));
          assert.ok(ways.every(({ protocol }, i) => protocol === 'udp' || known.into[i]));
        },
        { timeoutMs: 60_000 },
      );
    } finally {
      if (!connected) await nft('delete table inet cut');
    }
  });
});
