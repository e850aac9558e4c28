import { mayBeWithin } from '../rule.ts';
import { conflict, secretKey, type TlsSecret, type TlsUse } from '../tls.ts';
import type { ProxyRule, ProxySide } from './image.ts';

/** How a client begins: with the name of the server that it asks TLS for, if any, or in clear. */
export type Hello = { readonly kind: 'tls'; readonly serverName?: string } | { readonly kind: 'clear' };

/** What is to be done with the TLS of a connection. */
export type TlsAsked =
  /** Nothing: TLS passes as it is, and what is in clear stays so. */
  | { readonly kind: 'nothing' }
  /** Rules want what cannot be had together, or the client speaks in clear where TLS is to be ended: nothing may pass. */
  | { readonly kind: 'closed'; readonly why: 'conflict' | 'clear' }
  | ({ readonly kind: 'use' } & TlsUse);

/**
 * What the rules want that may allow such a connection's requests. Rules that want nothing of TLS go with any.
 * @param rules Those that are about the connection, of both ends that are on this node.
 */
export function tlsAsked(rules: readonly ProxyRule[], hello: Hello): TlsAsked {
  let use: TlsUse = {};
  for (const { tls, requests, verdict } of rules) {
    if (tls === undefined || verdict !== 'allow') continue;
    if (hello.kind === 'clear') {
      if (tls.terminate !== undefined) return { kind: 'closed', why: 'clear' };
    } else if (tls.terminate === undefined || !mayBeWithin(hello, requests)) continue;
    if (conflict(use, tls)) return { kind: 'closed', why: 'conflict' };
    use = together(use, tls);
  }
  return use.terminate === undefined && use.originate === undefined ? { kind: 'nothing' } : { kind: 'use', ...use };
}

function together(a: TlsUse, b: TlsUse): TlsUse {
  const terminate = stricter(a.terminate, b.terminate);
  const originate = stricter(a.originate, b.originate);
  return { ...(terminate === undefined ? {} : { terminate }), ...(originate === undefined ? {} : { originate }) };
}

/** Of one Secret that several name: as named by a namespace, which may not have it. */
function stricter(a: TlsSecret | undefined, b: TlsSecret | undefined): TlsSecret | undefined {
  return a === undefined || (b !== undefined && b.by > a.by) ? b : a;
}

/** A Secret that rules name, and for which side of TLS. */
export interface NamedSecret {
  readonly role: 'terminate' | 'originate';
  readonly secret: TlsSecret;
}

/** What tells one apart from all others. */
export function namedKey({ role, secret }: NamedSecret): string {
  return JSON.stringify([role, secret.by, secretKey(secret)]);
}

/** All Secrets that the rules name, each once, in an order of its own. */
export function secretsOf(sides: readonly ProxySide[]): NamedSecret[] {
  const found = new Map<string, NamedSecret>();
  for (const { tls } of rulesOf(sides))
    for (const role of ['terminate', 'originate'] as const) {
      const secret = tls?.[role];
      if (secret !== undefined) found.set(namedKey({ role, secret }), { role, secret });
    }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, named]) => named);
}

/** Pairs of rules that want two things of one connection's TLS, by their numbers: such connections are closed. */
export function conflictsIn(sides: readonly ProxySide[]): (readonly [number, number])[] {
  const pairs = new Map<string, readonly [number, number]>();
  for (const side of sides) {
    const asking = rulesOf([side]).filter(({ tls }) => tls !== undefined);
    for (const [index, rule] of asking.entries())
      for (const other of asking.slice(0, index))
        if (conflict(rule.tls ?? {}, other.tls ?? {}) && mayMeet(rule, other))
          pairs.set(`${other.number} ${rule.number}`, [other.number, rule.number]);
  }
  return [...pairs.values()];
}

function rulesOf(sides: readonly ProxySide[]): ProxyRule[] {
  return sides.flatMap(({ admin, network, mesh }) => [admin, network, mesh].flatMap((stage) => stage?.rules ?? []));
}

/** Whether both may be about one connection; names that are spelt in two ways are taken for two. */
function mayMeet(a: ProxyRule, b: ProxyRule): boolean {
  const names = (rule: ProxyRule): string[] =>
    (rule.requests ?? []).map(
      (match) => JSON.stringify(match.kind === 'http' ? match.serverName?.some : undefined) ?? '',
    );
  const [own, others] = [names(a), names(b)];
  if (!own.includes('') && !others.includes('') && !own.some((name) => others.includes(name))) return false;
  return a.reach.some((one) =>
    b.reach.some(
      (other) =>
        one.ports.some(({ from, to }) => other.ports.some((port) => from <= port.to && port.from <= to)) &&
        one.peers.some(
          ([from, to]) =>
            from === 0 || other.peers.some(([first, last]) => first === 0 || (from <= last && first <= to)),
        ),
    ),
  );
}

/** Whether the same is to be done. */
export function same(a: TlsAsked, b: TlsAsked): boolean {
  if (a.kind !== 'use' || b.kind !== 'use') return a.kind === b.kind;
  const alike = (one: TlsSecret | undefined, other: TlsSecret | undefined): boolean =>
    one === undefined || other === undefined ? one === other : secretKey(one) === secretKey(other);
  return alike(a.terminate, b.terminate) && alike(a.originate, b.originate);
}
