/** What the first bytes of a connection are the begin of. */
export type Speech = 'http1' | 'h2' | 'tls' | 'more' | 'none';

/** RFC 9113 section 3.4. */
export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

const handshakeRecord = 0x16;
const tlsMajor = 0x03;

/**
 * Tells protocols by their first bytes. The three can not be mistaken for each other: a method begins with a letter, `-`
 * or `_`, a TLS record with 0x16, and no method of HTTP/1 is followed by HTTP/2's version.
 * @param bytes All that have come. `more`: too few to tell; `none`: nothing that is read here.
 */
export function sniff(bytes: Uint8Array): Speech {
  const [first, second] = bytes;
  if (first === undefined) return 'more';
  if (first === handshakeRecord) {
    if (second === undefined) return 'more';
    return second === tlsMajor ? 'tls' : 'none';
  }
  const compared = Math.min(bytes.length, preface.length);
  if (preface.subarray(0, compared).equals(bytes.subarray(0, compared)))
    return compared === preface.length ? 'h2' : 'more';
  return /^[-A-Z_]$/.test(String.fromCharCode(first)) ? 'http1' : 'none';
}
