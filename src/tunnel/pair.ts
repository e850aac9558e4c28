import { retryDelayMs } from '../identity/svid-store.ts';
import { newPair, type PairEffect, type PairEvent, type PairState, type PairTiming } from './pair-state.ts';

/**
 * The life of one pod pair's tunnel on one of its two nodes, as a pure function: a state and an event give the next
 * state and what is to be done. Nothing here knows of sockets, keys or timers (see tunnel.ts).
 */

/** What the outside adds to an event. */
export interface PairContext {
  /** Unix milliseconds. */
  readonly now: number;
  /** In [0, 1). */
  readonly random: number;
  readonly timing: PairTiming;
}

const askAgainMs = 5000;

interface Step {
  readonly state: PairState;
  readonly effects: readonly PairEffect[];
}

export function stepPair(state: PairState, event: PairEvent, context: PairContext): Step {
  switch (event.type) {
    case 'acquire':
    case 'renew':
      return want(state, context);
    case 'reconsider':
      return reconsider(state, context);
    case 'offered':
      return offered(state, context);
    case 'established':
      return established(state, event, context);
    case 'failed':
      return failed(state, event, context);
    case 'limit':
      if (state.up?.spiIn !== event.spi && state.up?.spiOut !== event.spi) return stay(state);
      return want(
        event.hard ? noted(state, context, 'the key reached its hard limit before it was replaced') : state,
        context,
      );
    case 'lost':
      if (state.up?.spiOut !== event.spi) return stay(state);
      return want(noted(state, context, 'the peer’s node lost its half of the tunnel'), context);
    case 'vanished':
      return vanished(state, context);
    case 'use':
      return use(state, event.used, context);
    case 'gone':
      return gone(state);
    case 'time':
      return time(state, context);
  }
}

function stay(state: PairState): Step {
  return { state, effects: [] };
}

function noted(state: PairState, { now }: PairContext, text: string): PairState {
  return { ...state, lastError: { at: now, code: 'driver', text } };
}

function want(state: PairState, context: PairContext): Step {
  const wanted = { ...state, wanted: true };
  return state.phase.kind === 'idle' ? open(wanted, context) : stay(wanted);
}

function open(state: PairState, { now }: PairContext): Step {
  const attempt = state.attempts + 1;
  return {
    state: { ...state, attempts: attempt, phase: { kind: 'opening', attempt, since: now } },
    effects: [{ type: 'dial', attempt }],
  };
}

function offered(state: PairState, { now, timing }: PairContext): Step {
  const { phase } = state;
  if (phase.kind === 'opening' && state.goesFirst && now - phase.since < timing.precedenceMs)
    return { state, effects: [{ type: 'yield' }] };
  const attempt = state.attempts + 1;
  const effects: PairEffect[] = [];
  // A second offer of the same peer means that it has given up the first, whether we have noticed or not.
  if (phase.kind === 'opening' || phase.kind === 'answering') effects.push({ type: 'abort', attempt: phase.attempt });
  effects.push({ type: 'admit', attempt });
  return { state: { ...state, attempts: attempt, phase: { kind: 'answering', attempt, since: now } }, effects };
}

function isCurrent(state: PairState, attempt: number): boolean {
  const { phase } = state;
  return (phase.kind === 'opening' || phase.kind === 'answering') && phase.attempt === attempt;
}

function established(
  state: PairState,
  { attempt, sa }: Extract<PairEvent, { type: 'established' }>,
  { now, timing }: PairContext,
): Step {
  if (!isCurrent(state, attempt)) return stay(state);
  const { up: old } = state;
  const effects: PairEffect[] = [];
  let { retired } = state;
  if (old !== undefined) {
    // The driver sends with the new key already; the peer may be a moment behind.
    effects.push({ type: 'removeOut', spi: old.spiOut });
    retired = [...retired, { spi: old.spiIn, removeAt: now + timing.graceMs }];
  }
  return {
    state: {
      ...state,
      phase: { kind: 'idle' },
      up: sa,
      retired,
      wanted: false,
      failures: 0,
      lastError: undefined,
      rekeys: state.rekeys + (old === undefined ? 0 : 1),
    },
    effects,
  };
}

function failed(
  state: PairState,
  { attempt, code, text, lasting }: Extract<PairEvent, { type: 'failed' }>,
  { now, random, timing }: PairContext,
): Step {
  if (!isCurrent(state, attempt)) return stay(state);
  if (code === 'yield') return stay({ ...state, phase: { kind: 'yielding', until: now + timing.yieldMs } });
  const failures = state.failures + 1;
  const givenUp = lasting || failures >= timing.holdAttempts;
  const pause = retryDelayMs(failures, timing.firstRetryMs, timing.longestRetryMs, random);
  return {
    state: {
      ...state,
      phase: { kind: 'waiting', until: now + pause },
      failures,
      lastError: { at: now, code, text },
      // What is up is replaced before it ends, however often that fails; packets do not wait for ever.
      wanted: state.wanted && (!givenUp || state.up !== undefined),
    },
    effects: givenUp ? [{ type: 'fail' }] : [],
  };
}

function reconsider(state: PairState, context: PairContext): Step {
  if (state.lastError?.code !== 'policy') return stay(state);
  const afresh = { ...state, failures: 0 };
  if (state.phase.kind !== 'waiting') return stay(afresh);
  const idle: PairState = { ...afresh, phase: { kind: 'idle' } };
  return state.wanted ? open(idle, context) : stay(idle);
}

function vanished(state: PairState, context: PairContext): Step {
  if (state.up === undefined) return stay({ ...state, retired: [] });
  const bare = noted({ ...state, up: undefined, retired: [] }, context, 'the tunnel driver lost its keys');
  return want(bare, context);
}

function use(state: PairState, used: boolean, context: PairContext): Step {
  const { up, phase } = state;
  if (up === undefined || phase.kind !== 'idle') return stay(state);
  if (used) return want(state, context);
  // Nobody uses it: it may end. Looked at again halfway to that, in case somebody begins to.
  const left = up.expiresAt - context.now;
  const rekeyAt = left < 1000 ? up.expiresAt : context.now + left / 2;
  return stay({ ...state, up: { ...up, rekeyAt } });
}

function gone(state: PairState): Step {
  const { phase, up, retired } = state;
  const effects: PairEffect[] = [];
  if (phase.kind === 'opening' || phase.kind === 'answering') effects.push({ type: 'abort', attempt: phase.attempt });
  // First nobody gets in, then nobody gets out.
  if (up !== undefined) effects.push({ type: 'removeIn', spi: up.spiIn });
  effects.push(...retired.map(({ spi }) => ({ type: 'removeIn', spi }) as const));
  if (up !== undefined) effects.push({ type: 'removeOut', spi: up.spiOut });
  effects.push({ type: 'fail' });
  return { state: { ...newPair(state.goesFirst), attempts: state.attempts, lastError: state.lastError }, effects };
}

function time(state: PairState, context: PairContext): Step {
  const { now, timing } = context;
  const effects: PairEffect[] = [];
  let next = state;
  if (next.up !== undefined && next.up.expiresAt <= now) {
    effects.push({ type: 'removeOut', spi: next.up.spiOut });
    // The peer's clock runs a little apart from ours: what it still sends is still let in.
    // Packets that want another key will ask for it.
    next = {
      ...next,
      up: undefined,
      wanted: false,
      retired: [...next.retired, { spi: next.up.spiIn, removeAt: now + timing.graceMs }],
    };
  }
  const due = next.retired.filter((sa) => sa.removeAt <= now);
  if (due.length > 0) {
    effects.push(...due.map(({ spi }) => ({ type: 'removeIn', spi }) as const));
    next = { ...next, retired: next.retired.filter((sa) => sa.removeAt > now) };
  }
  const { phase, up } = next;
  if ((phase.kind === 'waiting' || phase.kind === 'yielding') && phase.until <= now) {
    const idle: PairState = { ...next, phase: { kind: 'idle' } };
    const step = next.wanted ? open(idle, context) : stay(idle);
    return { state: step.state, effects: [...effects, ...step.effects] };
  }
  if (phase.kind === 'idle' && up !== undefined && up.rekeyAt <= now) {
    effects.push({ type: 'checkUse' });
    // Asked again should the answer get lost.
    next = { ...next, up: { ...up, rekeyAt: now + askAgainMs } };
  }
  return { state: next, effects };
}
