import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { stepPair } from '../../src/tunnel/pair.ts';
import {
  defaultTiming,
  goesFirst,
  isAtRest,
  newPair,
  nextDeadline,
  type PairEffect,
  type PairEvent,
  type PairState,
} from '../../src/tunnel/pair-state.ts';

const timing = { ...defaultTiming, graceMs: 1000 };

/** Two nodes with one pair between them, joined by a network that delivers when the test says. */
interface World {
  now: number;
  nextSpi: number;
  readonly sides: [Side, Side];
  /** The last handshake ended well on one side only. */
  torn: boolean;
}

interface Admitted {
  /** The attempt's number at the other side. */
  readonly other: number;
  /** Set once both have their inbound SA and the responder, which is done first, its outbound one. */
  spis?: { readonly from: number; readonly to: number };
}

interface Side {
  state: PairState;
  /** SPIs that are installed. */
  readonly inbound: Set<number>;
  readonly outbound: Set<number>;
  /** Attempts begun here whose offer has not arrived at the other side yet. */
  readonly dialling: Set<number>;
  /** Attempts begun here that the other side has admitted. */
  readonly admitted: Map<number, Admitted>;
  readonly aborted: Set<number>;
  failed: number;
}

function newSide(first: boolean): Side {
  return {
    state: newPair(first),
    inbound: new Set(),
    outbound: new Set(),
    dialling: new Set(),
    admitted: new Map(),
    aborted: new Set(),
    failed: 0,
  };
}

function step(world: World, side: Side, event: PairEvent): readonly PairEffect[] {
  const { state, effects } = stepPair(side.state, event, { now: world.now, random: 0.5, timing });
  side.state = state;
  for (const effect of effects) {
    if (effect.type === 'dial') side.dialling.add(effect.attempt);
    else if (effect.type === 'abort') side.aborted.add(effect.attempt);
    else if (effect.type === 'removeIn') assert.ok(side.inbound.delete(effect.spi), 'removes what it has');
    else if (effect.type === 'removeOut') assert.ok(side.outbound.delete(effect.spi), 'removes what it has');
    else if (effect.type === 'fail') side.failed++;
    else if (effect.type === 'checkUse') step(world, side, { type: 'use', used: true });
  }
  return effects;
}

const failure = (attempt: number, code: 'yield' | 'aborted' | 'disconnected'): PairEvent => ({
  type: 'failed',
  attempt,
  code,
  text: code,
  lasting: false,
});

/** The other side hears an offer. */
function arrive(world: World, from: Side, to: Side, attempt: number): void {
  from.dialling.delete(attempt);
  if (from.aborted.has(attempt)) {
    step(world, from, failure(attempt, 'aborted'));
    return;
  }
  const effects = step(world, to, { type: 'offered' });
  const admitted = effects.find((effect) => effect.type === 'admit');
  if (admitted === undefined) step(world, from, failure(attempt, 'yield'));
  else from.admitted.set(attempt, { other: admitted.attempt });
}

/** The exchange goes a step on, unless a side has given it up: first the responder is done, then the initiator. */
function advance(world: World, from: Side, to: Side, attempt: number, broken: boolean): void {
  const admitted = from.admitted.get(attempt);
  if (admitted === undefined) return;
  const { other, spis } = admitted;
  const up = (side: Side, number: number, spiIn: number, spiOut: number) => {
    const { now } = world;
    const sa = { spiIn, spiOut, establishedAt: now, rekeyAt: now + 80_000, expiresAt: now + 100_000 };
    side.outbound.add(spiOut);
    step(world, side, { type: 'established', attempt: number, sa });
    assert.equal(side.state.up?.spiIn, spiIn);
  };
  if (broken || from.aborted.has(attempt) || (spis === undefined && to.aborted.has(other))) {
    from.admitted.delete(attempt);
    if (spis !== undefined) {
      // The responder's last word got lost: it sends what the initiator has thrown away.
      from.inbound.delete(spis.from);
      world.torn = true;
    } else step(world, to, failure(other, 'aborted'));
    step(world, from, failure(attempt, 'aborted'));
  } else if (spis === undefined) {
    admitted.spis = { from: world.nextSpi++, to: world.nextSpi++ };
    from.inbound.add(admitted.spis.from);
    to.inbound.add(admitted.spis.to);
    up(to, other, admitted.spis.to, admitted.spis.from);
  } else {
    from.admitted.delete(attempt);
    world.torn = false;
    up(from, attempt, spis.from, spis.to);
  }
}

type Move =
  | { readonly kind: 'acquire' | 'soft' | 'lost' | 'arrive' | 'advance' | 'break'; readonly side: 0 | 1 }
  | { readonly kind: 'wait'; readonly ms: number };

function play(world: World, move: Move): void {
  if (move.kind === 'wait') {
    const target = world.now + move.ms;
    // A message that is not there in time ends the handshake, and that time is shorter than the grace period.
    const [left, right] = world.sides;
    if (move.ms >= timing.graceMs / 2) {
      for (const attempt of [...left.admitted.keys()]) advance(world, left, right, attempt, true);
      for (const attempt of [...right.admitted.keys()]) advance(world, right, left, attempt, true);
    }
    for (let i = 0; i < 1000; i++) {
      const [a, b] = world.sides;
      const due = Math.min(nextDeadline(a.state) ?? Infinity, nextDeadline(b.state) ?? Infinity);
      if (due > target) break;
      world.now = Math.max(world.now, due);
      for (const side of world.sides)
        if ((nextDeadline(side.state) ?? Infinity) <= world.now) step(world, side, { type: 'time' });
    }
    world.now = target;
    return;
  }
  const busy = (side: Side) => (move.kind === 'arrive' ? side.dialling : side.admitted).size > 0;
  const network = move.kind === 'arrive' || move.kind === 'advance' || move.kind === 'break';
  const [chosen, other] = move.side === 0 ? world.sides : [world.sides[1], world.sides[0]];
  // What the network does, it does to whoever has something on it.
  const [from, to] = network && !busy(chosen) ? [other, chosen] : [chosen, other];
  const [dialling] = from.dialling;
  const [admitted] = from.admitted.keys();
  if (move.kind === 'acquire') step(world, from, { type: 'acquire' });
  else if (move.kind === 'soft') step(world, from, { type: 'limit', spi: from.state.up?.spiOut ?? 0, hard: false });
  else if (move.kind === 'lost') step(world, from, { type: 'lost', spi: from.state.up?.spiOut ?? 0 });
  else if (move.kind === 'arrive' && dialling !== undefined) arrive(world, from, to, dialling);
  else if (move.kind !== 'arrive' && admitted !== undefined) advance(world, from, to, admitted, move.kind === 'break');
}

/** Inbound SAs of handshakes whose last word is still on its way. */
function pending(side: Side): number[] {
  return [...side.admitted.values()].flatMap(({ spis }) => (spis === undefined ? [] : [spis.from]));
}

function check(world: World): void {
  for (const side of world.sides) {
    const { up, retired } = side.state;
    // What is installed is what the state says, no more and no less.
    assert.deepEqual(side.outbound, new Set(up === undefined ? [] : [up.spiOut]));
    assert.deepEqual(
      side.inbound,
      new Set([...retired.map(({ spi }) => spi), ...(up === undefined ? [] : [up.spiIn]), ...pending(side)]),
    );
  }
  if (world.torn) return;
  const [a, b] = world.sides;
  // Whatever one side sends under, the other side takes.
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const)
    for (const spi of from.outbound) assert.ok(to.inbound.has(spi), `SPI ${spi} goes nowhere`);
}

const side = fc.constantFrom(0 as const, 1 as const);
const move: fc.Arbitrary<Move> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('acquire', 'soft', 'lost', 'break'), side }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('arrive', 'advance'), side }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('wait'), ms: fc.constantFrom(0, 30, 500, 1500, 3500, 20_000, 85_000) }),
  },
);

const quiet: Move[] = [
  { kind: 'arrive', side: 0 },
  { kind: 'arrive', side: 1 },
  { kind: 'advance', side: 0 },
  { kind: 'advance', side: 1 },
  { kind: 'advance', side: 0 },
  { kind: 'advance', side: 1 },
];

test('whatever happens in whatever order: what is sent is always understood, nothing is left over, and in the end both sides agree', () => {
  fc.assert(
    fc.property(fc.array(move, { maxLength: 60, size: 'max' }), (moves) => {
      const world: World = { now: 1_000_000, nextSpi: 1000, sides: [newSide(true), newSide(false)], torn: false };
      for (const each of moves) {
        play(world, each);
        check(world);
      }
      // When packets want it and the network is well, a tunnel comes up within the time of a retry.
      play(world, { kind: 'acquire', side: 0 });
      // A node that is sent what it does not understand says so.
      if (world.torn) for (const side of [0, 1] as const) play(world, { kind: 'lost', side });
      for (let i = 0; i < 60; i++) {
        for (const each of quiet) play(world, each);
        play(world, { kind: 'wait', ms: 1000 });
        check(world);
      }
      const [a, b] = world.sides;
      assert.ok(a.state.up !== undefined && b.state.up !== undefined);
      assert.equal(a.state.up.spiIn, b.state.up.spiOut);
      assert.equal(a.state.up.spiOut, b.state.up.spiIn);
      assert.equal(a.inbound.size + b.inbound.size, 2, 'one pair of keys is left');
    }),
    { numRuns: 1500 },
  );
});

test('exactly one side goes first', () => {
  fc.assert(
    fc.property(fc.uuid(), fc.uuid(), (a, b) => {
      fc.pre(a !== b);
      assert.notEqual(goesFirst(a, b), goesFirst(b, a));
    }),
  );
});

test('both at once, in any order of arrival: one attempt counts', () => {
  for (const order of [
    [0, 1],
    [1, 0],
  ] as const) {
    const world: World = { now: 0, nextSpi: 1000, sides: [newSide(true), newSide(false)], torn: false };
    for (const number of [0, 1] as const) play(world, { kind: 'acquire', side: number });
    for (const number of order) play(world, { kind: 'arrive', side: number });
    const phases = world.sides.map(({ state }) => state.phase.kind);
    assert.deepEqual(phases, ['opening', 'answering'], `order ${order.join()}`);
    for (const number of [0, 1, 0, 1] as const) play(world, { kind: 'advance', side: number });
    check(world);
    assert.equal(world.nextSpi, 1002);
    assert.deepEqual(
      world.sides.map(({ state }) => state.phase.kind),
      ['idle', 'idle'],
    );
  }
});

test('a side whose attempt is stuck lets the other’s in, although its own goes first', () => {
  const world: World = { now: 0, nextSpi: 1000, sides: [newSide(true), newSide(false)], torn: false };
  play(world, { kind: 'acquire', side: 0 });
  play(world, { kind: 'acquire', side: 1 });
  play(world, { kind: 'arrive', side: 1 });
  assert.equal(world.sides[1].state.phase.kind, 'yielding');
  play(world, { kind: 'wait', ms: timing.yieldMs });
  play(world, { kind: 'arrive', side: 1 });
  for (let i = 0; i < 2; i++) play(world, { kind: 'advance', side: 1 });
  assert.ok(world.sides[0].state.up && world.sides[1].state.up);
});

test('a pair that is gone has nothing left, and an event that comes late changes nothing', () => {
  const world: World = { now: 0, nextSpi: 1000, sides: [newSide(true), newSide(false)], torn: false };
  const [a] = world.sides;
  play(world, { kind: 'acquire', side: 0 });
  play(world, { kind: 'arrive', side: 0 });
  for (let i = 0; i < 2; i++) play(world, { kind: 'advance', side: 0 });
  play(world, { kind: 'soft', side: 0 });
  const attempt = a.state.attempts;
  step(world, a, { type: 'gone' });
  assert.ok(isAtRest(a.state));
  assert.equal(a.inbound.size + a.outbound.size, 0);
  assert.ok(a.aborted.has(attempt));
  const rest = a.state;
  const sa = { spiIn: 1, spiOut: 2, establishedAt: 0, rekeyAt: 1, expiresAt: 2 };
  for (const event of [
    { type: 'established', attempt, sa },
    failure(attempt, 'disconnected'),
    { type: 'lost', spi: 1001 },
  ] as const)
    assert.deepEqual(step(world, a, event), []);
  assert.deepEqual(a.state, rest);
});

test('packets are let go after so many failures, at once after a lasting one, and never for a failed renewal', () => {
  const world: World = { now: 0, nextSpi: 1000, sides: [newSide(true), newSide(false)], torn: false };
  const [a] = world.sides;
  play(world, { kind: 'acquire', side: 0 });
  for (let i = 1; i <= timing.holdAttempts; i++) {
    assert.equal(a.failed, 0);
    step(world, a, failure(a.state.attempts, 'disconnected'));
    assert.equal(a.state.phase.kind, 'waiting');
    if (i < timing.holdAttempts) play(world, { kind: 'wait', ms: timing.longestRetryMs });
  }
  assert.equal(a.failed, 1);
  play(world, { kind: 'wait', ms: timing.longestRetryMs });
  assert.equal(a.state.phase.kind, 'idle', 'nobody wants it any more');
  play(world, { kind: 'acquire', side: 0 });
  step(world, a, { type: 'failed', attempt: a.state.attempts, code: 'policy', text: '', lasting: true });
  assert.equal(a.failed, 2);
  assert.equal(a.state.wanted, false);
});
