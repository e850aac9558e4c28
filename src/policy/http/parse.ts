import type { HttpRequest } from '../request.ts';
import {
  canonicalTarget,
  headerLimit,
  headLimit,
  isHost,
  isToken,
  isValue,
  lengthLimit,
  methodLimit,
  NotCanonical,
  textOf,
  trimValue,
} from './canonical.ts';

/** How the end of a request's body is found. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly length: bigint }
  | { readonly kind: 'chunked' };

/** A request head in canonical form. */
export interface Head {
  readonly kind: 'head';
  /** Bytes of the head, its empty line too. */
  readonly length: number;
  /** Header names in lower case, in their order. */
  readonly request: HttpRequest;
  readonly version: '1.0' | '1.1';
  readonly framing: Framing;
  /** It asks to leave HTTP. */
  readonly upgrade: boolean;
  /** It waits for leave to send its body. */
  readonly expect: boolean;
}

/** What bytes from the start of a request on are. More bytes change only `more`. */
export type HeadAnswer =
  | Head
  | { readonly kind: 'more' }
  | { readonly kind: 'refused'; readonly reason: 'HTTP_MALFORMED' | 'HTTP_HEAD_TOO_BIG'; readonly words: string };

class TooBig extends Error {}

/**
 * The reference parser of the canonical form that canonical.ts describes: written to be read, and to be held against.
 * @param bytes From the first byte of a request on, all that have come; what follows the head is not looked at.
 */
export function parseHead(bytes: Uint8Array): HeadAnswer {
  try {
    const lines = readLines(textOf(bytes.subarray(0, headLimit)), bytes.length);
    return lines === undefined ? { kind: 'more' } : assemble(lines);
  } catch (error) {
    if (error instanceof NotCanonical) return { kind: 'refused', reason: 'HTTP_MALFORMED', words: error.message };
    if (error instanceof TooBig) return { kind: 'refused', reason: 'HTTP_HEAD_TOO_BIG', words: error.message };
    throw error;
  }
}

interface RequestLine {
  readonly method: string;
  readonly target: string;
  readonly authority: string | undefined;
  readonly version: Head['version'];
}

type Header = readonly [name: string, value: string];

interface Lines {
  readonly request: RequestLine;
  readonly headers: readonly Header[];
  readonly length: number;
}

/** @param available How many bytes there are, of which `text` may be the first only. */
function readLines(text: string, available: number): Lines | undefined {
  let at = 0;
  let request: RequestLine | undefined;
  const headers: Header[] = [];
  for (;;) {
    const line = lineAt(text, at);
    if (line === undefined) {
      if (available >= headLimit) throw new TooBig(`a head of more than ${headLimit} bytes`);
      return undefined;
    }
    at += line.length + 2;
    if (request === undefined) request = readRequestLine(line);
    else if (line === '') return { request, headers, length: at };
    else if (headers.length === headerLimit) throw new TooBig(`more than ${headerLimit} header lines`);
    else headers.push(readHeader(line));
  }
}

/**
 * The line that begins there, without its end; undefined while that has not come.
 * @throws {NotCanonical} at the first byte that cannot be part of it
 */
export function lineAt(text: string, from: number): string | undefined {
  for (let at = from; at < text.length; at++) {
    const byte = text.charCodeAt(at);
    if (byte === 0x0d) {
      if (at + 1 === text.length) return undefined;
      if (text.charCodeAt(at + 1) !== 0x0a) throw new NotCanonical('a CR without LF');
      return text.slice(from, at);
    }
    if (byte === 0x0a) throw new NotCanonical('an LF without CR');
    if ((byte < 0x20 && byte !== 0x09) || byte === 0x7f) throw new NotCanonical('a control character');
  }
  return undefined;
}

function readRequestLine(line: string): RequestLine {
  const [method = '', raw = '', protocol = '', ...rest] = line.split(' ');
  if (rest.length > 0 || !/^[-A-Z_]+$/.test(method) || method.length > methodLimit)
    throw new NotCanonical('no request line');
  if (method === 'CONNECT') throw new NotCanonical('CONNECT');
  const target = canonicalTarget(raw, method);
  if (protocol !== 'HTTP/1.1' && protocol !== 'HTTP/1.0') throw new NotCanonical('another version than 1.0 and 1.1');
  return { method, ...target, authority: target.authority, version: protocol === 'HTTP/1.1' ? '1.1' : '1.0' };
}

/** @throws {NotCanonical} */
export function readHeader(line: string): Header {
  const colon = line.indexOf(':');
  const name = line.slice(0, Math.max(colon, 0));
  if (!isToken(name)) throw new NotCanonical('a header line without a name');
  const value = line.slice(colon + 1);
  if (!isValue(value)) throw new NotCanonical('a byte that no value has');
  return [name.toLowerCase(), trimValue(value)];
}

function assemble({ request, headers, length }: Lines): Head {
  const { method, target, version, authority } = request;
  const host = hostOf(headers, version, authority);
  const valuesOf = (name: string): string[] => headers.filter(([own]) => own === name).map(([, value]) => value);
  const expectations = valuesOf('expect');
  if (expectations.some((value) => value.toLowerCase() !== '100-continue'))
    throw new NotCanonical('an expectation that is not 100-continue');
  return {
    kind: 'head',
    length,
    request: { kind: 'http', method, target, headers, ...(host === undefined ? {} : { host }) },
    version,
    framing: framingOf(valuesOf('content-length'), valuesOf('transfer-encoding'), version),
    upgrade: headers.some(([name]) => name === 'upgrade' || name === 'http2-settings'),
    expect: expectations.length > 0,
  };
}

function hostOf(
  headers: readonly Header[],
  version: Head['version'],
  authority: string | undefined,
): string | undefined {
  const hosts = headers.filter(([name]) => name === 'host').map(([, value]) => value.toLowerCase());
  const [host] = hosts;
  if (hosts.length > 1) throw new NotCanonical('more than one Host');
  if (host === undefined && version === '1.1') throw new NotCanonical('no Host');
  if (host !== undefined && !isHost(host)) throw new NotCanonical('a Host that is none');
  if (authority !== undefined && authority.toLowerCase() !== host) throw new NotCanonical('a target of another Host');
  return host;
}

function framingOf(lengths: readonly string[], codings: readonly string[], version: Head['version']): Framing {
  const [length] = lengths;
  const [coding] = codings;
  if (lengths.length + codings.length > 1) throw new NotCanonical('more than one length of the body');
  if (coding !== undefined) {
    if (coding !== 'chunked' || version === '1.0') throw new NotCanonical('a transfer coding that is not chunked');
    return { kind: 'chunked' };
  }
  if (length === undefined) return { kind: 'none' };
  if (!/^[0-9]{1,19}$/.test(length) || BigInt(length) > lengthLimit)
    throw new NotCanonical('a length that is no number');
  return { kind: 'length', length: BigInt(length) };
}

/** The canonical head as text, which parses to what it was made of. */
export function printHead({ request, version }: Pick<Head, 'request' | 'version'>): string {
  const lines = request.headers.map(([name, value]) => `${name}: ${value}\r\n`);
  return `${request.method} ${request.target} HTTP/${version}\r\n${lines.join('')}\r\n`;
}
