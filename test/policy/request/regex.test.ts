import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseRegex } from '../../../src/policy/request/regex.ts';

function matches(expression: string, text: string): boolean {
  const parsed = parseRegex(expression);
  assert.ok(parsed.ok, `${expression}: ${parsed.ok ? '' : parsed.reason}`);
  return parsed.value.matches(text);
}

test('an expression matches all of a text or nothing of it', () => {
  const cases: readonly [expression: string, yes: readonly string[], no: readonly string[]][] = [
    ['GET', ['GET'], ['get', 'GETS', 'FORGET', '']],
    ['GET|HEAD', ['GET', 'HEAD'], ['GETHEAD', 'GE']],
    ['/v1/.*', ['/v1/', '/v1/a?b=c'], ['/v1', 'x/v1/', '/v1/\n']],
    ['/public/[^/]+$', ['/public/a'], ['/public/', '/public/a/b']],
    ['^/a(/b)?$', ['/a', '/a/b'], ['/a/', '/a/b/b']],
    ['[[:alpha:]]{2,3}', ['ab', 'Abc'], ['a', 'abcd', 'a1']],
    ['[^[:digit:]x]', ['a', '-'], ['1', 'x']],
    ['\\d+\\.\\d+', ['1.2'], ['1x2', '1.']],
    ['(?i)get', ['GeT'], ['geta']],
    ['(?i:g)et', ['Get', 'get'], ['gEt']],
    ['a.b', ['axb', 'a😀b'], ['a\nb', 'ab']],
    ['(?s)a.b', ['a\nb'], []],
    ['\\Q.*\\E', ['.*'], ['ab']],
    ['[]a-c-]+', [']', 'a-', 'b'], ['d', '']],
    ['\\x2f\\x{1F600}', ['/😀'], ['/']],
    ['', [''], ['a']],
    ['a{,2}', ['a{,2}'], ['a', 'aa']],
    ['(?P<name>a)(?<other>b)(?:c)', ['abc'], ['ab']],
    ['x*', ['', 'xxx'], ['xy']],
  ];
  for (const [expression, yes, no] of cases) {
    for (const text of yes) assert.equal(matches(expression, text), true, `${expression} matches ${text}`);
    for (const text of no) assert.equal(matches(expression, text), false, `${expression} does not match ${text}`);
  }
});

test('what RE2 does not have, or is not supported here, is refused with a reason', () => {
  for (const expression of [
    '(a',
    'a)',
    '*a',
    'a**',
    '[a',
    '[b-a]',
    'a{3,2}',
    'a{1001}',
    '(?=a)',
    '(?!a)',
    '\\1',
    '\\pL',
    '\\b',
    '(?x)a',
    '[[:nope:]]',
    'a\\',
    '(((a{100}){100}){100})',
    '((((){1000}){1000}){1000})',
  ])
    assert.equal(parseRegex(expression).ok, false, expression);
});

test('an expression that would take a backtracking matcher for ever takes a text’s length', () => {
  assert.equal(matches('(a*)*(a|aa)+b', 'a'.repeat(5000)), false);
});

/** Expressions that mean the same in RE2 and in JavaScript. */
const { expression } = fc.letrec<{ expression: string; atom: string }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 4 },
    tie('atom'),
    fc.tuple(tie('expression'), tie('expression')).map(([a, b]) => a + b),
    fc.tuple(tie('expression'), tie('expression')).map(([a, b]) => `(${a}|${b})`),
    fc
      .tuple(tie('expression'), fc.constantFrom('*', '+', '?', '{2}', '{1,3}', '{0,}', '*?'))
      .map(([a, b]) => `(?:${a})${b}`),
  ),
  atom: fc.constantFrom('a', 'b', '/', '.', '[ab]', '[^a/]', '\\d', '\\w', '\\.', '', '^', '$', 'ab'),
}));

test('it says what JavaScript’s own expressions say', () => {
  const text = fc.array(fc.constantFrom('a', 'b', '/', '.', '1', 'c'), { maxLength: 8 }).map((chars) => chars.join(''));
  fc.assert(
    fc.property(expression, text, (own, value) => {
      assert.equal(matches(own, value), new RegExp(`^(?:${own})$`, 'u').test(value));
    }),
    { numRuns: 3000 },
  );
});

test('whatever is given, it answers', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ maxLength: 40 }), fc.string({ unit: fc.constantFrom(...'()[]{}|*+?\\^$.-,:1aQExip<>PA') })),
      fc.string(),
      (own, value) => {
        const parsed = parseRegex(own);
        if (parsed.ok) parsed.value.matches(value);
        else assert.notEqual(parsed.reason, '');
      },
    ),
    { numRuns: 3000 },
  );
});
