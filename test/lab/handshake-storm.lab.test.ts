import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { agentsOf } from '../support/agents.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/** Pairs are its square: MYELIN_STORM_PODS=71 for five thousand, which takes some minutes. */
const podsEach = Number(process.env.MYELIN_STORM_PODS ?? 10);
const storms = podsEach ** 2 / 100;

describe('all pods of a node want to talk to all of another’s at the same moment', () => {
  let lab: TestLab;
  const pods: TestPod[] = [];
  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    for (let i = 0; i < podsEach; i += 5) {
      const batch = Math.min(5, podsEach - i);
      pods.push(
        ...(await Promise.all(
          Array.from({ length: batch }, (_, n) => [
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
    }
  });
  after(() => lab?.down());

  test('every pair gets its tunnel; meanwhile a pod is added, a policy comes into force, and the agents answer', async () => {
    const agents = agentsOf(lab);
    const of = (node: string) => pods.filter((pod) => pod.node === node);
    const targets = of('node-2').flatMap(({ addresses }) => addresses[0]);
    const knock = `for ip in ${targets.join(' ')}; do echo x > /dev/udp/$ip/9; done`;
    const began = Date.now();
    const storm = Promise.all(of('node-1').map((pod) => lab.exec(pod, ['bash', '-c', knock])));
    let addedAt = began;
    const late = lab
      .pod('late')
      .on('node-1')
      .serving(80)
      .create()
      .finally(() => {
        addedAt = Date.now();
      });
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
      { timeoutMs: Math.max(40_000, 8000 * storms) },
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
    const seconds = (at: number) => `${((at - began) / 1000).toFixed(1)} s`;
    const memory = (await lab.lab.status()).processes
      .filter(({ name }) => name.startsWith('agent/'))
      .map(({ name, pid }) => {
        const [, most] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
        return `${name} at most ${Math.round(Number(most) / 1024)} MiB`;
      });
    console.log(
      `# ${pairs} pairs in ${seconds(done)}, agents asked ${answers} times meanwhile, a pod added in ${seconds(addedAt)}; ${memory.join(', ')}`,
    );
  });
});
