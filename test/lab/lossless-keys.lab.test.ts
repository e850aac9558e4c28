import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertLossless, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * Keys, certificates and roots are replaced under traffic, and not one packet is lost. Lifetimes are short here so that it
 * happens often.
 */

describe('nothing is lost while keys are replaced', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up({ rekeySeconds: 4, extra: ['--threads', '2'] });
  });
  after(() => lab?.down());

  const restarted = async (extra: string[], settings = {}) => {
    await Promise.all(nodes.map((node) => lab.restartAgent(node, { ...settings, extra })));
  };

  test('by time, and over IPv6', async () => {
    const [four, six] = [await lab.pair(), await lab.pair()];
    const outcomes = await Promise.all([
      lab.during(four, () => lab.rekeyed('node-1', four, 2)),
      lab.during(six, () => lab.rekeyed('node-1', six, 2), { family: 6 }),
    ]);
    for (const outcome of outcomes) {
      say('rekey by time', outcome);
      assertLossless(outcome);
    }
  });

  test('both sides begin at the same moment, and the first packets of both arrive', async () => {
    for (let i = 0; i < 3; i++) {
      const outcome = await lab.during(await lab.pair(), async () => {});
      say('both begin', outcome);
      assertLossless(outcome);
    }
  });

  test('by bytes', async () => {
    await restarted(['--rekey-bytes', '3000000'], { rekeySeconds: 3600 });
    const pair = await lab.pair();
    const outcome = await lab.during(pair, () => lab.rekeyed('node-1', pair, 3));
    say('rekey by bytes', outcome);
    assertLossless(outcome);
  });

  test('by packets, as before a sequence number runs out', async () => {
    await restarted(['--rekey-packets', '3000'], { rekeySeconds: 3600 });
    const pair = await lab.pair();
    const outcome = await lab.during(pair, () => lab.rekeyed('node-1', pair, 3));
    say('rekey by packets', outcome);
    assertLossless(outcome);
    for (const node of nodes) assert.equal((await lab.tunnel(node, pair))?.state, 'up');
  });
});
