import type { IpAddress } from './address.ts';
import type { IdentityNumber } from './identity.ts';
import type { Protocol } from './port.ts';
import type { Direction, DropReason, RuleRef } from './verdict.ts';

/** One end of a flow as telemetry names it. */
export type FlowPeer =
  | {
      readonly kind: 'pod';
      readonly namespace: string;
      readonly name: string;
      readonly serviceAccount: string;
      readonly node: string;
    }
  | { readonly kind: 'host' }
  | { readonly kind: 'node'; readonly name: string }
  /** `name`: the DNS name under which the pod at the other end was told the address, where policy is about names. */
  | { readonly kind: 'world'; readonly name?: string }
  | { readonly kind: 'unknown' };

/**
 * `audit`: it passes, and `reason` and `rule` are what audited policies would deny it by. `request`: one HTTP request on a
 * connection that policy admits for its requests.
 */
export type FlowEventKind = 'new' | 'end' | 'periodic' | 'deny' | 'audit' | 'request';

/** What a request was, and was answered. */
export interface HttpExchange {
  /** Empty where it could not be read. */
  readonly method: string;
  /** The canonical path without its query, its first 128 bytes; empty where it could not be read. */
  readonly path: string;
  /** Absent where it had none: the connection was reset. */
  readonly status?: number;
  /** Of gRPC: what the answer's trailers said, or who refused it. */
  readonly grpcStatus?: number;
  /** TLS that the proxy has read, or ended, and the server that its client named. Without a method it is all that was seen. */
  readonly tls?: { readonly serverName?: string };
  /** How many requests should have been said before this one and were not, because it was too much. */
  readonly unsaid: number;
}

/** What the datapath says of a connection, joined with what the agent knows of its ends. */
export interface FlowEvent {
  readonly kind: FlowEventKind;
  /** Unix time, milliseconds. */
  readonly time: number;
  readonly node: string;
  /** The direction, seen from the pod at whose interface the verdict fell. */
  readonly direction: Direction;
  readonly protocol: Protocol | number;
  readonly source: FlowPeer & { readonly address: IpAddress; readonly port: number; readonly identity: IdentityNumber };
  readonly destination: FlowPeer & {
    readonly address: IpAddress;
    readonly port: number;
    readonly identity: IdentityNumber;
  };
  /** `namespace/name:port` where the connection was made to a Service. */
  readonly service?: string;
  readonly verdict: 'allow' | 'deny';
  readonly reason?: DropReason;
  readonly rule?: RuleRef;
  /** Where the rule has something said: what, and how often that was left out since the last time. */
  readonly log?: { readonly text: string; readonly unsaid: number };
  /** Both directions of the connection so far. */
  readonly packets: number;
  readonly bytes: number;
  /** Nanoseconds since the connection's first packet, absent on `new` and `deny`; of a request, until its answer began. */
  readonly durationNs?: number;
  /** Of a request. */
  readonly http?: HttpExchange;
}
