import type { KubeObject } from '../src/api/kinds.ts';
import { TestLab, type TestPod } from '../test/support/lab.ts';
import { absoluteBar, type BenchResult, median, ratioBar } from './result.ts';
import { podNetns } from './support/lab-pods.ts';
import { type Nginx, startNginx, type WrkResult, wrk } from './support/nginx.ts';

const rounds = 3;
const seconds = 4;

/**
 * wrk with fifty connections against nginx, both pods of one node: no rule about requests, ten of them, a thousand, and
 * an nginx between the two that passes requests on. In turn, because the machine's speed drifts.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 1, dns: false });
  const servers: Nginx[] = [];
  try {
    const client = await lab.pod('client').create();
    const [bare, ten, thousand, proxy] = await Promise.all(
      ['bare', 'ten', 'thousand', 'proxy'].map((name) => lab.pod(name).create()),
    );
    if (bare === undefined || ten === undefined || thousand === undefined || proxy === undefined)
      throw new Error('a lab makes the pods that it is asked for');
    for (const pod of [bare, ten, thousand]) servers.push(await startNginx(await podNetns(lab.lab, pod)));
    servers.push(await startNginx(await podNetns(lab.lab, proxy), `${bare.addresses[0]}:80`));
    await lab.lab.applyObjects([policy('ten', 10), policy('thousand', 1000)]);

    const netns = await podNetns(lab.lab, client);
    const load = (pod: TestPod, path: string) => wrk(netns, `http://${pod.addresses[0]}${path}`, seconds);
    for (const pod of [ten, thousand])
      await lab.eventually(
        async () => {
          const denied = await wrk(netns, `http://${pod.addresses[0]}/other`, 1);
          if (denied.refused === 0) throw new Error(`${pod.name} denies nothing yet`);
        },
        { timeoutMs: 60_000 },
      );
    const results: Record<'bare' | 'ten' | 'thousand' | 'proxy' | 'denied', WrkResult[]> = {
      bare: [],
      ten: [],
      thousand: [],
      proxy: [],
      denied: [],
    };
    for (let round = 0; round < rounds; round++) {
      results.bare.push(await load(bare, path(5)));
      results.ten.push(await load(ten, path(5)));
      results.thousand.push(await load(thousand, path(500)));
      results.proxy.push(await load(proxy, path(5)));
      results.denied.push(await load(ten, '/other'));
    }
    const failed = Object.entries(results).flatMap(([name, each]) =>
      each.filter(({ refused, errors }) => errors > 0 || refused > 0 !== (name === 'denied')).map(() => name),
    );
    if (failed.length > 0) throw new Error(`answers were not as expected: ${failed.join(', ')}`);
    const rate = (name: keyof typeof results) => median(results[name].map((result) => result.rate));
    const p99 = (name: keyof typeof results) => median(results[name].map((result) => result.p99));
    return [
      ratioBar('HTTP, ten path rules, against no rules', 'requests/s', rate('ten'), rate('bare'), { atLeast: 0.85 }),
      ratioBar('the same, against nginx as a proxy', 'requests/s', rate('ten'), rate('proxy'), { atLeast: 1.7 }),
      ratioBar('the same, 99th percentile, against no rules', 'ms', p99('ten'), p99('bare'), { atMost: 1.3 }),
      ratioBar('time of a request, 1,000 path rules against 10', 'µs', 1e6 / rate('thousand'), 1e6 / rate('ten'), {
        atMost: 1.15,
      }),
      absoluteBar('denied requests answered by the kernel', 'requests/s', rate('denied'), { atLeast: 20_000 }),
    ];
  } finally {
    for (const server of servers) await server.close();
    await lab.down();
  }
}

function path(number: number): string {
  return `/api/v1/items/${String(number).padStart(4, '0')}`;
}

interface CiliumPolicy extends KubeObject {
  readonly spec: unknown;
}

function policy(app: string, count: number): CiliumPolicy {
  const http = Array.from({ length: count }, (_, number) => ({ method: 'GET', path: path(number) }));
  return {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumNetworkPolicy',
    metadata: { name: app, namespace: 'default' },
    spec: {
      endpointSelector: { matchLabels: { app } },
      ingress: [
        {
          fromEndpoints: [{ matchLabels: { app: 'client' } }],
          toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], rules: { http } }],
        },
      ],
    },
  };
}
