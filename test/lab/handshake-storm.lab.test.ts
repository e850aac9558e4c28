import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { agentsOf } from '../support/agents.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

const podsEach = 10;

describe('all pods of a node want to talk to all of another’s at the same moment', () => {
  let lab: TestLab;
  const pods: TestPod[] = [];
  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    for (let i = 0; i < podsEach; i += 5)
      pods.push(
        ...(await Promise.all(
          Array.from({ length: 5 }, (_, n) => [
            lab
              .pod(`left-${i + n}`)
              .on('node-1')
              .create(),
            lab
              .pod(`right-${i + n}`)
              .on('node-2')
              .create(),
          ]).flat(),
        )),
      );
  });
  after(() => lab?.down());

  test('every pair gets its tunnel; meanwhile a pod is added, a policy comes into force, and the agents answer', async () => {
    const agents = agentsOf(lab);
    const of = (node: string) => pods.filter((pod) => pod.node === node);
    const targets = of('node-2').flatMap(({ addresses }) => addresses[0]);
    const knock = `for ip in ${targets.join(' ')}; do echo x > /dev/udp/$ip/9; done`;
    const began = Date.now();
    const storm = Promise.all(of('node-1').map((pod) => lab.exec(pod, ['bash', '-c', knock])));
    const late = lab.pod('late').on('node-1').serving(80).create();
    await lab.policy('closed', {
      podSelector: { matchLabels: { app: 'late' } },
      policyTypes: ['Ingress'],
      ingress: [],
    });
    let answers = 0;
    const pairs = podsEach * podsEach;
    await lab.eventually(
      async () => {
        for (const node of ['node-1', 'node-2']) {
          const { tunnels } = await agents.status(node);
          answers++;
          assert.ok(tunnels.up >= pairs, `${tunnels.up} of ${pairs} on ${node}, ${JSON.stringify(tunnels)}`);
        }
      },
      { timeoutMs: 40_000 },
    );
    const done = Date.now();
    await storm;
    const added = await late;
    assert.ok(answers >= 2);
    // Each side counts what it refused: nobody was turned away.
    for (const node of ['node-1', 'node-2']) {
      assert.deepEqual((await agents.status(node)).tunnels.refusals, {});
      const rows = await agents.tunnels(node);
      assert.ok(rows.every(({ radius }) => radius === 'pod'));
    }
    // The policy that came in the middle of it holds.
    const [near] = of('node-1');
    assert.ok(near);
    await lab.eventually(async () => assert.equal(await lab.reaches(near, added, { port: 80, timeoutMs: 300 }), false));
    console.log(`# ${pairs} pairs in ${((done - began) / 1000).toFixed(1)} s, agents asked ${answers} times meanwhile`);
  });
});
