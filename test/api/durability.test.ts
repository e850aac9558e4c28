import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ApiClient } from '../../src/api/client/client.ts';
import { kinds } from '../../src/api/kinds.ts';
import { eventually } from './harness.ts';
import { TestPki } from './pki.ts';

const main = join(import.meta.dirname, '../../src/api/server/main.ts');

/** A server process of its own, which can be killed. */
class ServerProcess {
  readonly directory: string;
  readonly port = 20000 + (process.pid % 10000) + Math.floor(Math.random() * 10000);
  readonly client: ApiClient;
  child: ChildProcess | undefined;

  readonly #flags: readonly string[];

  private constructor(directory: string, ca: string, admin: { cert: string; key: string }, flags: readonly string[]) {
    this.directory = directory;
    this.#flags = flags;
    this.client = new ApiClient({ url: `https://127.0.0.1:${this.port}`, ca, ...admin });
  }

  static async create(t: TestContext, flags: readonly string[] = []): Promise<ServerProcess> {
    const directory = mkdtempSync(join(tmpdir(), `myelin-api-${process.pid}-`));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const pki = await TestPki.create();
    const { cert, key } = await pki.server();
    writeFileSync(join(directory, 'cert.pem'), cert);
    writeFileSync(join(directory, 'key.pem'), key);
    writeFileSync(join(directory, 'ca.pem'), pki.ca);
    const server = new ServerProcess(directory, pki.ca, await pki.admin(), flags);
    t.after(() => server.child?.kill('SIGKILL'));
    t.after(() => server.client.close());
    return server;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  spawn(): ChildProcess {
    const flags = [
      ...this.#flags,
      '--data',
      this.path('api.db'),
      '--tls-cert',
      this.path('cert.pem'),
      '--tls-key',
      this.path('key.pem'),
      '--client-ca',
      this.path('ca.pem'),
    ];
    return spawn(process.execPath, [main, '--listen', `127.0.0.1:${this.port}`, ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }

  async start(): Promise<void> {
    this.child = this.spawn();
    this.child.stderr?.resume();
    await eventually(() => this.client.serverVersion().catch(() => undefined), 'the server up', 20_000);
  }

  async kill(signal: NodeJS.Signals): Promise<number | null> {
    const { child } = this;
    if (child === undefined) return null;
    const gone = once(child, 'exit');
    child.kill(signal);
    const [code] = await gone;
    return code;
  }
}

for (const flags of [[], ['--no-fsync']]) {
  const title = ['a server', ...flags, 'that is killed in the middle of writes'].join(' ');
  test(`${title} has lost nothing that it acknowledged, and watches go on`, (t) => killed(t, flags));
}

async function killed(t: TestContext, flags: readonly string[]): Promise<void> {
  const server = await ServerProcess.create(t, flags);
  const acknowledged = new Map<string, string>();
  let version = '1';
  const seen: string[] = [];
  for (let round = 0; round < 3; round++) {
    await server.start();
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let i = 0; ; i++) {
        const name = `r${round}w${writer}n${i}`;
        const object = {
          apiVersion: 'v1' as const,
          kind: 'ConfigMap' as const,
          metadata: { name, namespace: 'default' },
          data: { x: 'y'.repeat(500) },
        };
        const stored = await server.client.create(kinds.ConfigMap, object);
        acknowledged.set(name, stored.metadata.resourceVersion);
      }
    });
    const ends = Promise.allSettled(writers);
    const before = acknowledged.size;
    await eventually(() => (acknowledged.size > before + 60 ? true : undefined), 'writes under way', 20_000);
    await server.kill('SIGKILL');
    await ends;
  }
  await server.start();
  const { entries } = await server.client.list(kinds.ConfigMap, { namespace: 'default' });
  const stored = new Map(entries.map(({ raw }) => [raw.metadata.name, raw.metadata.resourceVersion]));
  for (const [name, resourceVersion] of acknowledged) assert.equal(stored.get(name), resourceVersion, name);
  // All changes since the first are still to be had, each once and in order.
  for await (const event of server.client.watch(kinds.ConfigMap, { resourceVersion: version })) {
    if (event.type === 'BOOKMARK') continue;
    assert.ok(Number(event.resourceVersion) > Number(version));
    version = event.resourceVersion;
    seen.push(event.entry.key);
    if (seen.length === stored.size) break;
  }
  assert.deepEqual(new Set(seen), new Set(entries.map(({ key }) => key)));
  assert.equal(statSync(server.path('api.db')).mode & 0o077, 0);
}

test('a clean stop exits with 0; what is in the way is said in one line', async (t) => {
  const server = await ServerProcess.create(t);
  await server.start();
  const second = server.spawn();
  let message = '';
  second.stderr?.on('data', (chunk) => {
    message += String(chunk);
  });
  const [code] = await once(second, 'close');
  assert.equal(code, 1);
  assert.match(message, /^myelin-api: .*api\.db is in use by another API server; .*\n$/);
  assert.equal(await server.kill('SIGTERM'), 0);
});
