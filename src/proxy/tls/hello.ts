import { limits } from '../limits.ts';

/** What the bytes from the start of a TLS connection on are. More bytes change only `more`. */
export type HelloAnswer =
  | { readonly kind: 'more' }
  /** `protocols`: what is offered by ALPN (RFC 7301). */
  | { readonly kind: 'hello'; readonly serverName?: string; readonly protocols?: readonly string[] }
  | { readonly kind: 'refused'; readonly words: string };

class NotAHello extends Error {}

const handshake = 22;
const clientHello = 1;
const serverNameExtension = 0;
const protocolsExtension = 16;
/** encrypted_client_hello (RFC 9849). */
const encryptedHello = 0xfe0d;
const recordLimit = 16_384;
const recordHead = 5;

/**
 * Reads a ClientHello strictly (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2): every length exact, no extension twice,
 * at most one server name, of a host (RFC 6066 section 3). One that hides the name of the server that is meant
 * (Encrypted Client Hello) is refused, also where it only pretends to: nobody on the way can tell.
 * @param bytes From the first one on, all that have come; the ClientHello may be cut into records in any way.
 */
export function readHello(bytes: Uint8Array): HelloAnswer {
  try {
    const message = assemble(bytes);
    if (message === undefined) return { kind: 'more' };
    return { kind: 'hello', ...readMessage(new Reader(message)) };
  } catch (error) {
    if (error instanceof NotAHello) return { kind: 'refused', words: error.message };
    throw error;
  }
}

/** @returns The ClientHello's body, out of its records; undefined while it is not whole. */
function assemble(bytes: Uint8Array): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  let length = 0;
  let at = 0;
  for (;;) {
    if (at >= limits.helloOnWire) throw new NotAHello('a ClientHello in too many pieces');
    const [type, major, , high, low] = bytes.subarray(at, at + recordHead);
    if (type !== undefined && type !== handshake) throw new NotAHello('a record that is no handshake');
    if (major !== undefined && major !== 3) throw new NotAHello('another version than TLS');
    if (high === undefined || low === undefined) return undefined;
    const size = high * 256 + low;
    if (size === 0 || size > recordLimit) throw new NotAHello('a record of a length that none has');
    const part = bytes.subarray(at + recordHead, at + recordHead + size);
    parts.push(part);
    length += part.length;
    const [kind, ...rest] = headOf(parts);
    if (kind !== undefined && kind !== clientHello) throw new NotAHello('a handshake that begins with another message');
    const [a, b, c] = rest;
    if (c !== undefined) {
      const whole = 4 + (a ?? 0) * 65_536 + (b ?? 0) * 256 + c;
      if (whole - 4 > limits.hello) throw new NotAHello(`a ClientHello of more than ${limits.hello} bytes`);
      if (length > whole || (length === whole && part.length < size)) throw new NotAHello('more than a ClientHello');
      if (length === whole) return Buffer.concat(parts).subarray(4);
    }
    if (part.length < size) return undefined;
    at += recordHead + size;
  }
}

/** The first four bytes, or as many as there are. */
function headOf(parts: readonly Uint8Array[]): number[] {
  const head: number[] = [];
  for (const part of parts) {
    head.push(...part.subarray(0, 4 - head.length));
    if (head.length === 4) break;
  }
  return head;
}

/** @returns The server's name in lower case, and what is offered by ALPN, where they are there. */
function readMessage(hello: Reader): { serverName?: string; protocols?: readonly string[] } {
  if (hello.number(1) !== 3) throw new NotAHello('another version than TLS');
  hello.take(1 + 32);
  if (hello.vector(1).left > 32) throw new NotAHello('a session ID that is too long');
  const suites = hello.vector(2).left;
  if (suites < 2 || suites % 2 !== 0) throw new NotAHello('a list of cipher suites that is none');
  if (hello.vector(1).left < 1) throw new NotAHello('no compression method');
  if (hello.left === 0) return {};
  const extensions = hello.vector(2);
  hello.end();
  const seen = new Set<number>();
  const read: { serverName?: string; protocols?: readonly string[] } = {};
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const value = extensions.vector(2);
    if (seen.has(type)) throw new NotAHello('an extension twice');
    seen.add(type);
    if (type === encryptedHello) throw new NotAHello('a hidden server name (Encrypted Client Hello)');
    if (type === serverNameExtension) read.serverName = readServerName(value);
    if (type === protocolsExtension) read.protocols = readProtocols(value);
  }
  return read;
}

/** RFC 6066 section 3: in fact exactly one name, and of a host, without a dot at its end. */
function readServerName(extension: Reader): string {
  const names = extension.vector(2);
  extension.end();
  if (names.number(1) !== 0) throw new NotAHello('a server name that is no host’s');
  const name = names.vector(2).text();
  names.end();
  if (name.length > 253 || !/^[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*$/.test(name))
    throw new NotAHello('a server name that is no host’s');
  return name.toLowerCase();
}

/** RFC 7301 section 3.1: at least one, none of them empty. */
function readProtocols(extension: Reader): string[] {
  const list = extension.vector(2);
  extension.end();
  const names: string[] = [];
  while (list.left > 0) {
    const name = list.vector(1).text();
    if (name === '') throw new NotAHello('a protocol without a name');
    names.push(name);
  }
  if (names.length === 0) throw new NotAHello('a list of no protocols');
  return names;
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(count: number): Uint8Array {
    if (count > this.left) throw new NotAHello('a length beyond the end');
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  /** @param size Bytes. */
  number(size: number): number {
    return this.take(size).reduce((value, byte) => value * 256 + byte, 0);
  }

  /** @param size Bytes of its length. */
  vector(size: number): Reader {
    return new Reader(this.take(this.number(size)));
  }

  text(): string {
    return String.fromCharCode(...this.take(this.left));
  }

  end(): void {
    if (this.left !== 0) throw new NotAHello('bytes behind the end');
  }
}
