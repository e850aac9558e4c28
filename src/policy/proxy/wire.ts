import { z } from 'zod';
import { tryParseIp } from '../../model/address.ts';
import { MyelinError } from '../../model/error.ts';
import { identityNumber, lastNameIdentity } from '../../model/identity.ts';
import { type DropReason, dropReasons } from '../../model/verdict.ts';
import type { RequestMatch, RequestText } from '../request.ts';
import type { TlsSecret } from '../tls.ts';
import type { ProxyImage } from './image.ts';

/**
 * What agent and proxy say to each other on `proxy.sock`: a JSON object a line, either way. The proxy listens; of several
 * agents that connect the newest counts. Fields are added, never given a second meaning; what is not known is passed over.
 */

/** Lines longer than this end the connection. */
export const longestLine = 64 * 1024 * 1024;

const address = z.string().transform((text, context) => {
  const ip = tryParseIp(text);
  if (ip !== undefined) return ip;
  context.addIssue({ code: 'custom', message: 'not an IP address' });
  return z.NEVER;
});
const identity = z.number().int().min(0).max(lastNameIdentity).transform(identityNumber);
const port = z.number().int().min(0).max(0xffff);
const range = z.tuple([z.number(), z.number()]);

const text: z.ZodType<RequestText> = z.union([
  z.strictObject({
    op: z.enum(['exact', 'prefix', 'suffix']),
    text: z.string(),
    ignoreCase: z.literal(true).exactOptional(),
  }),
  z.strictObject({ op: z.literal('present') }),
  z
    .strictObject({ op: z.enum(['regex', 'template']), text: z.string() })
    .transform(({ op, text: source }) => (op === 'regex' ? { op, text: source } : { op, text: source })),
]);
const condition = z.strictObject({ some: z.array(text).exactOptional(), none: z.array(text).exactOptional() });
const pattern = z.strictObject({ pattern: z.string() });

/** Strict: a field of a newer agent that is not understood must not open anything. */
const match: z.ZodType<RequestMatch> = z.union([
  z.strictObject({
    kind: z.literal('http'),
    method: condition.exactOptional(),
    path: condition.exactOptional(),
    target: condition.exactOptional(),
    host: condition.exactOptional(),
    headers: z.array(condition.extend({ name: z.string() })).exactOptional(),
    serverName: condition.exactOptional(),
  }),
  z.strictObject({ kind: z.literal('dns'), names: z.array(pattern) }),
  z.strictObject({
    kind: z.literal('tls'),
    serverNames: z.array(pattern).exactOptional(),
    serverName: condition.exactOptional(),
  }),
]);

const secret: z.ZodType<TlsSecret> = z.strictObject({
  name: z.string(),
  by: z.string(),
  certificate: z.string().exactOptional(),
  privateKey: z.string().exactOptional(),
  trustedCA: z.string().exactOptional(),
});

const stage = z.strictObject({
  rules: z.array(
    z.strictObject({
      number: z.number(),
      flags: z.number(),
      verdict: z.enum(['allow', 'deny', 'pass']),
      reach: z.array(
        z.strictObject({ peers: z.array(range), ports: z.array(z.strictObject({ from: port, to: port })) }),
      ),
      requests: z.array(match).exactOptional(),
      tls: z.strictObject({ terminate: secret.exactOptional(), originate: secret.exactOptional() }).exactOptional(),
    }),
  ),
  isolated: z.strictObject({ rule: z.number(), flags: z.number() }).exactOptional(),
});

/** `ProxyImage`, of the same version as the agent's or refused whole. */
export const proxyImageSchema: z.ZodType<ProxyImage, unknown> = z.strictObject({
  endpoints: z.array(
    z.strictObject({
      addresses: z.array(address),
      identity4: identity,
      identity6: identity,
      ingress: z.number().exactOptional(),
      egress: z.number().exactOptional(),
    }),
  ),
  sides: z.array(z.strictObject({ admin: stage.exactOptional(), network: stage, mesh: stage.exactOptional() })),
  identities: z.array(z.tuple([identity, z.string()])),
  implied: z.array(z.tuple([identity, z.array(identity)])),
  rules: z.array(z.tuple([z.number(), z.string()])),
});

/** What a Secret that rules name holds (`NamedSecret`), each PEM. */
const tlsMaterialSchema = z.strictObject({
  role: z.enum(['terminate', 'originate']),
  secret,
  certificate: z.string().exactOptional(),
  privateKey: z.string().exactOptional(),
  trustedCA: z.string().exactOptional(),
});
export type TlsMaterial = z.infer<typeof tlsMaterialSchema>;

/** Said by the agent. */
export const agentMessageSchema = z.discriminatedUnion('type', [
  /** The whole of policy: it counts from the next request on. */
  z.object({ type: z.literal('policy'), revision: z.number(), image: proxyImageSchema }),
  /** All that rules name and that can be used; what is not there is not, and closes. It counts from the next connection on. */
  z.object({ type: z.literal('secrets'), secrets: z.array(tlsMaterialSchema) }),
  /** Nothing new is accepted; connections end as they can, and all of them after so long. The process then ends. */
  z.object({ type: z.literal('drain'), graceMs: z.number() }),
  /**
   * What is said of requests: of how many that are allowed one (0: none), and how many a second, of those that are allowed
   * and of those that are denied (0: none).
   */
  z.object({ type: z.literal('settings'), every: z.number(), perSecond: z.number() }),
]);
export type AgentMessage = z.infer<typeof agentMessageSchema>;

const isReason = (value: unknown): value is DropReason =>
  typeof value === 'string' && Object.hasOwn(dropReasons, value);

/** One request, or one TLS connection, and what became of it. */
export const proxyFlowSchema = z.object({
  /** Unix time, milliseconds, when it had been read. */
  time: z.number(),
  client: address,
  clientPort: port,
  server: address,
  serverPort: port,
  /** As the datapath gave it; 0 where nobody said. */
  identity: identity,
  protocol: z.enum(['http1', 'http2', 'tls', 'unknown']),
  verdict: z.enum(['allow', 'deny']),
  /** Where the verdict is deny. */
  reason: z.custom<DropReason>(isReason).optional(),
  direction: z.enum(['egress', 'ingress']),
  /** 0: none. */
  rule: z.number(),
  /** `optionFlags`. */
  flags: z.number().default(0),
  /** Empty where it could not be read. */
  method: z.string().default(''),
  /** Canonical, without the query, 128 bytes at most. Of gRPC `/service/method`. */
  path: z.string().default(''),
  /** Of HTTP; absent where there was no answer. */
  status: z.number().optional(),
  /** Of gRPC: what the trailers, or the proxy, said. */
  grpcStatus: z.number().optional(),
  /** Of TLS. */
  serverName: z.string().optional(),
  /** Until the answer began, in milliseconds. */
  latencyMs: z.number().optional(),
  /** How many should have been said before this one and were not, because it was too much. */
  unsaid: z.number().default(0),
});
export type ProxyFlow = z.infer<typeof proxyFlowSchema>;

/** What the proxy has, and has done since it started. */
export const proxyStatsSchema = z.object({
  /** Now. */
  connections: z.number(),
  streams: z.number(),
  /** Since the start. */
  accepted: z.number(),
  allowed: z.number(),
  denied: z.number(),
  /** Connections refused or reset before a request was judged, by reason. */
  refused: z.record(z.string(), z.number()).default({}),
  draining: z.boolean().default(false),
});
export type ProxyStats = z.infer<typeof proxyStatsSchema>;

/** Said by the proxy. */
export const proxyMessageSchema = z.discriminatedUnion('type', [
  /** First, to each agent. `revision`: of the image that it judges by, 0 before the first. */
  z.object({ type: z.literal('hello'), version: z.string(), pid: z.number(), revision: z.number() }),
  /** `lost`: how many flows were not kept for an agent since the last message. */
  z.object({ type: z.literal('requests'), flows: z.array(proxyFlowSchema), lost: z.number().default(0) }),
  z.object({ type: z.literal('stats'), stats: proxyStatsSchema }),
  /** A revision has been taken, or refused (the one before stays). */
  z.object({ type: z.literal('applied'), revision: z.number(), refused: z.string().optional() }),
]);
export type ProxyMessage = z.infer<typeof proxyMessageSchema>;

export class WireError extends MyelinError<'BadLine'> {}

/** @throws {WireError} where a line is none that an agent says. */
export function parseAgentLine(line: string): AgentMessage {
  return parseLine(agentMessageSchema, line);
}

/** @throws {WireError} where a line is none that a proxy says. */
export function parseProxyLine(line: string): ProxyMessage {
  return parseLine(proxyMessageSchema, line);
}

function parseLine<T>(schema: z.ZodType<T, unknown>, line: string): T {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new WireError('BadLine', 'a line on proxy.sock is not JSON', { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new WireError('BadLine', `a line on proxy.sock is not understood: ${z.prettifyError(parsed.error)}`);
}
