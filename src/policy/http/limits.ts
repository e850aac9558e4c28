import { readerOf } from '../proxy/reader.ts';
import { compareRules, type Limit, type Policy, type Rule } from '../rule.ts';
import { canonicalTarget, NotCanonical } from './canonical.ts';
import { isTooBig, readableRequests, tablesFor, unreadable } from './readable.ts';

const closed = {
  allow: 'connections that only this rule would allow are denied',
  deny: 'everything that the rule is about is denied',
  pass: 'everything that the rule is about is denied',
} as const;

/**
 * What of a policy's rules about requests nobody can tell, whatever API they are of: rules that no bytes can answer; and where
 * the policy forbids the proxy, what only the proxy reads, and policies that are by themselves too big for the datapath's
 * tables. (One that is too big only beside others is said on the node.)
 */
export function requestLimits(policy: Policy): Limit[] {
  if (policy.broken !== undefined) return [];
  const forbidden = policy.options?.proxy === 'never';
  const limits = policy.rules.flatMap((rule) => {
    if (forbidden && readerOf(rule, 'auto').by === 'proxy' && readerOf(rule, 'never').by !== 'kernel')
      return [
        {
          field: fieldOf(rule),
          reason: `only the proxy reads such requests, which the policy forbids: ${closed[rule.verdict]}`,
        },
      ];
    if (rule.ref.direction !== 'ingress' || rule.tls !== undefined) return [];
    const matches = (rule.requests ?? []).flatMap((match) => (match.kind === 'http' ? match : []));
    const reasons = matches.flatMap((match) => (forbidden || !isTooBig(match) ? (unreadable(match) ?? []) : []));
    const then = rule.verdict === 'allow' ? 'such requests are not allowed' : 'everything is denied';
    return [
      ...[...new Set(reasons)].map((reason) => ({ field: fieldOf(rule), reason: `it ${reason}: ${then}` })),
      ...misspelt(rule).map((reason) => ({ field: fieldOf(rule), reason })),
    ];
  });
  if (!forbidden) return limits;
  const all = [...policy.rules].sort(compareRules).flatMap((rule) => readableRequests(rule) ?? []);
  const tables = all.length === 0 ? undefined : tablesFor(all);
  if (tables?.ok !== false) return limits;
  const then = 'no request is allowed by it, and whatever it denies some of is denied';
  return [...limits, { field: 'spec', reason: `the policy ${tables.reason}: ${then}` }];
}

/** Paths that no request has as it is read, because they are spelt in another way. */
function misspelt({ requests = [] }: Rule): string[] {
  const texts = requests.flatMap((match) =>
    match.kind === 'http' ? [...(match.path?.some ?? []), ...(match.path?.none ?? [])] : [],
  );
  return texts.flatMap((text) => {
    if ((text.op !== 'exact' && text.op !== 'prefix') || !text.text.startsWith('/')) return [];
    const read = spelling(text.text);
    if (read === text.text) return [];
    const instead = read === undefined ? 'requests for it are refused' : `it is read as ${read}`;
    return [`no request has the path ${text.text}: ${instead}`];
  });
}

function spelling(path: string): string | undefined {
  try {
    return canonicalTarget(path, 'GET').target;
  } catch (error) {
    if (error instanceof NotCanonical) return undefined;
    throw error;
  }
}

function fieldOf({ ref }: Rule): string {
  return `spec.${ref.list ?? ref.direction}[${ref.index}]`;
}
