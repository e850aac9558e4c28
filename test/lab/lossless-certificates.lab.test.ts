import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { assertLossless, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * Certificates are renewed, the controller is away when one should be, and the root that signs them is replaced: tunnels that
 * stand on them go on, and not one packet is lost.
 */

const caSchema = z.object({ roots: z.array(z.object({ id: z.string(), status: z.string() })) });

describe('nothing is lost while certificates and roots are replaced', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up({ svidTtlSeconds: 12 });
  });
  after(() => lab?.down());

  test('certificates are renewed, and keys with them', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      const first = (await lab.tunnel('node-1', pair))?.expiresAt ?? 0;
      assert.ok(first > 0 && first <= Date.now() + 12_000, 'a key outlives its certificates');
      await lab.lab.eventually(
        async () => {
          // Further off than the first certificates live: only others can carry it.
          for (const node of nodes) assert.ok(((await lab.tunnel(node, pair))?.expiresAt ?? 0) > first + 3000);
        },
        { timeoutMs: 30_000 },
      );
    });
    say('certificates renewed', outcome);
    assertLossless(outcome);
  });

  test('the controller is away for longer than half of a certificate’s life', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async (meter) => {
      await lab.lab.lab.stopService('controller', 'SIGKILL');
      // Long enough for the half-life of both pods' certificates to pass, and for their keys to be renewed on what they have.
      await meter.progress(6500);
      lab.lab.lab.startService('controller');
      const now = Date.now();
      await lab.lab.eventually(
        async () => {
          for (const node of nodes) assert.ok(((await lab.tunnel(node, pair))?.expiresAt ?? 0) > now + 6000);
        },
        { timeoutMs: 30_000 },
      );
    });
    say('controller away', outcome);
    assertLossless(outcome);
  });

  test('the root is replaced: published, signing, and the old one still believed', async () => {
    await lab.lab.lab.stopService('controller');
    lab.lab.lab.startService('controller', ['--root-overlap-seconds', '1']);
    await lab.lab.eventually(async () => void (await lab.administer('GET', '/v1/ca')));
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      await lab.administer('POST', '/v1/ca/prepare');
      // Refused until the new root has been published for a second.
      await lab.lab.eventually(async () => void (await lab.administer('POST', '/v1/ca/activate')));
      const { roots } = caSchema.parse(await lab.administer('GET', '/v1/ca'));
      assert.deepEqual(roots.map(({ status }) => status).sort(), ['previous', 'signing']);
      const now = Date.now();
      // Keys that stand on certificates that were issued after that.
      await lab.lab.eventually(
        async () => {
          for (const node of nodes) assert.ok(((await lab.tunnel(node, pair))?.expiresAt ?? 0) > now + 8000);
        },
        { timeoutMs: 30_000 },
      );
    });
    say('root replaced', outcome);
    assertLossless(outcome);
  });
});
