import { type Bits, bitsOf, bitWords, hasBit } from '../../policy/http/bits.ts';
import { noTables, type RequestTables, tableLimits } from '../../policy/http/matcher.ts';
import type { Alternative, RuleSetMatcher } from '../../policy/http/readable.ts';
import { type PolicyEntry, type RuleSet, verdictCodes } from '../../policy/image.ts';
import { RevisionRefused } from '../error.ts';
import type { Need } from '../growth/capacity.ts';
import type { HttpMatcher } from '../layouts.ts';
import type { DatapathMaps } from '../objects.ts';
import { Ranges } from '../ranges.ts';

export type HttpMaps = Pick<
  DatapathMaps,
  'httpCells' | 'httpMatchers' | 'httpAlternatives' | 'httpRows' | 'httpAccepts' | 'ruleSets' | 'policy'
>;

/** Where a matcher's tables are. */
interface Place {
  readonly index: number;
  readonly firstAlternative: number;
  readonly firstRow: number;
  readonly firstAccept: number;
}

/**
 * Which parts of the arrays of requests' rules are whose. What is written here is found by nobody until a rule set or an
 * entry refers to it, and given to others only when nobody can be on the way through it any more: so nothing of it needs
 * to be undone.
 */
export class HttpTables {
  readonly #maps: HttpMaps;
  /** By rule set. */
  readonly #places = new Map<number, Place>();
  /** By `cellKey`. */
  readonly #cells = new Map<string, number>();
  readonly #room: Readonly<Record<keyof typeof mapOf, Ranges>>;

  /** Finds what the maps have in use. */
  constructor(maps: HttpMaps) {
    this.#maps = maps;
    this.#room = {
      index: new Ranges(1, () => maps.httpMatchers.capacity),
      alternative: new Ranges(0, () => maps.httpAlternatives.capacity),
      row: new Ranges(0, () => maps.httpRows.capacity),
      accept: new Ranges(0, () => maps.httpAccepts.capacity),
      cell: new Ranges(1, () => maps.httpCells.capacity),
    };
    for (const [set, { matcher: index }] of maps.ruleSets.entries()) {
      const known = index === 0 ? undefined : maps.httpMatchers.get(index);
      if (known === undefined) continue;
      this.#room.index.claim(index, 1);
      this.#room.alternative.claim(known.firstAlternative, known.alternatives);
      this.#room.row.claim(known.firstRow, known.rows);
      this.#room.accept.claim(known.firstAccept, known.accepts);
      const { firstAlternative, firstRow, firstAccept } = known;
      this.#places.set(set, { index, firstAlternative, firstRow, firstAccept });
    }
    for (const [, { cell }] of maps.policy.entries()) {
      if (cell === 0) continue;
      this.#room.cell.claim(cell, 1);
      this.#cells.set(cellKey(numbersInCell(maps, cell)), cell);
    }
  }

  /** The value's `matcher` of a set that was prepared. */
  matcherOf(set: number): number {
    return this.#places.get(set)?.index ?? 0;
  }

  /** The value's `cell` of an entry that was prepared. */
  cellOf({ requests }: PolicyEntry): number {
    return requests === undefined ? 0 : (this.#cells.get(cellKey(requests)) ?? 0);
  }

  /** What room `prepare` would need for these; of maps that need none, what they have in use. */
  needs(sets: Iterable<RuleSet>, entries: Iterable<PolicyEntry>): Need[] {
    const lengths: Record<keyof typeof mapOf, number[]> = { index: [], alternative: [], row: [], accept: [], cell: [] };
    for (const { id, matcher } of sets) {
      if (matcher === undefined || this.#places.has(id)) continue;
      lengths.index.push(1);
      lengths.alternative.push(matcher.alternatives.length);
      lengths.row.push(matcher.tables.accept.length);
      lengths.accept.push(matcher.tables.accepts.length / bitWords);
    }
    const cells = new Set<string>();
    for (const { requests } of entries) if (requests !== undefined) cells.add(cellKey(requests));
    lengths.cell = [...cells].filter((key) => !this.#cells.has(key)).map(() => 1);
    const kinds: readonly (keyof typeof mapOf)[] = ['index', 'alternative', 'row', 'accept', 'cell'];
    return kinds.map((kind) => ({ map: this.#maps[mapOf[kind]].name, entries: this.#room[kind].reach(lengths[kind]) }));
  }

  /**
   * Writes what these sets and entries will refer to.
   * @throws {RevisionRefused} where there is no room: nothing that is in use has changed
   * @throws {KernelError} `Errno`
   */
  prepare(sets: Iterable<RuleSet>, entries: Iterable<PolicyEntry>): void {
    for (const { id, matcher } of sets) if (matcher !== undefined && !this.#places.has(id)) this.#place(id, matcher);
    for (const { requests } of entries) {
      if (requests === undefined || this.#cells.has(cellKey(requests))) continue;
      const index = this.#take('cell', 1);
      this.#cells.set(cellKey(requests), index);
      this.#maps.httpCells.set(index, { bits: bytesOf(bitsOf(requests)) });
    }
  }

  /** Gives up what none of these sets refers to. */
  keepOnly(sets: ReadonlyMap<number, RuleSet>): void {
    for (const [set, { index, firstAlternative, firstRow, firstAccept }] of [...this.#places]) {
      if (sets.get(set)?.matcher !== undefined) continue;
      this.#room.index.free(index);
      this.#room.alternative.free(firstAlternative);
      this.#room.row.free(firstRow);
      this.#room.accept.free(firstAccept);
      this.#places.delete(set);
    }
    if (this.#cells.size === 0) return;
    const lists = new Set<readonly number[]>();
    for (const { matcher, entries } of sets.values())
      if (matcher !== undefined) for (const { requests } of entries) if (requests !== undefined) lists.add(requests);
    const used = new Set([...lists].map(cellKey));
    for (const [key, index] of [...this.#cells]) {
      if (used.has(key)) continue;
      this.#room.cell.free(index);
      this.#cells.delete(key);
    }
  }

  #place(set: number, { alternatives, tables }: RuleSetMatcher): void {
    const rows = tables.accept.length;
    const accepts = tables.accepts.length / bitWords;
    const place: Place = {
      index: this.#take('index', 1),
      firstAlternative: this.#take('alternative', alternatives.length),
      firstRow: this.#take('row', rows),
      firstAccept: this.#take('accept', accepts),
    };
    const { httpAlternatives, httpRows, httpAccepts, httpMatchers } = this.#maps;
    const refused = [
      httpAlternatives.setMany(
        alternatives.map(({ verdict, ...one }, i) => [
          place.firstAlternative + i,
          { ...one, verdict: verdictCodes[verdict] },
        ]),
      ),
      httpRows.setMany(
        Array.from({ length: rows }, (_, row) => {
          const next = tables.next.subarray(row * tableLimits.classes, (row + 1) * tableLimits.classes);
          return [place.firstRow + row, { next: bytesOf(next), accept: tables.accept[row] ?? 0 }];
        }),
      ),
      httpAccepts.setMany(
        Array.from({ length: accepts }, (_, number) => {
          const bits = tables.accepts.subarray(number * bitWords, (number + 1) * bitWords);
          return [place.firstAccept + number, { bits: bytesOf(bits) }];
        }),
      ),
    ].find(({ error }) => error !== undefined);
    if (refused?.error !== undefined) throw refused.error;
    httpMatchers.set(place.index, matcherValue(place, alternatives, tables));
    this.#places.set(set, place);
  }

  #take(kind: keyof typeof mapOf, length: number): number {
    const room = this.#room[kind];
    const start = room.take(length);
    if (start !== undefined) return start;
    const map = mapOf[kind];
    throw new RevisionRefused('RevisionRefused', {
      map: this.#maps[map].name,
      needed: room.used + length,
      capacity: this.#maps[map].capacity,
    });
  }
}

const mapOf = {
  index: 'httpMatchers',
  alternative: 'httpAlternatives',
  row: 'httpRows',
  accept: 'httpAccepts',
  cell: 'httpCells',
} as const;

function matcherValue(
  { firstAlternative, firstRow, firstAccept }: Place,
  alternatives: readonly Alternative[],
  { accept, accepts, start, absentHost, nameStart, headers, classes }: RequestTables,
): HttpMatcher {
  const those = (verdict: Alternative['verdict']): Uint8Array =>
    bytesOf(bitsOf(alternatives.flatMap((one, number) => (one.verdict === verdict ? [number] : []))));
  return {
    alternatives: alternatives.length,
    firstAlternative,
    firstRow,
    rows: accept.length,
    firstAccept,
    accepts: accepts.length / bitWords,
    methodStart: start.method,
    pathStart: start.path,
    targetStart: start.target,
    hostStart: start.host,
    absentHost,
    nameStart,
    headerCount: headers.length,
    headers: bytesOf(Uint32Array.from(headers.flatMap((header) => [header.start, header.absent]))),
    lenient: those('allow'),
    strict: those('deny'),
    classes,
  };
}

/** What stands in a cell, as `PolicyEntry.requests`. */
export function numbersInCell(maps: Pick<HttpMaps, 'httpCells'>, cell: number): number[] {
  const bits = bitsIn(maps.httpCells.get(cell)?.bits ?? new Uint8Array(bitWords * 4));
  return Array.from({ length: tableLimits.alternatives }, (_, number) => number).filter((number) =>
    hasBit(bits, number),
  );
}

/** A matcher's alternatives, without the tables that tell which of them a request is. */
export function alternativesIn(
  maps: Pick<HttpMaps, 'httpMatchers' | 'httpAlternatives'>,
  matcher: number,
): Alternative[] {
  const { alternatives = 0, firstAlternative = 0 } = maps.httpMatchers.get(matcher) ?? {};
  return Array.from({ length: alternatives }, (_, number): Alternative => {
    const { precedence, rule, verdict, flags } = maps.httpAlternatives.get(firstAlternative + number) ?? unknown;
    return { precedence, rule, verdict: verdict === verdictCodes.allow ? 'allow' : 'deny', flags };
  });
}

/** A matcher's tables as they are in the maps, to run them here (where headers have no names, which tables need none of). */
export function tablesIn(maps: HttpMaps, matcher: number): RequestTables {
  const value = maps.httpMatchers.get(matcher);
  if (value === undefined) return noTables;
  const next = new Uint16Array(value.rows * tableLimits.classes);
  const accept = new Uint32Array(value.rows);
  for (let row = 0; row < value.rows; row++) {
    const known = maps.httpRows.get(value.firstRow + row);
    if (known === undefined) continue;
    next.set(new Uint16Array(known.next.slice().buffer), row * tableLimits.classes);
    accept[row] = known.accept;
  }
  const accepts = new Uint32Array(value.accepts * bitWords);
  for (let number = 0; number < value.accepts; number++) {
    const known = maps.httpAccepts.get(value.firstAccept + number);
    if (known !== undefined) accepts.set(bitsIn(known.bits), number * bitWords);
  }
  const headers = new Uint32Array(value.headers.slice().buffer);
  return {
    count: value.alternatives,
    classes: value.classes,
    next,
    accept,
    accepts,
    start: { method: value.methodStart, path: value.pathStart, target: value.targetStart, host: value.hostStart },
    absentHost: value.absentHost,
    nameStart: value.nameStart,
    headers: Array.from({ length: value.headerCount }, (_, slot) => ({
      name: '',
      start: headers[2 * slot] ?? 0,
      absent: headers[2 * slot + 1] ?? 0,
    })),
  };
}

const unknown = { precedence: 0xffff_ffff, rule: 0, verdict: verdictCodes.deny, flags: 0 } as const;

export function bitsIn(bytes: Uint8Array): Bits {
  return new Uint32Array(bytes.slice().buffer);
}

function bytesOf(array: Uint16Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function cellKey(requests: readonly number[]): string {
  return requests.join();
}
