import type { PodPeer } from '../identity/verify.ts';
import { familyOf, type IpAddress } from '../model/address.ts';
import type { PodRef } from '../model/endpoint.ts';
import type { SpiffeId } from '../model/identity.ts';
import type { TrafficSelector } from './driver.ts';
import { HandshakeError } from './handshake/error.ts';

/** A pod of this node, as the API and the CNI request know it. */
export interface LocalPod {
  readonly pod: PodRef;
  readonly spiffeId: SpiffeId;
  readonly addresses: readonly IpAddress[];
}

export interface PeerNode {
  readonly name: string;
  /** Where the node is on the underlay. */
  readonly address: IpAddress;
  /** Default: the port that this node's own handshakes use. */
  readonly handshakePort?: number | undefined;
}

/** A pod of another node, as this node currently believes it to be. The belief may be stale: it is never proof. */
export interface RemotePod {
  readonly pod: PodRef;
  readonly spiffeId: SpiffeId;
  readonly addresses: readonly IpAddress[];
  readonly node: PeerNode;
}

/** What this node believes of the others, from the API. */
export interface PeerResolver {
  /** The live pod that has the address, or undefined. */
  podAt(address: IpAddress): RemotePod | undefined;
  /** The node with the underlay address, or undefined. */
  nodeAt(address: IpAddress): PeerNode | undefined;
}

/** The address pairs of two pods, one for each family that both have. */
export function selectorsBetween(
  local: { readonly addresses: readonly IpAddress[] },
  remote: { readonly addresses: readonly IpAddress[] },
): TrafficSelector[] {
  const selectors: TrafficSelector[] = [];
  for (const address of local.addresses) {
    const family = familyOf(address);
    const other = remote.addresses.find((candidate) => familyOf(candidate) === family);
    if (other !== undefined) selectors.push({ local: address, remote: other });
  }
  return selectors;
}

/**
 * Holds what a peer proved against what this node believes of the addresses it claims. Proof and belief must name the
 * same pod: where they differ one of them is out of date, and nobody gets in until they agree.
 * @returns The pod, as believed.
 * @throws {HandshakeError} `selectors`, `unknown-peer`, `wrong-uid`, `wrong-identity`, `wrong-address`
 */
export function believedPeer(
  peer: PodPeer,
  local: LocalPod,
  selectors: readonly TrafficSelector[],
  resolver: PeerResolver,
): RemotePod {
  let believed: RemotePod | undefined;
  for (const selector of selectors) {
    if (!local.addresses.includes(selector.local))
      throw new HandshakeError('selectors', `${selector.local} is not an address of pod ${local.pod.uid}`);
    if (!peer.addresses.includes(selector.remote))
      throw new HandshakeError(
        'wrong-address',
        `the certificate is for [${peer.addresses.join(', ')}], not for ${selector.remote}`,
      );
    const pod = resolver.podAt(selector.remote);
    if (pod === undefined) throw new HandshakeError('unknown-peer', `no pod is known at ${selector.remote}`);
    if (pod.pod.uid !== peer.podUid)
      throw new HandshakeError(
        'wrong-uid',
        `${selector.remote} is known as pod ${pod.pod.uid}, the certificate is of pod ${peer.podUid}`,
      );
    if (pod.spiffeId !== peer.spiffeId)
      throw new HandshakeError('wrong-identity', `${pod.pod.uid} is known as ${pod.spiffeId}, not as ${peer.spiffeId}`);
    believed = pod;
  }
  if (believed === undefined) throw new HandshakeError('selectors', 'no addresses were offered');
  return believed;
}
