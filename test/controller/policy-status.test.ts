import assert from 'node:assert/strict';
import { test } from 'node:test';
import { conditionsOf, understanding } from '../../src/controller/policy-status.ts';

const policy = (spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'shop', name: 'cart' },
  spec,
});
const now = new Date('2026-01-02T03:04:05.678Z');
const broken = policy({ podSelector: {}, ingress: [{ from: [{ workloadSelector: {} }] }] });

test('a policy that is understood gets no status', () => {
  assert.equal(understanding(policy({ podSelector: {} }), [], now), undefined);
});

test('a policy that is not understood says so, names the field, and says what it does meanwhile', () => {
  const condition = understanding(broken, [], now);
  assert.equal(condition?.status, 'False');
  assert.equal(condition?.lastTransitionTime, '2026-01-02T03:04:05Z');
  assert.match(condition?.message ?? '', /denies all traffic.*spec\.ingress\[0\]\.from\[0\]/);
});

test('what is said already is not said again, and is taken back once it is mended', () => {
  const said = understanding(broken, [], now);
  assert.ok(said !== undefined);
  assert.equal(understanding(broken, [said], now), undefined);
  assert.equal(understanding(policy({ podSelector: {} }), [said], now)?.status, 'True');
});

test('what is said already is found on a policy of which nothing else is understood', () => {
  const said = understanding(broken, [], now);
  const foreign = { ...policy({ ingress: 7 }), status: { conditions: [said] } };
  assert.deepEqual(conditionsOf(foreign), [said]);
});
