import { endpointServerName } from '../identity/names.ts';
import type { Svid } from '../identity/svid.ts';
import type { TrafficSelector } from './driver.ts';
import type { Cancel } from './handshake/cancel.ts';
import { Channel, type Conversation } from './handshake/channel.ts';
import { podDestination } from './handshake/dial.ts';
import { asHandshakeError, HandshakeError } from './handshake/error.ts';
import { type Agreement, initiate } from './handshake/exchange.ts';
import { initiatePair, type OwnPod } from './handshake/pair-exchange.ts';
import { type ShownChain, shownChain } from './handshake/shown-chain.ts';
import type { RemotePod } from './peers.ts';
import type { TunnelServices } from './services.ts';
import type { Tunnel } from './tunnel.ts';

type Services = Pick<
  TunnelServices,
  'trustDomain' | 'svid' | 'work' | 'verifier' | 'dials' | 'nodes' | 'whyNot' | 'whyRevoked' | 'settings'
>;

/** A handshake that this side begins, and what it has taken hold of. */
interface Opening {
  readonly tunnel: Tunnel;
  readonly number: number;
  /** As believed when it began. */
  readonly remote: RemotePod;
  readonly selectors: readonly TrafficSelector[];
  readonly cancel: Cancel;
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
export async function openPair(tunnel: Tunnel, number: number, services: Services, cancel: Cancel): Promise<Agreement> {
  const { local, remote, selectors, tracer, state } = tunnel;
  const { svid, whyNot, whyRevoked } = services;
  const opening: Opening = { tunnel, number, remote, selectors, cancel, conversation: undefined, leave: undefined };
  try {
    const identity = svid(local.pod.uid);
    if (identity === undefined) throw new HandshakeError('no-certificate');
    if (selectors.length === 0) throw new HandshakeError('selectors', 'the pods have no address family in common');
    // What is up goes on: policy's answer to each packet is the datapath's.
    const why = state.up === undefined ? whyNot(local, remote) : undefined;
    if (why !== undefined) throw new HandshakeError('policy', why);
    const revoked = whyRevoked(tunnel, []);
    if (revoked !== undefined) throw new HandshakeError('revoked', revoked);
    tracer?.step('this pod’s certificate is at hand', `${identity.spiffeId}, until ${iso(identity.notAfter)}`);
    const agreement =
      (tunnel.radius === 'node' ? await openByNode(opening, identity, services) : undefined) ??
      (await openByPod(opening, identity, services));
    opening.conversation?.close();
    return agreement;
  } catch (cause) {
    opening.conversation?.refuse(asHandshakeError(cause));
    throw cause;
  } finally {
    opening.leave?.();
  }
}

/** A handshake of the pair's own. */
async function openByPod(
  opening: Opening,
  identity: Svid,
  { dials, work, verifier, settings, trustDomain }: Services,
): Promise<Agreement> {
  const { tunnel, number, remote, selectors, cancel } = opening;
  const { timeoutMs, handshakePort } = settings;
  const { signal } = cancel;
  opening.leave = await dials.take(cancel, remote.node.name);
  const { address, handshakePort: port = handshakePort } = remote.node;
  const serverName = endpointServerName(remote.pod.uid, trustDomain);
  tunnel.tracer?.step('a place among the handshakes under way');
  const link = await work.dial(podDestination(address, port, serverName), identity, signal);
  const channel = new Channel(link, timeoutMs, signal);
  opening.conversation = channel;
  const { cipher, group } = link.facts;
  tunnel.tracer?.step('TLS is done', `with ${address} port ${port}: ${cipher}, ${group ?? 'group not known'}`);
  const peer = verifier.verify(link.facts, expectation(remote, selectors));
  tunnel.tracer?.verified(peer);
  const proposal = tunnel.proposal(number, selectors);
  return await initiate(channel, { peer, cipher, group }, proposal, tunnel.installer(number), hurries(tunnel));
}

/** Within a handshake of the nodes. @returns Undefined where the peer, which is stricter, wants one of the pair's own. */
async function openByNode(
  opening: Opening,
  identity: Svid,
  { nodes, verifier }: Services,
): Promise<Agreement | undefined> {
  const { tunnel, number, remote, selectors, cancel } = opening;
  const begun = await nodes.begin(remote.node, cancel).catch((error: unknown) => {
    // An older agent: it has only what is stricter.
    if (error instanceof HandshakeError && error.code === 'alpn') return undefined;
    throw error;
  });
  if (begun === undefined) return undefined;
  const { conversation, leave } = begun;
  opening.leave = leave;
  opening.conversation = conversation;
  tunnel.tracer?.step('a session with the node', remote.node.name);
  const expected = expectation(remote, selectors);
  const verify = (shown: ShownChain) => {
    const peer = verifier.vouched(shown, expected);
    tunnel.tracer?.verified(peer);
    return peer;
  };
  const proposal = tunnel.proposal(number, selectors);
  const [own, { uid }] = [ownPod(identity), remote.pod];
  try {
    return await initiatePair(conversation, own, uid, verify, proposal, tunnel.installer(number), hurries(tunnel));
  } catch (error) {
    if (!(error instanceof HandshakeError && error.code === 'radius' && error.by === 'peer')) throw error;
    conversation.close();
    leave();
    opening.conversation = undefined;
    opening.leave = undefined;
    return undefined;
  }
}

/** Packets wait. */
function hurries({ state }: Tunnel): boolean {
  return state.up === undefined;
}

function expectation(remote: RemotePod, selectors: readonly TrafficSelector[]) {
  const { spiffeId, pod } = remote;
  const addresses = selectors.map((selector) => selector.remote);
  return { kind: 'pod', spiffeId, podUid: pod.uid, addresses } as const;
}
