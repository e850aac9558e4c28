import { decode } from 'dns-packet';
import { type IpAddress, ipFromBytes } from '../../src/model/address.ts';

/** A record of an answer, as far as names' addresses go. */
export interface ReferenceRecord {
  /** In lower case. */
  readonly owner: string;
  readonly alias?: string;
  readonly address?: IpAddress;
}

export interface ReferenceAnswer {
  readonly id: number;
  readonly question: string;
  readonly records: readonly ReferenceRecord[];
}

/**
 * Reads the question and the answers of a DNS response, written to be read beside RFC 1035: what bpf/lib/dns.h is held
 * against. A label that has a dot or a byte that is no ASCII in it becomes one that no name has.
 * @returns Undefined where it is none, or cannot be read.
 */
export function readAnswer(message: Uint8Array): ReferenceAnswer | undefined {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  try {
    const [id, flags, questions, answers] = [0, 2, 4, 6].map((at) => view.getUint16(at));
    if (flags === undefined || id === undefined || answers === undefined) return undefined;
    if ((flags & 0xf800) !== 0x8000 || questions !== 1) return undefined;
    const question = readName(view, 12);
    let at = question.end + 4;
    const records: ReferenceRecord[] = [];
    for (let i = 0; i < answers; i++) {
      const owner = readName(view, at);
      const [type, family] = [view.getUint16(owner.end), view.getUint16(owner.end + 2)];
      const length = view.getUint16(owner.end + 8);
      const start = owner.end + 10;
      at = start + length;
      if (at > message.length) return undefined;
      const data = message.subarray(start, at);
      if (family !== 1) continue;
      if (type === 5) records.push({ owner: owner.name, alias: readName(view, start).name });
      else if ((type === 1 && length === 4) || (type === 28 && length === 16))
        records.push({ owner: owner.name, address: ipFromBytes(type === 1 ? mapped(data) : data) });
    }
    return { id, question: question.name, records };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** The addresses of the name that was asked for, by way of all its aliases. */
export function addressesIn({ question, records }: ReferenceAnswer): Set<IpAddress> {
  const names = new Set([question]);
  for (let before = 0; before < names.size; ) {
    before = names.size;
    for (const { owner, alias } of records) if (alias !== undefined && names.has(owner)) names.add(alias);
  }
  return new Set(records.flatMap(({ owner, address }) => (address !== undefined && names.has(owner) ? [address] : [])));
}

/** What dns-packet makes of the same message, where it can read all of it. */
export function readByPacket(message: Uint8Array): { owner: string; data: string }[] | undefined {
  try {
    return (decode(Buffer.from(message)).answers ?? []).flatMap((answer) =>
      (answer.type === 'A' || answer.type === 'AAAA' || answer.type === 'CNAME') && answer.class === 'IN'
        ? [{ owner: answer.name.toLowerCase(), data: answer.data.toLowerCase() }]
        : [],
    );
  } catch {
    return undefined;
  }
}

function mapped(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from([...new Array<number>(10).fill(0), 0xff, 0xff, ...bytes]);
}

/** @throws {RangeError} where there is none. */
function readName(view: DataView, start: number): { name: string; end: number } {
  const labels: string[] = [];
  let end: number | undefined;
  let limit = start;
  let total = 0;
  for (let at = start; ; ) {
    const length = view.getUint8(at);
    if (length === 0) return { name: labels.length === 0 ? '.' : labels.join('.'), end: end ?? at + 1 };
    if (length >= 0xc0) {
      const target = view.getUint16(at) & 0x3fff;
      if (target >= limit) throw new RangeError('a pointer that does not lead to the front');
      end ??= at + 2;
      at = target;
      limit = target;
      continue;
    }
    if (length >= 0x40) throw new RangeError('no label');
    total += length + 1;
    if (total > 254) throw new RangeError('a name that is too long');
    const bytes = Array.from({ length }, (_, i) => view.getUint8(at + 1 + i));
    labels.push(
      bytes
        .map((byte) => (byte === 0x2e || byte > 0x7e ? `\\${byte}` : String.fromCharCode(byte)))
        .join('')
        .toLowerCase(),
    );
    at += length + 1;
  }
}
