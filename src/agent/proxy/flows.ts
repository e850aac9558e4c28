import type { FlowEvent } from '../../model/flow.ts';
import type { IdentityNumber } from '../../model/identity.ts';
import { reservedIdentity } from '../../model/identity.ts';
import { optionFlags } from '../../policy/image.ts';
import type { ProxyFlow } from '../../policy/proxy/wire.ts';
import { endOf, type FlowNames } from '../flows.ts';

/** Joins what the proxy says of a request with who the ends are now and which rule a number stands for. */
export function flowOfRequest(said: ProxyFlow, names: FlowNames): FlowEvent {
  const rule = said.rule === 0 ? undefined : names.rule(said.rule);
  // Of the end whose policy did not decide, the datapath has said who it is.
  const identityOf = (remote: boolean): IdentityNumber => (remote ? said.identity : reservedIdentity.any);
  const egress = said.direction === 'egress';
  return {
    kind: 'request',
    time: said.time,
    node: names.node,
    direction: said.direction,
    protocol: 'TCP',
    source: endOf({ address: said.client, port: said.clientPort, identity: identityOf(!egress) }, names),
    destination: endOf({ address: said.server, port: said.serverPort, identity: identityOf(egress) }, names),
    verdict: said.verdict,
    ...(said.reason === undefined ? {} : { reason: said.reason }),
    ...(rule === undefined ? {} : { rule: { ...rule, direction: said.direction } }),
    ...((said.flags & optionFlags.log) === 0 ? {} : { log: { text: rule?.log ?? '', unsaid: 0 } }),
    packets: 0,
    bytes: 0,
    ...(said.latencyMs === undefined ? {} : { durationNs: Math.round(said.latencyMs * 1e6) }),
    http: {
      method: said.method,
      path: said.path,
      ...(said.status === undefined ? {} : { status: said.status }),
      ...(said.grpcStatus === undefined ? {} : { grpcStatus: said.grpcStatus }),
      ...(said.protocol === 'tls' || said.serverName !== undefined
        ? { tls: { ...(said.serverName === undefined ? {} : { serverName: said.serverName }) } }
        : {}),
      unsaid: said.unsaid,
    },
  };
}
