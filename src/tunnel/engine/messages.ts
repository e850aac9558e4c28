import {
  type DriverStatistics,
  type DropReport,
  type Expiry,
  type InstalledSa,
  type SaId,
  type TrafficSelector,
  TunnelError,
  type TunnelErrorCode,
  tunnelDropReasonFromCode,
  type UnderlayAddress,
} from '../driver.ts';
import { type Frame, messageType, noLimit } from './protocol.ts';
import { Reader } from './reader.ts';

/** What an engine says of itself when a connection starts. */
export interface EngineHello {
  readonly version: number;
  readonly pid: number;
  /** Random, another for every start: tells a restarted engine from one that was merely reconnected to. */
  readonly instance: bigint;
  /** The implementation of AES-256-GCM in use. */
  readonly aead: string;
  /** The TUN device takes UDP super-packets. */
  readonly udpOffload: boolean;
  /** The kernel coalesces what the UDP socket receives. */
  readonly receiveOffload: boolean;
  /** All key memory is locked into RAM. */
  readonly keysLocked: boolean;
  /** The kernel takes ESP out of a socket of the port that the engine keeps open. */
  readonly kernelEsp: boolean;
  /** That seal, and as many that open. */
  readonly threads: number;
  /** Its sockets share the port with others: one of a version before this was alone with it. */
  readonly sharesPort: boolean;
}

export type EngineStatus = 'ok' | TunnelErrorCode;

/** Everything that the engine says. Answers carry the id of their request. */
export type EngineMessage =
  | { readonly kind: 'done'; readonly id: number; readonly status: EngineStatus; readonly more: boolean }
  | { readonly kind: 'sa'; readonly id: number; readonly serial: bigint; readonly sa: InstalledSa }
  | { readonly kind: 'counters'; readonly id: number; readonly statistics: DriverStatistics }
  | { readonly kind: 'hello'; readonly hello: EngineHello }
  | { readonly kind: 'acquire'; readonly pair: TrafficSelector }
  | { readonly kind: 'expiry'; readonly when: 'soft' | 'hard'; readonly expiry: Expiry }
  | { readonly kind: 'unknownSpi'; readonly spi: number; readonly from: UnderlayAddress }
  | { readonly kind: 'moved'; readonly sa: SaId; readonly from: UnderlayAddress }
  /** Absent where the reason is one that this agent does not know. */
  | { readonly kind: 'drop'; readonly report?: DropReport };

const statuses: readonly EngineStatus[] = ['ok', 'SaExists', 'NoSuchSa', 'InvalidSa', 'DriverFull'];
const causes = ['bytes', 'packets', 'sequence'] as const;

/** @throws {TunnelError} `DriverProtocol` for anything that is not exactly a message. */
export function decodeMessage(frame: Frame): EngineMessage {
  const reader = new Reader(frame.payload);
  try {
    const message = decode(frame.type, reader);
    if (reader.rest !== 0) throw new RangeError(`${reader.rest} bytes too many`);
    return message;
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const what = `the engine sent a malformed message of type ${frame.type}: ${cause.message}`;
    throw new TunnelError('DriverProtocol', what, { cause, data: { type: frame.type, length: frame.payload.length } });
  }
}

function decode(type: number, reader: Reader): EngineMessage {
  switch (type) {
    case messageType.done:
      return decodeDone(reader);
    case messageType.sa:
      return decodeSa(reader);
    case messageType.counters:
      return decodeCounters(reader);
    case messageType.hello:
      return { kind: 'hello', hello: decodeHello(reader) };
    case messageType.acquire:
      return { kind: 'acquire', pair: reader.selector() };
    case messageType.expiry:
      return decodeExpiry(reader);
    case messageType.unknownSpi:
      return { kind: 'unknownSpi', spi: reader.u32(), from: reader.underlay() };
    case messageType.moved:
      return { kind: 'moved', sa: reader.saId(), from: reader.underlay() };
    case messageType.drop:
      return decodeDrop(reader);
    default:
      throw new RangeError('unknown type');
  }
}

function decodeDone(reader: Reader): EngineMessage {
  const id = reader.u32();
  const code = reader.u8();
  const status = statuses[code];
  if (status === undefined) throw new RangeError(`unknown status ${code}`);
  return { kind: 'done', id, status, more: reader.u8() !== 0 };
}

function decodeDrops(count: number, next: () => number): DriverStatistics['drops'] {
  const drops: Record<string, number> = {};
  for (let code = 0; code < count; code++) {
    const drop = next();
    const reason = tunnelDropReasonFromCode(code);
    if (drop > 0) drops[reason ?? `REASON_${code}`] = drop;
  }
  return drops;
}

function decodeSa(reader: Reader): EngineMessage {
  const id = reader.u32();
  const serial = reader.u64();
  const sa = reader.saId();
  const flags = reader.u8();
  const selectorCount = reader.u8();
  const selectors = [reader.selector(), reader.selector()].slice(0, selectorCount);
  const lifetimes = reader.lifetimes();
  const replayWindow = reader.u32();
  const packets = reader.count();
  const bytes = reader.count();
  const idle = reader.u64();
  const sequence = reader.count();
  const dropCount = reader.u16();
  const noteLength = reader.u16();
  const drops = decodeDrops(dropCount, () => reader.u32());
  const note = reader.take(noteLength).toString('utf8');
  return {
    kind: 'sa',
    id,
    serial,
    sa: {
      ...sa,
      selectors,
      lifetimes,
      replayWindow,
      note,
      expired: (flags & 1) !== 0,
      statistics: { packets, bytes, sequence, drops, ...(idle === noLimit ? {} : { idleMs: Number(idle) }) },
    },
  };
}

function decodeCounters(reader: Reader): EngineMessage {
  const id = reader.u32();
  const pair = () => ({ packets: reader.count(), bytes: reader.count() });
  const sealed = pair();
  const opened = pair();
  const held = { pairs: reader.count(), ...pair() };
  const sas = { in: reader.count(), out: reader.count() };
  const dropCount = reader.u16();
  const detailCount = reader.u16();
  const drops = decodeDrops(dropCount, () => reader.count());
  const details: Record<string, number> = {};
  for (let i = 0; i < detailCount; i++) details[reader.text(24)] = reader.count();
  return { kind: 'counters', id, statistics: { drops, sealed, opened, held, sas, details } };
}

function decodeHello(reader: Reader): EngineHello {
  const version = reader.u32();
  const pid = reader.u32();
  const instance = reader.u64();
  const flags = reader.u32();
  return {
    version,
    pid,
    instance,
    aead: reader.text(16),
    udpOffload: (flags & 1) !== 0,
    receiveOffload: (flags & 2) !== 0,
    keysLocked: (flags & 4) !== 0,
    kernelEsp: (flags & 8) !== 0,
    threads: (flags >>> 8) & 0xf || 1,
    sharesPort: ((flags >>> 8) & 0xf) !== 0,
  };
}

function decodeExpiry(reader: Reader): EngineMessage {
  const sa = reader.saId();
  const kind = reader.u8();
  const cause = causes[reader.u8()];
  if (kind > 1 || cause === undefined) throw new RangeError('unknown kind or cause of expiry');
  return { kind: 'expiry', when: kind === 0 ? 'soft' : 'hard', expiry: { sa, cause } };
}

function decodeDrop(reader: Reader): EngineMessage {
  const code = reader.u16();
  const has = reader.u16();
  const count = reader.count();
  const spi = reader.u32();
  const from = reader.underlay();
  const selector = reader.selector();
  const reason = tunnelDropReasonFromCode(code);
  if (reason === undefined) return { kind: 'drop' };
  return {
    kind: 'drop',
    report: {
      reason,
      count,
      ...((has & 1) === 0 ? {} : { spi }),
      ...((has & 2) === 0 ? {} : { from }),
      ...((has & 4) === 0 ? {} : { selector }),
    },
  };
}
