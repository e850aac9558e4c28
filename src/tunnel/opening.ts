import { endpointServerName } from '../identity/names.ts';
import type { Svid } from '../identity/svid.ts';
import type { TrafficSelector } from './driver.ts';
import { Channel, type Conversation } from './handshake/channel.ts';
import { podDestination } from './handshake/dial.ts';
import { asHandshakeError, HandshakeError } from './handshake/error.ts';
import { type Agreement, type BreachRadius, type Installer, initiate, type Proposal } from './handshake/exchange.ts';
import { initiatePair, type OwnPod } from './handshake/pair-exchange.ts';
import { type ShownChain, shownChain } from './handshake/shown-chain.ts';
import type { LocalPod, RemotePod } from './peers.ts';
import type { TunnelServices } from './services.ts';
import type { Tracer } from './trace.ts';

/** A handshake that this side begins, as its tunnel has it. */
export interface Opening {
  readonly local: LocalPod;
  /** As believed when it begins. */
  readonly remote: RemotePod;
  readonly selectors: readonly TrafficSelector[];
  readonly radius: BreachRadius;
  /** Whether it is to replace a key. */
  readonly isUp: boolean;
  /** Whether packets wait. */
  readonly hurries: () => boolean;
  readonly tracer: () => Tracer | undefined;
  /** @throws {HandshakeError} `aborted` */
  readonly proposal: () => Proposal;
  readonly installer: () => Installer;
}

type Services = Pick<
  TunnelServices,
  'trustDomain' | 'svid' | 'work' | 'verifier' | 'dials' | 'nodes' | 'whyNot' | 'whyRevoked' | 'settings'
>;

/** What it has taken hold of. */
interface Held {
  conversation: Conversation | undefined;
  leave: (() => void) | undefined;
}

const iso = (ms: number) => new Date(ms).toISOString();

const ownPods = new WeakMap<Svid, OwnPod>();

/** A pod as a node session names it. */
export function ownPod(svid: Svid): OwnPod {
  const { podUid: uid, spiffeId, chain } = svid;
  const known = ownPods.get(svid) ?? { uid, spiffeId, shown: shownChain(chain.map(({ der }) => der)) };
  ownPods.set(svid, known);
  return known;
}

/**
 * Makes the handshake, of the pair's own or within one of the nodes.
 * @returns What was agreed on: the keys are in use.
 * @throws {HandshakeError} Why not. The peer has been told.
 */
export async function openPair(opening: Opening, services: Services, signal: AbortSignal): Promise<Agreement> {
  const { local, remote, selectors, radius, isUp } = opening;
  const { svid, whyNot, whyRevoked } = services;
  const held: Held = { conversation: undefined, leave: undefined };
  try {
    const identity = svid(local.pod.uid);
    if (identity === undefined) throw new HandshakeError('no-certificate');
    if (selectors.length === 0) throw new HandshakeError('selectors', 'the pods have no address family in common');
    // What is up goes on: policy's answer to each packet is the datapath's.
    const why = isUp ? undefined : whyNot(local, remote);
    if (why !== undefined) throw new HandshakeError('policy', why);
    const revoked = whyRevoked({ local, remote }, []);
    if (revoked !== undefined) throw new HandshakeError('revoked', revoked);
    opening
      .tracer()
      ?.step('this pod’s certificate is at hand', `${identity.spiffeId}, until ${iso(identity.notAfter)}`);
    const agreement =
      (radius === 'node' ? await openByNode(opening, identity, services, signal, held) : undefined) ??
      (await openByPod(opening, identity, services, signal, held));
    held.conversation?.close();
    return agreement;
  } catch (cause) {
    held.conversation?.refuse(asHandshakeError(cause));
    throw cause;
  } finally {
    held.leave?.();
  }
}

/** A handshake of the pair's own. */
async function openByPod(
  { remote, selectors, tracer, proposal, installer, hurries }: Opening,
  identity: Svid,
  { dials, work, verifier, settings, trustDomain }: Services,
  signal: AbortSignal,
  held: Held,
): Promise<Agreement> {
  const { timeoutMs, handshakePort } = settings;
  held.leave = await dials.take(signal, remote.node.name);
  const { address, handshakePort: port = handshakePort } = remote.node;
  const serverName = endpointServerName(remote.pod.uid, trustDomain);
  tracer()?.step('a place among the handshakes under way');
  const link = await work.dial(podDestination(address, port, serverName), identity, signal);
  const channel = new Channel(link, timeoutMs, signal);
  held.conversation = channel;
  const { cipher, group } = link.facts;
  tracer()?.step('TLS is done', `with ${address} port ${port}: ${cipher}, ${group ?? 'group not known'}`);
  const peer = verifier.verify(link.facts, expectation(remote, selectors));
  tracer()?.verified(peer);
  return await initiate(channel, { peer, cipher, group }, proposal(), installer(), hurries());
}

/** Within a handshake of the nodes. @returns Undefined where the peer, which is stricter, wants one of the pair's own. */
async function openByNode(
  { remote, selectors, tracer, proposal, installer, hurries }: Opening,
  identity: Svid,
  { nodes, verifier }: Services,
  signal: AbortSignal,
  held: Held,
): Promise<Agreement | undefined> {
  const begun = await nodes.begin(remote.node, signal).catch((error: unknown) => {
    // An older agent: it has only what is stricter.
    if (error instanceof HandshakeError && error.code === 'alpn') return undefined;
    throw error;
  });
  if (begun === undefined) return undefined;
  const { conversation, leave } = begun;
  held.leave = leave;
  held.conversation = conversation;
  const expected = expectation(remote, selectors);
  tracer()?.step('a session with the node', remote.node.name);
  const verify = (shown: ShownChain) => {
    const peer = verifier.vouched(shown, expected);
    tracer()?.verified(peer);
    return peer;
  };
  const { uid } = remote.pod;
  try {
    return await initiatePair(conversation, ownPod(identity), uid, verify, proposal(), installer(), hurries());
  } catch (error) {
    if (!(error instanceof HandshakeError && error.code === 'radius' && error.by === 'peer')) throw error;
    conversation.close();
    leave();
    held.conversation = undefined;
    held.leave = undefined;
    return undefined;
  }
}

function expectation(remote: RemotePod, selectors: readonly TrafficSelector[]) {
  const { spiffeId, pod } = remote;
  const addresses = selectors.map((selector) => selector.remote);
  return { kind: 'pod', spiffeId, podUid: pod.uid, addresses } as const;
}
