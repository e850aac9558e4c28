import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Document, isMap, isNode, LineCounter, type ParsedNode, parseAllDocuments } from 'yaml';
import { MyelinError } from '../model/error.ts';

/** Where something stands: lines and columns count from 1; both are 0 for a file as a whole. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface ManifestIssue extends Place {
  /** `NetworkPolicy shop/web`, where it got so far. */
  readonly object?: string;
  /** `spec.ingress[0].ports[1].endPort`; absent where the file itself is not YAML. */
  readonly field?: string;
  /** What was found and what was expected. */
  readonly message: string;
}

export type ManifestErrorCode = 'ManifestUnreadable' | 'ManifestInvalid';

/** Everything that is wrong with a set of manifests, one line for each thing. */
export class ManifestError extends MyelinError<ManifestErrorCode> {
  readonly issues: readonly ManifestIssue[];

  constructor(code: ManifestErrorCode, issues: readonly ManifestIssue[], cause?: unknown) {
    super(code, issues.map(formatIssue).join('\n'), { cause, data: { issues: issues.length } });
    this.issues = issues;
  }
}

function formatIssue({ file, line, column, object, field, message }: ManifestIssue): string {
  const what = [object, field].filter((part) => part !== undefined && part !== '').join(' ');
  const place = line === 0 ? file : `${file}:${line}:${column}`;
  return `${place}: ${what === '' ? '' : `${what}: `}${message}`;
}

/** One document of a file, which can say where its fields stand. */
export interface ManifestDocument {
  readonly file: string;
  readonly value: unknown;
  /** The place of a field; of the nearest thing around it where there is none. @param key Of the field's name, not its value. */
  placeOf(path: readonly PropertyKey[], key?: boolean): Place;
}

/**
 * Finds the files that `paths` name: files as they are, of directories those that end in .yaml, .yml or .json, by name.
 * @throws {ManifestError} `ManifestUnreadable`
 */
export function manifestFiles(paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    if (path === '-') return [path];
    return reading(path, () => {
      if (!statSync(path).isDirectory()) return [path];
      const names = readdirSync(path).filter((name) => /\.(ya?ml|json)$/.test(name));
      return names.sort().map((name) => join(path, name));
    });
  });
}

/**
 * Reads a file of one or more YAML documents, or JSON; `-` is standard input. Empty documents are left out.
 * @throws {ManifestError} `ManifestUnreadable`; `ManifestInvalid` where it is not YAML.
 */
export function readDocuments(file: string): ManifestDocument[] {
  const text = reading(file, () => readFileSync(file === '-' ? 0 : file, 'utf8'));
  return parseDocuments(text, file === '-' ? '<stdin>' : file);
}

/** As `readDocuments`, from a text. @param file The name that places have. @throws {ManifestError} `ManifestInvalid` */
function parseDocuments(text: string, file: string): ManifestDocument[] {
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, merge: true });
  const documents: Document.Parsed<ParsedNode>[] = 'empty' in parsed ? [] : parsed;
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { file, line, column: col };
  };
  const issues = documents.flatMap(({ errors }) => errors.map(({ pos, message }) => ({ ...placeAt(pos[0]), message })));
  if (issues.length > 0) throw new ManifestError('ManifestInvalid', issues);
  return documents.flatMap((document) => {
    const value = toValue(document, placeAt);
    if (value === null || value === undefined) return [];
    return [{ file, value, placeOf: (path, key = false) => placeAt(offsetOf(document, path, key)) }];
  });
}

function toValue(document: Document.Parsed<ParsedNode>, placeAt: (offset: number) => Place): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    const place = placeAt(document.range[0]);
    throw new ManifestError('ManifestInvalid', [{ ...place, message: error.message }], error);
  }
}

function offsetOf(document: Document.Parsed<ParsedNode>, path: readonly PropertyKey[], key: boolean): number {
  const names = path.map((part) => (typeof part === 'number' ? part : String(part)));
  for (let length = names.length; length >= 0; length--) {
    const last = names[length - 1];
    if ((key || length < names.length) && length > 0) {
      const around = document.getIn(names.slice(0, length - 1), true);
      const pair = isMap(around)
        ? around.items.find((item) => isNode(item.key) && String(item.key) === String(last))
        : undefined;
      if (isNode(pair?.key) && pair.key.range) return pair.key.range[0];
    }
    const node = length === 0 ? document.contents : document.getIn(names.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return document.range[0];
}

function reading<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof ManifestError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new ManifestError(
      'ManifestUnreadable',
      [{ file, line: 0, column: 0, message: `cannot be read: ${message}` }],
      cause,
    );
  }
}
