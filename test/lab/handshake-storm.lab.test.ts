import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { kinds } from '../../src/api/kinds.ts';
import { agentsOf } from '../support/agents.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/**
 * Pairs are its square: MYELIN_STORM_PODS=71 for five thousand, which takes some minutes. Most of the time goes into making
 * pods, and, where each pair has a handshake of its own, into signatures: of those there are fewer.
 */
const podsEach = Number(process.env.MYELIN_STORM_PODS ?? 20);
const podsByThemselves = Number(process.env.MYELIN_STORM_PODS ?? 10);
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

  const of = (node: string) => pods.filter((pod) => pod.node === node);

  /** The first pods of one node send to the first of the other's, each to each, at once. */
  const knock = async (count: number) => {
    const targets = of('node-2')
      .slice(0, count)
      .flatMap(({ addresses }) => addresses[0]);
    const send = `for ip in ${targets.join(' ')}; do echo x > /dev/udp/$ip/9; done`;
    await Promise.all(
      of('node-1')
        .slice(0, count)
        .map((pod) => lab.exec(pod, ['bash', '-c', send])),
    );
  };

  /** @returns How often the agents answered until both have so many tunnels up. */
  const untilUp = async (pairs: number) => {
    const agents = agentsOf(lab);
    let answers = 0;
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
    return answers;
  };

  /** Each side counts what it refused: nobody was turned away, but to the stricter radius by a node that was not yet told. */
  const assertAll = async (radius: string) => {
    const agents = agentsOf(lab);
    for (const node of ['node-1', 'node-2']) {
      const { refusals } = (await agents.status(node)).tunnels;
      assert.deepEqual(
        Object.keys(refusals).filter((code) => code !== 'radius'),
        [],
      );
      const rows = await agents.tunnels(node);
      assert.ok(rows.every((row) => row.radius === radius));
    }
  };

  const memory = async () =>
    (await lab.lab.status()).processes
      .filter(({ name }) => name.startsWith('agent/'))
      .map(({ name, pid }) => {
        const [, most] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
        return `${name} at most ${Math.round(Number(most) / 1024)} MiB`;
      })
      .join(', ');

  test('every pair gets its tunnel; meanwhile a pod is added, a policy comes into force, and the agents answer', async () => {
    const began = Date.now();
    const storm = knock(podsByThemselves);
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
    const pairs = podsByThemselves ** 2;
    const answers = await untilUp(pairs);
    const done = Date.now();
    await storm;
    const added = await late;
    assert.ok(answers >= 2);
    await assertAll('pod');
    // The policy that came in the middle of it holds.
    const [near] = of('node-1');
    assert.ok(near);
    await lab.eventually(async () => assert.equal(await lab.reaches(near, added, { port: 80, timeoutMs: 300 }), false));
    const seconds = (at: number) => `${((at - began) / 1000).toFixed(1)} s`;
    console.log(
      `# ${pairs} pairs in ${seconds(done)}, agents asked ${answers} times meanwhile, a pod added in ${seconds(addedAt)}; ${await memory()}`,
    );
  });

  test('from one handshake of the nodes: keys in place of those that are there, and of all other pairs', async () => {
    await lab.api.patch(
      kinds.Namespace,
      { name: 'default' },
      { type: 'merge', patch: { metadata: { annotations: { 'myelin.dev/breach-radius': 'node' } } } },
    );
    const agents = agentsOf(lab);
    await lab.eventually(async () => {
      for (const node of ['node-1', 'node-2'])
        assert.ok((await agents.tunnels(node)).every(({ radius }) => radius === 'node'));
    });
    const began = Date.now();
    await knock(podsEach);
    const answers = await untilUp(podsEach ** 2);
    const seconds = ((Date.now() - began) / 1000).toFixed(1);
    await assertAll('node');
    console.log(
      `# ${podsEach ** 2 - podsByThemselves ** 2} pairs more in ${seconds} s, agents asked ${answers} times meanwhile; ${await memory()}`,
    );
  });
});
