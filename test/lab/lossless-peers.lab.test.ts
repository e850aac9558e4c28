import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertLossless, LossLab, type NodeName, nodes, type PodPair, say } from '../support/lossless.ts';

/*
 * The two sides of a tunnel do not agree: on what keys come out of, on being there at all, on the time of day. Not one packet
 * is lost.
 */

describe('nothing is lost while the two sides differ', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up();
  });
  after(() => lab?.down());

  /** Until both sides use other keys than these. */
  async function renewed(pair: PodPair, before: number | undefined): Promise<void> {
    await lab.lab.eventually(
      async () => {
        const [here, there] = await Promise.all(nodes.map((node) => lab.tunnel(node, pair)));
        assert.ok(here?.spiIn !== undefined && here.spiIn !== before, `no new keys: ${here?.lastError ?? ''}`);
        assert.equal(there?.spiOut, here.spiIn);
      },
      { timeoutMs: 30_000 },
    );
  }

  test('the breach radius changes, and changes back', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      for (const radius of ['node', 'pod'] as const) {
        const keys = (await lab.tunnel('node-1', pair))?.spiIn;
        await lab.setRadius(radius);
        await renewed(pair, keys);
      }
    });
    say('breach radius changed twice', outcome);
    assertLossless(outcome);
  });

  test('the peer’s agent is away when new keys are wanted, and comes back', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      const keys = (await lab.tunnel('node-1', pair))?.spiIn;
      await lab.lab.lab.stopAgent('node-2', 'SIGKILL');
      await lab.setRadius('node');
      await lab.lab.eventually(
        async () => assert.notEqual((await lab.tunnel('node-1', pair))?.lastError, undefined, 'nobody wanted new keys'),
        { timeoutMs: 30_000 },
      );
      lab.lab.lab.startAgent('node-2');
      await renewed(pair, keys);
    });
    say('peer agent away', outcome);
    assertLossless(outcome);
    await lab.setRadius('pod');
  });

  for (const minutes of [5, -5])
    test(`one node’s clock is set ${minutes > 0 ? 'five minutes ahead' : 'five minutes back'}`, async () => {
      const node: NodeName = 'node-2';
      const settings = { rekeySeconds: 4 };
      const pair = await lab.pair();
      // An hour’s keys from before, through the restart that changes the clock.
      const changed = await lab.during(pair, () => lab.restartWithClock(node, minutes * 60, settings));
      say(`clock changed by ${minutes} minutes`, changed);
      assertLossless(changed);
      // New pods, new certificates, keys that are renewed all the time.
      const fresh = await lab.pair();
      const outcome = await lab.during(fresh, () => lab.rekeyed('node-1', fresh, 1));
      say(`clocks ${minutes} minutes apart`, outcome);
      assertLossless(outcome);
      await lab.restartAgent(node);
    });
});
