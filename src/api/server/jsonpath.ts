import { isList, isObject } from '../json.ts';

type Step =
  | { readonly key: string }
  | { readonly index: number }
  | { readonly every: true }
  | { readonly where: string; readonly equals: string };

/**
 * Reads the JSONPath of a printer column: `.spec.a.b`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=="Ready")].status`.
 * @returns undefined where the text is not one.
 */
export function parseJsonPath(text: string): readonly Step[] | undefined {
  const steps: Step[] = [];
  const token =
    /\.([\w$-]+(?:\\\.[\w$-]+)*)|\['([^']+)'\]|\[(\d+)\]|\[(\*)\]|\[\?\(@\.(\w+)\s*==\s*["']([^"']*)["']\)\]/y;
  const source = text.startsWith('$') ? text.slice(1) : text;
  while (token.lastIndex < source.length) {
    const match = token.exec(source);
    if (match === null) return undefined;
    const [, dotted, quoted, index, every, where, equals] = match;
    if (dotted !== undefined) steps.push({ key: dotted.replaceAll('\\.', '.') });
    else if (quoted !== undefined) steps.push({ key: quoted });
    else if (index !== undefined) steps.push({ index: Number(index) });
    else if (every !== undefined) steps.push({ every: true });
    else if (where !== undefined && equals !== undefined) steps.push({ where, equals });
  }
  return steps;
}

/** @returns All values that the path leads to. */
export function follow(steps: readonly Step[], value: unknown): unknown[] {
  let current: unknown[] = [value];
  for (const step of steps)
    current = current.flatMap((at): unknown[] => {
      if ('key' in step) return isObject(at) && Object.hasOwn(at, step.key) ? [at[step.key]] : [];
      if (!isList(at)) return [];
      if ('index' in step) return step.index < at.length ? [at[step.index]] : [];
      if ('every' in step) return at;
      return at.filter((element) => isObject(element) && element[step.where] === step.equals);
    });
  return current;
}
