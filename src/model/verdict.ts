/**
 * Why a packet was dropped. The numbers are `enum drop_reason` of bpf/lib/reasons.h and travel in events;
 * a test holds the two lists together through the object's BTF. A number is never given a second meaning.
 */
export const dropReasons = {
  POLICY_DENIED: { code: 1, text: 'no rule of a policy that selects the pod allows it' },
  POLICY_DENIED_EXPLICIT: { code: 2, text: 'a rule denies it' },
  ENDPOINT_NOT_READY: { code: 3, text: 'the pod’s identity and policy are not loaded yet' },
  SPOOFED_SOURCE_IP: { code: 4, text: 'the source address is not the pod’s own' },
  SPOOFED_SOURCE_MAC: { code: 5, text: 'the source MAC is not the pod’s own' },
  SPOOFED_NEIGHBOUR: { code: 6, text: 'an ARP or ND message claims an address that is not the pod’s own' },
  UNKNOWN_L3: { code: 7, text: 'not IPv4, IPv6 or ARP' },
  UNKNOWN_L4: { code: 8, text: 'a transport protocol that is not understood' },
  MALFORMED: { code: 9, text: 'truncated, or a header that contradicts itself' },
  FRAGMENT_WITHOUT_FIRST: { code: 10, text: 'a later fragment whose first was not seen' },
  UNKNOWN_PEER: { code: 11, text: 'an address of the cluster that belongs to no known pod' },
  NO_PROOF: { code: 12, text: 'arrived at the pod’s interface from neither a local pod, a tunnel nor the node itself' },
  PLAINTEXT: { code: 13, text: 'a pod’s packet on the underlay outside a tunnel' },
  TUNNEL_SELECTOR: { code: 14, text: 'the inner addresses are not those of the security association' },
  TUNNEL_TO_NODE: { code: 15, text: 'a tunnelled packet for the node itself' },
  NO_SERVICE_BACKEND: { code: 16, text: 'the service has no ready endpoint' },
  CT_INVALID: { code: 17, text: 'belongs to no connection and may not start one' },
  CT_FULL: { code: 18, text: 'the connection table is full' },
  SERVICE_CONFLICT: { code: 19, text: 'the connection’s ports are taken by another way to the same backend' },
  MULTICAST: { code: 20, text: 'multicast or broadcast' },
  SOURCE_ROUTED: { code: 21, text: 'IP options or extension headers that steer routing' },
  LEAK_PREVENTED: { code: 22, text: 'would have left the node in clear' },
  TTL_EXCEEDED: { code: 23, text: 'time to live ran out' },
  VLAN: { code: 24, text: 'a VLAN tag' },
  TOO_BIG: { code: 25, text: 'larger than the path takes, with fragmentation forbidden' },
  UNKNOWN_RULE_SET: { code: 26, text: 'the rule set of the pod is not in the map' },
  UNTRANSLATABLE: { code: 27, text: 'a service’s translation cannot be applied to it without breaking it' },
  REVOKED: { code: 28, text: 'the pod, its service account, its certificate or its node is revoked' },
  HTTP_DENIED: { code: 29, text: 'no rule allows the HTTP request; it was answered 403' },
  HTTP_MALFORMED: { code: 30, text: 'not canonical HTTP/1.1; it was answered 400' },
  HTTP_HEAD_TOO_BIG: { code: 31, text: 'the HTTP request’s head is too big; it was answered 431' },
  HTTP_BODY_MALFORMED: { code: 32, text: 'the HTTP request’s body is broken; the connection was reset' },
  HTTP_UNREAD: { code: 33, text: 'policy asks for the connection’s HTTP requests, and nothing reads them' },
  DNS_DENIED: { code: 40, text: 'no rule allows to ask for the name; it was answered REFUSED where it came by UDP' },
  DNS_MALFORMED: { code: 41, text: 'policy is about the names in it, and it cannot be read' },
  DNS_UNASKED: { code: 42, text: 'a DNS answer to nothing that the pod asked on this connection' },
  NAMES_FULL: { code: 43, text: 'there is no room to learn the addresses in a DNS answer' },
  PROXY_ABSENT: { code: 44, text: 'its requests are for the proxy to judge, and there is none' },
  PROXY_CONNECTION: { code: 45, text: 'from the proxy, and no connection of its' },
  TLS_DENIED: { code: 46, text: 'no rule allows the TLS server name; the connection was ended by an alert' },
  TLS_MALFORMED: { code: 47, text: 'policy reads its TLS, and it is none, cannot be read, or came to nothing' },
  PROXY_MALFORMED: { code: 48, text: 'policy asks for requests, and what came is neither HTTP nor TLS' },
  TLS_SECRET: {
    code: 49,
    text: 'policy wants its TLS ended or opened by a Secret that is not there, broken or not the only one',
  },
  TLS_UNVERIFIED: {
    code: 50,
    text: 'TLS to the server cannot be had, or the server did not prove its name; it was answered 503',
  },
  TLS_MISDIRECTED: {
    code: 51,
    text: 'the request is for another host than its TLS was opened for; it was answered 421',
  },
} as const satisfies Record<string, { code: number; text: string }>;

export type DropReason = keyof typeof dropReasons;

/** @returns The reason's name, or undefined for a code that a newer datapath may send. */
export function dropReasonFromCode(code: number): DropReason | undefined {
  for (const [name, value] of Object.entries(dropReasons)) if (value.code === code) return name as DropReason;
  return undefined;
}

export type Direction = 'egress' | 'ingress';

/** The rule of a policy object that decided: enough to find the line in the manifest. */
export interface RuleRef {
  readonly kind: string;
  /** Empty for kinds without a namespace. */
  readonly namespace: string;
  readonly name: string;
  readonly direction: Direction;
  /** The list in the manifest, where its name is not the direction's: `ingressDeny`. */
  readonly list?: string;
  /** Position in the policy's list for that direction; -1 means the policy as a whole (it selects the pod and no rule allows). */
  readonly index: number;
  /** What the policy wants to be said in the log where the rule decides. */
  readonly log?: string;
}

export function formatRule(rule: RuleRef): string {
  const name = rule.namespace === '' ? rule.name : `${rule.namespace}/${rule.name}`;
  return `${rule.kind} ${name} ${rule.list ?? rule.direction}${rule.index < 0 ? '' : `[${rule.index}]`}`;
}

/** What decided about one direction of a flow. */
export type SideDecision =
  | { readonly verdict: 'allow'; readonly by: 'rule'; readonly rule: RuleRef }
  /** No policy selects the pod in this direction. */
  | { readonly verdict: 'allow'; readonly by: 'default' }
  /** Exempt by design: the pod's own node, traffic to itself. */
  | { readonly verdict: 'allow'; readonly by: 'exempt'; readonly why: string }
  | { readonly verdict: 'deny'; readonly by: 'rule'; readonly rule: RuleRef }
  /** These policies select the pod in this direction, and no rule of theirs allows the flow. */
  | { readonly verdict: 'deny'; readonly by: 'isolation'; readonly policies: readonly RuleRef[] }
  | { readonly verdict: 'deny'; readonly by: 'default' }
  | { readonly verdict: 'deny'; readonly by: 'reason'; readonly reason: DropReason };
