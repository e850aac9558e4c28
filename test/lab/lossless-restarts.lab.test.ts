import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertLossless, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * Agents end and come back under traffic, as an operator has them do: nothing is lost.
 */

describe('what is lost when agents end and come back', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up();
  });
  after(() => lab?.down());

  for (const node of nodes)
    for (const [what, signal] of [
      ['is restarted', 'SIGTERM'],
      ['is killed and another takes its place, as in an upgrade', 'SIGKILL'],
    ] as const)
      test(`nothing, when the agent of ${node} ${what}`, async () => {
        const pair = await lab.pair();
        const outcome = await lab.during(pair, async () => {
          const keys = await lab.tunnel(node, pair);
          await lab.restartAgent(node, {}, signal);
          const now = await lab.tunnel(node, pair);
          assert.deepEqual([now?.spiIn, now?.spiOut], [keys?.spiIn, keys?.spiOut]);
        });
        say(`agent of ${node}, ${signal}`, outcome);
        assertLossless(outcome);
      });
});
