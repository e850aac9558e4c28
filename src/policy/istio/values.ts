import { tryParseIp } from '../../model/address.ts';
import type { PortRange } from '../../model/port.ts';
import { hostPrefix, type Prefix, parsePrefix } from '../../model/prefix.ts';
import type { RequestText } from '../request.ts';
import type { PeerMatch, TextMatch } from '../rule.ts';

/** Which way a reading errs that cannot be exact: an ALLOW rule never matches more than is meant, a DENY rule never less. */
export type Reading = 'narrow' | 'wide';

export function isIpBlock(text: string): boolean {
  return ipBlock(text) !== undefined;
}

/** @returns The prefix that an address or a CIDR stands for; undefined where it is neither. */
export function ipBlock(text: string): Prefix | undefined {
  const address = tryParseIp(text);
  if (address !== undefined) return hostPrefix(address);
  try {
    return parsePrefix(text);
  } catch {
    return undefined;
  }
}

/** Whoever has an address in one of the blocks; nobody where there are none. */
export function inBlocks(blocks: readonly string[]): PeerMatch[] {
  return blocks.flatMap((text) => {
    const cidr = ipBlock(text);
    return cidr === undefined ? [] : [{ kind: 'cidr', cidr, except: [] }];
  });
}

/** Istio reads ports as decimal numbers, 0 too. */
export function isPort(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) <= 65_535;
}

/** Ports in order, each range as long as it can be. Sets of ports are written so, and no ports is an empty list. */
export type PortSet = readonly PortRange[];

export function portSet(texts: readonly string[]): PortSet {
  const ports = [...new Set(texts.map(Number))].sort((a, b) => a - b);
  const ranges: { from: number; to: number }[] = [];
  for (const port of ports) {
    const last = ranges.at(-1);
    if (last?.to === port - 1) last.to = port;
    else ranges.push({ from: port, to: port });
  }
  return ranges;
}

/** All other ports. */
export function otherPorts(set: PortSet): PortSet {
  const edges = [-1, ...set.flatMap(({ from, to }) => [from, to]), 65_536];
  const gaps: PortRange[] = [];
  for (let i = 0; i < edges.length; i += 2) {
    const [from, to] = [(edges[i] ?? 0) + 1, (edges[i + 1] ?? 0) - 1];
    if (from <= to) gaps.push({ from, to });
  }
  return gaps;
}

export function commonPorts(a: PortSet, b: PortSet): PortSet {
  return a.flatMap((own) =>
    b.flatMap((other) => {
      const [from, to] = [Math.max(own.from, other.from), Math.min(own.to, other.to)];
      return from <= to ? [{ from, to }] : [];
    }),
  );
}

/** Exact, `prefix*`, `*suffix`, or `*` for whatever is there. */
export function textMatch(value: string): TextMatch {
  if (value === '*') return { op: 'present' };
  if (value.startsWith('*')) return { op: 'suffix', text: value.slice(1) };
  return value.endsWith('*') ? { op: 'prefix', text: value.slice(0, -1) } : { op: 'exact', text: value };
}

/** Whether a star stands where it is no wildcard for ztunnel, nor (bar in namespaces) for Envoy, but a letter that no name has. */
export function hasStrayStar(value: string): boolean {
  const match = textMatch(value);
  return match.op !== 'present' && match.text.includes('*');
}

/** A name of pods by a value; one with a stray star is about nobody or, read widely, about all that it may have meant. */
export function nameMatch(kind: 'namespace' | 'account' | 'principal', value: string, reading: Reading): PeerMatch {
  if (reading === 'narrow' || !hasStrayStar(value)) return { kind, match: textMatch(value) };
  const parts = value.split('*');
  const ends: TextMatch[] = [
    { op: 'prefix', text: parts[0] ?? '' },
    { op: 'suffix', text: parts.at(-1) ?? '' },
  ];
  return { kind: 'all', of: ends.map((match) => ({ kind, match })) };
}

/** A part of a request by a value. */
export function requestText(value: string, part?: 'host' | 'path'): RequestText {
  if (part === 'path' && isTemplate(value)) return { op: 'template', text: value };
  const match = textMatch(value);
  return match.op !== 'present' && part === 'host' ? { ...match, ignoreCase: true } : match;
}

function isTemplate(path: string): boolean {
  return path.includes('{*}') || path.includes('{**}');
}

/** What is wrong with a path or path template; the segments are those between slashes, the ends trimmed. */
export function pathProblem(path: string): string | undefined {
  const template = isTemplate(path);
  let rest = false;
  for (const segment of path.replace(/^\/+|\/+$/g, '').split('/')) {
    if (segment === '{*}' || segment === '{**}') {
      if (rest) return 'must not have an operator after {**}';
      rest = segment === '{**}';
    } else if (/[{}]/.test(segment)) return 'must not have { or } but as a segment {*} or {**}';
    // RFC 3986 pchar without the star, which a template has no use for.
    else if (template && !/^[a-zA-Z0-9\-._~%!$&'()+,;:@=]+$/.test(segment))
      return 'must have nothing but characters of paths between the slashes of a template';
  }
  return undefined;
}

const keyed = /^(request\.headers|request\.auth\.claims|experimental\.envoy\.filters\.[^[]*)\[.+\]$/;
const plain = [
  ...['source.ip', 'source.namespace', 'source.serviceAccount', 'source.principal', 'source.trustDomain', 'remote.ip'],
  ...['request.auth.principal', 'request.auth.audiences', 'request.auth.presenter'],
  ...['destination.ip', 'destination.port', 'connection.sni'],
];

/** What is wrong with a condition's key, or with its values for that key. */
export function attributeProblem(key: string, values: readonly string[]): string | undefined {
  if (!plain.includes(key) && !keyed.test(key)) return `there is no attribute ${JSON.stringify(key)}`;
  const wrong = values.find((value) => {
    if (key === 'destination.port') return !isPort(value);
    if (key.endsWith('.ip')) return !isIpBlock(value);
    if (key === 'source.serviceAccount') return !/^[^*/]+(\/[^*/]+)?$/.test(value);
    return key === 'source.trustDomain' && !/^(\*?[^*/]+|[^*/]+\*|\*)$/.test(value);
  });
  return wrong === undefined ? undefined : `${JSON.stringify(wrong)} is no value of ${key}`;
}

/** `request.headers[X-Name]` → `x-name`; undefined for other keys. */
export function headerOfKey(key: string): string | undefined {
  return /^request\.headers\[(.+)\]$/.exec(key)?.[1]?.toLowerCase();
}
