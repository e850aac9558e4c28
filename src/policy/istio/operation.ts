import type { PortRange } from '../../model/port.ts';
import type { HttpMatch, RequestMatch, TextCondition } from '../request.ts';
import type { PortMatch } from '../rule.ts';
import type { Condition, Operation } from './schema.ts';
import { commonPorts, headerOfKey, otherPorts, type PortSet, portSet, type Reading, requestText } from './values.ts';

const wholeRequest = ['hosts', 'notHosts', 'methods', 'notMethods', 'paths', 'notPaths'] as const;

/** The fields of an operation that only a request can answer, in the order of the API. */
export function requestFields(operation: Operation): string[] {
  return wholeRequest.filter((name) => operation[name]?.length);
}

/** Conditions about requests: those of the rule's `when` that are about headers and the server's name. */
export function isRequestCondition({ key }: Condition): boolean {
  return key === 'connection.sni' || headerOfKey(key) !== undefined;
}

interface PortCondition {
  readonly some: readonly string[];
  readonly none: readonly string[];
}

/**
 * The ports of an operation and of the conditions about the destination's port, which must all hold.
 *
 * Istio knows of TCP only. Here a rule that allows by port allows TCP, and one that denies by port denies every transport
 * on it; where it denies all ports but some, it denies also what has no ports.
 * @returns Undefined where no port can satisfy them all.
 */
export function readPorts(
  operation: Operation,
  conditions: readonly Condition[],
  reading: Reading,
): readonly PortMatch[] | 'any' | undefined {
  const asked: PortCondition[] = [
    { some: operation.ports ?? [], none: operation.notPorts ?? [] },
    ...conditions
      .filter(({ key }) => key === 'destination.port')
      .map(({ values = [], notValues = [] }) => ({ some: values, none: notValues })),
  ].filter(({ some, none }) => some.length + none.length > 0);
  if (asked.length === 0) return 'any';
  let ports: PortSet = [{ from: 0, to: 65_535 }];
  for (const { some, none } of asked) {
    if (some.length > 0) ports = commonPorts(ports, portSet(some));
    ports = commonPorts(ports, otherPorts(portSet(none)));
  }
  const transports = reading === 'narrow' ? (['TCP'] as const) : (['TCP', 'UDP', 'SCTP'] as const);
  const matches: PortMatch[] = transports.flatMap((protocol) =>
    ports.map((port: PortRange): PortMatch => ({ protocol, port })),
  );
  if (reading === 'wide' && asked.every(({ some }) => some.length === 0))
    matches.push({ protocol: 'ICMP' }, { protocol: 'ICMPv6' });
  return matches.length === 0 ? undefined : matches;
}

/**
 * What an operation and the rule's conditions ask of a request. As in Istio, a rule that allows by attributes of HTTP is
 * about HTTP requests only, and one that denies by them is about all other traffic too, as if it had them.
 */
export function readRequests(
  operation: Operation,
  conditions: readonly Condition[],
  reading: Reading,
): readonly RequestMatch[] {
  const { hosts, notHosts, methods, notMethods, paths, notPaths } = operation;
  const serverName = firstCondition(conditions.filter(({ key }) => key === 'connection.sni'));
  const headers = conditions.flatMap((condition) => {
    const name = headerOfKey(condition.key);
    const asked = textCondition(condition.values, condition.notValues);
    return name === undefined || asked === undefined ? [] : [{ name, ...asked }];
  });
  const method = textCondition(methods, notMethods);
  const host = textCondition(hosts, notHosts, 'host');
  const path = textCondition(paths, notPaths, 'path');
  const http: HttpMatch = {
    kind: 'http',
    ...(method === undefined ? {} : { method }),
    ...(path === undefined ? {} : { path }),
    ...(host === undefined ? {} : { host }),
    ...(headers.length === 0 ? {} : { headers }),
    ...(serverName === undefined ? {} : { serverName }),
  };
  const tls: RequestMatch = { kind: 'tls', ...(serverName === undefined ? {} : { serverName }) };
  if (reading === 'wide') return [http, tls, { kind: 'dns', names: [{ pattern: '**' }] }];
  const onlyServerName = serverName !== undefined && Object.keys(http).length === 2;
  return onlyServerName ? [http, tls] : [http];
}

/** Only one condition about the server's name can be carried; `parseAuthorizationPolicy` says so where there are more. */
function firstCondition([condition]: readonly Condition[]): TextCondition | undefined {
  return textCondition(condition?.values, condition?.notValues);
}

function textCondition(
  some: readonly string[] | undefined,
  none: readonly string[] | undefined,
  part?: 'host' | 'path',
): TextCondition | undefined {
  if (!some?.length && !none?.length) return undefined;
  return {
    ...(some?.length ? { some: some.map((value) => requestText(value, part)) } : {}),
    ...(none?.length ? { none: none.map((value) => requestText(value, part)) } : {}),
  };
}
