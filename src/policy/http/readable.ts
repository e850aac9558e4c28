import type { HttpMatch } from '../request.ts';
import type { Rule } from '../rule.ts';
import { compileMatcher, type RequestTables, whyNoTables } from './matcher.ts';

/** No request; and where a rule asks for it, requests are read, so that nothing but HTTP passes. */
const never: HttpMatch = { kind: 'http', method: { some: [] } };

/**
 * What of a rule's requests the datapath can tell, where it reads requests: on TCP connections to a pod, as HTTP in clear.
 * Whatever else comes on a connection that is read is refused; so what a rule denies of DNS and TLS is denied by reading.
 * @returns Undefined where the rule asks nothing of requests, or is to be taken as `withoutRequests` has it.
 */
export function readableRequests(rule: Rule): readonly HttpMatch[] | undefined {
  const { requests, verdict, ref } = rule;
  if (requests === undefined || ref.direction !== 'ingress' || verdict === 'pass') return undefined;
  const matches = requests.flatMap((match) => (match.kind === 'http' && mayBeInClear(match) ? [match] : []));
  const readable = matches.filter((match) => unreadable(match) === undefined);
  if (verdict === 'allow') return readable.length === 0 ? undefined : readable;
  // A denial that cannot be told in part is one of everything.
  if (readable.length < matches.length) return undefined;
  return matches.length === 0 ? [never] : matches;
}

/** Why a match by itself is none that the datapath can tell, to follow "the policy"; undefined where it can. */
export function unreadable(match: HttpMatch): string | undefined {
  return problemOf(match)?.reason;
}

/** Whether a match by itself is one that the datapath has no room for, while whoever has could tell. */
export function isTooBig(match: HttpMatch): boolean {
  return problemOf(match)?.ofRoom === true;
}

const problems = new WeakMap<HttpMatch, ReturnType<typeof whyNoTables>>();

function problemOf(match: HttpMatch): ReturnType<typeof whyNoTables> {
  if (problems.has(match)) return problems.get(match);
  const problem = whyNoTables(match);
  problems.set(match, problem);
  return problem;
}

/** Without TLS no name of a server was asked for. */
function mayBeInClear({ serverName }: HttpMatch): boolean {
  return serverName?.some === undefined;
}

/** One of the things that a rule of a set asks of requests. `RuleSetMatcher` numbers them. */
export interface Alternative {
  readonly precedence: number;
  readonly rule: number;
  readonly verdict: 'allow' | 'deny';
  /** `optionFlags`. */
  readonly flags: number;
}

/** What a rule set's rules ask of requests, in the order in which they decide. */
export interface RuleSetMatcher {
  readonly alternatives: readonly Alternative[];
  readonly tables: RequestTables;
}

/** Tables by the first of the matches, for as long as that one is somebody's: the same list comes back with each compilation. */
const made = new WeakMap<HttpMatch, { matches: readonly HttpMatch[]; tables: ReturnType<typeof compileMatcher> }[]>();

/** `compileMatcher`, which answers the same list of the same matches from memory. */
export function tablesFor(matches: readonly HttpMatch[]): ReturnType<typeof compileMatcher> {
  const [first] = matches;
  if (first === undefined) return compileMatcher(matches);
  const known = made.get(first) ?? [];
  const same = known.find(
    (one) => one.matches.length === matches.length && one.matches.every((m, i) => m === matches[i]),
  );
  if (same !== undefined) return same.tables;
  const tables = compileMatcher(matches);
  made.set(first, [{ matches, tables }, ...known].slice(0, 4));
  return tables;
}
