/**
 * # HTTP/1 as it is understood: the canonical form
 *
 * A request is decided only where there is one way to read it. What is not of the form below is refused, never guessed at:
 * two readers who disagree about a request are how one request smuggles another past a policy. parse.ts and body.ts are
 * the reference; the programs in bpf/ read the same form, and are held against these. Texts here are strings with one
 * character for each byte (ISO 8859-1), so that a byte is never more or less than a character.
 *
 * **Head**: request line, header lines, an empty line. Every line ends with CR LF; neither byte stands anywhere else, nor
 * does another control character but HT in values. At most `headLimit` bytes, counted to the end of the empty line, and
 * `headerLimit` header lines: else HTTP_HEAD_TOO_BIG. Anything else that is wrong is HTTP_MALFORMED. What comes first in
 * the bytes is what is said; a line's syntax is looked at when its end is there, what the lines say together at the end
 * of the head. So a head may be refused before all of it is there, and no later byte changes that.
 *
 * **Request line**: `METHOD SP target SP HTTP/1.1` (or `HTTP/1.0`), single spaces, nothing before it, no empty line
 * either. METHOD: 1 to 32 of `A–Z`, `-`, `_`. CONNECT is refused.
 *
 * **Target**: a path from `/` with an optional query; or the same behind `http://authority` or `https://authority`
 * (the scheme in any case; an empty path is `/`), where the authority must be the Host, without regard to case;
 * or `*`, for OPTIONS only. Bytes 0x21–0x7E without `"`, `#`, `<`, `>`, `\`; a `%` has two hex digits behind it.
 *
 * **Canonical path**: every byte has one spelling. What may stand as itself does (`%61`, `%3A` and `%3B` become `a`, `:`
 * and `;`); all else is `%` with upper-case digits: bytes that a target may not have, `%25`, and `%3F`, which would else
 * begin the query. `%00`–`%1F`, `%7F`, `%2F` and `%5C` are refused. Then slashes in a row become one; segments `.` and
 * `..` are removed (RFC 3986 section 5.2.4), refused where `..` would leave the root. A segment of `.` or `..` with
 * parameters (`..;x`) is refused. The **query** stays as it came. The *target* that rules see is the canonical path with
 * `?` and the query behind it, where there was a `?`.
 *
 * **Header line**: a name of token characters (RFC 9110 section 5.6.2), `:`, a value, of which spaces and tabs at both ends
 * are cut off. A value has bytes 0x20–0x7E, 0x09 and from 0x80. A line that begins with a space or tab, or has one before
 * the `:`, is refused. Names are compared without regard to case; rules see them in lower case.
 *
 * **Host**: exactly one header line in 1.1, at most one in 1.0 (and one where the target has an authority), of the bytes
 * `A–Z a–z 0–9 - . _ ~ : [ ]`, perhaps none. Rules see it in lower case, with its port.
 *
 * **Body**: none, unless there is one `Content-Length` (1 to 19 digits, at most 2^63-1) or, in 1.1, one
 * `Transfer-Encoding` of exactly `chunked`; two of either, or both, are refused.
 *
 * **Expect**: each must be `100-continue`, in any case. It changes nothing.
 *
 * **Upgrade**: a header line `Upgrade` or `HTTP2-Settings`, whatever else there is, asks to leave HTTP: `upgrade` is set,
 * and such a request passes only where policy allows the connection whatever it carries.
 *
 * **Chunked body**: for each chunk a line of 1 to 16 hex digits (at most 2^63-1), perhaps `;` and an extension of a
 * value's bytes, at most 256 bytes without its CR LF; that many bytes, CR LF. After the chunk of size 0 come trailers: header
 * lines, at most `headLimit` bytes to the end of the empty line, none of them `Content-Length`, `Transfer-Encoding` or
 * `Host`. Anything else is a broken body; what follows it is not a request.
 */

/** Bytes of a head, and of the trailers with their empty line. */
export const headLimit = 8192;
/** Header lines of a head. */
export const headerLimit = 100;
export const methodLimit = 32;
/** Bytes of the line before a chunk, without CR LF. */
export const chunkLineLimit = 256;
/** Of Content-Length and of a chunk. */
export const lengthLimit = 2n ** 63n - 1n;

/** Why something is not of the canonical form, for people; it ends up in no protocol. */
export class NotCanonical extends Error {}

const targetByte = /^[!$-;=?-[\]-~]$/;
const tokenSyntax = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const valueSyntax = /^[\x20-\x7e\t\x80-\xff]*$/;
const hostSyntax = /^[-A-Za-z0-9._~:[\]]*$/;

export function isToken(text: string): boolean {
  return tokenSyntax.test(text);
}

/** Whether all of a value's bytes may stand in one. */
export function isValue(text: string): boolean {
  return valueSyntax.test(text);
}

export function isHost(text: string): boolean {
  return hostSyntax.test(text);
}

export interface CanonicalTarget {
  /** As rules see it: canonical path, and the query as it came. */
  readonly target: string;
  /** As it came, where the target was an absolute URI. */
  readonly authority?: string;
}

/**
 * @param raw As it stands in the request line.
 * @throws {NotCanonical}
 */
export function canonicalTarget(raw: string, method: string): CanonicalTarget {
  if (raw === '*' && method === 'OPTIONS') return { target: '*' };
  for (const byte of raw) if (!targetByte.test(byte)) throw new NotCanonical('a byte that no target has');
  if (/%(?![0-9A-Fa-f]{2})/.test(raw)) throw new NotCanonical('a % without two hex digits');
  const [, authority, rest = raw] = /^https?:\/\/([^/?]*)(.*)$/i.exec(raw) ?? [];
  const [, path = '', query = ''] = /^([^?]*)(.*)$/.exec(rest) ?? [];
  if (authority === undefined) return { target: canonicalPath(path) + query };
  if (!isHost(authority)) throw new NotCanonical('an authority that is no host');
  return { target: canonicalPath(path === '' ? '/' : path) + query, authority };
}

/**
 * @param raw Of a target's bytes, its escapes complete.
 * @throws {NotCanonical}
 */
export function canonicalPath(raw: string): string {
  if (!raw.startsWith('/')) throw new NotCanonical('a target that is no path');
  const kept: string[] = [];
  const segments = raw.slice(1).replaceAll(/%(..)/g, canonicalByte).split('/');
  // What a path ends with after its last slash is a segment also where it is empty.
  let last = '';
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    if (segment === '..') {
      if (kept.pop() === undefined) throw new NotCanonical('a path above the root');
    } else if (/^\.\.?;/.test(segment)) throw new NotCanonical('a dot segment with parameters');
    else if (segment !== '' && segment !== '.') {
      if (isLast) last = segment;
      else kept.push(segment);
    }
  }
  return `/${kept.map((segment) => `${segment}/`).join('')}${last}`;
}

function canonicalByte(escaped: string, digits: string): string {
  const byte = Number.parseInt(digits, 16);
  const char = String.fromCharCode(byte);
  if (byte < 0x20 || byte === 0x7f || char === '/' || char === '\\')
    throw new NotCanonical('an escape that no path has');
  return targetByte.test(char) && char !== '%' && char !== '?' ? char : escaped.toUpperCase();
}

/** Without the spaces and tabs at both ends. */
export function trimValue(text: string): string {
  return text.replace(/^[ \t]+/, '').replace(/[ \t]+$/, '');
}

/** One character for each byte. */
export function textOf(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return text;
}

/** @param text Of characters up to U+00FF. */
export function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
