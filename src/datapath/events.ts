import { RingBuffer } from '../kernel/bpf/ringbuf.ts';
import type { IpAddress } from '../model/address.ts';
import type { FlowEventKind, HttpExchange } from '../model/flow.ts';
import type { IdentityNumber } from '../model/identity.ts';
import { type Direction, type DropReason, dropReasonFromCode } from '../model/verdict.ts';
import { httpSaid } from './http/layouts.ts';
import { directionCodes, type EventRecord, event, eventFlags } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** What the datapath says of a connection or a denial, before anybody has looked up names. */
export interface DatapathEvent {
  readonly kind: FlowEventKind;
  /** Unix time, milliseconds. */
  readonly time: number;
  /** Seen from the endpoint: who opened the connection; of a denial, which way the packet went. */
  readonly direction: Direction;
  readonly verdict: 'allow' | 'deny';
  /** Of a denial, or of what would have been one (`audit`); a code that this version does not know is given as a number. */
  readonly reason?: DropReason | number;
  /** IP protocol number; 0 where the packet was not understood so far. */
  readonly protocol: number;
  /** All that were seen of the connection. */
  readonly tcpFlags: number;
  /** Id of the endpoint; 0 where none was found. */
  readonly endpoint: number;
  readonly ifindex: number;
  /** Number of the rule that decided (`PolicyImage.rules`). */
  readonly rule: number;
  readonly source: DatapathEventEnd;
  readonly destination: DatapathEventEnd;
  /** Id of the service that the connection was made to; 0: none. */
  readonly service: number;
  /** Both directions of the connection so far; of a denial, what was denied since it was last reported. */
  readonly packets: number;
  readonly bytes: number;
  /** Nanoseconds since the first packet; absent on `new` and `deny`. */
  readonly durationNs?: number;
  /** Of a request. */
  readonly http?: HttpExchange;
  /** Present where the rule wants it said in the log: how much of the rule's was not, because it was too much. */
  readonly unsaid?: number;
}

export interface DatapathEventEnd {
  readonly address: IpAddress;
  readonly port: number;
  readonly identity: IdentityNumber;
}

const kinds: readonly (FlowEventKind | undefined)[] = [undefined, 'new', 'end', 'periodic', 'deny', 'audit', 'request'];
const allowed = 1;

export function directionOf(code: number): Direction {
  return code === directionCodes.ingress ? 'ingress' : 'egress';
}

/** @returns Unix time in milliseconds of a moment on the kernel's monotonic clock, as the two clocks stand now. */
export function unixTime(monotonicNs: bigint): number {
  return Date.now() - Number(process.hrtime.bigint() - monotonicNs) / 1e6;
}

/** @returns The event of a record of the ring buffer; undefined for a kind that this version does not know. */
export function decodeEvent(record: EventRecord): DatapathEvent | undefined {
  const kind = kinds[record.kind];
  if (kind === undefined) return undefined;
  const timed = kind === 'end' || kind === 'periodic' || (kind === 'request' && record.durationNs !== 0n);
  return {
    kind,
    time: unixTime(record.timeNs),
    direction: directionOf(record.direction),
    verdict: record.verdict === allowed ? 'allow' : 'deny',
    ...(record.reason === 0 ? {} : { reason: dropReasonFromCode(record.reason) ?? record.reason }),
    protocol: record.protocol,
    tcpFlags: record.tcpFlags,
    endpoint: record.endpoint,
    ifindex: record.ifindex,
    rule: record.rule,
    source: { address: record.source, port: record.sourcePort, identity: record.sourceIdentity },
    destination: {
      address: record.destination,
      port: record.destinationPort,
      identity: record.destinationIdentity,
    },
    service: record.service,
    packets: Number(record.packets),
    bytes: Number(record.bytes),
    ...((record.flags & eventFlags.logged) === 0 ? {} : { unsaid: record.unsaid }),
    ...(timed ? { durationNs: Number(record.durationNs) } : {}),
  };
}

/** @returns What a record of a request (`struct http_event`) says beyond what all events say. */
function decodeRequest(record: Uint8Array): HttpExchange {
  const { status, methodLength, pathLength, unsaid, method, path } = httpSaid.decode(record.subarray(event.size));
  const text = (bytes: Uint8Array, length: number) => Buffer.from(bytes.subarray(0, length)).toString('latin1');
  return {
    method: text(method, methodLength),
    path: text(path, pathLength),
    ...(status === 0 ? {} : { status }),
    unsaid,
  };
}

/** Reads the ring of events; there can be one reader of a ring. */
export class EventReader {
  readonly #ring: RingBuffer;
  #undecodable = 0;

  constructor(maps: Pick<DatapathMaps, 'events'>, onEvent: (event: DatapathEvent) => void) {
    this.#ring = new RingBuffer(maps.events, (record) => {
      const decoded = record.length < event.size ? undefined : decodeEvent(event.decode(record));
      if (decoded === undefined) this.#undecodable++;
      else onEvent(record.length >= event.size + httpSaid.size ? { ...decoded, http: decodeRequest(record) } : decoded);
    });
  }

  /** Records that this version could make nothing of. */
  get undecodable(): number {
    return this.#undecodable;
  }

  /** Reads what is there without waiting for the event loop. @returns How many events. */
  drain(): number {
    return this.#ring.drain();
  }

  close(): void {
    this.#ring.close();
  }
}
