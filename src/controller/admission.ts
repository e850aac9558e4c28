import { z } from 'zod';
import type { SvidSubject } from '../identity/ca.ts';
import { podSpiffeId } from '../identity/names.ts';
import { type IpAddress, tryParseIp } from '../model/address.ts';
import { podName } from '../model/endpoint.ts';
import { type Prefix, prefixContains } from '../model/prefix.ts';
import { type Result, refusal, success } from '../model/result.ts';

/** What the CA's service must know of a pod. From the API. */
export interface PodFacts {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Empty while it is not scheduled. */
  readonly node: string;
  readonly serviceAccount: string;
  /** Of its status; none until its node has said. */
  readonly addresses: readonly IpAddress[];
  readonly hostNetwork: boolean;
  /** It has come to its end and will not run again. */
  readonly ended: boolean;
}

export interface NodeFacts {
  readonly name: string;
  readonly podCidrs: readonly Prefix[];
}

/** Why a node does not get a pod's certificate. Each is counted under its name and travels in the answer. */
export const denials = {
  'not-a-node': 'the caller did not prove to be a node',
  'bad-request': 'the request is malformed',
  'bad-csr': 'the certificate request is malformed, or does not prove possession of its key',
  'no-such-node': 'the API does not know the caller’s node',
  'no-such-pod': 'the API does not know the pod',
  'wrong-uid': 'the pod of that name is another one',
  'other-node': 'the pod is not scheduled to the caller’s node',
  'host-network': 'the pod is in its node’s network and has no identity of its own there',
  'pod-ended': 'the pod has come to its end',
  'wrong-service-account': 'the pod has another service account',
  'wrong-address': 'the pod has another address',
  'foreign-address': 'the address is not one of the node’s pods',
  'address-in-use': 'another live pod has the address',
  revoked: 'the pod, its service account or the node is revoked',
} as const;

export type DenialCode = keyof typeof denials;

export interface Denial {
  readonly code: DenialCode;
  readonly message: string;
}

const ipAddress = z
  .string()
  .max(45)
  .transform((text, context): IpAddress => {
    const address = tryParseIp(text);
    if (address !== undefined) return address;
    context.addIssue({ code: 'custom', message: 'not an IP address' });
    return z.NEVER;
  });

/** The body of POST /v1/svid. */
export const svidRequestSchema = z.strictObject({
  pod: z.strictObject({
    namespace: z.string().min(1).max(63),
    name: z.string().min(1).max(253),
    uid: z.string().min(1).max(63),
  }),
  serviceAccount: z.string().min(1).max(253),
  addresses: z.array(ipAddress).min(1).max(2),
  csr: z.string().max(4096),
  lifetimeSeconds: z.int().min(1).max(86_400).optional(),
});
/** The body of POST /v1/node. */
export const nodeRequestSchema = z.strictObject({ csr: z.string().max(4096) });

export type SvidRequest = z.infer<typeof svidRequestSchema>;

/** Looks at the cluster for the decision below. */
export interface ClusterFacts {
  /** The live pod, other than `uid`, that has the address or a certificate for it. */
  readonly holderOf: (address: IpAddress, uid: string) => PodFacts | undefined;
  readonly node: NodeFacts | undefined;
  readonly pod: PodFacts | undefined;
}

/**
 * The node check (design.md section 5): the CA signs for a node only what that node hosts, or one node could be any pod.
 * Pure.
 * @param caller The node's name, as its certificate proved it.
 */
export function admitSvid(
  caller: string,
  request: SvidRequest,
  facts: ClusterFacts,
  trustDomain: string,
): Result<SvidSubject, Denial> {
  const { pod, node } = facts;
  const asked = podName(request.pod);
  if (node === undefined) return deny('no-such-node', `the API knows no node ${caller}`);
  if (pod === undefined) return deny('no-such-pod', `the API knows no pod ${asked}`);
  if (pod.uid !== request.pod.uid)
    return deny('wrong-uid', `pod ${asked} has the UID ${pod.uid}, not ${request.pod.uid}`);
  if (pod.node !== caller)
    return deny('other-node', `pod ${asked} is on ${pod.node === '' ? 'no node yet' : pod.node}, not on ${caller}`);
  if (pod.hostNetwork) return deny('host-network', `pod ${asked} is in its node’s network`);
  if (pod.ended) return deny('pod-ended', `pod ${asked} has come to its end`);
  if (pod.serviceAccount !== request.serviceAccount)
    return deny('wrong-service-account', `pod ${asked} has the service account ${pod.serviceAccount}`);
  for (const address of request.addresses) {
    // Until its node has told the API, the address is the node's to give, out of its own.
    if (pod.addresses.length > 0 && !pod.addresses.includes(address))
      return deny('wrong-address', `pod ${asked} has [${pod.addresses.join(', ')}], not ${address}`);
    if (!node.podCidrs.some((prefix) => prefixContains(prefix, address)))
      return deny('foreign-address', `${address} is not in ${caller}’s [${node.podCidrs.join(', ')}]`);
    const holder = facts.holderOf(address, pod.uid);
    if (holder !== undefined) return deny('address-in-use', `${address} is pod ${podName(holder)}’s`);
  }
  const spiffeId = podSpiffeId({ trustDomain, namespace: pod.namespace, serviceAccount: pod.serviceAccount });
  const lifetimeMs = request.lifetimeSeconds === undefined ? {} : { lifetimeMs: request.lifetimeSeconds * 1000 };
  return success({ spiffeId, podUid: pod.uid, addresses: request.addresses, ...lifetimeMs });
}

export function deny(code: DenialCode, message: string): { readonly ok: false; readonly reason: Denial } {
  return refusal({ code, message });
}
