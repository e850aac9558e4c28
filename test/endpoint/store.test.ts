import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import type { Lease } from '../../src/endpoint/ipam.ts';
import { type State, StateFile } from '../../src/endpoint/store.ts';
import type { IpAddress } from '../../src/model/address.ts';

const state = (n: number): State => ({
  leases: Array.from({ length: n }, (_, i): Lease => ({ addresses: [`10.0.${n}.${i}` as IpAddress], owner: `o${i}` })),
  endpoints: [],
});

async function inTemporary(job: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `myelin-store-${process.pid}-`));
  try {
    await job(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

test('no file is an empty state; what was saved is loaded; only root reads it', () =>
  inTemporary(async (directory) => {
    const path = join(directory, 'run', 'state.json');
    const file = new StateFile(path);
    assert.deepEqual(await file.load(), { leases: [], endpoints: [] });
    await file.save(() => state(3));
    assert.deepEqual(await new StateFile(path).load(), state(3));
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(join(directory, 'run')).mode & 0o777, 0o700);
    assert.deepEqual(readdirSync(join(directory, 'run')), ['state.json']);
  }));

test('saves that come together share a write, and each ends after its own change is on disk', () =>
  inTemporary(async (directory) => {
    const path = join(directory, 'state.json');
    const file = new StateFile(path);
    let current = 0;
    let writes = 0;
    await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        if (n % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
        const mine = ++current;
        await file.save(() => {
          writes++;
          return state(current);
        });
        const onDisk: { leases: unknown[] } = JSON.parse(readFileSync(path, 'utf8'));
        assert.ok(onDisk.leases.length >= mine, `${onDisk.leases.length} on disk after save ${mine}`);
      }),
    );
    assert.ok(writes < 100, `${writes} writes`);
  }));

test('a file that is damaged is an error, never an empty state', () =>
  inTemporary(async (directory) => {
    const path = join(directory, 'state.json');
    for (const text of [
      '',
      '{',
      '{}',
      '{"version":2,"leases":[],"endpoints":[]}',
      '{"version":1,"leases":[{"addresses":["x"],"owner":"a"}],"endpoints":[]}',
    ]) {
      writeFileSync(path, text);
      await assert.rejects(new StateFile(path).load(), { code: 'CorruptState' });
    }
  }));

test('a write that fails says so and leaves the old state; the next one may succeed', () =>
  inTemporary(async (directory) => {
    const path = join(directory, 'state.json');
    const file = new StateFile(path);
    await file.save(() => state(1));
    mkdirSync(`${path}.new`);
    await assert.rejects(
      file.save(() => state(2)),
      { code: 'WriteFailed' },
    );
    assert.deepEqual(await file.load(), state(1));
    rmSync(`${path}.new`, { recursive: true });
    await file.save(() => state(2));
    assert.deepEqual(await file.load(), state(2));
  }));

test('killed at any moment, the file is one of the states that were saved, not older than the last one told', () =>
  inTemporary(async (directory) => {
    const source = resolve(import.meta.dirname, '../../src/endpoint/store.ts');
    const path = join(directory, 'state.json');
    const script = `
      const { StateFile } = await import(${JSON.stringify(source)});
      const { writeSync } = await import('node:fs');
      const file = new StateFile(${JSON.stringify(path)});
      for (let n = 1; ; n++) {
        const leases = Array.from({ length: n }, (_, i) => ({ addresses: ['10.0.0.1'], owner: 'o'.repeat(500) + i }));
        await file.save(() => ({ leases, endpoints: [] }));
        writeSync(1, n + '\\n');
      }`;
    for (const after of [1, 2, 5, 9, 14]) {
      rmSync(path, { force: true });
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let told = 0;
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        told = Number(text.trim().split('\n').at(-1));
        if (told >= after) child.kill('SIGKILL');
      });
      await once(child, 'close');
      const { leases } = await new StateFile(path).load();
      assert.ok(leases.length >= told && leases.length <= told + 1, `${leases.length} loaded, ${told} told`);
    }
  }));
