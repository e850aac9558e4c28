import {
  canonicalTarget,
  headerLimit,
  headLimit,
  isHost,
  isToken,
  isValue,
  methodLimit,
  NotCanonical,
} from '../../policy/http/canonical.ts';
import type { HttpRequest } from '../../policy/request.ts';

/** A header list as node:http2 hands it on: name, value, name, value, in its order, one character for each byte. */
export type RawHeaders = readonly string[];

export type RequestAnswer =
  | { readonly kind: 'request'; readonly request: HttpRequest; readonly grpc: boolean }
  | { readonly kind: 'refused'; readonly reason: 'HTTP_MALFORMED' | 'HTTP_HEAD_TOO_BIG'; readonly words: string };

const pseudoNames = new Set([':method', ':scheme', ':path', ':authority']);
/** RFC 9113 section 8.2.2: about a connection of HTTP/1; and what asks to leave HTTP. */
const connectionNames = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/**
 * The canonical form of a request of HTTP/2: what policy/http/canonical.ts says of HTTP/1.1, of the parts that say the
 * same here. The path is one (no authority stands in it), or `*` for OPTIONS; `:authority` and Host say the same where
 * both are there, and one of them is; cookies in several lines are one (RFC 9113 section 8.2.3). CONNECT is refused, of
 * any kind. nghttp2 has refused more already (a name in capitals, a length that is not the data's): docs/HTTP.md.
 */
export function readRequest(raw: RawHeaders): RequestAnswer {
  try {
    return assemble(pairsOf(raw));
  } catch (error) {
    if (error instanceof NotCanonical) return { kind: 'refused', reason: 'HTTP_MALFORMED', words: error.message };
    throw error;
  }
}

type Pair = readonly [name: string, value: string];

function pairsOf(raw: RawHeaders): Pair[] {
  return Array.from({ length: Math.floor(raw.length / 2) }, (_, at) => [raw[2 * at] ?? '', raw[2 * at + 1] ?? '']);
}

function assemble(pairs: readonly Pair[]): RequestAnswer {
  // As long as its lines would be in HTTP/1: one limit for one rule set.
  const size = pairs.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
  if (size > headLimit || pairs.length > headerLimit + pseudoNames.size)
    return { kind: 'refused', reason: 'HTTP_HEAD_TOO_BIG', words: `a head of more than ${headLimit} bytes` };
  const pseudo = new Map<string, string>();
  const headers: Pair[] = [];
  const cookies: string[] = [];
  for (const [name, value] of pairs) {
    if (!isValue(value)) throw new NotCanonical('a byte that no value has');
    if (name.startsWith(':')) {
      if (!pseudoNames.has(name) || pseudo.has(name) || headers.length > 0)
        throw new NotCanonical('a pseudo-header that no request has');
      pseudo.set(name, value);
      continue;
    }
    if (!isToken(name) || name !== name.toLowerCase()) throw new NotCanonical('a header without a name');
    if (connectionNames.has(name)) throw new NotCanonical('a header about the connection');
    if (name === 'expect' && value.toLowerCase() !== '100-continue')
      throw new NotCanonical('an expectation that is not 100-continue');
    if (name === 'te' && value.toLowerCase() !== 'trailers') throw new NotCanonical('TE that is not trailers');
    if (name === 'cookie') cookies.push(value);
    else headers.push([name, value]);
  }
  if (cookies.length > 0) headers.push(['cookie', cookies.join('; ')]);
  const method = methodOf(pseudo.get(':method'));
  const scheme = pseudo.get(':scheme');
  if (scheme !== 'http' && scheme !== 'https') throw new NotCanonical('another scheme than HTTP’s');
  const authority = pseudo.get(':authority');
  const host = hostOf(authority, headers);
  // Rules see a Host, as in HTTP/1.1; two where the two are spelt in two ways.
  const seen = headers.filter(([name, value]) => name !== 'host' || value !== authority);
  if (authority !== undefined) seen.unshift(['host', authority]);
  const target = targetOf(pseudo.get(':path'), method);
  const grpc = headers.some(([name, value]) => name === 'content-type' && /^application\/grpc(?:$|[+;])/.test(value));
  return { kind: 'request', grpc, request: { kind: 'http', method, target, host, headers: seen } };
}

function methodOf(method: string | undefined): string {
  if (method === undefined || !/^[-A-Z_]+$/.test(method) || method.length > methodLimit)
    throw new NotCanonical('no method');
  if (method === 'CONNECT') throw new NotCanonical('CONNECT');
  return method;
}

function targetOf(path: string | undefined, method: string): string {
  if (path === undefined) throw new NotCanonical('no path');
  const { target, authority } = canonicalTarget(path, method);
  if (authority !== undefined) throw new NotCanonical('a target that is no path');
  return target;
}

function hostOf(authority: string | undefined, headers: readonly Pair[]): string {
  const hosts = headers.filter(([name]) => name === 'host').map(([, value]) => value.toLowerCase());
  const [own = authority?.toLowerCase()] = hosts;
  if (own === undefined) throw new NotCanonical('no host');
  if (hosts.length > 1 || (authority !== undefined && authority.toLowerCase() !== own))
    throw new NotCanonical('more than one host');
  if (!isHost(own)) throw new NotCanonical('a host that is none');
  return own;
}
