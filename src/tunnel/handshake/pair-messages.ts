import { familyOf, type IpAddress, ipFromBytes, ipToBytes } from '../../model/address.ts';
import { HandshakeError, isHandshakeCode } from './error.ts';
import { printable, protocolVersion, type WireLifetime, type WireSelector } from './messages.ts';

/**
 * What two nodes say within a node session (breach radius `node`, docs/TUNNELS.md): binary, because thousands of pairs come
 * at once. Messages are held as strings of bytes, which the heap carries more lightly than buffers: the first is the type,
 * the others the body.
 */
export const messageTypes = {
  hello: 1,
  chain: 2,
  'pair-offer': 3,
  'pair-answer': 4,
  installed: 5,
  refused: 6,
} as const;

export interface Hello {
  readonly type: 'hello';
  /** From the client only, for the server's report. */
  readonly group: string | undefined;
}

/** A pod's certificates, which the pairs that follow name by their digest. */
export interface Chain {
  readonly type: 'chain';
  /** DER, leaf first, without the root. Copies. */
  readonly presented: readonly Buffer[];
}

/** What takes the place of a handshake of the pair's own. */
export interface PairTerms {
  /** Of packets to the sender of this message: it chose it. */
  readonly spi: number;
  readonly selectors: readonly WireSelector[];
  /** Where the sender's node takes ESP in UDP. */
  readonly port: number;
  readonly lifetime: WireLifetime;
  /** Which of the chains that the sender has shown in this session is its pod's: `chainDigest` as a string of bytes. */
  readonly svid: string;
}

export interface PairAnswer extends PairTerms {
  readonly type: 'pair-answer';
  /** The message: part of what keys are derived from. */
  readonly encoded: string;
}

export interface PairOffer extends PairTerms {
  readonly type: 'pair-offer';
  readonly encoded: string;
  /** UID of the pod that is asked for: what the server name says where the pair has a handshake of its own. */
  readonly to: string;
}

export type PairMessage = PairOffer | PairAnswer | { readonly type: 'installed' };

export const nonceLength = 32;
const transformCode = 1;
const encapsulationCode = 1;
const digestLength = 32;
const spiAt = 4;
const digestAt = 28;
const nonceAt = digestAt + digestLength;
const selectorsAt = nonceAt + nonceLength;
const longestUid = 63;
const longestGroup = 64;
const longestCode = 64;
const longestDetail = 1024;
const longestLife = 86_400;
const lowestSpi = 256;
const word = 2 ** 32;

/** Messages are put together here; what is in it is no secret. */
const bench = Buffer.alloc(65_536);

const installed: PairMessage = { type: 'installed' };
export const encodedInstalled = String.fromCharCode(messageTypes.installed);

export function encodeHello(group: string | undefined): string {
  const name = group ?? '';
  return String.fromCharCode(messageTypes.hello, protocolVersion, name.length) + name;
}

export function encodeChain(presented: readonly Buffer[]): string {
  const parts = presented.map((der) => String.fromCharCode(der.length >> 8, der.length & 255) + der.toString('latin1'));
  return String.fromCharCode(messageTypes.chain, presented.length) + parts.join('');
}

export function encodeRefused(error: HandshakeError): string {
  const detail = Buffer.from(error.message.slice(0, longestDetail / 4), 'utf8').toString('latin1');
  const head = String.fromCharCode(messageTypes.refused, error.code.length) + error.code;
  return head + String.fromCharCode(detail.length >> 8, detail.length & 255) + detail;
}

/** @param nonce 32 random bytes, never used twice. @param to Of an offer: the UID of the pod that is asked for. */
export function encodePair(terms: PairTerms, nonce: Buffer, to?: string): string {
  const { spi, port, lifetime, svid, selectors } = terms;
  bench[0] = to === undefined ? messageTypes['pair-answer'] : messageTypes['pair-offer'];
  const body = 1;
  bench[body] = transformCode;
  bench[body + 1] = encapsulationCode;
  bench.writeUInt16BE(port, body + 2);
  bench.writeUInt32BE(spi, body + spiAt);
  bench.writeUInt32BE(lifetime.seconds, body + 8);
  writeLong(lifetime.bytes ?? 0, body + 12);
  writeLong(lifetime.packets ?? 0, body + 20);
  bench.write(svid, body + digestAt, digestLength, 'latin1');
  nonce.copy(bench, body + nonceAt, 0, nonceLength);
  let at = body + selectorsAt;
  bench[at++] = selectors.length;
  for (const { initiator, responder } of selectors) {
    const [from, dest] = [bytesOf(initiator), bytesOf(responder)];
    bench[at++] = from.length === 4 ? 4 : 6;
    at += bench.write(from, at, 'latin1');
    at += bench.write(dest, at, 'latin1');
  }
  if (to !== undefined) {
    bench[at++] = to.length;
    at += bench.write(to, at, longestUid, 'latin1');
  }
  return bench.toString('latin1', 0, at);
}

function writeLong(value: number, at: number): void {
  bench.writeUInt32BE(Math.floor(value / word), at);
  bench.writeUInt32BE(value % word, at + 4);
}

/** @param encoded An offer or an answer. @returns Where a salt comes from: the first bytes of its nonce. */
export function saltOf(encoded: string, length: number): Buffer {
  return Buffer.from(encoded.slice(1 + nonceAt, 1 + nonceAt + length), 'latin1');
}

/** @throws {HandshakeError} `version`, `bad-message` */
export function decodeHello(type: number, bytes: Buffer, start: number, end: number): Hello {
  if (type !== messageTypes.hello || end - start < 2) throw notProper('hello');
  const [version, length] = [bytes[start], bytes[start + 1] ?? 0];
  if (version !== protocolVersion)
    throw new HandshakeError('version', `the peer speaks version ${version}, not ${protocolVersion}`);
  const group = bytes.toString('latin1', start + 2, end);
  if (group.length !== length || length > longestGroup || !/^[\w.-]*$/.test(group)) throw notProper('hello');
  return { type: 'hello', group: group === '' ? undefined : group };
}

/** @throws {HandshakeError} `bad-message` */
export function decodeChain(type: number, bytes: Buffer, start: number, end: number): Chain {
  const count = bytes[start] ?? 0;
  if (type !== messageTypes.chain || end <= start || count < 1 || count > 4) throw notProper('chain');
  const presented: Buffer[] = [];
  let at = start + 1;
  for (let i = 0; i < count; i++) {
    if (at + 2 > end) throw notProper('chain');
    const length = bytes.readUInt16BE(at);
    at += 2;
    if (length === 0 || at + length > end) throw notProper('chain');
    presented.push(Buffer.from(bytes.subarray(at, at + length)));
    at += length;
  }
  if (at !== end) throw notProper('chain');
  return { type: 'chain', presented };
}

/**
 * Reads a message of a pair's conversation.
 * @throws {HandshakeError} `bad-message`; the peer's code, by the peer, where it is its refusal.
 */
export function decodePair(type: number, bytes: Buffer, start: number, end: number): PairMessage {
  switch (type) {
    case messageTypes.installed:
      if (start !== end) throw notProper('installed');
      return installed;
    case messageTypes['pair-offer']:
    case messageTypes['pair-answer']:
      return decodeTerms(type, bytes, start, end);
    case messageTypes.refused:
      throw decodeRefused(bytes, start, end);
    default:
      throw new HandshakeError('bad-message', `no message of a pair has type ${type}`);
  }
}

function decodeTerms(type: number, bytes: Buffer, start: number, end: number): PairOffer | PairAnswer {
  const name = type === messageTypes['pair-offer'] ? 'pair-offer' : 'pair-answer';
  if (end - start < selectorsAt + 1) throw notProper(name);
  if (bytes[start] !== transformCode || bytes[start + 1] !== encapsulationCode)
    throw new HandshakeError('bad-message', `"${name}" wants a transform or an encapsulation that is not known`);
  const port = bytes.readUInt16BE(start + 2);
  const spi = bytes.readUInt32BE(start + spiAt);
  const seconds = bytes.readUInt32BE(start + 8);
  if (port === 0 || spi < lowestSpi || seconds === 0 || seconds > longestLife) throw notProper(name);
  const lifetime = { seconds, bytes: readLong(bytes, start + 12), packets: readLong(bytes, start + 20) };
  const svid = bytes.toString('latin1', start + digestAt, start + nonceAt);
  let at = start + selectorsAt;
  const count = bytes[at++] ?? 0;
  if (count < 1 || count > 2) throw notProper(name);
  const selectors: WireSelector[] = [];
  for (let i = 0; i < count; i++) {
    const family = bytes[at++];
    const length = family === 4 ? 4 : 16;
    if ((family !== 4 && family !== 6) || at + 2 * length > end) throw notProper(name);
    const initiator = addressOf(bytes, at, length);
    const responder = addressOf(bytes, at + length, length);
    selectors.push({ initiator, responder });
    at += 2 * length;
  }
  // Type and body, to which the header of the frame is next.
  const encoded = bytes.toString('latin1', start - 1, end);
  if (name === 'pair-answer') {
    if (at !== end) throw notProper(name);
    return { type: name, spi, selectors, port, lifetime, svid, encoded };
  }
  const length = bytes[at++] ?? 0;
  if (length < 1 || length > longestUid || at + length !== end) throw notProper(name);
  return { type: name, spi, selectors, port, lifetime, svid, encoded, to: bytes.toString('latin1', at, end) };
}

function decodeRefused(bytes: Buffer, start: number, end: number): HandshakeError {
  const codeEnd = start + 1 + (bytes[start] ?? 0);
  if (end <= start || codeEnd + 2 > end || codeEnd - start - 1 > longestCode) return notProper('refused');
  const length = bytes.readUInt16BE(codeEnd);
  if (codeEnd + 2 + length !== end || length > longestDetail) return notProper('refused');
  const code = bytes.toString('latin1', start + 1, codeEnd);
  const detail = printable(bytes.toString('utf8', codeEnd + 2, end));
  // A code of a newer peer is still a refusal.
  return new HandshakeError(isHandshakeCode(code) ? code : 'bad-message', detail, { by: 'peer' });
}

/** @returns Undefined for none, which is said by zero. */
function readLong(bytes: Buffer, at: number): number | undefined {
  const value = bytes.readUInt32BE(at) * word + bytes.readUInt32BE(at + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new HandshakeError('bad-message', 'a limit of over 2^53');
  return value === 0 ? undefined : value;
}

/** Both ways, of addresses that came before: pods come back, and the text of an IPv6 address is slow to make. */
const texts = new Map<string, IpAddress>();
const bytesByText = new Map<IpAddress, string>();
const mostKnown = 4096;

function addressOf(bytes: Buffer, at: number, length: number): IpAddress {
  const key = bytes.toString('latin1', at, at + length);
  const known = texts.get(key);
  if (known !== undefined) return known;
  const address = ipFromBytes(bytes.subarray(at, at + length));
  if ((familyOf(address) === 4) !== (length === 4)) throw new HandshakeError('bad-message', 'an IPv4-mapped address');
  if (texts.size >= mostKnown) texts.clear();
  texts.set(key, address);
  return address;
}

function bytesOf(address: IpAddress): string {
  const known = bytesByText.get(address);
  if (known !== undefined) return known;
  const bytes = Buffer.from(ipToBytes(address)).toString('latin1');
  if (bytesByText.size >= mostKnown) bytesByText.clear();
  bytesByText.set(address, bytes);
  return bytes;
}

function notProper(name: string): HandshakeError {
  return new HandshakeError('bad-message', `not a proper "${name}"`);
}
