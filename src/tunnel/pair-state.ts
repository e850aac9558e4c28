import type { HandshakeCode } from './handshake/error.ts';

/** What the life of one pod pair's tunnel on one of its two nodes is made of (pair.ts): pure values, and what follows from them. */

export interface Established {
  readonly spiIn: number;
  readonly spiOut: number;
  /** Unix milliseconds, all three. */
  readonly establishedAt: number;
  /** When a successor should be agreed on. */
  readonly rekeyAt: number;
  /** When nothing may be sent any more. */
  readonly expiresAt: number;
}

export type Phase =
  /** Nothing under way. */
  | { readonly kind: 'idle' }
  /** This node began a handshake. */
  | { readonly kind: 'opening'; readonly attempt: number; readonly since: number }
  /** The peer did, and has been admitted. */
  | { readonly kind: 'answering'; readonly attempt: number; readonly since: number }
  /** Both began, the peer's goes first: it should arrive before long. */
  | { readonly kind: 'yielding'; readonly until: number }
  /** After a failure. */
  | { readonly kind: 'waiting'; readonly until: number };

export interface PairFailure {
  readonly at: number;
  readonly code: HandshakeCode;
  readonly text: string;
}

export interface PairState {
  /** Whether this side's attempt is the one that counts when both begin at once. Exactly one of the two sides goes first. */
  readonly goesFirst: boolean;
  readonly phase: Phase;
  readonly up: Established | undefined;
  /** Inbound SAs whose successor is up: the peer's last packets under them may still be on their way. */
  readonly retired: readonly { readonly spi: number; readonly removeAt: number }[];
  /** Packets wait, or what is up must be replaced: a failure is tried again. */
  readonly wanted: boolean;
  /** In a row. */
  readonly failures: number;
  readonly lastError: PairFailure | undefined;
  readonly rekeys: number;
  /** Attempts so far: the last one's number. */
  readonly attempts: number;
}

export type PairEvent =
  /** Packets wait for a key. */
  | { readonly type: 'acquire' }
  /** A verified peer asks, and everything but precedence is in order. */
  | { readonly type: 'offered' }
  | { readonly type: 'established'; readonly attempt: number; readonly sa: Established }
  | {
      readonly type: 'failed';
      readonly attempt: number;
      readonly code: HandshakeCode;
      readonly text: string;
      readonly lasting: boolean;
    }
  /** An SA reached a limit; at the hard one it is out of use already. */
  | { readonly type: 'limit'; readonly spi: number; readonly hard: boolean }
  /** The peer's node says that it has no SA with this SPI. */
  | { readonly type: 'lost'; readonly spi: number }
  /** What is up came about otherwise than it should now: it is to be replaced. */
  | { readonly type: 'renew' }
  /** Policy has changed, which may have been what was in the way. */
  | { readonly type: 'reconsider' }
  /** The driver came back without the pair's SAs. */
  | { readonly type: 'vanished' }
  /** Whether what is up has carried packets lately: the answer to `checkUse`. */
  | { readonly type: 'use'; readonly used: boolean }
  /** A pod is gone, or is not who it was, or is revoked. */
  | { readonly type: 'gone' }
  /** {@link nextDeadline} has come. */
  | { readonly type: 'time' };

export type PairEffect =
  | { readonly type: 'dial'; readonly attempt: number }
  | { readonly type: 'abort'; readonly attempt: number }
  | { readonly type: 'admit'; readonly attempt: number }
  /** Refuse the peer's attempt because ours goes first. */
  | { readonly type: 'yield' }
  | { readonly type: 'removeIn'; readonly spi: number }
  | { readonly type: 'removeOut'; readonly spi: number }
  /** Let go of the packets that wait. */
  | { readonly type: 'fail' }
  | { readonly type: 'checkUse' };

export interface PairTiming {
  /** How long an inbound SA outlives its successor's coming up. */
  readonly graceMs: number;
  readonly firstRetryMs: number;
  readonly longestRetryMs: number;
  /** After this many failures in a row waiting packets are let go. */
  readonly holdAttempts: number;
  /** How long a side that yielded waits for the other's attempt. */
  readonly yieldMs: number;
  /** How long an attempt has precedence: one that takes longer is stuck. */
  readonly precedenceMs: number;
}

export const defaultTiming: PairTiming = {
  graceMs: 30_000,
  firstRetryMs: 25,
  longestRetryMs: 30_000,
  holdAttempts: 7,
  yieldMs: 3000,
  precedenceMs: 2000,
};

export function newPair(goesFirst: boolean): PairState {
  return {
    goesFirst,
    phase: { kind: 'idle' },
    up: undefined,
    retired: [],
    wanted: false,
    failures: 0,
    lastError: undefined,
    rekeys: 0,
    attempts: 0,
  };
}

/** A pair as it is after an agent's restart: up, with nothing under way. */
export function restoredPair(goesFirst: boolean, up: Established, retired: PairState['retired']): PairState {
  return { ...newPair(goesFirst), up, retired };
}

/** Attempts of the side whose pod has the smaller UID go first. Both sides compute the same. */
export function goesFirst(localUid: string, remoteUid: string): boolean {
  return localUid < remoteUid;
}

/** When the pair wants a `time` event: Unix milliseconds, or undefined for never. */
export function nextDeadline(state: PairState): number | undefined {
  const { up, phase, retired } = state;
  let next = Number.POSITIVE_INFINITY;
  for (const { removeAt } of retired) next = Math.min(next, removeAt);
  if (up !== undefined) next = Math.min(next, up.expiresAt, phase.kind === 'idle' ? up.rekeyAt : next);
  if (phase.kind === 'waiting' || phase.kind === 'yielding') next = Math.min(next, phase.until);
  return next === Number.POSITIVE_INFINITY ? undefined : next;
}

/** Whether the pair has nothing, does nothing and waits for nothing. */
export function isAtRest(state: PairState): boolean {
  return state.phase.kind === 'idle' && state.up === undefined && state.retired.length === 0;
}
