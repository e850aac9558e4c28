import { z } from 'zod';
import { type IpAddress, tryParseIp } from '../../model/address.ts';
import type { Lifetimes } from '../driver.ts';
import { HandshakeError, isHandshakeCode } from './error.ts';

/**
 * The lines that the two agents exchange inside TLS, one JSON object each (docs/TUNNELS.md):
 *
 *   initiator → responder   offer
 *   responder → initiator   answer: the responder's inbound SA is in place; or refused
 *   initiator → responder   installed: the initiator's inbound SA is in place
 *   responder → initiator   installed: the responder has done all that it had to
 *
 * Between nodes (server name `node.<trust domain>`): `unknown-spi`, answered with `noted`. What is said in a node session
 * (breach radius `node`) is in pair-messages.ts.
 */
export const protocolVersion = 1;

/** The one ESP transform of version 1: AES-256-GCM with 16-byte ICV (RFC 4106) and extended sequence numbers (RFC 4304). */
export const transform = 'aes256gcm16-esn';

/** A pair of pod addresses of one family. */
export interface WireSelector {
  readonly initiator: IpAddress;
  readonly responder: IpAddress;
}

/** Limits on what the keys protect; the smaller of both sides' holds for both. */
export interface WireLifetime {
  readonly seconds: number;
  readonly bytes?: number | undefined;
  readonly packets?: number | undefined;
}

export interface Offer {
  readonly type: 'offer';
  readonly version: typeof protocolVersion;
  /** Of packets to the sender of this message: it chose it. */
  readonly spi: number;
  readonly selectors: readonly WireSelector[];
  readonly transform: typeof transform;
  readonly encapsulation: 'udp';
  /** Where the sender's node takes ESP in UDP. */
  readonly port: number;
  readonly lifetime: WireLifetime;
  /** For the responder's report only: the initiator's TLS tells it the key-exchange group, the responder's does not. */
  readonly group?: string | undefined;
}

export interface Answer extends Omit<Offer, 'type' | 'group'> {
  readonly type: 'answer';
}

export interface Refused {
  readonly type: 'refused';
  readonly code: string;
  readonly detail: string;
}

export interface UnknownSpi {
  readonly type: 'unknown-spi';
  readonly spis: readonly number[];
}

const spi = z.int().min(256).max(0xffff_ffff);
/** Addresses whose text was found to be canonical: pods come back, and the text of an IPv6 address is slow to check. */
const canonical = new Map<string, IpAddress>();
const mostCanonical = 4096;
/** Canonical text only: equal addresses must be equal strings in the transcript and in every check. */
const address = z
  .string()
  .max(45)
  .transform((text, context): IpAddress => {
    const parsed = canonical.get(text) ?? tryParseIp(text);
    if (parsed !== undefined && parsed === text) {
      if (canonical.size >= mostCanonical) canonical.clear();
      canonical.set(text, parsed);
      return parsed;
    }
    context.addIssue({ code: 'custom', message: 'not an IP address in canonical form' });
    return z.NEVER;
  });
const terms = {
  version: z.literal(protocolVersion),
  spi,
  selectors: z
    .array(z.strictObject({ initiator: address, responder: address }))
    .min(1)
    .max(2),
  transform: z.literal(transform),
  encapsulation: z.literal('udp'),
  port: z.int().min(1).max(65_535),
  lifetime: z.strictObject({
    seconds: z.int().min(1).max(86_400),
    bytes: z.int().min(1).optional(),
    packets: z.int().min(1).optional(),
  }),
};
const groupName = z
  .string()
  .regex(/^[\w.-]{1,64}$/)
  .optional();
const offerSchema: z.ZodType<Offer> = z.strictObject({
  type: z.literal('offer'),
  ...terms,
  group: groupName,
});
const answerSchema: z.ZodType<Answer> = z.strictObject({ type: z.literal('answer'), ...terms });
const installedSchema = z.strictObject({ type: z.literal('installed') });
const notedSchema = z.strictObject({ type: z.literal('noted') });
const refusedSchema: z.ZodType<Refused> = z.strictObject({
  type: z.literal('refused'),
  code: z.string().max(64),
  detail: z.string().max(1024),
});
export const mostSpis = 256;
const unknownSpiSchema: z.ZodType<UnknownSpi> = z.strictObject({
  type: z.literal('unknown-spi'),
  spis: z.array(spi).min(1).max(mostSpis),
});

const schemas = {
  offer: offerSchema,
  answer: answerSchema,
  installed: installedSchema,
  noted: notedSchema,
  'unknown-spi': unknownSpiSchema,
} as const;

export type MessageType = keyof typeof schemas;
export type MessageOf<Type extends MessageType> = z.infer<(typeof schemas)[Type]>;
export type Message = MessageOf<MessageType> | Refused;

/** @returns The message as one line, without the line feed: these bytes are the transcript. */
export function encodeMessage(message: Message): string {
  return JSON.stringify(message);
}

/**
 * Reads the one message that may come now.
 * @throws {HandshakeError} `version`; `bad-message` for anything that is not exactly such a message; the peer's code,
 *   by the peer, where the line is its refusal.
 */
export function decodeMessage<Type extends MessageType>(type: Type, line: string): MessageOf<Type>;
export function decodeMessage(type: MessageType, line: string): MessageOf<MessageType> {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new HandshakeError('bad-message', `a line that is not JSON where "${type}" was due`, { cause });
  }
  // Looked at by hand first: a schema that does not fit takes long to say so.
  const said = typeof json === 'object' && json !== null ? json : {};
  if ('type' in said && said.type === 'refused') {
    const refused = refusedSchema.safeParse(said);
    // A code of a newer peer is still a refusal.
    if (refused.success) {
      const { code, detail } = refused.data;
      throw new HandshakeError(isHandshakeCode(code) ? code : 'bad-message', printable(detail), { by: 'peer' });
    }
  }
  // Before the rest, so that a newer version is told from garbage.
  if ('version' in said && Number.isSafeInteger(said.version) && said.version !== protocolVersion)
    throw new HandshakeError('version', `the peer speaks version ${String(said.version)}, not ${protocolVersion}`);
  const parsed = schemas[type].safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.map(String).join('.')}`;
  throw new HandshakeError('bad-message', `not a proper "${type}"${where}: ${issue?.message ?? 'unreadable'}`);
}

/** The smaller of two limits, each of which may be absent. */
export function shorter(a: WireLifetime, b: WireLifetime): WireLifetime {
  const least = (x?: number, y?: number) => (x === undefined ? y : y === undefined ? x : Math.min(x, y));
  return {
    seconds: Math.min(a.seconds, b.seconds),
    bytes: least(a.bytes, b.bytes),
    packets: least(a.packets, b.packets),
  };
}

/**
 * What the driver is told: the agreed limits are hard, and renewal begins before them, the initiator's earlier than
 * the responder's, so that they seldom begin together.
 */
export function driverLifetimes({ bytes, packets }: WireLifetime, initiator: boolean): Lifetimes {
  const share = initiator ? 0.8 : 0.9;
  const soft = (hard: number) => Math.max(1, Math.floor(hard * share));
  if (bytes === undefined) return packets === undefined ? {} : { hardPackets: packets, softPackets: soft(packets) };
  if (packets === undefined) return { hardBytes: bytes, softBytes: soft(bytes) };
  return { hardBytes: bytes, softBytes: soft(bytes), hardPackets: packets, softPackets: soft(packets) };
}

/** A peer's words go into logs and onto terminals: control characters stay out of both. */
export function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, '·');
}
