import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compile } from '../../src/policy/compile.ts';
import { assertAgreement } from '../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../support/arbitraries.ts';

const runs = Number(process.env.MYELIN_POLICY_RUNS ?? 1500);

test('the compiled image says what the reference says, and names the same rule', () => {
  let compared = 0;
  fc.assert(
    fc.property(viewArbitrary(), flowsArbitrary(30, { named: true, requests: true }), (view, flows) => {
      for (const node of nodeNames) {
        const image = compile(view, node);
        for (const flow of flowsIn(view, flows)) compared += assertAgreement(view, image, flow);
      }
    }),
    { numRuns: runs },
  );
  assert.ok(compared > runs * 10, `only ${compared} sides were compared`);
});
