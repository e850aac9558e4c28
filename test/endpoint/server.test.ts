import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import pino from 'pino';
import type { CniRequest } from '../../src/endpoint/cni/request.ts';
import { type CniHandler, CniServer, type CniServerOptions } from '../../src/endpoint/server.ts';
import { encodeFrame, FrameReader } from '../../src/endpoint/wire.ts';

const log = pino({ level: 'silent' });

/** Serves requests by what their container's name says. */
class Scripted implements CniHandler {
  readonly seen: CniRequest[] = [];
  #open: () => void = () => {};
  /** Until it is opened, requests for `slow` do not end. */
  readonly gate = new Promise<void>((resolve) => {
    this.#open = resolve;
  });

  open(): void {
    this.#open();
  }

  async add(request: CniRequest): Promise<unknown> {
    this.seen.push(request);
    if (request.containerId === 'slow') await this.gate;
    if (request.containerId === 'broken') throw new Error('a bug');
    return { cniVersion: '1.1.0', ips: [] };
  }

  async del(): Promise<void> {}
  async check(): Promise<void> {}
  async gc(): Promise<void> {}
  async status(): Promise<void> {}
}

async function serving(
  job: (path: string, handler: Scripted, server: CniServer) => Promise<void>,
  options: Partial<CniServerOptions> = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `myelin-sock-${process.pid}-`));
  const path = join(directory, 'run', 'cni.sock');
  const handler = new Scripted();
  const server = new CniServer({ path, ...options }, { log, handler });
  try {
    await server.start();
    await job(path, handler, server);
  } finally {
    handler.open();
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** @returns The reply, or undefined where the connection ends without one. */
function send(path: string, bytes: Uint8Array): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => socket.write(bytes));
    const reader = new FrameReader(1024 * 1024);
    let reply: unknown;
    socket.on('data', (chunk: Buffer) => {
      reply = reader.push(chunk)?.message;
    });
    socket.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EPIPE' || error.code === 'ECONNRESET' ? undefined : reject(error),
    );
    socket.on('close', () => resolve(reply));
  });
}

const request = (containerId: string, change = {}) => ({
  command: 'ADD',
  containerId,
  netns: '/run/netns/x',
  ifName: 'eth0',
  args: '',
  path: '',
  config: { cniVersion: '1.1.0', name: 'pods' },
  ...change,
});
const ask = (path: string, containerId: string, change = {}) => send(path, encodeFrame(request(containerId, change)));

test('a request is checked, served and answered; only root may ask', () =>
  serving(async (path, handler) => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(await ask(path, 'abc'), { result: { cniVersion: '1.1.0', ips: [] } });
    assert.equal(handler.seen[0]?.config.name, 'pods');
    assert.deepEqual(await ask(path, 'abc', { command: 'DEL' }), { result: null });
    assert.deepEqual(await ask(path, 'a b'), {
      error: {
        code: 4,
        msg: 'invalid CNI_CONTAINERID',
        details: 'CNI_CONTAINERID is "a b", expected an alphanumeric and then alphanumerics, "_", "." or "-"',
      },
    });
    assert.deepEqual(await ask(path, 'broken'), { error: { code: 199, msg: 'the agent failed', details: 'a bug' } });
    assert.equal(handler.seen.length, 2);
  }));

test('a request that is not one is refused as undecodable', () =>
  serving(async (path) => {
    const tooLong = Buffer.alloc(8, 0xff);
    for (const bytes of [
      tooLong,
      Buffer.of(0, 0, 0, 1, 0x7b),
      encodeFrame(null),
      encodeFrame([]),
      encodeFrame({ command: 1 }),
    ]) {
      const reply = JSON.stringify(await send(path, bytes));
      assert.match(reply, /^\{"error":\{"code":[46],/);
    }
  }));

test('random bytes never end the server', () =>
  serving(
    async (path) => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 40 }), async (bytes) => {
          await send(path, bytes);
        }),
        { numRuns: 150 },
      );
      assert.deepEqual(await ask(path, 'abc', { command: 'DEL' }), { result: null });
    },
    // Most of them say a length that never comes.
    { requestTimeoutMs: 20 },
  ));

test('a connection that sends nothing is closed, and holds up nobody', () =>
  serving(
    async (path) => {
      const silent = Array.from({ length: 50 }, () => send(path, new Uint8Array()));
      assert.deepEqual(await ask(path, 'abc', { command: 'DEL' }), { result: null });
      assert.deepEqual(await Promise.all(silent), Array(50).fill(undefined));
    },
    { requestTimeoutMs: 100 },
  ));

test('one that takes long holds up no other, and is answered before the server closes', () =>
  serving(async (path, handler, server) => {
    const slow = ask(path, 'slow');
    const others = await Promise.all(Array.from({ length: 100 }, (_, n) => ask(path, `c${n}`)));
    assert.ok(others.every((reply) => JSON.stringify(reply).includes('result')));
    const closed = server.close();
    handler.open();
    assert.deepEqual(await slow, { result: { cniVersion: '1.1.0', ips: [] } });
    await closed;
    await assert.rejects(ask(path, 'late'));
  }));

test('a socket that a dead agent left is taken over; that of a living one is not', () =>
  serving(async (path) => {
    const second = new CniServer({ path }, { log, handler: new Scripted() });
    await assert.rejects(second.start(), { code: 'AlreadyServed' });
    assert.deepEqual(await ask(path, 'abc', { command: 'DEL' }), { result: null });
    const stale = `${path}.stale`;
    writeFileSync(stale, '');
    const third = new CniServer({ path: stale }, { log, handler: new Scripted() });
    await third.start();
    assert.deepEqual(await ask(stale, 'abc', { command: 'DEL' }), { result: null });
    await third.close();
  }));
