import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { toPem } from '../../src/identity/certificate.ts';
import { parseIp } from '../../src/model/address.ts';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import { issueSvid, podIdentity, trustDomain } from '../../test/identity/fixtures.ts';
import { addressesOf } from '../../test/tunnel/fixtures.ts';
import type { StormNodeConfig, StormReport } from './storm-node.ts';

/** Two nodes whose pods all want to talk to one another at the same moment. */
export interface Storm {
  readonly seconds: number;
  /** Before anything was asked of it, and since: of the node that begins, and of the one that answers. */
  readonly calm: StormReport;
  readonly begins: StormReport;
  readonly answers: StormReport;
}

export interface StormOptions {
  readonly pairs: number;
  readonly radius: 'pod' | 'node';
  readonly threads?: StormNodeConfig['threads'];
}

/** Flags of bin/myelin-agent, so that memory is what an agent's would be. */
const flags = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=1',
  '--heap-growing-percent=10',
  '--v8-pool-size=1',
];

class StormNode {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(config: StormNodeConfig) {
    const program = join(import.meta.dirname, 'storm-node.ts');
    this.#child = spawn(process.execPath, [...flags, program], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        ...process.env,
        MALLOC_ARENA_MAX: '1',
        NODE_COMPILE_CACHE: join(import.meta.dirname, '../../build/compile-cache'),
      },
    });
    this.#child.stdin?.write(`${JSON.stringify(config)}\n`);
    if (this.#child.stdout === null) throw new TypeError('there is a pipe');
    this.#reader = createInterface({ input: this.#child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async ask<T>(...words: string[]): Promise<T> {
    if (words.length > 0) this.#child.stdin?.write(`${words.join(' ')}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('a node of the storm has ended');
    return JSON.parse(String(value));
  }

  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
    this.#child.stdin?.end();
    this.#reader.close();
    await ended;
  }
}

/** Lets it happen, on loopback, each node in a process of its own. @throws when it does not end within five minutes */
export async function storm({ pairs, radius, threads = {} }: StormOptions): Promise<Storm> {
  const side = Math.ceil(Math.sqrt(pairs));
  const ca = await CertificateAuthority.open({ trustDomain });
  const config = async (number: 1 | 2): Promise<StormNodeConfig> => {
    const { chain, privateKey } = await ca.issueNode(`storm-${number}`);
    const pods = await Promise.all(
      Array.from({ length: side }, async (_, i) => {
        const addresses = addressesOf(1000 * number + i);
        const { pod } = podIdentity(`pod-${number}-${i}`);
        const svid = await issueSvid(ca, podIdentity(`pod-${number}-${i}`, { addresses }));
        const key = svid.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
        return { pod, spiffeId: svid.spiffeId, addresses, pem: { chain: toPem(svid.chain), privateKey: key } };
      }),
    );
    const address = parseIp(`127.${process.pid % 250}.9.${number}`);
    const node = { chain, privateKey };
    return { trustDomain, roots: toPem(ca.bundle.roots), address, node, pods, radius, threads };
  };
  const configs = [await config(1), await config(2)] as const;
  const nodes = configs.map((each) => new StormNode(each));
  const [first, second] = nodes;
  if (first === undefined || second === undefined) throw new RangeError('there are two nodes');
  try {
    const ports = [(await first.ask<{ port: number }>()).port, (await second.ask<{ port: number }>()).port];
    const asPeers = (i: 0 | 1): RemotePod[] =>
      configs[i].pods.map(({ pem: _, ...pod }) => ({
        ...pod,
        node: { name: `storm-${i + 1}`, address: configs[i].address, handshakePort: ports[i] },
      }));
    await first.ask('meet', JSON.stringify(asPeers(1)));
    await second.ask('meet', JSON.stringify(asPeers(0)));
    await first.ask('reset');
    await sleep(1500);
    const calm = await first.ask<StormReport>('report');
    for (const node of nodes) await node.ask('reset');
    const began = performance.now();
    await first.ask('storm', String(pairs));
    for (;;) {
      const { opened } = await first.ask<{ opened: number }>('progress');
      const { answered } = await second.ask<{ answered: number }>('progress');
      if (opened >= pairs && answered >= pairs) break;
      if (performance.now() - began > 300_000) throw new Error(`${opened} of ${pairs} in five minutes`);
      await sleep(50);
    }
    const seconds = (performance.now() - began) / 1000;
    const [begins, answers] = [await first.ask<StormReport>('report'), await second.ask<StormReport>('report')];
    return { seconds, calm, begins, answers };
  } finally {
    for (const node of nodes) await node.close();
  }
}
