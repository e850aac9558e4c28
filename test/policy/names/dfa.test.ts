import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildNameDfa, runNameDfa } from '../../../src/policy/names/dfa.ts';
import { matchesDomain, normalName } from '../../../src/policy/request/domain.ts';

const label = fc.stringMatching(/^[ab_]{1,3}$/);
const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
const oddName = fc.oneof(name, fc.constantFrom('.', 'a.b.', 'A.b', 'ä.b', 'a..b', 'a b'));
const patternLabel = fc.stringMatching(/^[ab*]{1,4}$/);
const pattern = fc
  .tuple(fc.constantFrom('', '**.'), fc.array(patternLabel, { minLength: 1, maxLength: 4 }))
  .map(([start, labels]) => ({ pattern: start + labels.join('.') }));
const oddPattern = fc.oneof(
  { weight: 9, arbitrary: pattern },
  {
    weight: 1,
    arbitrary: fc.constantFrom('**', '*', '', '.', 'a.', '.a', 'A.b', '**.**', 'a.**').map((one) => ({ pattern: one })),
  },
);

/** As the datapath writes a name before it runs over it. */
const plain = (text: string): string => (text === '.' ? '.' : normalName(text));

test('a DFA over patterns says of every name which of them it is one of, as matchesDomain does', () => {
  let matched = 0;
  fc.assert(
    fc.property(
      fc.array(oddPattern, { maxLength: 6 }),
      fc.array(oddName, { minLength: 1, maxLength: 12 }),
      (patterns, names) => {
        const dfa = buildNameDfa(patterns) ?? assert.fail('too many states');
        for (const own of names) {
          // What is not written as names are never gets to the DFA: labels are not empty.
          if (own !== '.' && plain(own).split('.').includes('')) continue;
          const wanted = patterns.flatMap((one, i) => (matchesDomain(own, one) ? [i] : []));
          matched += wanted.length;
          assert.deepEqual(runNameDfa(dfa, plain(own)), wanted, `${own} of ${JSON.stringify(patterns)}`);
        }
      },
    ),
    { numRuns: 1000 },
  );
  assert.ok(matched > 500, `names that match are drawn too: ${matched}`);
});

test('hundreds of names and wildcards take states by their letters; more than the limit are refused', () => {
  const patterns = Array.from({ length: 400 }, (_, i) => ({
    pattern: i % 3 === 0 ? `*.s${i}.example.com` : i % 3 === 1 ? `**.s${i}.example.org` : `host-${i}.example.net`,
  }));
  const dfa = buildNameDfa(patterns) ?? assert.fail('too many states');
  assert.ok(dfa.next.length < 40_000, `${dfa.next.length} states`);
  assert.deepEqual(runNameDfa(dfa, 'a.s3.example.com'), [3]);
  assert.deepEqual(runNameDfa(dfa, 'a.b.s4.example.org'), [4]);
  assert.deepEqual(runNameDfa(dfa, 'a.b.s3.example.com'), []);
  assert.equal(buildNameDfa(patterns, 1000), undefined);
});
