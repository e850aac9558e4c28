import type { Logger } from 'pino';
import type { DatapathEvent, DatapathEventEnd } from '../datapath/events.ts';
import type { IpAddress } from '../model/address.ts';
import type { FlowEvent, FlowPeer } from '../model/flow.ts';
import { protocolFromNumber } from '../model/port.ts';
import { formatRule, type RuleRef } from '../model/verdict.ts';
import { formatEnd } from '../observe/format.ts';
import type { ClusterState } from './cluster-state.ts';

/** What the agent knows that the datapath's numbers stand for. */
export interface FlowNames {
  readonly node: string;
  readonly state: Pick<ClusterState, 'podAt' | 'nodeAt'>;
  /** Prefixes whose addresses are pods' and services': nobody there is the world. */
  readonly isClusterAddress: (address: IpAddress) => boolean;
  readonly rule: (number: number) => RuleRef | undefined;
  readonly service: (id: number) => string | undefined;
  /** The DNS name under which an endpoint was told an address. */
  readonly domain?: (endpoint: number, address: IpAddress) => string | undefined;
}

/** Joins what the datapath saw with who the ends are now and which rule a number stands for. */
export function flowOf(event: DatapathEvent, names: FlowNames): FlowEvent {
  const rule = event.rule === 0 ? undefined : names.rule(event.rule);
  const service = event.service === 0 ? undefined : names.service(event.service);
  return {
    kind: event.kind,
    time: event.time,
    node: names.node,
    direction: event.direction,
    protocol: protocolFromNumber(event.protocol) ?? event.protocol,
    source: endOf(event.source, names),
    destination: withDomain(endOf(event.destination, names), event, names),
    ...(service === undefined ? {} : { service }),
    verdict: event.verdict,
    ...(typeof event.reason === 'string' ? { reason: event.reason } : {}),
    ...(rule === undefined ? {} : { rule: { ...rule, direction: event.direction } }),
    ...(event.unsaid === undefined ? {} : { log: { text: rule?.log ?? '', unsaid: event.unsaid } }),
    packets: event.packets,
    bytes: event.bytes,
    ...(event.durationNs === undefined ? {} : { durationNs: event.durationNs }),
    ...(event.http === undefined ? {} : { http: event.http }),
  };
}

/** Writes what a policy's rule has said where it decides into the log; how often that may be, the datapath sees to. */
export function sayFlow(flow: FlowEvent, logger: Pick<Logger, 'info'>): void {
  if (flow.log === undefined) return;
  const { text, unsaid } = flow.log;
  logger.info(
    {
      verdict: flow.verdict,
      ...(flow.rule === undefined ? {} : { rule: formatRule(flow.rule) }),
      ...(flow.reason === undefined ? {} : { reason: flow.reason }),
      ...{ source: formatEnd(flow.source), destination: formatEnd(flow.destination), protocol: flow.protocol },
      ...(unsaid === 0 ? {} : { unsaid }),
    },
    text === '' ? 'a rule that is to be logged has decided' : text,
  );
}

function withDomain(
  end: FlowEvent['destination'],
  { direction, endpoint }: DatapathEvent,
  { domain }: FlowNames,
): FlowEvent['destination'] {
  if (end.kind !== 'world' || direction !== 'egress') return end;
  const name = domain?.(endpoint, end.address);
  return name === undefined ? end : { ...end, name };
}

/** An end with who it is now. */
export function endOf(end: DatapathEventEnd, names: FlowNames): FlowEvent['source'] {
  return { ...peerOf(end.address, names), address: end.address, port: end.port, identity: end.identity };
}

function peerOf(address: IpAddress, { node, state, isClusterAddress }: FlowNames): FlowPeer {
  const pod = state.podAt(address);
  if (pod !== undefined) {
    const { namespace, name, serviceAccount } = pod;
    return { kind: 'pod', namespace, name, serviceAccount, node: pod.node };
  }
  const nodeName = state.nodeAt(address);
  if (nodeName !== undefined) return nodeName === node ? { kind: 'host' } : { kind: 'node', name: nodeName };
  return { kind: isClusterAddress(address) ? 'unknown' : 'world' };
}
