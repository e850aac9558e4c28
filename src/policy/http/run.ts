import { type HttpRequest, pathOf } from '../request.ts';
import { type Bits, bitWords, firstBits, keepBits } from './bits.ts';
import { type RequestTables, tableLimits } from './matcher.ts';

/**
 * Which alternatives a request is, by the tables alone: what the datapath does, to hold the tables and it against.
 * @param request In canonical form.
 */
export function runMatcher(tables: RequestTables, request: HttpRequest): Bits {
  const { start, headers, nameStart } = tables;
  const bits = firstBits(tables.count);
  const keep = (accept: number): void =>
    keepBits(bits, tables.accepts.subarray(accept * bitWords, (accept + 1) * bitWords));
  const ask = (row: number, text: string): void => {
    if (row !== 0) keep(acceptOf(tables, row, text));
  };
  ask(start.method, request.method);
  ask(start.path, pathOf(request.target));
  ask(start.target, request.target);
  if (request.host !== undefined) ask(start.host, request.host);
  else if (start.host !== 0) keep(tables.absentHost);
  const seen = new Set<number>();
  if (nameStart !== 0)
    for (const [name, value] of request.headers) {
      const slot = acceptOf(tables, nameStart, name.toLowerCase()) - 1;
      const header = headers[slot];
      if (header === undefined) continue;
      seen.add(slot);
      ask(header.start, value);
    }
  for (const [slot, { absent }] of headers.entries()) if (!seen.has(slot)) keep(absent);
  return bits;
}

function acceptOf({ classes, next, accept }: RequestTables, start: number, text: string): number {
  let row = start;
  for (let at = 0; at < text.length; at++) {
    const of = classes[text.charCodeAt(at)] ?? 0;
    row = next[row * tableLimits.classes + of] ?? 0;
  }
  return accept[row] ?? 0;
}
