import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pino } from 'pino';
import { PolicyLoop } from '../../src/agent/policy-loop.ts';
import { compile } from '../../src/policy/compile.ts';
import type { ClusterView, PolicyImage } from '../../src/policy/image.ts';

const view: ClusterView = { pods: new Map(), namespaces: new Map(), nodes: new Map(), policies: [], settings: {} };

function fixture() {
  const applied: PolicyImage[] = [];
  const state = { refuse: false };
  const loop = new PolicyLoop({
    view: () => view,
    compile: (v, previous) => compile(v, 'node-1', previous),
    target: {
      applyPolicy: () => {
        if (state.refuse) throw new Error('map policy is full');
      },
    },
    onApplied: (image) => applied.push(image),
    logger: pino({ level: 'silent' }),
  });
  return { loop, applied, state };
}

test('nothing is compiled before the first lists are in', async () => {
  const { loop, applied } = fixture();
  loop.schedule();
  loop.run();
  await turn();
  assert.equal(applied.length, 0);
  assert.equal(loop.image, undefined);
});

test('changes of one turn become one revision', async () => {
  const { loop, applied } = fixture();
  loop.start();
  for (let i = 0; i < 100; i++) loop.schedule();
  await turn();
  await turn();
  assert.equal(applied.length, 2);
});

test('a refused revision leaves the one before it in force, says why, and the next change tries again', async () => {
  const { loop, applied, state } = fixture();
  loop.start();
  const first = loop.image;
  state.refuse = true;
  loop.run();
  assert.equal(loop.image, first);
  assert.equal(loop.refused, 'map policy is full');
  state.refuse = false;
  loop.run();
  assert.equal(loop.refused, undefined);
  assert.equal(applied.length, 2);
});
