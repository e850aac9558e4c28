import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { ListenError, listenTcp } from '../../src/kernel/listen.ts';

test('a port that is taken, and an address that is not ours: one line that says what to do', async (t) => {
  const [first, second] = [createServer(), createServer()];
  t.after(() => first.close());
  const host = '127.0.0.1';
  const port = await listenTcp(first, { host, port: 0, option: '--x' });
  assert.ok(port > 0);
  await assert.rejects(
    listenTcp(second, { host, port, option: '--handshake-port' }),
    (error) =>
      error instanceof ListenError &&
      error.code === 'PortTaken' &&
      error.message ===
        `TCP port ${port} of 127.0.0.1 is taken by another program; stop it, or give another --handshake-port`,
  );
  await assert.rejects(
    listenTcp(second, { host: '192.0.2.1', port: 0, option: '--listen' }),
    (error) => error instanceof ListenError && error.code === 'ListenFailed' && /EADDRNOTAVAIL/.test(error.message),
  );
  // A server that failed once can still be used.
  t.after(() => second.close());
  assert.ok((await listenTcp(second, { host, port: 0, option: '--x' })) > 0);
});
