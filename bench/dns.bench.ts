import { join } from 'node:path';
import { z } from 'zod';
import { run as command } from '../src/kernel/command.ts';
import { TestLab, type TestPod } from '../test/support/lab.ts';
import { type BenchResult, median, ratioBar } from './result.ts';
import { startDaemon, waitUntil } from './support/daemon.ts';
import type { DnsLoad } from './support/dns-load.ts';
import { podNetns } from './support/lab-pods.ts';

const rounds = 5;
const seconds = 2;
const outstanding = 32;
const name = 'host.api.example';
const program = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, 'support/dns-load.ts'),
];
const loadShape = z.object({ rate: z.number(), p99: z.number() });

/**
 * Questions to a name server in another pod of the node, from a pod whose policy is about names (each question judged by
 * its name, each answer read and learnt) and from one without policy. In turn, because the machine's speed drifts.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 1, dns: false });
  let close = async () => {};
  try {
    const [server, plain, named] = await Promise.all(['server', 'plain', 'named'].map((pod) => lab.pod(pod).create()));
    if (server === undefined || plain === undefined || named === undefined)
      throw new Error('a lab makes the pods that it is asked for');
    const address = server.addresses[0];
    const [file = '', ...args] = [...program, 'serve', address];
    const daemon = startDaemon(file, args, { netns: await podNetns(lab.lab, server) });
    close = () => daemon.close();
    await waitUntil('the name server listens', 10, async () => daemon.output().includes('ready'));
    await lab.lab.applyObjects([policy]);
    const inPod = async (pod: TestPod, ...words: readonly string[]): Promise<unknown> => {
      const [first = '', ...rest] = [...program, ...words];
      const { stdout } = await command(first, rest, { netns: await podNetns(lab.lab, pod), timeout: 20_000 });
      return JSON.parse(stdout);
    };
    const load = async (pod: TestPod): Promise<DnsLoad> =>
      loadShape.parse(await inPod(pod, 'ask', address, name, String(seconds), String(outstanding)));
    await lab.eventually(
      async () => {
        if ((await inPod(named, 'refused', address, 'x.other.example')) !== true)
          throw new Error('every question is answered yet');
      },
      { timeoutMs: 60_000 },
    );
    const results = { plain: [] as DnsLoad[], named: [] as DnsLoad[] };
    for (let round = 0; round < rounds; round++) {
      results.plain.push(await load(plain));
      results.named.push(await load(named));
    }
    const rate = (whose: keyof typeof results) => median(results[whose].map((result) => result.rate));
    const p99 = (whose: keyof typeof results) => median(results[whose].map((result) => result.p99));
    return [
      ratioBar(
        'questions of DNS judged and answers learnt, against no policy',
        'questions/s',
        rate('named'),
        rate('plain'),
        {
          atLeast: 0.85,
        },
      ),
      ratioBar('the same, 99th percentile', 'ms', p99('named'), p99('plain'), { atMost: 1.3 }),
    ];
  } finally {
    await close();
    await lab.down();
  }
}

const policy = {
  apiVersion: 'cilium.io/v2',
  kind: 'CiliumNetworkPolicy',
  metadata: { name: 'named', namespace: 'default' },
  spec: {
    endpointSelector: { matchLabels: { app: 'named' } },
    egress: [
      {
        toEndpoints: [{ matchLabels: { app: 'server' } }],
        toPorts: [{ ports: [{ port: '53', protocol: 'ANY' }], rules: { dns: [{ matchPattern: '*.api.example' }] } }],
      },
      { toFQDNs: [{ matchPattern: '*.api.example' }], toPorts: [{ ports: [{ port: '443', protocol: 'TCP' }] }] },
    ],
  },
};
