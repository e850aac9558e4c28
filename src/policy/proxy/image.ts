import type { IpAddress } from '../../model/address.ts';
import type { IdentityNumber } from '../../model/identity.ts';
import type { PortRange } from '../../model/port.ts';
import type { RequestMatch } from '../request.ts';
import type { TlsUse } from '../tls.ts';

/**
 * What a node's proxy needs of policy to judge requests as the reference does: pure data, small enough to be sent whole.
 * Numbers of identities, patterns and rules are the node's own, as `PolicyImage` has them.
 */
export interface ProxyImage {
  /** All endpoints of the node that have addresses. */
  readonly endpoints: readonly ProxyEndpoint[];
  /** What is asked of endpoints' connections, shared by those of which the same is asked. */
  readonly sides: readonly ProxySide[];
  /**
   * The identities that are somebody's, with what is equal for equal classes of peers, also of another agent's images:
   * numbers change where an agent starts anew. A number that is not there is older or newer than this image.
   */
  readonly identities: readonly (readonly [number: IdentityNumber, key: string])[];
  /** For numbers of patterns: the patterns that every name of theirs is one of, too. */
  readonly implied: readonly (readonly [pattern: IdentityNumber, others: readonly IdentityNumber[]])[];
  /** Rules by number, in words. */
  readonly rules: readonly (readonly [number: number, text: string])[];
}

/** First and last, inclusive. */
export type NumberRange = readonly [first: number, last: number];

export interface ProxyEndpoint {
  readonly addresses: readonly IpAddress[];
  /** What its own packets are, by their family; `any` (0) where it has no such address. */
  readonly identity4: IdentityNumber;
  readonly identity6: IdentityNumber;
  /** Into `sides`; absent where no rule of that direction asks for requests: then the datapath alone decides. */
  readonly ingress?: number;
  readonly egress?: number;
}

/** The stages in the order in which they are asked: `stages` of ../image.ts. */
export interface ProxySide {
  readonly admin?: ProxyStage;
  readonly network: ProxyStage;
  readonly mesh?: ProxyStage;
}

export interface ProxyStage {
  /** Those that are about TCP, in the order in which they decide. */
  readonly rules: readonly ProxyRule[];
  /** Where what no rule allows is denied: the rule that is named, and `optionFlags`. */
  readonly isolated?: { readonly rule: number; readonly flags: number };
}

export interface ProxyRule {
  readonly number: number;
  /** `optionFlags`. */
  readonly flags: number;
  /** `pass`: as if no rule of the stage had matched. */
  readonly verdict: 'allow' | 'deny' | 'pass';
  /** The peers with the ports of the server that the rule is about. */
  readonly reach: readonly ProxyReach[];
  /** One of these the request must match; absent: whatever it is. */
  readonly requests?: readonly RequestMatch[];
  readonly tls?: TlsUse;
}

export interface ProxyReach {
  /** Of identities and patterns of names; `[0, 0]` is everybody. In order. */
  readonly peers: readonly NumberRange[];
  readonly ports: readonly PortRange[];
}
