import { everyPort } from '../../model/port.ts';
import type { RequestMatch } from '../request.ts';
import type { IcmpMatch, PortMatch } from '../rule.ts';
import type { TlsUse } from '../tls.ts';
import type { LimitAt } from './limit.ts';
import { requestsOf } from './requests.ts';
import { type PortRuleSpec, type PortSpec, portlessProtocols } from './schema-ports.ts';

/** Ports and what is asked of requests to them; each becomes a rule of its own. */
export interface PortsMatch {
  readonly ports: readonly PortMatch[] | 'any';
  readonly requests?: readonly RequestMatch[];
  readonly tls?: TlsUse;
}

export interface PortsSpec {
  readonly toPorts?: readonly PortRuleSpec[] | null | undefined;
  readonly icmps?: readonly { readonly fields?: readonly IcmpMatch[] | null | undefined }[] | null | undefined;
}

/**
 * The ports that a rule is about. Without `toPorts` and `icmps` (an empty list is none) it is about every protocol; an
 * entry of either that lists no ports is about nothing.
 * @param namespace Of the policy; empty for those of the whole cluster.
 * @param verdict Of the rule: what cannot be told apart here is left out of what allows and covered by what denies.
 */
export function matchPorts(
  { toPorts, icmps }: PortsSpec,
  verdict: 'allow' | 'deny',
  namespace: string,
): { matches: PortsMatch[]; limits: LimitAt[] } {
  const limits: LimitAt[] = [];
  if (!toPorts?.length && !icmps?.length) return { matches: [{ ports: 'any' }], limits };
  const matches: PortsMatch[] = [];
  for (const [index, rule] of (toPorts ?? []).entries()) {
    const ports: PortMatch[] = [];
    let every = false;
    for (const [at, port] of (rule.ports ?? []).entries()) {
      const protocol = portlessProtocols.find((one) => one === port.protocol);
      if (protocol === undefined) ports.push(...toPortMatches(port));
      else {
        limits.push({ path: ['toPorts', index, 'ports', at, 'protocol'], reason: portless(protocol, verdict) });
        every ||= verdict === 'deny';
      }
    }
    const { requests, tls, limits: own } = requestsOf(rule, namespace);
    for (const { path, reason } of own) limits.push({ path: ['toPorts', index, ...path], reason });
    if (every) matches.push({ ports: 'any' });
    else if (ports.length > 0 && requests?.length !== 0)
      matches.push({
        ports,
        ...(requests === undefined ? {} : { requests }),
        ...(tls === undefined ? {} : { tls }),
      });
  }
  const messages = (icmps ?? []).flatMap(({ fields }) => fields ?? []);
  if (messages.length > 0) matches.push({ ports: messages });
  return { matches, limits };
}

function portless(protocol: string, verdict: 'allow' | 'deny'): string {
  return verdict === 'allow'
    ? `${protocol} is not told apart from other protocols: it is not allowed`
    : `${protocol} is not told apart from other protocols: every protocol is denied`;
}

/** Port 0 is every port; no protocol, or ANY, is each that has ports. */
function toPortMatches({ port, endPort, protocol }: PortSpec): PortMatch[] {
  const text = port ?? '';
  const number = /^[0-9]+$/.test(text) ? Number(text) : undefined;
  const match =
    number === undefined
      ? { name: text.toLowerCase() }
      : number === 0 && !endPort
        ? everyPort
        : { from: number, to: endPort || number };
  const protocols = protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP' ? [protocol] : transports;
  return protocols.map((one): PortMatch => ({ protocol: one, port: match }));
}

const transports = ['TCP', 'UDP', 'SCTP'] as const;
