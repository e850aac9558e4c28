import { readFileSync } from 'node:fs';
import { kinds, type NetworkPolicy } from '../src/api/kinds.ts';
import { percentile } from '../src/cli/percentile.ts';
import { TestLab, type TestPod } from '../test/support/lab.ts';
import { absoluteBar, type BenchResult } from './result.ts';
import { startDaemon } from './support/daemon.ts';
import { podNetns } from './support/lab-pods.ts';

const pods = 100;
const policies = 1000;
/** Each is two samples: of fewer than a hundred the 99th percentile would be the largest. */
const changes = 60;

/** One node with a hundred pods and a thousand policies: what the agent takes, and how soon a change is in force. */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 1, dns: false, readyTimeoutMs: 120_000 });
  try {
    const made: TestPod[] = [];
    // A few at a time: a node starts so many at once and no more.
    for (let i = 0; i < pods; i += 10)
      made.push(
        ...(await Promise.all(
          Array.from({ length: 10 }, (_, n) =>
            lab
              .pod(`pod-${i + n}`)
              .labelled({ app: `app-${(i + n) % 50}`, tier: `tier-${(i + n) % 5}` })
              .create(),
          ),
        )),
      );
    const latencies = await policyLatencies(lab, made);
    for (let i = 0; i < policies; i += 100) await lab.apply(Array.from({ length: 100 }, (_, n) => policy(i + n)));
    await settled(lab);
    const agent = lab.lab.state.processes.find(({ name }) => name.startsWith('agent/'));
    return [
      absoluteBar(`policy applied to verdict changed, ${pods} pods, p99`, 'ms', percentile(latencies, 0.99), {
        atMost: 100,
      }),
      absoluteBar(
        `agent’s resident memory, ${pods} pods and ${policies} policies`,
        'MiB',
        residentMib(agent?.pid ?? 0),
        { atMost: 150 },
      ),
    ];
  } finally {
    await lab.down();
  }
}

function policy(i: number): NetworkPolicy {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: `policy-${i}`, namespace: 'default' },
    spec: {
      podSelector: { matchLabels: { app: `app-${i % 50}` } },
      policyTypes: ['Ingress'],
      ingress: [
        {
          from: [{ podSelector: { matchLabels: { tier: `tier-${i % 5}` } } }],
          ports: [{ protocol: 'TCP', port: 1000 + i }],
        },
      ],
    },
  };
}

/** Memory is what it is once the last of the policies is in force, and the agent has been idle long enough to collect. */
async function settled(lab: TestLab): Promise<void> {
  await lab.eventually(async () => {
    const { size } = { size: (await lab.api.list(kinds.NetworkPolicy)).entries.length };
    if (size < policies) throw new Error(`${size} policies so far`);
  });
  await new Promise((wait) => setTimeout(wait, 10_000));
}

function residentMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/**
 * A sender in one pod writes a datagram every millisecond, a receiver in another writes down when each came. A policy that
 * closes, and its deletion, which opens again, are timed from the API call's beginning to the last datagram before, or
 * the first after, the change.
 */
async function policyLatencies(lab: TestLab, made: readonly TestPod[]): Promise<number[]> {
  const [sender, receiver] = made;
  if (sender === undefined || receiver === undefined) throw new Error('there are pods');
  const received: number[] = [];
  const listen = `const s=require('dgram').createSocket('udp4');s.on('message',()=>console.log(performance.timeOrigin+performance.now()));s.bind(9000,()=>console.log('ready'))`;
  const send = `const s=require('dgram').createSocket('udp4');setInterval(()=>s.send('x',9000,'${receiver.addresses[0]}'),1)`;
  const server = startDaemon(process.execPath, ['-e', listen], { netns: await podNetns(lab.lab, receiver) });
  server.child.stdout?.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString('utf8').split('\n')) if (/^\d/.test(line)) received.push(Number(line));
  });
  const client = startDaemon(process.execPath, ['-e', send], { netns: await podNetns(lab.lab, sender) });
  const now = () => performance.timeOrigin + performance.now();
  const pause = (ms: number) => new Promise((wait) => setTimeout(wait, ms));
  const closing: NetworkPolicy = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'closing', namespace: 'default' },
    spec: { podSelector: { matchLabels: { app: 'app-1' } }, policyTypes: ['Ingress'], ingress: [] },
  };
  const latencies: number[] = [];
  try {
    await pause(1500);
    if (received.length === 0) throw new Error(`no datagram arrives: ${server.output()}`);
    for (let i = 0; i < changes; i++) {
      const closed = now();
      await lab.api.create(kinds.NetworkPolicy, closing);
      await pause(250);
      latencies.push(Math.max(0, (received.findLast((at) => at > closed) ?? closed) - closed));
      const opened = now();
      await lab.api.delete(kinds.NetworkPolicy, { namespace: 'default', name: 'closing' });
      await pause(250);
      const first = received.find((at) => at > opened);
      latencies.push((first ?? Number.POSITIVE_INFINITY) - opened);
    }
    return latencies;
  } finally {
    await client.close();
    await server.close();
  }
}
