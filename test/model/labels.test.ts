import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Labels, labelsKey, type Selector, type SelectorRequirement, selects } from '../../src/model/labels.ts';

const app: Labels = { app: 'cart', tier: '' };

// k8s.io/apimachinery/pkg/labels: Requirement.Matches
const table: readonly [SelectorRequirement, boolean][] = [
  [{ key: 'app', operator: 'In', values: ['cart', 'shop'] }, true],
  [{ key: 'app', operator: 'In', values: ['shop'] }, false],
  [{ key: 'gone', operator: 'In', values: ['cart'] }, false],
  [{ key: 'tier', operator: 'In', values: [''] }, true],
  [{ key: 'gone', operator: 'In', values: [''] }, false],
  [{ key: 'app', operator: 'NotIn', values: ['shop'] }, true],
  [{ key: 'app', operator: 'NotIn', values: ['cart'] }, false],
  [{ key: 'gone', operator: 'NotIn', values: ['cart'] }, true],
  [{ key: 'app', operator: 'Exists' }, true],
  [{ key: 'tier', operator: 'Exists' }, true],
  [{ key: 'gone', operator: 'Exists' }, false],
  [{ key: 'app', operator: 'DoesNotExist' }, false],
  [{ key: 'gone', operator: 'DoesNotExist' }, true],
];

for (const [requirement, expected] of table)
  test(`${JSON.stringify(requirement)} ${expected ? 'selects' : 'does not select'} ${JSON.stringify(app)}`, () => {
    assert.equal(selects({ matchExpressions: [requirement] }, app), expected);
  });

test('names that every object answers to are labels like any other', () => {
  for (const key of ['constructor', 'toString', 'hasOwnProperty', '__proto__']) {
    assert.equal(selects({ matchExpressions: [{ key, operator: 'Exists' }] }, {}), false, key);
    assert.equal(selects({ matchExpressions: [{ key, operator: 'DoesNotExist' }] }, {}), true, key);
    const own = Object.fromEntries([[key, 'x']]);
    assert.equal(selects({ matchLabels: own }, own), true, key);
    assert.equal(selects({ matchLabels: own }, {}), false, key);
  }
});

const labels = fc.dictionary(fc.constantFrom('a', 'b', 'c', '1', '2'), fc.constantFrom('', 'x', 'y'));
const selectors: fc.Arbitrary<Selector> = fc.record({
  matchLabels: labels,
  matchExpressions: fc.array(
    fc.record({
      key: fc.constantFrom('a', 'b', 'c'),
      operator: fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
      values: fc.subarray(['', 'x', 'y']),
    }),
    { maxLength: 3 },
  ),
});

test('all requirements must hold: a selector is the intersection of its parts', () => {
  fc.assert(
    fc.property(selectors, labels, (selector, own) => {
      const parts: Selector[] = [
        ...Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({ matchLabels: { [key]: value } })),
        ...(selector.matchExpressions ?? []).map((one) => ({ matchExpressions: [one] })),
      ];
      assert.equal(
        selects(selector, own),
        parts.every((part) => selects(part, own)),
      );
    }),
  );
  assert.equal(selects({}, {}), true);
});

test('NotIn is the opposite of In, and DoesNotExist of Exists', () => {
  fc.assert(
    fc.property(labels, fc.constantFrom('a', 'b', 'c'), fc.subarray(['', 'x', 'y']), (own, key, values) => {
      const holds = (operator: SelectorRequirement['operator']) =>
        selects({ matchExpressions: [{ key, operator, values }] }, own);
      assert.notEqual(holds('In'), holds('NotIn'));
      assert.notEqual(holds('Exists'), holds('DoesNotExist'));
    }),
  );
});

test('the key of labels is theirs alone, in whatever order they were written', () => {
  fc.assert(
    fc.property(labels, labels, (a, b) => {
      const reversed = Object.fromEntries(Object.entries(a).reverse());
      assert.equal(labelsKey(reversed), labelsKey(a));
      const same = Object.keys(a).length === Object.keys(b).length && Object.keys(a).every((key) => a[key] === b[key]);
      assert.equal(labelsKey(a) === labelsKey(b), same);
    }),
    { numRuns: 1000 },
  );
});
