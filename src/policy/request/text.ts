import { parseRegex, type Regex } from './regex.ts';

/** How one text of a request may be asked for. Case counts unless `ignoreCase` is set. */
export type RequestText =
  | { readonly op: 'exact' | 'prefix' | 'suffix'; readonly text: string; readonly ignoreCase?: true }
  /** Is there and is not empty. */
  | { readonly op: 'present' }
  /** The whole text, by a regular expression of RE2's syntax; front ends give only ones that `parseRegex` reads. */
  | { readonly op: 'regex'; readonly text: string }
  /** Segments of a path between slashes: `{*}` is any one, `{**}` any number of them, none too. */
  | { readonly op: 'template'; readonly text: string };

const regexes = new WeakMap<RequestText, Regex | undefined>();

/** @param value A text that is there; an absent one matches nothing, `present` included. */
export function matchesText(value: string, match: RequestText): boolean {
  switch (match.op) {
    case 'present':
      return value !== '';
    case 'regex':
      return regexOf(match)?.matches(value) ?? false;
    case 'template':
      return matchesTemplate(value.split('/'), match.text.split('/'));
    default: {
      const [own, text] = match.ignoreCase ? [value.toLowerCase(), match.text.toLowerCase()] : [value, match.text];
      return match.op === 'exact' ? own === text : match.op === 'prefix' ? own.startsWith(text) : own.endsWith(text);
    }
  }
}

function regexOf(match: Extract<RequestText, { op: 'regex' }>): Regex | undefined {
  if (regexes.has(match)) return regexes.get(match);
  const parsed = parseRegex(match.text);
  // One that cannot be read matches nothing: such a rule never came from a front end.
  const regex = parsed.ok ? parsed.value : undefined;
  regexes.set(match, regex);
  return regex;
}

function matchesTemplate(segments: readonly string[], template: readonly string[]): boolean {
  // Row by row: whether the first i segments match the first j parts. Linear in both, whatever a request sends.
  let row = template.map(() => false);
  row = [true, ...row];
  for (const [index, part] of template.entries()) row[index + 1] = part === '{**}' && row[index] === true;
  for (const segment of segments) {
    const next = [false];
    for (const [index, part] of template.entries())
      next.push(
        part === '{**}'
          ? row[index + 1] === true || row[index] === true || next[index] === true
          : row[index] === true && (part === '{*}' ? segment !== '' : part === segment),
      );
    row = next;
  }
  return row.at(-1) === true;
}
