import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compile } from '../../../src/policy/compile.ts';
import { assertAgreement } from '../../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../../support/arbitraries.ts';
import { ciliumPolicyArbitrary } from '../../support/cilium-arbitraries.ts';

const runs = Math.ceil(Number(process.env.MYELIN_POLICY_RUNS ?? 1500) / 5);
const added = fc.tuple(...['a', 'b', 'c'].map(ciliumPolicyArbitrary));

test('every construct of Cilium’s policies compiles to what the reference says of it', () => {
  let compared = 0;
  fc.assert(
    fc.property(viewArbitrary({ maxPolicies: 2 }), added, flowsArbitrary(), (others, policies, flows) => {
      const view = { ...others, policies: [...others.policies, ...policies] };
      for (const node of nodeNames) {
        const image = compile(view, node);
        for (const flow of flowsIn(view, flows)) compared += assertAgreement(view, image, flow);
      }
    }),
    { numRuns: runs },
  );
  assert.ok(compared > runs * 10, `only ${compared} sides were compared`);
});
