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
 * Between nodes (server name `node.<trust domain>`): `unknown-spi`, answered with `noted`. In a node session (breach
 * radius `node`, node-session.ts) each side first says `hello`, and shows each pod's chain once by `chain`; then, for each
 * pair, `pair-offer` and `pair-answer` stand in the places of `offer` and `answer`.
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

/** What takes the place of a handshake of the pair's own: whom, by which certificate, and this side's share of freshness. */
interface Vouched {
  /** Which of the chains that the sender has shown in this session is its pod's: what `chainDigest` makes of it. */
  readonly svid: string;
  /** 32 random bytes in base64, never used twice. */
  readonly nonce: string;
}

export interface PairOffer extends Omit<Offer, 'type' | 'group'>, Vouched {
  readonly type: 'pair-offer';
  /** UID of the pod that is asked for: what the server name says where the pair has a handshake of its own. */
  readonly to: string;
}

export interface PairAnswer extends Omit<Offer, 'type' | 'group'>, Vouched {
  readonly type: 'pair-answer';
}

/** A pod's certificates, which the pairs that follow name by their digest. */
export interface Chain {
  readonly type: 'chain';
  /** DER in base64, leaf first, without the root. */
  readonly svid: readonly string[];
}

export interface Hello {
  readonly type: 'hello';
  readonly version: typeof protocolVersion;
  /** From the client only, for the server's report. */
  readonly group?: string | undefined;
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
/** What it decodes to is checked where it is used; the text itself is part of the transcript. */
const base64 = (longest: number) => z.string().min(4).max(longest);
const vouched = {
  svid: base64(44).length(44),
  nonce: base64(44).length(44),
};
const chainSchema: z.ZodType<Chain> = z.strictObject({
  type: z.literal('chain'),
  svid: z.array(base64(12_000)).min(1).max(4),
});
const pairOfferSchema: z.ZodType<PairOffer> = z.strictObject({
  type: z.literal('pair-offer'),
  to: z.string().min(1).max(63),
  ...terms,
  ...vouched,
});
const pairAnswerSchema: z.ZodType<PairAnswer> = z.strictObject({
  type: z.literal('pair-answer'),
  ...terms,
  ...vouched,
});
const helloSchema: z.ZodType<Hello> = z.strictObject({
  type: z.literal('hello'),
  version: z.literal(protocolVersion),
  group: groupName,
});
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
  hello: helloSchema,
  chain: chainSchema,
  offer: offerSchema,
  answer: answerSchema,
  'pair-offer': pairOfferSchema,
  'pair-answer': pairAnswerSchema,
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

const encodedInstalled = encodeMessage({ type: 'installed' });

/**
 * Reads the one message that may come now.
 * @throws {HandshakeError} `version`; `bad-message` for anything that is not exactly such a message; the peer's code,
 *   by the peer, where the line is its refusal.
 */
export function decodeMessage<Type extends MessageType>(type: Type, line: string): MessageOf<Type>;
export function decodeMessage(type: MessageType, line: string): MessageOf<MessageType> {
  // Half of all messages, in the words that everybody uses.
  if (type === 'installed' && line === encodedInstalled) return { type };
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new HandshakeError('bad-message', `a line that is not JSON where "${type}" was due`, { cause });
  }
  if (type === 'pair-offer' && isPairOffer(json)) return json;
  if (type === 'pair-answer' && isPairAnswer(json)) return json;
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

/*
 * What the schemas of `pair-offer` and `pair-answer` say, by hand: thousands come at once, and a schema takes ten times as
 * long. Only for messages with all members whose addresses came before; any other is the schema's to judge.
 */

function isPairOffer(said: unknown): said is PairOffer {
  return (
    hasMembers(said, 11) &&
    'type' in said &&
    said.type === 'pair-offer' &&
    'to' in said &&
    isText(said.to, 1, 63) &&
    hasTerms(said)
  );
}

function isPairAnswer(said: unknown): said is PairAnswer {
  return hasMembers(said, 10) && 'type' in said && said.type === 'pair-answer' && hasTerms(said);
}

function hasTerms(said: object): boolean {
  return (
    'version' in said &&
    said.version === protocolVersion &&
    'spi' in said &&
    isWhole(said.spi, 256, 0xffff_ffff) &&
    'transform' in said &&
    said.transform === transform &&
    'encapsulation' in said &&
    said.encapsulation === 'udp' &&
    'port' in said &&
    isWhole(said.port, 1, 65_535) &&
    'svid' in said &&
    isText(said.svid, 44, 44) &&
    'nonce' in said &&
    isText(said.nonce, 44, 44) &&
    'lifetime' in said &&
    isLifetime(said.lifetime) &&
    'selectors' in said &&
    Array.isArray(said.selectors) &&
    (said.selectors.length === 1 || said.selectors.length === 2) &&
    said.selectors.every(isSelector)
  );
}

function isLifetime(said: unknown): boolean {
  return (
    hasMembers(said, 3) &&
    'seconds' in said &&
    isWhole(said.seconds, 1, 86_400) &&
    'bytes' in said &&
    isWhole(said.bytes, 1) &&
    'packets' in said &&
    isWhole(said.packets, 1)
  );
}

function isSelector(said: unknown): boolean {
  return (
    hasMembers(said, 2) &&
    'initiator' in said &&
    isKnown(said.initiator) &&
    'responder' in said &&
    isKnown(said.responder)
  );
}

function hasMembers(said: unknown, count: number): said is object {
  if (typeof said !== 'object' || said === null) return false;
  let members = 0;
  // What JSON gave inherits nothing that could be counted.
  for (const _ in said) members++;
  return members === count;
}

function isWhole(said: unknown, least: number, most: number = Number.MAX_SAFE_INTEGER): boolean {
  return typeof said === 'number' && Number.isSafeInteger(said) && said >= least && said <= most;
}

function isText(said: unknown, shortest: number, longest: number): boolean {
  return typeof said === 'string' && said.length >= shortest && said.length <= longest;
}

function isKnown(said: unknown): boolean {
  return typeof said === 'string' && canonical.has(said);
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
  return {
    ...(bytes === undefined ? {} : { hardBytes: bytes, softBytes: Math.max(1, Math.floor(bytes * share)) }),
    ...(packets === undefined ? {} : { hardPackets: packets, softPackets: Math.max(1, Math.floor(packets * share)) }),
  };
}

/** A peer's words go into logs and onto terminals: control characters stay out of both. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, '·');
}
