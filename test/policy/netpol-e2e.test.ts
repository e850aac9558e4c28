import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compile } from '../../src/policy/compile.ts';
import { decide } from '../../src/policy/decide.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { e2eNodes, e2eVerdicts, e2eView } from '../support/netpol-e2e.ts';
import { type E2eStep, e2eCases } from '../support/shared.ts';

const cases = e2eCases();

for (const { Suite, Name, Steps } of cases)
  test(`${Suite} ${Name}`, () => {
    // Images follow each other, as they do on a node.
    const images = new Map<string, PolicyImage>();
    for (const [index, step] of Steps.entries()) {
      const view = e2eView(step);
      for (const node of e2eNodes) images.set(node, compile(view, node, images.get(node)));
      for (const { from, to, allowed, flow } of e2eVerdicts(step)) {
        const pair = `step ${index}: ${from} → ${to} ${step.Protocol} ${step.Port}`;
        assert.equal(decide(view, flow).verdict, allowed ? 'allow' : 'deny', `reference, ${pair}`);
        assert.equal(passes(view, images, from, to, step), allowed, `compiled, ${pair}`);
      }
    }
  });

test('the suite is all there', () => {
  const steps = cases.flatMap(({ Steps }) => Steps);
  const all = steps.flatMap(({ Expected }) => Object.values(Expected).flatMap(Object.values)).length;
  assert.deepEqual([cases.length, steps.length, all], [48, 65, 711]);
  // The others are pods and themselves.
  assert.equal(steps.flatMap(e2eVerdicts).length, 506);
});

/** Both ends' images must let the flow pass. */
function passes(
  view: ClusterView,
  images: ReadonlyMap<string, PolicyImage>,
  from: string,
  to: string,
  step: E2eStep,
): boolean {
  const sides = [
    { own: from, other: to, direction: 'egress' },
    { own: to, other: from, direction: 'ingress' },
  ] as const;
  return sides.every(({ own, other, direction }) => {
    const image = images.get(view.pods.get(own)?.node ?? '');
    const [address] = view.pods.get(other)?.addresses ?? [];
    assert.ok(image !== undefined && address !== undefined);
    return lookup(image, own, direction, address, step.Protocol, step.Port).verdict === 'allow';
  });
}
