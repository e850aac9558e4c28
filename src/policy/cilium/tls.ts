import type { Limit, PortMatch, Rule } from '../rule.ts';
import { conflict, secretsNamespace, type TlsSecret, type TlsUse } from '../tls.ts';
import type { LimitAt } from './limit.ts';
import type { PortRuleSpec, TlsContextSpec } from './schema-ports.ts';

export interface TlsOf {
  readonly use?: TlsUse;
  /** What is asked for cannot be had: the rule allows nothing. */
  readonly closed: boolean;
  readonly limits: readonly LimitAt[];
}

const side = { terminate: 'terminatingTLS', originate: 'originatingTLS' } as const;

/**
 * What one entry of `toPorts` wants of TLS. As in Cilium (without `use-full-tls-context`), what ends TLS shows `tls.crt` with
 * `tls.key`, what opens it trusts `ca.crt`, and shows a certificate only where one is named.
 * @param namespace Of the policy; empty for those of the whole cluster.
 */
export function tlsOf(spec: PortRuleSpec, namespace: string): TlsOf {
  const { terminatingTLS, originatingTLS, serverNames, rules } = spec;
  if (terminatingTLS == null && originatingTLS == null) return { closed: false, limits: [] };
  const limits: LimitAt[] = [];
  let closed = false;
  const close = (reason: string, ...path: string[]): void => {
    limits.push({ path, reason: `${reason}: the rule allows nothing` });
    closed = true;
  };
  const named = (context: TlsContextSpec, name: (typeof side)[keyof typeof side]): void => {
    if (context.secret.namespace !== secretsNamespace)
      close(`only Secrets of the namespace ${secretsNamespace} are read`, name, 'secret', 'namespace');
  };
  if (terminatingTLS != null) {
    named(terminatingTLS, side.terminate);
    if (terminatingTLS.trustedCA) close('clients are not asked for certificates', side.terminate, 'trustedCA');
  }
  if (originatingTLS != null) {
    named(originatingTLS, side.originate);
    if (terminatingTLS == null && serverNames != null)
      close('TLS with such names needs terminatingTLS, else it would be TLS within TLS', side.originate);
  }
  const [first] = terminatingTLS == null ? [side.originate] : [side.terminate];
  const asked = [rules?.dns?.length ? 'dns' : '', rules?.kafka?.length ? 'kafka' : ''].filter((name) => name !== '');
  if (asked.length > 0) close(`within TLS only HTTP is read, not ${asked.join()}`, first);
  else if (!rules?.http?.length && !closed)
    limits.push({
      path: [first],
      reason: 'within TLS only HTTP is read: of it every request is allowed, of all else nothing',
    });
  if (closed) return { closed, limits };
  const use: TlsUse = {
    ...(terminatingTLS == null ? {} : { terminate: shown(terminatingTLS, namespace) }),
    ...(originatingTLS == null ? {} : { originate: trusted(originatingTLS, namespace) }),
  };
  return { use, closed, limits };
}

function shown({ secret, certificate, privateKey }: TlsContextSpec, by: string): TlsSecret {
  return { name: secret.name, by, certificate: certificate || 'tls.crt', privateKey: privateKey || 'tls.key' };
}

function trusted(context: TlsContextSpec, by: string): TlsSecret {
  const { secret, trustedCA, certificate, privateKey } = context;
  const own = certificate || privateKey ? shown(context, by) : { name: secret.name, by };
  return { ...own, trustedCA: trustedCA || 'ca.crt' };
}

/**
 * Rules of one policy that want two things of one connection's TLS: such connections are closed. (Of several policies it is
 * said on the node.)
 * @param fieldOf Of the rule of such a direction and index.
 */
export function conflictsOf(rules: readonly Rule[], fieldOf: (rule: Rule) => string): Limit[] {
  const asking = rules.filter(({ tls }) => tls !== undefined);
  const limits = new Map<string, Limit>();
  for (const [index, rule] of asking.entries())
    for (const other of asking.slice(0, index)) {
      if (!conflict(rule.tls ?? {}, other.tls ?? {}) || !mayMeet(rule, other)) continue;
      const reason = `${fieldOf(other)} names another Secret for the same ports: connections that both are about are closed`;
      limits.set(fieldOf(rule), { field: fieldOf(rule), reason });
    }
  return [...limits.values()];
}

/** Whether two rules are about some connection both, as far as it shows without knowing who the peers are. */
function mayMeet(a: Rule, b: Rule): boolean {
  if (a.ref.direction !== b.ref.direction || !sharePeers(a.peers, b.peers)) return false;
  const [own, others] = [serverNamesOf(a), serverNamesOf(b)];
  if (own !== undefined && others !== undefined && !own.some((name) => others.includes(name))) return false;
  if (a.ports === 'any' || b.ports === 'any') return true;
  const ports = b.ports;
  return a.ports.some((one) => ports.some((other) => meets(one, other)));
}

function sharePeers(a: Rule['peers'], b: Rule['peers']): boolean {
  if (a === 'any' || b === 'any') return true;
  const others = new Set(b.map((peer) => JSON.stringify(peer)));
  return a.some((peer) => others.has(JSON.stringify(peer)));
}

function meets(a: PortMatch, b: PortMatch): boolean {
  if (!('port' in a) || !('port' in b) || a.protocol !== b.protocol) return false;
  if ('from' in a.port && 'from' in b.port) return a.port.from <= b.port.to && b.port.from <= a.port.to;
  return true;
}

/** The names of servers that are asked for, as they are spelt; undefined where any may be, or one stands for many. */
function serverNamesOf({ requests = [] }: Rule): string[] | undefined {
  const names: string[] = [];
  for (const match of requests) {
    const some = match.kind === 'http' ? match.serverName?.some : undefined;
    if (some === undefined) return undefined;
    for (const text of some) {
      if (text.op === 'present' || /[*+]/.test(text.text)) return undefined;
      names.push(text.text);
    }
  }
  return names;
}
