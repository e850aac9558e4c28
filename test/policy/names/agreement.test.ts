import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compile } from '../../../src/policy/compile.ts';
import { decideSide, resolveAddress, resolveFlow } from '../../../src/policy/decide.ts';
import { lookup } from '../../../src/policy/lookup.ts';
import { mostPatterns } from '../../../src/policy/names/matcher.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { expectedOutcome } from '../../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../../support/arbitraries.ts';

const runs = Number(process.env.MYELIN_POLICY_RUNS ?? 1500);
const questionArbitrary = fc.constantFrom('db.example.com', 'WWW.Example.com.', 'example.net', 'a.b.c', '.', 'a b.c');

/** A policy about every pod's questions, so that there always are some. */
const questionPolicy: fc.Arbitrary<Policy> = fc
  .record({
    patterns: fc.subarray(['db.example.com', '*.example.com', '**', 'example.net', '**.c'], { minLength: 1 }),
    verdict: fc.constantFrom('allow', 'deny'),
    isolates: fc.constantFrom(['egress'], []),
  })
  .map(({ patterns, verdict, isolates }) => ({
    ...{ kind: 'Form', namespace: '', name: 'questions', gate: 'network', isolates },
    subject: { kind: 'pods', namespaces: { selector: {} }, pods: {} },
    rules: [
      {
        ref: { kind: 'Form', namespace: '', name: 'questions', direction: 'egress', index: 0 },
        ...{ peers: 'any', ports: 'any', verdict, level: verdict, priority: 0 },
        requests: [{ kind: 'dns', names: patterns.map((pattern) => ({ pattern })) }],
      },
    ],
  }));

test('of DNS questions, the compiled image says what the reference says', () => {
  const seen = { allow: 0, deny: 0, proxy: 0 };
  let byRule = 0;
  fc.assert(
    fc.property(
      fc
        .tuple(viewArbitrary(), questionPolicy)
        .map(([view, policy]) => ({ ...view, policies: [...view.policies, policy] })),
      flowsArbitrary(20, { named: true }),
      fc.array(questionArbitrary, { minLength: 20, maxLength: 20 }),
      (view, flows, questions) => {
        for (const node of nodeNames) {
          const image = compile(view, node);
          for (const [i, flow] of flowsIn(view, flows).entries()) {
            const name = questions[i] ?? '.';
            const resolved = resolveFlow(view, { ...flow, request: { kind: 'dns', name } });
            const { source, destination, protocol, port, names = [] } = resolved;
            const { address } = destination;
            if (source.kind !== 'pod' || source.pod.node !== node || address === undefined) continue;
            // Without a rule about questions, no question is looked at: it is what any packet is.
            const { names: matcher = 0 } = image.endpoints.get(source.pod.uid) ?? {};
            const asks = image.matchers.get(matcher)?.asks === true;
            const known = { ...resolved, destination: resolveAddress(view, address) };
            const decision = decideSide(view, known, 'egress');
            const question = { names, question: name };
            const found = lookup(image, source.pod.uid, 'egress', address, protocol, port, false, question);
            const { verdict, reason, rule } = found;
            const said = { verdict, rule, ...(reason === undefined ? {} : { reason }) };
            // Requests of other kinds are none of the datapath's business here, which takes rules about them strictly.
            if (asks || verdict === 'allow') assert.deepEqual(said, expectedOutcome(image, decision), name);
            seen[verdict]++;
            if (asks && decision.by === 'rule') byRule++;
          }
        }
      },
    ),
    { numRuns: runs },
  );
  assert.ok(seen.allow > runs && seen.deny > runs && byRule > runs / 2, JSON.stringify({ ...seen, byRule }));
});

test('numbers of patterns keep their meaning from image to image', () => {
  fc.assert(
    fc.property(viewArbitrary(), viewArbitrary(), (before, after) => {
      const first = compile(before, 'node-1');
      const second = compile(after, 'node-1', first);
      const numbers = new Map([...first.patterns].map(([number, pattern]) => [pattern, number]));
      for (const [number, pattern] of second.patterns) {
        assert.equal(number, numbers.get(pattern) ?? number);
        assert.equal(first.patterns.get(number) ?? pattern, pattern);
      }
      for (const { accepts, states } of second.matchers.values()) {
        for (const { accept } of states) assert.ok(accept < accepts.length);
        for (const { patterns } of accepts) assert.ok(patterns.length <= mostPatterns);
      }
    }),
    { numRuns: 200 },
  );
});
