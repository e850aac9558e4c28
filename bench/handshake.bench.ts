import { once } from 'node:events';
import { connect, createServer } from 'node:tls';
import { toPem } from '../src/identity/certificate.ts';
import type { BreachRadius } from '../src/tunnel/handshake/exchange.ts';
import { applicationProtocol, defaultGroups, tlsParameters } from '../src/tunnel/handshake/tls-parameters.ts';
import type { RemotePod } from '../src/tunnel/peers.ts';
import { addressesOf, between, TestCluster, until } from '../test/tunnel/fixtures.ts';
import { absoluteBar, type BenchResult, ratioBar } from './result.ts';
import { storm } from './support/storm.ts';

const bare = 150;
/** The code of both is compiled as well as it gets after a few. */
const rounds = 7;
/** Fewer than a storm, which is measured for itself. */
const atOnce = 240;
const stormPairs = 5000;

const cpuMs = (since?: NodeJS.CpuUsage) => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
};

/**
 * What a tunnel costs to open: processor time of both ends, which run in this process, for certificates checked against
 * belief and bundle, keys derived, SAs installed (in a driver in memory) and acknowledged. With a handshake of the pair's own
 * it is held against the same mutual TLS 1.3 handshake with nothing around it; within a handshake of the nodes, against
 * that. Then five thousand pairs at once between two processes, as a node sees them that comes back to a busy cluster.
 */
export async function run(): Promise<BenchResult[]> {
  const [pod, node] = await sideBySide();
  const baseline = await withCluster(bareTls);
  const each = (what: string, { ms, perSecond }: PerPair) =>
    console.log(`# ${what}: ${ms.toFixed(3)} ms of processor time a pair, ${perSecond.toFixed(0)} pairs a second`);
  each('breach radius pod', pod);
  each('breach radius node', node);
  return [
    ratioBar('handshake, processor time of both ends, against bare TLS', 'ms', pod.ms, baseline, { atMost: 3 }),
    ratioBar('another pair: radius pod against radius node', 'ms', pod.ms, node.ms, { atLeast: 20 }),
    ...(await storms()),
  ];
}

async function withCluster<T>(use: (cluster: TestCluster) => Promise<T>): Promise<T> {
  const closers: (() => Promise<void>)[] = [];
  const cluster = await TestCluster.make({ after: (close: () => Promise<void>) => void closers.push(close) });
  try {
    return await use(cluster);
  } finally {
    for (const close of closers) await close();
  }
}

/**
 * Both in turn, several times: the first time of each an agent that runs has long behind it, and of the others the least
 * counts, for whatever else the machine does only adds.
 */
async function sideBySide(): Promise<[pod: PerPair, node: PerPair]> {
  const least = (all: readonly PerPair[]) => all.reduce((best, next) => (next.ms < best.ms ? next : best));
  const [pod, node]: [PerPair[], PerPair[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    pod.push(await withCluster((cluster) => perPair(cluster, 'pod', 16)));
    node.push(await withCluster((cluster) => perPair(cluster, 'node', 70)));
  }
  return [least(pod.slice(1)), least(node.slice(1))];
}

interface PerPair {
  readonly ms: number;
  readonly perSecond: number;
}

/**
 * Every pod of one node with every pod of another, after each has met one: what another pair costs between pods whose
 * certificates have been seen.
 */
async function perPair(cluster: TestCluster, radius: BreachRadius, pods: number): Promise<PerPair> {
  const hooks = { onProof: () => {}, onForget: () => {} };
  const over = { radius: () => radius, hooks, threads: { mostHere: Number.POSITIVE_INFINITY } };
  const [a, b] = [await cluster.node({ ...over, mostDials: 4 }), await cluster.node(over)];
  for (const { driver } of [a, b]) driver.keepsLog = false;
  const [left, right]: [RemotePod[], RemotePod[]] = [[], []];
  for (let i = 0; i < pods; i++) {
    left.push(await cluster.pod(a, `${radius}-l${i}`, { addresses: addressesOf(1000 + i) }));
    right.push(await cluster.pod(b, `${radius}-r${i}`, { addresses: addressesOf(2000 + i) }));
  }
  const answered = async (count: number) =>
    await until(
      'all',
      () => a.manager.statistics().opened >= count && b.manager.statistics().answered >= count,
      60_000,
    );
  const pairs = left.flatMap((one, i) => right.map((other, j) => ({ pair: between(one, other), first: i === j })));
  const met = pairs.filter(({ first }) => first);
  for (const { pair } of met) a.driver.send(pair);
  await answered(met.length);
  const others = pairs.filter(({ first }) => !first);
  const before = process.cpuUsage();
  const began = performance.now();
  for (let sent = 0; sent < others.length; sent += atOnce) {
    for (const { pair } of others.slice(sent, sent + atOnce)) a.driver.send(pair);
    await answered(Math.min(pairs.length, met.length + sent + atOnce));
  }
  const seconds = (performance.now() - began) / 1000;
  const ms = cpuMs(before) / others.length;
  if (a.driver.fates.get('delivered') !== pairs.length) throw new Error('a packet that waited did not arrive');
  return { ms, perSecond: others.length / seconds };
}

async function storms(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const costs: number[] = [];
  for (const radius of ['pod', 'node'] as const) {
    const { seconds, calm, begins, answers } = await storm({ pairs: stormPairs, radius });
    const cpu = (begins.cpuMs + answers.cpuMs) / stormPairs;
    costs.push(cpu);
    const memory = Math.max(begins.rssMiB, answers.rssMiB);
    const delay = ({ p99, max }: typeof calm.delay) => `p99 ${p99.toFixed(1)} ms, longest ${max.toFixed(0)} ms`;
    console.log(
      `# storm, radius ${radius}: ${stormPairs} pairs in ${seconds.toFixed(1)} s, ${cpu.toFixed(2)} ms of processor time a pair, ` +
        `at most ${memory.toFixed(0)} MiB (${calm.rssMiB.toFixed(0)} before); main thread late: ` +
        `calm ${delay(calm.delay)}; storm ${delay(begins.delay)} (begins), ${delay(answers.delay)} (answers), ` +
        `${begins.late} of ${begins.ticks} and ${answers.late} of ${answers.ticks} turns by over 50 ms; ` +
        `${begins.threadsBegun} and ${answers.threadsBegun} threads`,
    );
    results.push(
      absoluteBar(
        `storm of ${stormPairs} pairs, radius ${radius}, most memory of a node above calm`,
        'MiB',
        memory - calm.rssMiB,
        {
          atMost: 150,
        },
      ),
    );
  }
  const [pod = 0, node = 1] = costs;
  console.log(`# storm: a pair of radius node is ${(pod / node).toFixed(1)} times cheaper than one of radius pod`);
  return results;
}

/** @returns Milliseconds of processor time for one mutual TLS handshake and one byte each way. */
async function bareTls(cluster: TestCluster): Promise<number> {
  const node = await cluster.node();
  const { pod } = await cluster.pod(node, 'bare', { addresses: addressesOf(1) });
  const svid = node.svids.get(pod.uid);
  if (svid === undefined) throw new RangeError('the pod has a certificate');
  const identity = {
    ...tlsParameters(defaultGroups),
    cert: toPem(svid.chain),
    key: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ca: toPem(cluster.ca.bundle.roots),
    ALPNProtocols: [applicationProtocol],
  };
  const server = createServer({ ...identity, requestCert: true, rejectUnauthorized: true }, (socket) => {
    socket.on('data', (chunk) => socket.end(chunk));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new TypeError('a TCP server has a port');
  const handshake = async () => {
    const socket = connect({
      ...identity,
      host: '127.0.0.1',
      port: address.port,
      checkServerIdentity: () => undefined,
    });
    socket.write('x');
    socket.resume();
    await once(socket, 'close');
  };
  await handshake();
  const before = process.cpuUsage();
  for (let i = 0; i < bare; i++) await handshake();
  const each = cpuMs(before) / bare;
  server.close();
  return each;
}
