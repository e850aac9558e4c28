import type { Logger } from 'pino';
import { messageOf } from '../identity/certificate.ts';
import { endpointServerName } from '../identity/names.ts';
import type { Svid } from '../identity/svid.ts';
import { inboundSa, noteOf, outboundSa, schedule } from './agreement.ts';
import {
  type InboundSa,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  type TunnelDriver,
  TunnelError,
  type UnderlayAddress,
} from './driver.ts';
import { Channel, type Conversation } from './handshake/channel.ts';
import type { HandshakeCounters } from './handshake/counters.ts';
import { podDestination } from './handshake/dial.ts';
import { asHandshakeError, HandshakeError } from './handshake/error.ts';
import { type Agreement, type BreachRadius, type Installer, initiate, type Proposal } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import type { WireLifetime } from './handshake/messages.ts';
import { initiatePair, type OwnPod } from './handshake/pair-exchange.ts';
import type { PeerVerifier } from './handshake/peer.ts';
import { type ShownChain, shownChain } from './handshake/shown-chain.ts';
import type { TlsWork } from './handshake/work.ts';
import type { NodeSessions } from './node-sessions.ts';
import type { SaNote } from './note.ts';
import {
  type Established,
  isAtRest,
  newPair,
  nextDeadline,
  type PairEffect,
  type PairEvent,
  type PairState,
  type PairTiming,
  stepPair,
} from './pair.ts';
import { type LocalPod, type RemotePod, selectorsBetween } from './peers.ts';
import { type HeldSa, type SaHolders, SaLedger, type SpiPool, type TunnelHooks } from './sa-ledger.ts';
import type { Slots } from './slots.ts';
import { type HandshakeTrace, Tracer } from './trace.ts';

/** What every tunnel of a node shares. */
export interface TunnelServices {
  readonly trustDomain: string;
  readonly driver: TunnelDriver;
  readonly hooks: TunnelHooks;
  readonly svid: (podUid: string) => Svid | undefined;
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly counters: HandshakeCounters;
  readonly logger: Logger;
  readonly timing: PairTiming;
  readonly dials: Slots;
  readonly nodes: NodeSessions;
  /** What the two pods' namespaces ask for: `pod` wherever one of them does. */
  readonly radius: (local: LocalPod, remote: RemotePod) => BreachRadius;
  /** When this node's own certificate ends. Unix milliseconds. */
  readonly nodeNotAfter: () => number;
  readonly spis: SpiPool;
  readonly holders: SaHolders<Tunnel>;
  /** Makes sure that no other pod is held to be at the tunnel's remote addresses, at once where none is. @throws {HandshakeError} */
  readonly claim: (tunnel: Tunnel, signal: AbortSignal) => Promise<void> | undefined;
  /** @returns Why the two pods may have no tunnel, in words, or undefined. */
  readonly whyNot: (local: LocalPod, remote: RemotePod) => string | undefined;
  /** @returns Why the two are not believed any more, as the newest trust bundle says, or undefined. */
  readonly whyRevoked: (pair: Pick<Tunnel, 'local' | 'remote'>, peerSerials: readonly string[]) => string | undefined;
  /** Is shown every key before the driver has it. Absent: nobody is. */
  readonly onKeys?: (sa: InboundSa | OutboundSa) => void;
  /** Whether one of the SAs has carried a packet. */
  readonly isUsed: (sas: readonly SaId[]) => Promise<boolean>;
  readonly onHandshake: (tunnel: Tunnel, role: Role, outcome: string, ms: number) => void;
  readonly now: () => number;
  readonly random: () => number;
  readonly settings: {
    readonly espPort: number;
    readonly handshakePort: number;
    readonly lifetime: WireLifetime;
    readonly replayWindow: number | undefined;
    readonly timeoutMs: number;
  };
}

export type Role = 'initiator' | 'responder';

/** What the handshake that is up proved, for people. */
export type Proven = Pick<SaNote, 'remoteSpiffeId' | 'remoteSerial' | 'cipher' | 'group' | 'radius' | 'nodeSerial'>;

interface Attempt {
  readonly number: number;
  readonly role: Role;
  readonly abort: AbortController;
  readonly startedAt: number;
  /** Where somebody waits for its end. */
  done: PromiseWithResolvers<void> | undefined;
  /** What the namespaces asked for when it began. */
  readonly radius: BreachRadius;
  /** Reserved for it. */
  spi: number | undefined;
  established: Established | undefined;
  /** Beside both its SAs. */
  note: string | undefined;
}

/** What an attempt has taken hold of. */
interface Opening {
  conversation: Conversation | undefined;
  leave: (() => void) | undefined;
}

interface Asked {
  readonly remote: RemotePod;
  readonly selectors: readonly TrafficSelector[];
  readonly identity: Svid;
  readonly own: OwnPod;
  readonly trustDomain: string;
}

function expectation(remote: RemotePod, selectors: readonly TrafficSelector[]) {
  const { spiffeId, pod } = remote;
  const addresses = selectors.map((selector) => selector.remote);
  return { kind: 'pod', spiffeId, podUid: pod.uid, addresses } as const;
}

const farMs = 60_000;
const stepMs = 8192;

/**
 * @returns How long to wait for what is due in `ms`. What is far off is looked at once before, in steps that thousands of
 *   tunnels share: a list of timers for each millisecond costs more than the timers. Node's end at 2^31 ms.
 */
function timerMs(ms: number): number {
  if (ms < farMs) return Math.max(0, ms) + 1;
  return Math.min(Math.floor(ms / stepMs) * stepMs, 0x7fff_ffff);
}

const iso = (ms: number) => new Date(ms).toISOString();
const spiText = (spi: number) => `SPI 0x${spi.toString(16).padStart(8, '0')}`;

function agreedOn({ selectors, lifetime, radius }: Agreement): string {
  const pairs = selectors.map(({ local, remote }) => `${local} – ${remote}`).join(', ');
  return `${pairs}; for ${lifetime.seconds} s at most; breach radius ${radius}`;
}

const ownPods = new WeakMap<Svid, OwnPod>();

/** A pod as a node session names it. */
export function ownPod(svid: Svid): OwnPod {
  const { podUid: uid, spiffeId, chain } = svid;
  const known = ownPods.get(svid) ?? { uid, spiffeId, shown: shownChain(chain.map(({ der }) => der)) };
  ownPods.set(svid, known);
  return known;
}

/** One pod pair on this node: runs the decisions of pair.ts. */
export class Tunnel {
  readonly local: LocalPod;
  readonly #services: TunnelServices;
  readonly #ledger: SaLedger;
  readonly #attempts = new Map<number, Attempt>();
  #remote: RemotePod;
  #selectors: readonly TrafficSelector[];
  #proven: Proven | undefined;
  /** Where the peer's packets really come from, where that is not its node's own address and port. */
  #path: UnderlayAddress | undefined;
  #state: PairState;
  #timer: NodeJS.Timeout | undefined;
  /** What the timer is set for. Unix milliseconds. */
  #deadline: number | undefined;
  #queue: Promise<void> = Promise.resolve();
  #closed = false;
  /** Of the next handshake, where somebody wants to see it. */
  #tracer: Tracer | undefined;

  constructor(local: LocalPod, remote: RemotePod, goesFirst: boolean, services: TunnelServices) {
    this.local = local;
    this.#remote = remote;
    this.#selectors = selectorsBetween(local, remote);
    this.#services = services;
    this.#ledger = new SaLedger(services.driver, services.hooks, services.spis, services.holders.indexOf(this));
    this.#state = newPair(goesFirst);
  }

  /** As last believed. */
  get remote(): RemotePod {
    return this.#remote;
  }

  get proven(): Proven | undefined {
    return this.#proven;
  }

  get state(): PairState {
    return this.#state;
  }

  /** What its next keys will come out of. */
  get radius(): BreachRadius {
    return this.#services.radius(this.local, this.#remote);
  }

  get selectors(): readonly TrafficSelector[] {
    return this.#selectors;
  }

  /** What the tunnel has in the driver. */
  get sas(): readonly HeldSa[] {
    return this.#ledger.sas;
  }

  get isAtRest(): boolean {
    return isAtRest(this.#state) && this.#attempts.size === 0 && this.sas.length === 0;
  }

  /** Takes over what an earlier agent of this node installed. */
  async restore(state: PairState, sas: readonly HeldSa[], proven: Proven): Promise<void> {
    this.#state = state;
    this.#proven = proven;
    const sending = sas.find(({ direction, spi }) => direction === 'out' && spi === state.up?.spiOut);
    if (sending !== undefined && sending.peer.address !== this.#remote.node.address) this.#path = sending.peer;
    this.#arm();
    await this.#ledger.restore(sas, this.#remote);
  }

  dispatch(event: PairEvent): readonly PairEffect[] {
    if (this.#closed) return [];
    const { timing, now, random } = this.#services;
    const { state, effects } = stepPair(this.#state, event, { now: now(), random: random(), timing });
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#arm();
    return effects;
  }

  /**
   * A verified peer asks for this pair.
   * @param abort Ends its connection.
   * @returns Its attempt's number. @throws {HandshakeError} `yield`
   */
  admit(abort: AbortController): number {
    const admitted = this.dispatch({ type: 'offered' }).find((effect) => effect.type === 'admit');
    if (admitted === undefined) throw new HandshakeError('yield');
    this.#begin(admitted.attempt, 'responder', abort);
    return admitted.attempt;
  }

  /** What this side brings into the exchange. @throws {HandshakeError} `aborted` */
  proposal(number: number, selectors: readonly TrafficSelector[]): Proposal {
    const attempt = this.#current(number);
    const { espPort: port, lifetime } = this.#services.settings;
    attempt.spi ??= this.#services.spis.reserve();
    return { spi: attempt.spi, selectors, port, lifetime };
  }

  /** What the attempt installs keys through. */
  installer(number: number): Installer {
    const { claim, settings, whyRevoked } = this.#services;
    return {
      installInbound: async (agreement, keys) => {
        const attempt = this.#current(number);
        const claimed = claim(this, attempt.abort.signal);
        if (claimed !== undefined) await claimed;
        this.#current(number);
        // What was verified when the handshake began may have been revoked since, and a node is revoked by its name.
        const { peer, nodeSerial } = agreement;
        // Of a peer that began, this is the first that is heard of it here.
        if (attempt.role === 'responder') this.#tracer?.verified(peer);
        this.#tracer?.step('terms are agreed on, keys are derived', agreedOn(agreement));
        const why = whyRevoked(this, nodeSerial === undefined ? [peer.serialNumber] : [peer.serialNumber, nodeSerial]);
        if (why !== undefined) throw new HandshakeError('revoked', why);
        attempt.established = this.#schedule(agreement);
        const installation = this.#installation(attempt, attempt.established, agreement, keys);
        await this.#install(attempt, inboundSa(installation, settings.replayWindow));
        this.#tracer?.step('the receiving key is in place', spiText(agreement.spiIn));
      },
      installOutbound: async (agreement, keys) => {
        const attempt = this.#current(number);
        const established = attempt.established ?? this.#schedule(agreement);
        const installation = this.#installation(attempt, established, agreement, keys);
        this.#tracer?.step('the peer can receive');
        await this.#install(attempt, outboundSa(installation));
        this.#tracer?.step('the sending key is in place', spiText(agreement.spiOut));
      },
    };
  }

  #installation(attempt: Attempt, established: Established, agreement: Agreement, keys: DirectionKeys) {
    const whole = { agreement, established, local: this.local, remote: this.#remote, path: this.#path, keys };
    attempt.note ??= noteOf(whole);
    return { ...whole, note: attempt.note };
  }

  /** Ends an attempt: well, or with why not. */
  finish(number: number, outcome: Agreement | HandshakeError): void {
    const attempt = this.#attempts.get(number);
    if (attempt === undefined) return;
    const { role, established: sa } = attempt;
    const ms = this.#services.now() - attempt.startedAt;
    if (!(outcome instanceof HandshakeError) && sa !== undefined && this.#isCurrent(number)) {
      const { peer, cipher, group, radius, nodeSerial } = outcome;
      const { spiffeId: remoteSpiffeId, serialNumber: remoteSerial } = peer;
      this.#proven = { remoteSpiffeId, remoteSerial, cipher, group, radius, nodeSerial };
      this.#services.counters[role === 'initiator' ? 'opened' : 'answered']++;
      if (this.#state.up !== undefined) this.#services.counters.rekeys++;
      this.#end(attempt);
      this.dispatch({ type: 'established', attempt: number, sa });
      if (this.radius !== attempt.radius) this.followRadius();
      this.#services.onHandshake(this, role, 'done', ms);
      this.#traced(role);
      return;
    }
    const error = outcome instanceof HandshakeError ? outcome : new HandshakeError('aborted');
    this.#undo(attempt);
    this.#end(attempt);
    this.#services.onHandshake(this, role, error.code, ms);
    const { code, message: text, lasting } = error;
    // Neither is an answer: another attempt takes its place.
    if (code !== 'aborted' && code !== 'yield') this.#traced(role, { code, text });
    this.dispatch({ type: 'failed', attempt: number, code, text, lasting });
  }

  #traced(role: Role, error?: { readonly code: HandshakeError['code']; readonly text: string }): void {
    this.#tracer?.end(role, error);
    this.#tracer = undefined;
  }

  /** Makes a handshake, in place of what is up if there is something, and tells of each step. */
  trace(): Promise<HandshakeTrace> {
    this.#tracer ??= new Tracer(this.#services.now);
    const { done } = this.#tracer;
    this.dispatch({ type: 'renew' });
    return done;
  }

  /** The driver has lost everything: nothing is there to be removed, and half of a handshake is worth nothing. */
  lostByDriver(): void {
    for (const { abort, number } of this.#attempts.values())
      if (this.#ledger.hasInstalled(number)) abort.abort(new HandshakeError('aborted'));
    this.#enqueue(() => this.#ledger.lost(this.#remote));
    this.dispatch({ type: 'vanished' });
  }

  /** What is believed of the peer's node has changed. */
  update(remote: RemotePod): void {
    const hasMoved = remote.node.address !== this.#remote.node.address;
    this.#remote = remote;
    this.#selectors = selectorsBetween(this.local, remote);
    if (!hasMoved) return;
    this.#path = undefined;
    this.#enqueue(() => this.#ledger.move(remote.node));
  }

  /** Where a NAT was last seen to have put the peer, since its node was believed to be where it is. */
  get path(): UnderlayAddress | undefined {
    return this.#path;
  }

  /**
   * The peer's newest packet came from there: a NAT is between us, and that is where it takes packets for the peer. Followed
   * until the peer's node is believed to be somewhere else, also by keys to come.
   */
  follow(path: UnderlayAddress): void {
    this.#path = path;
    this.#enqueue(() => this.#ledger.move(path));
  }

  /** What the namespaces ask for has changed: what is up is replaced, and carries packets until it is. */
  followRadius(): void {
    const { up } = this.#state;
    if (up !== undefined && this.#proven !== undefined && this.#proven.radius !== this.radius)
      this.dispatch({ type: 'renew' });
  }

  /** Takes everything down, for good. Resolves when no key of the pair is left in the driver. */
  async teardown(): Promise<void> {
    this.#enqueue(() => this.#ledger.disown(this.#remote));
    this.dispatch({ type: 'gone' });
    const ended = [...this.#attempts.values()].map((attempt) => {
      attempt.done ??= Promise.withResolvers();
      return attempt.done.promise;
    });
    this.close();
    await Promise.all(ended);
    await this.#queue;
  }

  /** Stops without touching what is installed. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { abort } of this.#attempts.values()) abort.abort(new HandshakeError('aborted'));
  }

  /** Resolves when everything that was decided so far is done. */
  async settled(): Promise<void> {
    await this.#queue;
  }

  async #open(number: number): Promise<void> {
    const { counters, logger, svid, whyNot, whyRevoked, trustDomain } = this.#services;
    const remote = this.#remote;
    const { abort } = this.#begin(number, 'initiator', new AbortController());
    const opening: Opening = { conversation: undefined, leave: undefined };
    try {
      const identity = svid(this.local.pod.uid);
      if (identity === undefined) throw new HandshakeError('no-certificate');
      const { selectors } = this;
      if (selectors.length === 0) throw new HandshakeError('selectors', 'the pods have no address family in common');
      // What is up goes on: policy's answer to each packet is the datapath's.
      const why = this.#state.up === undefined ? whyNot(this.local, remote) : undefined;
      if (why !== undefined) throw new HandshakeError('policy', why);
      const revoked = whyRevoked(this, []);
      if (revoked !== undefined) throw new HandshakeError('revoked', revoked);
      this.#tracer?.step('this pod’s certificate is at hand', `${identity.spiffeId}, until ${iso(identity.notAfter)}`);
      const own = ownPod(identity);
      const asked = { remote, selectors, identity, own, trustDomain };
      const agreement =
        (this.radius === 'node' ? await this.#openByNode(number, asked, abort.signal, opening) : undefined) ??
        (await this.#openByPod(number, asked, abort.signal, opening));
      opening.conversation?.close();
      this.finish(number, agreement);
    } catch (cause) {
      const error = asHandshakeError(cause);
      opening.conversation?.refuse(error);
      counters.failed(error);
      if (error.code === 'internal') logger.error({ err: cause }, 'handshake');
      this.finish(number, error);
    } finally {
      opening.leave?.();
    }
  }

  /** A handshake of the pair's own. */
  async #openByPod(number: number, asked: Asked, signal: AbortSignal, opening: Opening): Promise<Agreement> {
    const { dials, work, verifier, settings } = this.#services;
    const { remote, selectors, identity, trustDomain } = asked;
    const { timeoutMs, handshakePort } = settings;
    opening.leave = await dials.take(signal, remote.node.name);
    const { address, handshakePort: port = handshakePort } = remote.node;
    const serverName = endpointServerName(remote.pod.uid, trustDomain);
    this.#tracer?.step('a place among the handshakes under way');
    const link = await work.dial(podDestination(address, port, serverName), identity, signal);
    const channel = new Channel(link, timeoutMs, signal);
    opening.conversation = channel;
    const { cipher, group } = link.facts;
    this.#tracer?.step('TLS is done', `with ${address} port ${port}: ${cipher}, ${group ?? 'group not known'}`);
    const peer = verifier.verify(link.facts, expectation(remote, selectors));
    this.#tracer?.verified(peer);
    const proposal = this.proposal(number, selectors);
    return await initiate(channel, { peer, cipher, group }, proposal, this.installer(number), this.#hurries);
  }

  /** Within a handshake of the nodes. @returns Undefined where the peer, which is stricter, wants one of the pair's own. */
  async #openByNode(
    number: number,
    asked: Asked,
    signal: AbortSignal,
    opening: Opening,
  ): Promise<Agreement | undefined> {
    const { nodes, verifier } = this.#services;
    const { remote, selectors, own } = asked;
    const begun = await nodes.begin(remote.node, signal).catch((error: unknown) => {
      // An older agent: it has only what is stricter.
      if (error instanceof HandshakeError && error.code === 'alpn') return undefined;
      throw error;
    });
    if (begun === undefined) return undefined;
    const { conversation, leave } = begun;
    opening.leave = leave;
    opening.conversation = conversation;
    const expected = expectation(remote, selectors);
    this.#tracer?.step('a session with the node', remote.node.name);
    const verify = (shown: ShownChain) => {
      const peer = verifier.vouched(shown, expected);
      this.#tracer?.verified(peer);
      return peer;
    };
    const proposal = this.proposal(number, selectors);
    const { uid } = remote.pod;
    try {
      return await initiatePair(conversation, own, uid, verify, proposal, this.installer(number), this.#hurries);
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
  get #hurries(): boolean {
    return this.#state.up === undefined;
  }

  #begin(number: number, role: Role, abort: AbortController): Attempt {
    const attempt: Attempt = {
      number,
      role,
      abort,
      startedAt: this.#services.now(),
      done: undefined,
      radius: this.radius,
      spi: undefined,
      established: undefined,
      note: undefined,
    };
    this.#attempts.set(number, attempt);
    return attempt;
  }

  #end(attempt: Attempt): void {
    this.#attempts.delete(attempt.number);
    attempt.done?.resolve();
  }

  #undo({ number, spi }: Attempt): void {
    // An SPI goes back to the pool with its SA; this one never had an SA.
    if (spi !== undefined && !this.#ledger.hasInstalled(number, 'in')) this.#services.spis.release(spi);
    this.#enqueue(() => this.#ledger.undo(number, this.#remote));
  }

  #isCurrent(number: number): boolean {
    const { phase } = this.#state;
    return !this.#closed && (phase.kind === 'opening' || phase.kind === 'answering') && phase.attempt === number;
  }

  /** @throws {HandshakeError} `aborted` where the attempt is no longer the one that counts. */
  #current(number: number): Attempt {
    const attempt = this.#attempts.get(number);
    if (attempt === undefined || attempt.abort.signal.aborted || !this.#isCurrent(number))
      throw new HandshakeError('aborted');
    return attempt;
  }

  async #install(attempt: Attempt, sa: InboundSa | OutboundSa): Promise<void> {
    this.#services.onKeys?.(sa);
    await this.#ledger.install(sa, attempt.number, this.#remote);
    // Somebody may have taken the pair down while the driver was busy.
    this.#current(attempt.number);
  }

  #schedule(agreement: Agreement): Established {
    const { now, random, svid, timing, nodeNotAfter } = this.#services;
    const certified = svid(this.local.pod.uid)?.notAfter ?? 0;
    const ownNotAfter = agreement.radius === 'node' ? Math.min(certified, nodeNotAfter()) : certified;
    return schedule(agreement, ownNotAfter, { now: now(), random: random(), graceMs: timing.graceMs });
  }

  #carryOut(effect: PairEffect): void {
    switch (effect.type) {
      case 'dial':
        void this.#open(effect.attempt);
        return;
      case 'abort':
        this.#attempts.get(effect.attempt)?.abort.abort(new HandshakeError('aborted'));
        return;
      case 'admit':
      case 'yield':
        // The caller of admit() reads these.
        return;
      case 'removeIn':
        this.#enqueue(() => this.#ledger.remove('in', effect.spi, this.#remote));
        return;
      case 'removeOut':
        this.#enqueue(() => this.#ledger.remove('out', effect.spi, this.#remote));
        return;
      case 'fail':
        for (const selector of this.selectors) this.#enqueue(() => this.#services.driver.fail(selector));
        return;
      case 'checkUse':
        void this.#checkUse();
        return;
    }
  }

  async #checkUse(): Promise<void> {
    const { up } = this.#state;
    if (up === undefined) return;
    const sas = this.sas.filter(({ direction, spi }) => spi === (direction === 'in' ? up.spiIn : up.spiOut));
    // A driver that does not answer is no reason to let a tunnel end.
    const used = await this.#services.isUsed(sas).catch(() => true);
    this.dispatch({ type: 'use', used });
  }

  #enqueue(work: () => Promise<unknown>): void {
    this.#queue = this.#queue.then(work).then(
      () => undefined,
      (error: unknown) => {
        // What a driver that is down kept is compared with what should be when it comes back.
        const level = error instanceof TunnelError && error.code === 'DriverDown' ? 'debug' : 'error';
        const { pod: local } = this.local;
        this.#services.logger[level]({ error: messageOf(error), local, remote: this.#remote.pod }, 'tunnel');
      },
    );
  }

  #arm(): void {
    const deadline = this.#closed ? undefined : nextDeadline(this.#state);
    if (deadline === this.#deadline) return;
    clearTimeout(this.#timer);
    this.#deadline = deadline;
    if (deadline === undefined) return;
    this.#timer = setTimeout(() => this.#onTime(), timerMs(deadline - this.#services.now()));
    this.#timer.unref();
  }

  #onTime(): void {
    this.#deadline = undefined;
    this.dispatch({ type: 'time' });
  }
}
