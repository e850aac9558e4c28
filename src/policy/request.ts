import { type DomainPattern, matchesDomain } from './request/domain.ts';
import { matchesText, type RequestText } from './request/text.ts';

export type { DomainPattern } from './request/domain.ts';
export type { RequestText } from './request/text.ts';

/**
 * What is asked of one part of a request: that one of `some` matches its value (absent: whatever it is), and none of
 * `none`. A part that a request does not have matches nothing, so it passes `none` and fails `some`. An empty `some` asks
 * for what cannot be.
 */
export interface TextCondition {
  readonly some?: readonly RequestText[];
  readonly none?: readonly RequestText[];
}

/** An HTTP request, by all that is given; whatever is absent may be anything. */
export interface HttpMatch {
  readonly kind: 'http';
  readonly method?: TextCondition;
  /** The request target without query and fragment (Istio's `paths`). */
  readonly path?: TextCondition;
  /** The request target as it came, with its query (Cilium's `path`). */
  readonly target?: TextCondition;
  /** `Host` or `:authority`, as it came. */
  readonly host?: TextCondition;
  /** All of them must hold. */
  readonly headers?: readonly HeaderCondition[];
  /** The name that the client asked for when it set up TLS around the request. */
  readonly serverName?: TextCondition;
}

export interface HeaderCondition extends TextCondition {
  /** In lower case. */
  readonly name: string;
}

/** A DNS query for one of these names. */
export interface DnsMatch {
  readonly kind: 'dns';
  readonly names: readonly DomainPattern[];
}

/** A TLS connection, by the server that its ClientHello names; with nothing given, any. */
export interface TlsMatch {
  readonly kind: 'tls';
  /** It names one of these. */
  readonly serverNames?: readonly DomainPattern[];
  /** Asked of the name as a text (Istio's `connection.sni`). */
  readonly serverName?: TextCondition;
}

/** What a rule asks of a request beyond its connection: pure data, as all of a rule is. */
export type RequestMatch = HttpMatch | DnsMatch | TlsMatch;

export interface HttpRequest {
  readonly kind: 'http';
  readonly method: string;
  /** As in the request line: path and query. */
  readonly target: string;
  readonly host?: string;
  /** Names in any case; a name may come several times, and is then what a rule asks for only if each of its values is. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly serverName?: string;
}

/** What a flow carries, where that has been read; the part of a flow that only requests' rules look at. */
export type Request =
  | HttpRequest
  | { readonly kind: 'dns'; readonly name: string }
  | { readonly kind: 'tls'; readonly serverName?: string };

/** Whether a request is what the rule asks for. A request of another kind never is. */
export function matchesRequest(request: Request, match: RequestMatch): boolean {
  switch (match.kind) {
    case 'http':
      return request.kind === 'http' && matchesHttp(request, match);
    case 'dns':
      return request.kind === 'dns' && match.names.some((pattern) => matchesDomain(request.name, pattern));
    case 'tls': {
      if (request.kind === 'dns' || (request.kind === 'http' && request.serverName === undefined)) return false;
      const { serverName: name } = request;
      const named = name !== undefined && match.serverNames?.some((pattern) => matchesDomain(name, pattern));
      return (match.serverNames === undefined || named === true) && matchesServerName(name, match.serverName);
    }
  }
}

/** One match of a list suffices; an absent list asks nothing. */
export function matchesAnyRequest(request: Request, matches: readonly RequestMatch[] | undefined): boolean {
  return matches === undefined || matches.some((match) => matchesRequest(request, match));
}

/** The target up to its query or fragment. */
export function pathOf(target: string): string {
  return target.replace(/[?#].*$/s, '');
}

function matchesHttp(request: HttpRequest, match: HttpMatch): boolean {
  return (
    holds(match.method, [request.method]) &&
    holds(match.path, [pathOf(request.target)]) &&
    holds(match.target, [request.target]) &&
    holds(match.host, request.host === undefined ? [] : [request.host]) &&
    matchesServerName(request.serverName, match.serverName) &&
    (match.headers ?? []).every((condition) => headerHolds(request, condition))
  );
}

/** A header that came several times must be as asked each time: which of its lines a server looks at, nobody knows. */
function headerHolds({ headers }: HttpRequest, condition: HeaderCondition): boolean {
  const values = headers.filter(([own]) => own.toLowerCase() === condition.name).map(([, value]) => value);
  return values.length === 0 ? holds(condition, []) : values.every((value) => holds(condition, [value]));
}

/** What is asked of the server's name, where a client may have named none. */
export function matchesServerName(name: string | undefined, condition: TextCondition | undefined): boolean {
  return holds(condition, name === undefined ? [] : [name]);
}

function holds(condition: TextCondition | undefined, [value]: readonly string[]): boolean {
  if (condition === undefined) return true;
  const is = (text: RequestText): boolean => value !== undefined && matchesText(value, text);
  return (condition.some?.some(is) ?? true) && !(condition.none ?? []).some(is);
}
