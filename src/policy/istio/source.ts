import { matchesName } from '../match.ts';
import type { Limit, PeerMatch } from '../rule.ts';
import type { Condition, Source } from './schema.ts';
import { hasStrayStar, inBlocks, nameMatch, type Reading, textMatch } from './values.ts';

/** What reading a rule needs to know beside the rule. */
export interface RuleContext {
  readonly reading: Reading;
  /** The policy's. */
  readonly namespace: string;
  readonly trustDomain: string;
  readonly limits: Limit[];
}

/** What one source asks of the other end: all of `parts`. */
export interface SourceRead {
  readonly parts: readonly PeerMatch[];
  /** Asks for what nothing here can tell (a token, an address in a header). */
  readonly unenforceable: boolean;
}

const nobody: PeerMatch = { kind: 'some', of: [] };

/** @param field Where it stands, for limits. */
export function readSource(source: Source, field: string, context: RuleContext): SourceRead {
  const { limits, reading, namespace, trustDomain } = context;
  const other: Reading = reading === 'narrow' ? 'wide' : 'narrow';
  const parts: PeerMatch[] = [];
  /** One of `some`, and none of `none`; what is excluded is read the other way round. */
  const ask = (
    some: readonly string[] | undefined,
    none: readonly string[] | undefined,
    matches: (values: readonly string[], reading: Reading) => PeerMatch[],
  ): void => {
    if (some?.length) parts.push({ kind: 'some', of: matches(some, reading) });
    if (none?.length) parts.push({ kind: 'not', peer: { kind: 'some', of: matches(none, other) } });
  };
  const named =
    (kind: 'namespace' | 'principal') =>
    (values: readonly string[], how: Reading): PeerMatch[] =>
      values.map((value) => nameMatch(kind, kind === 'principal' && how === 'wide' ? bare(value) : value, how));
  ask(source.principals, source.notPrincipals, named('principal'));
  ask(source.namespaces, source.notNamespaces, named('namespace'));
  ask(source.serviceAccounts, source.notServiceAccounts, (values) => values.map((text) => account(text, namespace)));
  ask(source.ipBlocks, source.notIpBlocks, inBlocks);
  // There is one trust domain, so what is asked of it is known here: who has an identity has that domain.
  ask(source.trustDomains, source.notTrustDomains, (values) =>
    values.map((value) => (matchesName(textMatch(value), trustDomain) ? { kind: 'authenticated' } : nobody)),
  );

  for (const name of ['principals', 'notPrincipals', 'namespaces', 'notNamespaces'] as const)
    for (const [index, value] of (source[name] ?? []).entries()) {
      const reason = oddity(value, name.toLowerCase().endsWith('principals'));
      if (reason !== undefined) limits.push({ field: `${field}.${name}[${index}]`, reason });
    }
  const missing = (
    ['requestPrincipals', 'notRequestPrincipals', 'remoteIpBlocks', 'notRemoteIpBlocks'] as const
  ).filter((name) => source[name]?.length);
  for (const name of missing)
    limits.push({
      field: `${field}.${name}`,
      reason: `${name.toLowerCase().endsWith('principals') ? 'tokens of requests are' : 'addresses in headers are'} not looked at, so ${consequence(reading)}`,
    });
  return { parts, unenforceable: missing.length > 0 };
}

/** What a rule does about a part of it that nothing here can look at. */
export function consequence(reading: Reading): string {
  return reading === 'narrow' ? 'this allows nothing' : 'it is denied without asking for it';
}

/** A condition about the source in the words of a source; undefined where it is about something else. */
export function sourceOfCondition({ key, values, notValues }: Condition): Source | undefined {
  switch (key) {
    case 'source.ip':
      return { ipBlocks: values, notIpBlocks: notValues };
    case 'source.namespace':
      return { namespaces: values, notNamespaces: notValues };
    case 'source.serviceAccount':
      return { serviceAccounts: values, notServiceAccounts: notValues };
    case 'source.principal':
      return { principals: values, notPrincipals: notValues };
    case 'source.trustDomain':
      return { trustDomains: values, notTrustDomains: notValues };
    case 'remote.ip':
      return { remoteIpBlocks: values, notRemoteIpBlocks: notValues };
    case 'request.auth.principal':
      return { requestPrincipals: values, notRequestPrincipals: notValues };
    default:
      return undefined;
  }
}

/** `namespace/name`, or a name in the policy's own namespace. */
function account(text: string, namespace: string): PeerMatch {
  const [first = '', second] = text.split('/');
  const [ns, name] = second === undefined ? [namespace, first] : [first, second];
  return {
    kind: 'all',
    of: [
      { kind: 'namespace', match: { op: 'exact', text: ns } },
      { kind: 'account', match: { op: 'exact', text: name } },
    ],
  };
}

const scheme = 'spiffe://';

function bare(principal: string): string {
  return principal.startsWith(scheme) ? principal.slice(scheme.length) : principal;
}

function oddity(value: string, principal: boolean): string | undefined {
  if (hasStrayStar(value))
    return `${JSON.stringify(value)} has a wildcard where Istio’s own implementations differ or know none: the stricter reading is taken`;
  if (principal && value.startsWith(scheme))
    return `a principal is written without ${scheme}, and with it is nobody’s: the stricter reading is taken`;
  return undefined;
}
