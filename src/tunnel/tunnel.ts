import { messageOf } from '../identity/certificate.ts';
import { Alarm } from './alarm.ts';
import { type Attempt, Attempts } from './attempts.ts';
import {
  type InboundSa,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  TunnelError,
  type UnderlayAddress,
} from './driver.ts';
import { Cancel } from './handshake/cancel.ts';
import { asHandshakeError, HandshakeError } from './handshake/error.ts';
import type { Agreement, BreachRadius, Installer, Proposal } from './handshake/exchange.ts';
import { KeyInstaller } from './installing.ts';
import { openPair } from './opening.ts';
import { stepPair } from './pair.ts';
import { isAtRest, newPair, nextDeadline, type PairEffect, type PairEvent, type PairState } from './pair-state.ts';
import { type LocalPod, type RemotePod, selectorsBetween } from './peers.ts';
import { type HeldSa, type SaIndex, SaLedger } from './sa-ledger.ts';
import type { Proven, Role, TunnelServices } from './services.ts';
import { type HandshakeTrace, Tracer } from './trace.ts';

const done = Promise.resolve();

/** One pod pair on this node: runs the decisions of pair.ts. */
export class Tunnel implements SaIndex {
  readonly local: LocalPod;
  readonly #services: TunnelServices;
  readonly #ledger: SaLedger;
  readonly #attempts = new Attempts();
  #remote: RemotePod;
  #selectors: readonly TrafficSelector[];
  #proven: Proven | undefined;
  /** Where the peer's packets really come from, where that is not its node's own address and port. */
  #path: UnderlayAddress | undefined;
  #state: PairState;
  readonly #alarm: Alarm;
  #queue: Promise<void> = done;
  #closed = false;
  /** Of the next handshake, where somebody wants to see it. */
  #tracer: Tracer | undefined;

  constructor(local: LocalPod, remote: RemotePod, goesFirst: boolean, services: TunnelServices) {
    this.local = local;
    this.#remote = remote;
    this.#selectors = selectorsBetween(local, remote);
    this.#services = services;
    this.#ledger = new SaLedger(services.driver, services.hooks, services.spis, this);
    this.#state = newPair(goesFirst);
    this.#alarm = new Alarm(services.now, () => this.dispatch({ type: 'time' }));
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
    return isAtRest(this.#state) && this.#attempts.isEmpty && this.sas.length === 0;
  }

  /** Takes over what an earlier agent of this node installed. */
  async restore(state: PairState, sas: readonly HeldSa[], proven: Proven): Promise<void> {
    this.#state = state;
    this.#proven = proven;
    const sending = sas.find(({ direction, spi }) => direction === 'out' && spi === state.up?.spiOut);
    if (sending !== undefined && sending.peer.address !== this.#remote.node.address) this.#path = sending.peer;
    this.#alarm.set(nextDeadline(state));
    await this.#ledger.restore(sas, this.#remote);
  }

  dispatch(event: PairEvent): readonly PairEffect[] {
    if (this.#closed) return [];
    const { timing, now, random } = this.#services;
    const { state, effects } = stepPair(this.#state, event, { now: now(), random: random(), timing });
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#alarm.set(this.#closed ? undefined : nextDeadline(this.#state));
    return effects;
  }

  /**
   * A verified peer asks for this pair.
   * @param cancel Ends its connection.
   * @returns Its attempt's number. @throws {HandshakeError} `yield`
   */
  admit(cancel: Cancel): number {
    const admitted = this.dispatch({ type: 'offered' }).find((effect) => effect.type === 'admit');
    if (admitted === undefined) throw new HandshakeError('yield');
    this.#begin(admitted.attempt, 'responder', cancel);
    return admitted.attempt;
  }

  /** What this side brings into the exchange. @throws {HandshakeError} `aborted` */
  proposal(number: number, selectors: readonly TrafficSelector[]): Proposal {
    const attempt = this.current(number);
    const { espPort: port, lifetime } = this.#services.settings;
    attempt.spi ??= this.#services.spis.reserve();
    return { spi: attempt.spi, selectors, port, lifetime };
  }

  /** Of the next handshake, where somebody wants to see it. */
  get tracer(): Tracer | undefined {
    return this.#tracer;
  }

  /** For its ledger: what the driver says of the SA is this tunnel's to hear. */
  add(sa: SaId): void {
    this.#services.holders.add(sa, this);
  }

  delete(sa: SaId): void {
    this.#services.holders.delete(sa, this);
  }

  /** For {@link KeyInstaller}. */
  install(number: number, sa: InboundSa | OutboundSa): Promise<void> {
    return this.#ledger.install(sa, number, this.#remote);
  }

  /** What the attempt installs keys through. */
  installer(number: number): Installer {
    return new KeyInstaller(this, number, this.#services);
  }

  /** Ends an attempt: well, or with why not. */
  finish(number: number, outcome: Agreement | HandshakeError): void {
    const attempt = this.#attempts.find(number);
    if (attempt === undefined) return;
    const { role, established: sa } = attempt;
    const ms = this.#services.now() - attempt.startedAt;
    if (!(outcome instanceof HandshakeError) && sa !== undefined && this.#isCurrent(number)) {
      const { peer, cipher, group, radius, nodeSerial } = outcome;
      const { spiffeId: remoteSpiffeId, serialNumber: remoteSerial } = peer;
      this.#proven = { remoteSpiffeId, remoteSerial, cipher, group, radius, nodeSerial };
      this.#services.counters[role === 'initiator' ? 'opened' : 'answered']++;
      if (this.#state.up !== undefined) this.#services.counters.rekeys++;
      this.#attempts.end(attempt);
      this.dispatch({ type: 'established', attempt: number, sa });
      if (this.radius !== attempt.radius) this.followRadius();
      this.#services.onHandshake(this, role, 'done', ms);
      this.#traced(role);
      return;
    }
    const error = outcome instanceof HandshakeError ? outcome : new HandshakeError('aborted');
    this.#undo(attempt);
    this.#attempts.end(attempt);
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
    this.#attempts.cancel(({ number }) => this.#ledger.hasInstalled(number));
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
    const ended = this.#attempts.ended();
    this.close();
    await ended;
    await this.#queue;
  }

  /** Stops without touching what is installed. */
  close(): void {
    this.#closed = true;
    this.#alarm.set(undefined);
    this.#attempts.cancel();
  }

  /** Resolves when everything that was decided so far is done. */
  async settled(): Promise<void> {
    await this.#queue;
  }

  async #open(number: number): Promise<void> {
    const { counters, logger } = this.#services;
    const { cancel } = this.#begin(number, 'initiator', new Cancel());
    try {
      this.finish(number, await openPair(this, number, this.#services, cancel));
    } catch (cause) {
      const error = asHandshakeError(cause);
      counters.failed(error);
      if (error.code === 'internal') logger.error({ err: cause }, 'handshake');
      this.finish(number, error);
    }
  }

  #begin(number: number, role: Role, cancel: Cancel): Attempt {
    return this.#attempts.begin({ number, role, cancel, startedAt: this.#services.now(), radius: this.radius });
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
  current(number: number): Attempt {
    const attempt = this.#attempts.find(number);
    if (attempt === undefined || attempt.cancel.reason !== undefined || !this.#isCurrent(number))
      throw new HandshakeError('aborted');
    return attempt;
  }

  #carryOut(effect: PairEffect): void {
    switch (effect.type) {
      case 'dial':
        void this.#open(effect.attempt);
        return;
      case 'abort':
        this.#attempts.cancel(({ number }) => number === effect.attempt);
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
}
