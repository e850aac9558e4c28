import { nodeSpiffeId } from '../identity/names.ts';
import type { Revocations } from '../identity/revocation.ts';
import { podName } from '../model/endpoint.ts';
import type { SpiffeId } from '../model/identity.ts';
import type { LocalPod, RemotePod } from './peers.ts';

/** What this side shows of itself. */
export interface OwnProof {
  /** Serial numbers of the pod's certificate and of the node's. */
  readonly serials: readonly string[];
  /** The node's URI, as its certificate has it. */
  readonly nodeUri: string | undefined;
}

/**
 * Why the two pods may have no tunnel any more: either of them, its service account, its node or a certificate that its
 * proof stands on is revoked. Pure.
 * @param peerSerials Of the certificates that the peer proved itself by.
 * @returns In words, or undefined.
 */
export function whyPairRevoked(
  pair: { readonly local: LocalPod; readonly remote: RemotePod },
  own: OwnProof,
  peerSerials: readonly string[],
  revocations: Revocations,
  trustDomain: string,
): string | undefined {
  const { local, remote } = pair;
  const remoteNode = nodeUriOf(trustDomain, remote.node.name);
  return (
    whyPodRevoked(local, own.nodeUri, own.serials, revocations) ??
    whyPodRevoked(remote, remoteNode, peerSerials, revocations)
  );
}

/** Whether nothing is revoked, which is so nearly always. */
export function isNobody({ serials, podUids, spiffeIds }: Revocations): boolean {
  return serials.size === 0 && podUids.size === 0 && spiffeIds.size === 0;
}

/** The same of one pod. */
export function whyPodRevoked(
  { pod, spiffeId }: { readonly pod: LocalPod['pod']; readonly spiffeId: SpiffeId },
  nodeUri: string | undefined,
  serials: readonly string[],
  revocations: Revocations,
): string | undefined {
  if (revocations.podUids.has(pod.uid)) return `pod ${podName(pod)} is revoked`;
  if (revocations.spiffeIds.has(spiffeId)) return `${spiffeId} is revoked`;
  if (nodeUri !== undefined && revocations.spiffeIds.has(nodeUri)) return `${nodeUri} is revoked`;
  const serial = serials.find((each) => revocations.serials.has(each));
  return serial === undefined ? undefined : `certificate ${serial} is revoked`;
}

function nodeUriOf(trustDomain: string, node: string): string | undefined {
  try {
    return nodeSpiffeId(trustDomain, node);
  } catch {
    // A name that no certificate can have cannot be revoked by name either.
    return undefined;
  }
}
