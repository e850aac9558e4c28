import type { DomainPattern, HttpMatch, RequestMatch, RequestText } from '../request.ts';
import type { TlsUse } from '../tls.ts';
import type { LimitAt } from './limit.ts';
import type { DomainSpec, HttpRuleSpec, PortRuleSpec } from './schema-ports.ts';
import { tlsOf } from './tls.ts';

export interface RequestsOf {
  /** Undefined: every request, and what is no request. An empty list: none that can be told apart, so none at all. */
  readonly requests: readonly RequestMatch[] | undefined;
  readonly tls?: TlsUse;
  readonly limits: readonly LimitAt[];
}

/**
 * What one entry of `toPorts` asks of requests. HTTP is read in clear, or where TLS is ended; else, of TLS, the name of the
 * server.
 * @param namespace Of the policy; empty for those of the whole cluster.
 */
export function requestsOf(spec: PortRuleSpec, namespace: string): RequestsOf {
  const { ports, rules, serverNames, listener } = spec;
  const limits: LimitAt[] = [];
  const limit = (reason: string, ...path: (string | number)[]): void => {
    limits.push({ path, reason });
  };
  const names = serverNames?.map(toPattern);
  let requests: RequestMatch[] | undefined;
  if (names !== undefined) {
    requests = [{ kind: 'tls', serverNames: names }];
  }
  if (rules?.http?.length) {
    requests = rules.http.flatMap((rule, index) => {
      const { match, limits: own } = toHttp(rule, names);
      for (const { path, reason } of own) limit(reason, 'rules', 'http', index, ...path);
      return match === undefined ? [] : [match];
    });
  }
  if (rules?.dns?.length) {
    requests = [{ kind: 'dns', names: rules.dns.map(toDomain) }];
    if (!ports?.some(isForDns)) limit('DNS is read on port 53 only: what is asked elsewhere is denied', 'rules', 'dns');
  }
  const never: readonly [name: string, given: boolean, reason: string][] = [
    ['kafka', (rules?.kafka?.length ?? 0) > 0, 'rules for Kafka are not supported: the rule allows nothing'],
    ['l7proto', !!rules?.l7proto, `rules for ${rules?.l7proto} are not supported: the rule allows nothing`],
    ['l7', (rules?.l7?.length ?? 0) > 0, 'rules of other protocols are not supported: the rule allows nothing'],
  ];
  for (const [name, given, reason] of never)
    if (given) {
      limit(reason, 'rules', name);
      requests = [];
    }
  const tls = tlsOf(spec, namespace);
  for (const { path, reason } of tls.limits) limit(reason, ...path);
  if (tls.closed) requests = [];
  else if (tls.use !== undefined && !rules?.http?.length)
    requests = [toHttp({}, names).match].flatMap((match) => match ?? []);
  if (listener != null) {
    limit('there are no Envoy listeners to send it through: the rule allows nothing', 'listener');
    requests = [];
  }
  return { requests, limits, ...(tls.use === undefined ? {} : { tls: tls.use }) };
}

/** Whether port 53 is among what a port stands for, or may be. */
function isForDns({ port, endPort }: NonNullable<PortRuleSpec['ports']>[number]): boolean {
  const number = Number(port ?? '');
  return Number.isNaN(number) || number === 0 || (number <= 53 && 53 <= (endPort || number));
}

/** @returns No match where no request may pass as it came. */
function toHttp(
  { method, path, host, headers, headerMatches }: HttpRuleSpec,
  serverNames: readonly DomainPattern[] | undefined,
): { match: HttpMatch | undefined; limits: LimitAt[] } {
  const limits: LimitAt[] = [];
  const wanted = [...(headers ?? []).map(toHeader)];
  for (const [index, { name, value, secret, mismatch }] of (headerMatches ?? []).entries()) {
    const at = ['headerMatches', index];
    if (mismatch === 'LOG') limits.push({ path: [...at, 'mismatch'], reason: 'mismatches are not logged' });
    else if (mismatch) limits.push({ path: [...at, 'mismatch'], reason: `headers are not changed: no request passes` });
    else if (secret != null)
      limits.push({ path: [...at, 'secret'], reason: 'secrets are not read: no request passes' });
    else wanted.push({ name: name.toLowerCase(), some: [value ? { op: 'exact', text: value } : anyValue] });
  }
  if (limits.some(({ reason }) => reason.endsWith('no request passes'))) return { match: undefined, limits };
  const match: HttpMatch = {
    kind: 'http',
    ...(method ? { method: { some: [regex(method)] } } : {}),
    ...(path ? { target: { some: [regex(path)] } } : {}),
    ...(host ? { host: { some: [regex(`(?i)${host}`)] } } : {}),
    ...(wanted.length === 0 ? {} : { headers: wanted }),
    ...(serverNames === undefined ? {} : { serverName: { some: serverNames.map(nameRegex) } }),
  };
  return { match, limits };
}

/** A header that is there, empty or not. */
const anyValue: RequestText = { op: 'prefix', text: '' };

/** `X-Token: abc` or, for a header that must only be there, `X-Token`. */
function toHeader(text: string): { name: string; some: readonly RequestText[] } {
  const space = text.indexOf(' ');
  const name = (space < 0 ? text : text.slice(0, space)).replace(/:+$/, '').toLowerCase();
  return { name, some: [space < 0 ? anyValue : { op: 'exact', text: text.slice(space + 1) }] };
}

function regex(text: string): RequestText {
  return { op: 'regex', text };
}

/** Cilium's `*` in a server's name, as an expression over all of it. */
function nameRegex({ pattern }: DomainPattern): RequestText {
  const label = '[-a-zA-Z0-9_]';
  const text = pattern
    .split('.')
    .map((part, index) =>
      part === '**' && index === 0 ? `${label}+(\\.${label}+)*` : part.replaceAll('*', `${label}*`),
    )
    .join('\\.');
  return regex(`(?i)${text}`);
}

/** The names that `matchName` or `matchPattern` stands for. */
export function toDomain({ matchName, matchPattern }: DomainSpec): DomainPattern {
  return toPattern(matchName || matchPattern || '');
}

/**
 * Cilium's patterns: `*` is any run of characters within a label, stars before the first dot are whole labels where there
 * are two or more, and stars alone are every name.
 */
function toPattern(text: string): DomainPattern {
  const plain = text.toLowerCase().replace(/\.$/, '');
  if (/^\*+$/.test(plain)) return { pattern: '**' };
  const rest = plain.replace(/^\*{2,}\./, '');
  const collapsed = rest.replace(/\*+/g, '*');
  return { pattern: rest === plain ? collapsed : `**.${collapsed}` };
}
