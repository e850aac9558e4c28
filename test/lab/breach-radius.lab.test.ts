import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { kinds } from '../../src/api/kinds.ts';
import type { TestPod } from '../support/lab.ts';
import { assertLossless, LossLab, say } from '../support/lossless.ts';

const annotation = 'myelin.dev/breach-radius';

describe('breach radius by namespace', () => {
  let loss: LossLab;
  const pods = new Map<string, TestPod>();
  before(async () => {
    loss = await LossLab.up();
    const wanted = { wide: 'node', narrow: undefined, odd: 'nodes' };
    for (const [name, radius] of Object.entries(wanted)) {
      const annotations: Record<string, string> = radius === undefined ? {} : { [annotation]: radius };
      await loss.lab.lab.applyObjects([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, annotations } }]);
    }
    const places = [
      ['a', 'wide', 'node-1'],
      ['b', 'wide', 'node-2'],
      ['c', 'wide', 'node-2'],
      ['d', 'narrow', 'node-2'],
      ['e', 'odd', 'node-2'],
    ] as const;
    await Promise.all(
      places.map(async ([name, namespace, node]) => {
        pods.set(name, await loss.lab.pod(name, namespace).on(node).serving(80).create());
      }),
    );
  });
  after(() => loss?.down());

  const pod = (name: string) => {
    const found = pods.get(name);
    assert.ok(found, name);
    return found;
  };
  /** What both nodes say of the pair's tunnel, while it is up. */
  const radii = async (one: TestPod, other: TestPod) => {
    const names = [one, other].map(({ namespace, name }) => `${namespace}/${name}`);
    const rows = [...(await loss.agents.tunnels('node-1')), ...(await loss.agents.tunnels('node-2'))];
    return rows
      .filter(({ localPod, remotePod }) => names.includes(localPod) && names.includes(remotePod))
      .map(({ radius, state }) => `${state} ${radius}`);
  };

  test('the stricter of the two namespaces holds; what is not understood is the stricter', async () => {
    const expected = { b: 'node', c: 'node', d: 'pod', e: 'pod' };
    for (const [to, radius] of Object.entries(expected)) {
      assert.ok(await loss.lab.reaches(pod('a'), pod(to), { port: 80 }), to);
      await loss.lab.eventually(async () =>
        assert.deepEqual(await radii(pod('a'), pod(to)), [`up ${radius}`, `up ${radius}`], to),
      );
    }
  });

  test('the setting is changed under traffic, back and forth: keys follow, and no packet is lost', async () => {
    const set = async (radius: 'pod' | 'node') =>
      await loss.lab.api.patch(
        kinds.Namespace,
        { name: 'wide' },
        { type: 'merge', patch: { metadata: { annotations: { [annotation]: radius } } } },
      );
    const [here, there] = [pod('a'), pod('b')];
    const outcome = await loss.during({ here, there }, async (meter) => {
      for (const radius of ['pod', 'node', 'pod', 'node'] as const) {
        await set(radius);
        await loss.lab.eventually(async () =>
          assert.deepEqual(await radii(here, there), [`up ${radius}`, `up ${radius}`]),
        );
        await meter.progress(200);
      }
    });
    say('breach radius changed four times', outcome);
    assertLossless(outcome);
    const rekeys = (await loss.tunnel('node-1', { here, there }))?.rekeys ?? 0;
    assert.ok(rekeys >= 4, `${rekeys} renewals`);
  });
});
