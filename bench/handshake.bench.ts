import { once } from 'node:events';
import { connect, createServer } from 'node:tls';
import { toPem } from '../src/identity/certificate.ts';
import { applicationProtocol, defaultGroups, tlsParameters } from '../src/tunnel/handshake/tls-parameters.ts';
import type { RemotePod } from '../src/tunnel/peers.ts';
import { addressesOf, between, TestCluster, until } from '../test/tunnel/fixtures.ts';
import { type BenchResult, ratioBar } from './result.ts';

const pods = 12;
const bare = 150;

const cpuMs = (since?: NodeJS.CpuUsage) => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
};

/**
 * What a tunnel costs to open: processor time of both ends, which run in this process, for certificates checked against
 * belief and bundle, keys derived, SAs installed (in a driver in memory) and acknowledged; held against the same mutual
 * TLS 1.3 handshake with nothing around it.
 */
export async function run(): Promise<BenchResult[]> {
  const closers: (() => Promise<void> | void)[] = [];
  const cluster = await TestCluster.make({ after: (close: () => Promise<void>) => void closers.push(close) });
  try {
    const [a, b] = [await cluster.node({ mostDials: 1 }), await cluster.node()];
    const [left, right]: [RemotePod[], RemotePod[]] = [[], []];
    for (let i = 0; i <= pods; i++) {
      left.push(await cluster.pod(a, `l${i}`, { addresses: addressesOf(1000 + i) }));
      right.push(await cluster.pod(b, `r${i}`, { addresses: addressesOf(2000 + i) }));
    }
    const pairs = left.slice(1).flatMap((from) => right.slice(1).map((to) => between(from, to)));
    const [first, second] = [left[0], right[0]];
    if (first === undefined || second === undefined) throw new RangeError('there are pods');
    a.driver.send(between(first, second));
    await until('a warm start', () => a.manager.statistics().opened === 1);
    const before = process.cpuUsage();
    for (const [i, pair] of pairs.entries()) {
      const arrived = once(a.manager, 'handshake');
      a.driver.send(pair);
      await arrived;
      if (a.driver.fates.get('delivered') !== i + 2) throw new Error('a handshake failed');
    }
    const each = cpuMs(before) / pairs.length;
    const baseline = await bareTls(cluster);
    return [ratioBar('handshake, processor time of both ends, against bare TLS', 'ms', each, baseline, { atMost: 3 })];
  } finally {
    for (const close of closers) await close();
  }
}

/** @returns Milliseconds of processor time for one mutual TLS handshake and one byte each way. */
async function bareTls(cluster: TestCluster): Promise<number> {
  const [node] = cluster.nodes;
  const svid = node?.svids.values().next().value;
  if (svid === undefined) throw new RangeError('there are pods');
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
