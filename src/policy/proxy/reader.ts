import { isTooBig, readableRequests, unreadable } from '../http/readable.ts';
import type { HttpMatch, RequestMatch, TextCondition } from '../request.ts';
import type { ProxyUse, Rule } from '../rule.ts';

/** Who reads what a rule asks of requests: the datapath in front of the server's sockets, the proxy, or nobody. */
export type Reader =
  | { readonly by: 'kernel'; readonly http: readonly HttpMatch[] }
  | { readonly by: 'proxy' }
  /** The rule asks for none, or is to be taken as `withoutRequests` has it. */
  | { readonly by: 'nobody' };

const nobody: Reader = { by: 'nobody' };
const proxy: Reader = { by: 'proxy' };

/** @param use What pod and policy say of the proxy together. */
export function readerOf(rule: Rule, use: ProxyUse): Reader {
  const { requests, verdict, ref, tls } = rule;
  if (requests === undefined || verdict === 'pass') return nobody;
  if (tls !== undefined) return use === 'never' ? nobody : proxy;
  const http = readableRequests(rule);
  const kernel: Reader = http === undefined ? nobody : { by: 'kernel', http };
  if (use === 'never') return kernel;
  // What no bytes answer is so for everybody who reads them: a limit of the policy, which says so.
  const unanswerable = (match: RequestMatch): boolean =>
    match.kind === 'http' && unreadable(match) !== undefined && !isTooBig(match);
  if (verdict === 'deny' && requests.some(unanswerable)) return nobody;
  const read = requests.filter((match) => canBeRead(match, verdict) && !unanswerable(match));
  // DNS is not the proxy's, and nothing else is asked.
  if (verdict === 'allow' && read.length === 0) return nobody;
  if (use === 'required' || ref.direction === 'egress' || http === undefined) return proxy;
  const missed = read.filter((match) =>
    match.kind === 'http' ? !http.includes(match) : !kernelRefuses(match, verdict),
  );
  return missed.length === 0 ? kernel : proxy;
}

/** Whether anything that the proxy reads can be such a request, for a rule that allows; what denies is about all. */
function canBeRead(match: RequestMatch, verdict: Rule['verdict']): boolean {
  if (verdict !== 'allow') return true;
  // In clear no name of a server was asked for, and within TLS nobody reads a request.
  return match.kind === 'tls' || (match.kind === 'http' && match.serverName?.some === undefined);
}

/** Where the datapath reads a connection it refuses all that is not HTTP in clear: so it denies each, but tells none apart. */
function kernelRefuses(match: RequestMatch, verdict: Rule['verdict']): boolean {
  if (verdict === 'allow') return match.kind === 'dns';
  return (
    match.kind === 'dns' || (match.kind === 'tls' && match.serverNames === undefined && asksNothing(match.serverName))
  );
}

function asksNothing(condition: TextCondition | undefined): boolean {
  return condition?.some === undefined && condition?.none === undefined;
}
