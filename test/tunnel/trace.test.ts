import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusalReasons } from '../../src/identity/verify.ts';
import { isHandshakeCode } from '../../src/tunnel/handshake/error.ts';
import { certificateChecks, Tracer } from '../../src/tunnel/trace.ts';

test('every refusal of a certificate is one check that failed; those before it passed, those after it were not reached', () => {
  const failedAt = new Map<string, number>();
  for (const code of Object.keys(refusalReasons)) {
    assert.ok(isHandshakeCode(code));
    const checks = certificateChecks({ code, text: 'because' });
    const at = checks.findIndex(({ result }) => result === 'failed');
    assert.ok(at >= 0, code);
    assert.deepEqual(
      checks.map(({ result }) => result),
      checks.map((_, i) => (i < at ? 'passed' : i === at ? 'failed' : 'not reached')),
    );
    assert.equal(checks[at]?.detail, 'because');
    failedAt.set(code, at);
  }
  // The order is that of verifyPeer.
  const order = [
    'missing',
    'malformed',
    'foreign-domain',
    'untrusted',
    'expired',
    'revoked',
    'wrong-identity',
    'wrong-uid',
  ];
  assert.deepEqual(
    order.map((code) => failedAt.get(code)),
    order.map((_, i) => i),
  );
});

test('where no certificate came to be checked, none is said to have passed', () => {
  const checks = certificateChecks({ code: 'unreachable', text: 'nobody is there' });
  assert.ok(checks.every(({ result }) => result === 'not reached'));
});

test('steps carry the time since the beginning, and the trace ends with the handshake', async () => {
  let now = 1000;
  const tracer = new Tracer(() => now);
  now += 5;
  tracer.step('one', 'first');
  now += 7;
  tracer.step('two');
  tracer.end('initiator', { code: 'timeout', text: 'too slow' });
  const trace = await tracer.done;
  assert.deepEqual(trace.steps, [
    { step: 'one', ms: 5, detail: 'first' },
    { step: 'two', ms: 12, detail: '' },
  ]);
  assert.deepEqual([trace.role, trace.outcome, trace.problem], ['initiator', 'timeout', 'too slow']);
});
