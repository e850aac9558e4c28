import {
  addr,
  be16,
  list,
  mac,
  pad,
  pair,
  raw,
  type Struct,
  single,
  someAddr,
  struct,
  text,
  u8,
  u16,
  u32,
  u32Of,
  u64,
  type Value,
} from '../kernel/bpf/struct.ts';
import type { IpAddress } from '../model/address.ts';
import type { IdentityNumber } from '../model/identity.ts';

/**
 * The datapath's maps, key and value, as bpf/lib/layout.h, http_tables.h and dns_layout.h lay them out. What the members mean stands there.
 * The layouts are compared with an object's BTF whenever it is loaded, so that the two cannot drift apart unseen.
 */

const identity = u32Of<IdentityNumber>();

export const config = struct('config', {
  revision: u32,
  tunnelIfindex: u32,
  uplinkIfindex: u32,
  flags: u32,
  mtu: u32,
  proxyIfindex: u32,
  reportIntervalNs: u64,
  denyIntervalNs: u64,
  openingNs: u64,
  tcpEstablishedNs: u64,
  tcpHalfClosedNs: u64,
  closedNs: u64,
  udpNs: u64,
  sctpNs: u64,
  icmpNs: u64,
  fragmentNs: u64,
  nameFloorNs: u64,
  nameCeilingNs: u64,
});
export type Config = Value<typeof config>;
export const configFlags = { xfrm: 4, proxyLearn: 8, changing: 16 } as const;

export const endpoint = struct('endpoint', {
  id: u32,
  identity4: identity,
  identity6: identity,
  ingressAdminSet: u32,
  ingressSet: u32,
  ingressMeshSet: u32,
  egressAdminSet: u32,
  egressSet: u32,
  egressMeshSet: u32,
  flags: u32,
  names: u32,
  mac,
  hostMac: mac,
  addr4: addr,
  addr6: addr,
});
export type Endpoint = Value<typeof endpoint>;
export const endpointFlags = { ready: 1, revoked: 2, audited: 4 } as const;

export const endpointAudit = struct('endpoint_audit', {
  ingressAdminSet: u32,
  ingressSet: u32,
  ingressMeshSet: u32,
  egressAdminSet: u32,
  egressSet: u32,
  egressMeshSet: u32,
});
export type EndpointAudit = Value<typeof endpointAudit>;

export const address = single(someAddr);
export type Address = IpAddress;

export const peer = struct('peer', { identity, kind: u32 });
export type Peer = Value<typeof peer>;

export const prefixKey = struct('prefix_key', { length: u32, address: someAddr });
export type PrefixKey = Value<typeof prefixKey>;

export const ruleSet = struct('rule_set', { probes: u32, flags: u32, rule: u32, matcher: u32 });
export type RuleSetValue = Value<typeof ruleSet>;

export const policyKey = struct('policy_key', { set: u32, identity, port: u16, protocol: u8, portLength: u8 });
export type PolicyKey = Value<typeof policyKey>;

export const policyEntry = struct('policy_entry', {
  precedence: u32,
  rule: u32,
  verdict: u8,
  flags: u8,
  pad: pad(2),
  cell: u32,
});
export type PolicyValue = Value<typeof policyEntry>;

/** Of a matcher of requests, at most; `HTTP_…` in http_tables.h. */
export const httpLimits = { alternatives: 1024, classes: 100, names: 16 } as const;
const bits = 'u64[16]';
export const httpBits = struct('http_bits', { bits: raw(bits, 128, 8) });
export type HttpBits = Value<typeof httpBits>;
export const httpMatcher = struct('http_matcher', {
  alternatives: u32,
  firstAlternative: u32,
  firstRow: u32,
  rows: u32,
  firstAccept: u32,
  accepts: u32,
  methodStart: u32,
  pathStart: u32,
  targetStart: u32,
  hostStart: u32,
  absentHost: u32,
  nameStart: u32,
  headerCount: u32,
  pad: pad(4, 'u32'),
  /** Start and absent_accept of each. */
  headers: raw('{start@0:u32,absent_accept@4:u32}[16]', 128, 4),
  lenient: raw(`{bits@0:${bits}}`, 128, 8),
  strict: raw(`{bits@0:${bits}}`, 128, 8),
  classes: raw('u8[256]', 256, 1),
});
export type HttpMatcher = Value<typeof httpMatcher>;
export const httpAlternative = struct('http_alternative', {
  precedence: u32,
  rule: u32,
  verdict: u8,
  flags: u8,
  pad: pad(2),
});
export type HttpAlternative = Value<typeof httpAlternative>;
export const httpRow = struct('http_row', { next: raw('u16[100]', 200, 2), accept: u32 });
export type HttpRow = Value<typeof httpRow>;

export const ctKey = struct('ct_key', {
  endpoint: u32,
  localPort: be16,
  remotePort: be16,
  remote: someAddr,
  protocol: u8,
  pad: pad(3),
});
export type CtKey = Value<typeof ctKey>;

export const ctStates = { opening: 1, established: 2, halfClosed: 3, closed: 4 } as const;

export const ctEntry = struct('ct_entry', {
  expiresNs: u64,
  createdNs: u64,
  packets: pair(u64),
  bytes: pair(u64),
  lastReportNs: u64,
  rule: u32,
  revision: u32,
  remoteIdentity: identity,
  service: u32,
  direction: u8,
  state: u8,
  tcpFlags: pair(u8),
  flags: u32,
  name: u32,
  class: u32,
});
export type CtEntry = Value<typeof ctEntry>;
export const ctFlags = { proxied: 64 } as const;

export const proxyPortKey = struct('proxy_port_key', { endpoint: u32, port: u16, pad: pad(2, 'u16') });
export type ProxyPortKey = Value<typeof proxyPortKey>;
export const proxyClientKey = struct('proxy_client_key', {
  endpoint: u32,
  remote: someAddr,
  port: u16,
  pad: pad(2, 'u16'),
});
export type ProxyClientKey = Value<typeof proxyClientKey>;
/** `enum proxy_mode`. */
export const proxyModes = { always: 1, never: 2 } as const;

export const serviceKey = struct('service_key', { address: someAddr, port: be16, protocol: u8, pad: pad(1) });
export type ServiceKey = Value<typeof serviceKey>;
export const service = struct('service', { id: u32, count: u32 });
export type ServiceValue = Value<typeof service>;
export const backendKey = struct('backend_key', { service: u32, slot: u32 });
export type BackendKey = Value<typeof backendKey>;
export const serviceEnd = struct('service_end', { address: someAddr, port: be16, pad: pad(2) });
export type ServiceEnd = Value<typeof serviceEnd>;
export const serviceFlow = struct('service_flow', {
  address: someAddr,
  port: be16,
  flags: u16,
  service: u32,
  expiresNs: u64,
});
export const serviceFlowFlags = { hairpinReply: 1 } as const;
export type ServiceFlow = Value<typeof serviceFlow>;

export const tunnelKey = struct('tunnel_key', { local: someAddr, remote: someAddr });
export type TunnelKey = Value<typeof tunnelKey>;
export const tunnel = struct('tunnel', { identity, spi: u32, previousSpi: u32, pad: pad(4, 'u32') });
export type Tunnel = Value<typeof tunnel>;

export const nameMatcher = struct('name_matcher', { flags: u32, adminSet: u32, networkSet: u32, meshSet: u32 });
export type NameMatcherValue = Value<typeof nameMatcher>;
export const matcherFlags = { learns: 1, asks: 2 } as const;

export const nameStateKey = struct('name_state_key', { matcher: u32, state: u32 });
export type NameStateKey = Value<typeof nameStateKey>;
export const nameState = struct('name_state', { next: list(u16, 40), accept: u32 });
export type NameState = Value<typeof nameState>;

export const nameAcceptKey = struct('name_accept_key', { matcher: u32, accept: u32 });
export type NameAcceptKey = Value<typeof nameAcceptKey>;
export const nameAccept = struct('name_accept', {
  adminSet: u32,
  networkSet: u32,
  meshSet: u32,
  count: u32,
  patterns: list(identity, 8),
});
export type NameAccept = Value<typeof nameAccept>;

export const nameKey = struct('name_key', { endpoint: u32, address: someAddr });
export type NameKey = Value<typeof nameKey>;
export const nameValue = struct('name_value', {
  learntNs: u64,
  expiresNs: list(u64, 8),
  patterns: list(identity, 8),
  name: text(256),
});
export type NameValue = Value<typeof nameValue>;

export const namePattern = struct('name_pattern', { text: text(256) });
export type NamePattern = Value<typeof namePattern>;

export const metric = struct('metric', { packets: u64, bytes: u64 });
export type Metric = Value<typeof metric>;

export const event = struct('event', {
  timeNs: u64,
  kind: u8,
  direction: u8,
  verdict: u8,
  reason: u8,
  protocol: u8,
  tcpFlags: u8,
  flags: u8,
  pad: pad(1),
  endpoint: u32,
  ifindex: u32,
  rule: u32,
  sourceIdentity: identity,
  destinationIdentity: identity,
  service: u32,
  source: someAddr,
  destination: someAddr,
  sourcePort: be16,
  destinationPort: be16,
  unsaid: u32,
  packets: u64,
  bytes: u64,
  durationNs: u64,
});

export type EventRecord = Value<typeof event>;
/** How often a rule has something said. */
export const logLimit = struct('log_limit', { nextNs: u64, unsaid: u64 });
export type LogLimit = Value<typeof logLimit>;

export const eventFlags = { logged: 1 } as const;

/** `enum direction`, in connections and events. */
export const directionCodes = { egress: 1, ingress: 2 } as const;

/** A key or value that is a plain number: an index, a device, a rule set, a service. */
export const number32 = single(u32);
export const number64 = single(u64);

/** Every struct above, to be compared with what an object was compiled from. */
export const structs: readonly Struct<unknown>[] = [
  config,
  endpoint,
  endpointAudit,
  peer,
  prefixKey,
  ruleSet,
  policyKey,
  policyEntry,
  httpBits,
  httpMatcher,
  httpAlternative,
  httpRow,
  ctKey,
  ctEntry,
  proxyPortKey,
  proxyClientKey,
  serviceKey,
  service,
  backendKey,
  serviceEnd,
  serviceFlow,
  tunnelKey,
  tunnel,
  nameMatcher,
  nameStateKey,
  nameState,
  nameAcceptKey,
  nameAccept,
  nameKey,
  nameValue,
  namePattern,
  metric,
  logLimit,
  event,
];
