import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { assertBounded, LossLab, nodes, say } from '../support/lossless.ts';

/*
 * Engines and nodes end as nobody wanted: what that loses is bounded.
 */

/** Of one direction: a second of traffic. Measured: a sixth of it at most. */
const crashBudget = 1000;

describe('what crashes cost', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up({ extra: ['--threads', '2'] });
  });
  after(() => lab?.down());

  for (const node of nodes)
    test(`a bounded number, when the engine of ${node} is killed`, async () => {
      const pair = await lab.pair();
      const outcome = await lab.during(pair, async (meter) => {
        // The new one has its predecessor's queues of the device: two threads seal, two open, one talks to the agent.
        assert.equal(readdirSync(`/proc/${lab.engineOf(node)}/task`).length, 5);
        process.kill(lab.engineOf(node), 'SIGKILL');
        await meter.progress(1000);
      });
      say(`engine of ${node} killed`, outcome);
      assertBounded(outcome, { there: crashBudget, back: crashBudget });
    });

  test('a bounded number, after the other node lost power: its peer’s keys are for nobody', async () => {
    const pair = await lab.pair();
    await lab.during(pair, async () => {});
    await lab.lab.lab.restartNode('node-2');
    await lab.answers('node-2');
    const { here, there } = pair;
    const again = { here, there: await lab.lab.running(there.name) };
    assert.deepEqual(again.there.addresses, there.addresses);
    const outcome = await lab.during(again, async () => {});
    say('after a reboot', outcome);
    assertBounded(outcome, { there: crashBudget, back: crashBudget });
  });
});
