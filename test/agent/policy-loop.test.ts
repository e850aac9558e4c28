import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { PolicyLoop } from '../../src/agent/policy-loop.ts';
import { compile } from '../../src/policy/compile.ts';
import type { ClusterView, PolicyImage } from '../../src/policy/image.ts';

const view: ClusterView = { pods: new Map(), namespaces: new Map(), nodes: new Map(), policies: [], settings: {} };

function fixture() {
  const state = { refuse: false, applied: 0, inForce: compile(view, 'node-1'), hold: Promise.resolve() };
  const loop = new PolicyLoop({
    view: () => view,
    compile: (v, previous) => compile(v, 'node-1', previous),
    inForce: () => state.inForce,
    apply: async (image: PolicyImage) => {
      await state.hold;
      if (state.refuse) throw new Error('map policy is full');
      state.inForce = image;
    },
    onApplied: () => state.applied++,
    logger: pino({ level: 'silent' }),
  });
  return { loop, state };
}

test('nothing is compiled before the first lists are in', async () => {
  const { loop, state } = fixture();
  loop.schedule();
  await loop.flush();
  assert.equal(state.applied, 0);
});

test('changes of one turn become one revision', async () => {
  const { loop, state } = fixture();
  await loop.start();
  for (let i = 0; i < 100; i++) loop.schedule();
  await loop.flush();
  assert.equal(state.applied, 2);
});

test('a change that comes while a revision is being written is in the next one, not lost', async () => {
  const { loop, state } = fixture();
  await loop.start();
  const gate = Promise.withResolvers<void>();
  state.hold = gate.promise;
  loop.schedule();
  await new Promise((turn) => setImmediate(() => setImmediate(turn)));
  const second = loop.flush();
  gate.resolve();
  await second;
  assert.equal(state.applied, 3);
});

test('a refused revision leaves the one before it in force, says why, and the next change tries again', async () => {
  const { loop, state } = fixture();
  await loop.start();
  const first = state.inForce;
  state.refuse = true;
  await loop.flush();
  assert.equal(state.inForce, first);
  assert.equal(loop.refused, 'map policy is full');
  state.refuse = false;
  await loop.flush();
  assert.equal(loop.refused, undefined);
});

test('after stop nothing new is applied', async () => {
  const { loop, state } = fixture();
  await loop.start();
  await loop.stop();
  await loop.flush();
  assert.equal(state.applied, 1);
});
