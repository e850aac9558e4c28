import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import { resolveFlow } from '../../src/policy/decide.ts';
import { lookup } from '../../src/policy/lookup.ts';
import { couldTalk } from '../../src/policy/reachable.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../support/arbitraries.ts';
import { clusterWith, policy } from '../support/cluster.ts';

test('two pods between which anything is allowed could always talk', () => {
  let allowed = 0;
  let never = 0;
  fc.assert(
    fc.property(viewArbitrary({ tiered: true }), flowsArbitrary(), (view, flows) => {
      for (const node of nodeNames) {
        const image = compile(view, node);
        for (const flow of flowsIn(view, flows)) {
          const { source, destination, protocol, port } = resolveFlow(view, flow);
          for (const [direction, subject, peer] of [
            ['egress', source, destination],
            ['ingress', destination, source],
          ] as const) {
            if (subject.kind !== 'pod' || subject.pod.node !== node || peer.address === undefined) continue;
            const could = couldTalk(image, subject.pod.uid, [peer.address]);
            if (!could) never++;
            if (lookup(image, subject.pod.uid, direction, peer.address, protocol, port).verdict === 'deny') continue;
            allowed++;
            assert.ok(could, `${direction} of ${subject.pod.uid} with ${peer.address}`);
          }
        }
      }
    }),
    { numRuns: 500 },
  );
  // The answer is worth asking for.
  assert.ok(allowed > 500 && never > 50, `${allowed} allowed, ${never} that never could`);
});

test('what is closed in both directions is known to be; one open port, or a doubt, is enough', () => {
  const scan = parseIp('10.244.2.2');
  const could = (...specs: object[]) =>
    couldTalk(compile(clusterWith(specs.map((spec, i) => policy(`p${i}`, spec))), 'node-1'), 'shop/cart', [scan]);
  const cart = { podSelector: { matchLabels: { app: 'cart' } } };
  const both = { ...cart, policyTypes: ['Ingress', 'Egress'] };
  const peer = { namespaceSelector: {}, podSelector: { matchLabels: { app: 'scan' } } };
  assert.equal(could(), true);
  assert.equal(could({ ...cart, policyTypes: ['Ingress'] }), true);
  assert.equal(could(both), false);
  assert.equal(could(both, { ...both, ingress: [{ from: [peer], ports: [{ port: 80 }] }] }), true);
  assert.equal(could(both, { ...both, egress: [{ to: [peer], ports: [{ port: 80 }] }] }), true);
  assert.equal(could(both, { ...both, ingress: [{ from: [{ podSelector: {} }] }] }), false);
  const closed = compile(clusterWith([policy('p', both)]), 'node-1');
  assert.equal(couldTalk(closed, 'shop/nobody', [scan]), true);
  assert.equal(couldTalk(closed, 'shop/cart', [parseIp('10.244.9.9')]), true);
  assert.equal(couldTalk(closed, 'shop/cart', []), true);
});
