import { bytesOf, chunkLineLimit, headLimit, isValue, lengthLimit, NotCanonical, textOf } from './canonical.ts';
import { type Framing, lineAt, readHeader } from './parse.ts';

/** Where in a request's body a reader is. */
export type BodyState =
  | { readonly at: 'end' }
  | { readonly at: 'broken'; readonly words: string }
  /** This many bytes are the body's, whatever they are; `chunk`: of a chunk, whose CR LF is still to come. */
  | { readonly at: 'data'; readonly left: bigint; readonly chunk: boolean }
  /** Within a line that has begun with these bytes. `trailers` counts all trailers' bytes that came in lines before. */
  | { readonly at: 'size' | 'data-end'; readonly begun: string }
  | { readonly at: 'trailers'; readonly begun: string; readonly before: number };

/** Trailers that would change how the request is read. */
export const framingNames: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding', 'host']);

/** Before the first byte after the head. */
export function bodyStart(framing: Framing): BodyState {
  switch (framing.kind) {
    case 'none':
      return { at: 'end' };
    case 'length':
      return dataOf(framing.length, false);
    case 'chunked':
      return { at: 'size', begun: '' };
  }
}

/**
 * Reads on in a body, as far as these bytes or it go.
 * @returns The state after them, and how many of the bytes were the body's: all, unless it ended or is broken.
 */
export function readBody(
  state: BodyState,
  bytes: Uint8Array,
): { readonly state: BodyState; readonly consumed: number } {
  let now = state;
  let consumed = 0;
  try {
    while (now.at !== 'end' && now.at !== 'broken' && consumed < bytes.length) {
      const left = bytes.subarray(consumed);
      if (now.at === 'data') {
        const taken: number = now.left < BigInt(left.length) ? Number(now.left) : left.length;
        now = dataOf(now.left - BigInt(taken), now.chunk);
        consumed += taken;
      } else {
        now = afterByte(now, textOf(left.subarray(0, 1)));
        consumed++;
      }
    }
  } catch (error) {
    if (!(error instanceof NotCanonical)) throw error;
    now = { at: 'broken', words: error.message };
  }
  return { state: now, consumed };
}

function dataOf(left: bigint, chunk: boolean): BodyState {
  if (left > 0n) return { at: 'data', left, chunk };
  return chunk ? { at: 'data-end', begun: '' } : { at: 'end' };
}

type InLine = Extract<BodyState, { readonly begun: string }>;

/** One byte more of a line. @throws {NotCanonical} where it cannot be part of it */
function afterByte(state: InLine, byte: string): BodyState {
  const begun = state.begun + byte;
  const line = lineAt(begun, 0);
  switch (state.at) {
    case 'data-end':
      if (!'\r\n'.startsWith(begun)) throw new NotCanonical('a chunk longer than its size');
      return line === undefined ? { at: 'data-end', begun } : { at: 'size', begun: '' };
    case 'size':
      if (line === undefined) {
        checkSizeLine(begun.replace('\r', ''));
        return { at: 'size', begun };
      }
      return sizeOf(line) === 0n ? { at: 'trailers', begun: '', before: 0 } : dataOf(sizeOf(line), true);
    case 'trailers':
      if (state.before + begun.length > headLimit) throw new NotCanonical('trailers that are too big');
      if (line === undefined) return { ...state, begun };
      if (line === '') return { at: 'end' };
      if (framingNames.has(readHeader(line)[0])) throw new NotCanonical('a trailer that would change the request');
      return { at: 'trailers', begun: '', before: state.before + begun.length };
  }
}

/** @param line Perhaps not all of it. */
function checkSizeLine(line: string): void {
  const [, digits, extension = ''] = /^([0-9A-Fa-f]{1,16})(?:;(.*))?$/s.exec(line) ?? [];
  if (digits === undefined && line !== '') throw new NotCanonical('no chunk size');
  if (line.length > chunkLineLimit) throw new NotCanonical('a chunk’s line that is too long');
  if (!isValue(extension)) throw new NotCanonical('a byte that no chunk’s extension has');
}

function sizeOf(line: string): bigint {
  if (line === '') throw new NotCanonical('no chunk size');
  checkSizeLine(line);
  const size = BigInt(`0x${line.replace(/;.*$/s, '')}`);
  if (size > lengthLimit) throw new NotCanonical('a chunk that is too big');
  return size;
}

/** A chunked body as text. Only for what is not empty: the chunk of size 0 is the end. */
export function printChunks(
  chunks: readonly Uint8Array[],
  trailers: readonly (readonly [string, string])[] = [],
): Uint8Array {
  const parts = chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${textOf(chunk)}\r\n`);
  const lines = trailers.map(([name, value]) => `${name}: ${value}\r\n`);
  return bytesOf(`${parts.join('')}0\r\n${lines.join('')}\r\n`);
}
