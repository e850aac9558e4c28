import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parseIp } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { changed } from '../../src/model/versions.ts';
import { compile } from '../../src/policy/compile.ts';
import { diff } from '../../src/policy/diff.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { clusterWith, pod, policy } from '../support/cluster.ts';

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');

function podAt(i: number, version = 0): PodView {
  return pod(`shop/pod-${i}`, { app: `app-${i % 50}`, version: `${version}` }, `node-${i % 9}`, [
    `10.244.${(i >> 8) & 255}.${i & 255}`,
  ]);
}

test('what an image was made from is not kept alive by it, however long the row of images is', async () => {
  const allow = policy('allow', {
    podSelector: {},
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'app-1' } } }] }],
  });
  const pods = new Map(Array.from({ length: 4000 }, (_, i) => [`shop/pod-${i}`, podAt(i)]));
  let view: ClusterView = clusterWith([allow], { pods: changed(new Map(), pods) });
  let image: PolicyImage = compile(view, 'node-1');
  const olds: WeakRef<object>[] = [];
  for (let i = 1; i <= 40; i++) {
    olds.push(new WeakRef(image.peers), new WeakRef(image.identities), new WeakRef(view.pods));
    const one = podAt(i, i);
    view = { ...view, pods: changed(view.pods, new Map([[one.uid, one]])) };
    const next = compile(view, 'node-1', image);
    assert(diff(image, next).length > 0, 'the pod is another');
    image = next;
    await turn();
  }
  assert.equal(image.peers.get(parseIp('10.244.0.7'))?.owner, 'shop/pod-7');
  collect();
  await turn();
  collect();
  const alive = olds.filter((old) => old.deref() !== undefined).length;
  assert(alive <= 6, `${alive} of ${olds.length} parts of images before are still there`);
});
