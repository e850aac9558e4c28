/**
 * A set of DNS names. Labels between dots; within a label `*` is any run of characters, perhaps none; `**` in place of the
 * first labels is one or more labels; `**` alone is every name. Lower case, without the dot at the end.
 */
export interface DomainPattern {
  readonly pattern: string;
}

/** What a name that is looked up in the ordinary way is made of; nothing else is ever one of a pattern's. */
const labelSyntax = /^[-a-z0-9_]+$/;

/** Whether a name, in any case and with or without its last dot, is one of the pattern's. */
export function matchesDomain(name: string, { pattern }: DomainPattern): boolean {
  const plain = normalName(name);
  // The root's own name is empty.
  if (plain === '') return pattern === '**' && name === '.';
  const labels = plain.split('.');
  if (!labels.every((label) => labelSyntax.test(label))) return false;
  const wanted = pattern.split('.');
  const [first] = wanted;
  if (first === '**') {
    const rest = wanted.slice(1);
    return labels.length > rest.length && sameLabels(labels.slice(labels.length - rest.length), rest);
  }
  return sameLabels(labels, wanted);
}

/** @returns In lower case, without the dot at the end. */
export function normalName(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

function sameLabels(labels: readonly string[], wanted: readonly string[]): boolean {
  return labels.length === wanted.length && labels.every((label, index) => matchesLabel(label, wanted[index] ?? ''));
}

/** The pieces between stars, in their order, the first at the start and the last at the end: no way back is needed. */
function matchesLabel(label: string, wanted: string): boolean {
  const [first = '', ...rest] = wanted.split('*');
  const last = rest.pop();
  if (last === undefined) return label === first;
  if (label.length < first.length + last.length || !label.startsWith(first) || !label.endsWith(last)) return false;
  let at = first.length;
  for (const piece of rest) {
    const found = label.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return at <= label.length - last.length;
}
