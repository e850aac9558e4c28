import { setTimeout as sleep } from 'node:timers/promises';
import { MyelinError } from '../model/error.ts';
import type { TunnelManager } from '../tunnel/manager.ts';
import type { ClusterState } from './cluster-state.ts';
import type { TraceAnswer, TraceQuestion, TunnelReport } from './wire.ts';

export interface TraceDeps {
  readonly node: string;
  readonly state: ClusterState;
  readonly tunnels: Pick<TunnelManager, 'trace'>;
  readonly list: () => Promise<readonly TunnelReport[]>;
}

/** A peer that cannot be reached is tried several times before a handshake is given up. */
const handshakeWithinMs = 12_000;
const packetWithinMs = 1000;

/**
 * Makes a real handshake of the pair and says what happened, and whether packets pass under its keys.
 * @throws {MyelinError} `NoSuchPod`, `NotHere`
 */
export async function answerTrace(question: TraceQuestion, deps: TraceDeps): Promise<TraceAnswer> {
  const { state, node, tunnels, list } = deps;
  const [source, destination] = [question.source, question.destination].map((name) => {
    const pod = state.podByName(name);
    if (pod === undefined) throw new MyelinError('NoSuchPod', `no pod ${name} is known here`);
    return pod;
  });
  if (source === undefined || destination === undefined) throw new TypeError('two names, two pods');
  if (source.node !== node) throw new MyelinError('NotHere', `${question.source} is on ${source.node}`);
  const answer = { ...question, node, peerNode: destination.node };
  if (destination.node === node)
    return {
      ...answer,
      note: 'both pods are on this node: nothing is sealed between them, and their interfaces say who they are',
    };
  const [address] = destination.addresses;
  if (address === undefined) return { ...answer, note: `${question.destination} has no address yet` };
  const giveUp = new AbortController();
  const trace = await Promise.race([
    tunnels.trace(source.uid, address),
    sleep(handshakeWithinMs, undefined, { signal: giveUp.signal, ref: false }).catch(() => undefined),
  ]);
  giveUp.abort();
  const find = async () =>
    (await list()).find(
      ({ localPod, remotePod }) => localPod === question.source && remotePod === question.destination,
    );
  const at = Date.now();
  let tunnel = await find();
  const done = trace?.outcome === 'done';
  while (done && tunnel !== undefined && tunnel.packetsOut === 0 && Date.now() - at < packetWithinMs) {
    await sleep(20);
    tunnel = await find();
  }
  const note = trace === undefined ? `no handshake came to an end within ${handshakeWithinMs / 1000} s` : undefined;
  return {
    ...answer,
    ...(trace === undefined ? {} : { trace: { ...trace, steps: [...trace.steps], checks: [...trace.checks] } }),
    ...(tunnel === undefined ? {} : { tunnel }),
    ...(note === undefined ? {} : { note }),
    ...(done && tunnel !== undefined && tunnel.packetsOut > 0 ? { firstPacketMs: Date.now() - at } : {}),
  };
}
