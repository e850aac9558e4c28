import { setTimeout as sleep } from 'node:timers/promises';
import { ownKinds } from '../src/api/kinds.ts';
import { percentile } from '../src/cli/percentile.ts';
import { TestLab } from '../test/support/lab.ts';
import { echo, Traffic } from '../test/support/traffic.ts';
import { absoluteBar, type BenchResult } from './result.ts';

const rounds = 20;
const port = 9000;
/** Datagrams go every 10 ms: no echo for so long is an end. */
const silenceMs = 400;
const pollMs = 5;

/**
 * From the writing of a Revocation to the last packet that still passed, for a pod that talks to one on another node: the
 * API, the controller, the agents' bundles, and the end of the tunnel. Each round has a tunnel of its own.
 */
export async function run(): Promise<BenchResult[]> {
  const lab = await TestLab.up({ nodes: 2, dns: false });
  try {
    const [client, server] = await Promise.all([
      lab.pod('client').on('node-1').create(),
      lab.pod('server').on('node-2').create(),
    ]);
    await echo(lab, server, port);
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const traffic = await Traffic.start(lab, client, { host: server.addresses[0], port }, 'revocation');
      const count = async () => {
        const { tcp, udp } = await traffic.report();
        return tcp.echoed + udp.echoed;
      };
      const name = `round-${round}`;
      const spec = { podUID: client.uid, reason: 'a measurement' };
      const from = Date.now();
      await lab.api.create(ownKinds.Revocation, {
        apiVersion: 'myelin.dev/v1alpha1',
        kind: 'Revocation',
        metadata: { name },
        spec,
      });
      let [echoed, last] = [await count(), Date.now()];
      while (Date.now() - last < silenceMs) {
        await sleep(pollMs);
        const now = await count();
        if (now !== echoed) [echoed, last] = [now, Date.now()];
      }
      times.push(last - from);
      traffic.kill();
      await lab.api.delete(ownKinds.Revocation, { name });
      // Believed again, the pod's next packet opens the next tunnel.
      await lab.eventually(
        async () => {
          const { ok } = await lab.probe(client, server, { port, timeoutMs: 1000 });
          if (!ok) throw new Error('the pod is still cut off');
        },
        { timeoutMs: 10_000 },
      );
    }
    return [
      absoluteBar('revocation written to last packet, p50', 'ms', percentile(times, 0.5), { atMost: 2000 }),
      absoluteBar('revocation written to last packet, slowest', 'ms', Math.max(...times), { atMost: 2000 }),
    ];
  } finally {
    await lab.down();
  }
}
