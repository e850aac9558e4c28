import { type CharSet, foldCase } from '../request/regex-sets.ts';
import { type Node, parse } from '../request/regex-syntax.ts';
import type { RequestText } from '../request.ts';

const anyByte: CharSet = { ranges: [], negated: true };
const notSlash: CharSet = { ranges: [[0x2f, 0x2f]], negated: true };
const anything: Node = { is: 'repeat', part: { is: 'set', set: anyByte }, min: 0, max: undefined };
const segment: Node = { is: 'repeat', part: { is: 'set', set: notSlash }, min: 1, max: undefined };
const slash: Node = { is: 'set', set: { ranges: [[0x2f, 0x2f]], negated: false } };

/**
 * What a text is asked for, as an expression over all of it.
 * @throws {RegexError} for a regular expression that cannot be read
 */
export function nodeOf(text: RequestText): Node {
  switch (text.op) {
    case 'present':
      return { is: 'sequence', parts: [{ is: 'set', set: anyByte }, anything] };
    case 'regex':
      return parse(text.text);
    case 'template':
      return templateFrom(text.text.split('/'));
    case 'exact':
      return literal(text.text, text.ignoreCase === true);
    case 'prefix':
      return { is: 'sequence', parts: [literal(text.text, text.ignoreCase === true), anything] };
    case 'suffix':
      return { is: 'sequence', parts: [anything, literal(text.text, text.ignoreCase === true)] };
  }
}

function literal(text: string, ignoreCase: boolean): Node {
  return { is: 'sequence', parts: Array.from(text, (char) => letter(char, ignoreCase)) };
}

/** One object for each letter: there are many of each. */
const letters = new Map<string, Node>();

function letter(char: string, ignoreCase: boolean): Node {
  const key = `${char} ${ignoreCase}`;
  const known = letters.get(key);
  if (known !== undefined) return known;
  const point = char.codePointAt(0) ?? 0;
  const ranges = [[point, point] as const];
  const made: Node = { is: 'set', set: { ranges: ignoreCase ? foldCase(ranges) : ranges, negated: false } };
  if (point < 0x80) letters.set(key, made);
  return made;
}

/** A path has at least one segment, so what stands for any number of them is no number of them only beside others. */
function templateFrom([part = '', ...rest]: readonly string[]): Node {
  const openEnd = rest.every((other) => other === '{**}');
  if (part === '{**}') {
    if (openEnd) return anything;
    const piece: Node = { is: 'repeat', part: { is: 'set', set: notSlash }, min: 0, max: undefined };
    const pieces: Node = { is: 'sequence', parts: [piece, slash] };
    return { is: 'sequence', parts: [{ is: 'repeat', part: pieces, min: 0, max: undefined }, templateFrom(rest)] };
  }
  const own = part === '{*}' ? segment : literal(part, false);
  if (rest.length === 0) return own;
  if (!openEnd) return { is: 'sequence', parts: [own, slash, templateFrom(rest)] };
  const more: Node = { is: 'sequence', parts: [slash, anything] };
  return { is: 'sequence', parts: [own, { is: 'repeat', part: more, min: 0, max: 1 }] };
}
