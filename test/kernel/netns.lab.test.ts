import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { addToCgroup, cgroupProcesses, cgroupRoot, createCgroup, removeCgroup } from '../../src/kernel/cgroup.ts';
import { run } from '../../src/kernel/command.ts';
import { ip, listLinks } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, isNamespace, listNamespaces, namespaceId } from '../../src/kernel/netns.ts';

const directory = mkdtempSync(join(tmpdir(), 'myelin-netns-'));
after(() => {
  for (const path of listNamespaces(directory)) deleteNamespace(path);
  rmSync(directory, { recursive: true, force: true });
});

test('a namespace lives at its path until it is deleted', async () => {
  const path = join(directory, 'nodes', 'one');
  await createNamespace(path);
  assert.ok(isNamespace(path));
  const id = namespaceId(path);
  assert.notEqual(id, namespaceId('/proc/self/ns/net'));
  await createNamespace(path);
  assert.equal(namespaceId(path), id, 'what is there is kept');
  assert.deepEqual(listNamespaces(join(directory, 'nodes')), [path]);
  const links = await listLinks({ netns: path });
  assert.deepEqual(
    links.map(({ name, up }) => ({ name, up })),
    [{ name: 'lo', up: true }],
  );
  assert.equal((await run('readlink', ['/proc/self/ns/net'], { netns: path })).stdout.trim(), `net:[${id}]`);
  assert.equal(deleteNamespace(path), true);
  assert.equal(deleteNamespace(path), false);
  assert.equal(existsSync(path), false);
});

test('a file that a cut-short creation left is taken over, and deleted', async () => {
  const path = join(directory, 'left-over');
  writeFileSync(path, '');
  assert.equal(isNamespace(path), false);
  await createNamespace(path);
  assert.ok(isNamespace(path));
  deleteNamespace(path);
  writeFileSync(path, '');
  assert.equal(deleteNamespace(path), true);
});

test('a namespace that is not there is named', async () => {
  const path = join(directory, 'nowhere');
  await assert.rejects(ip(['link'], { netns: path }), (error: Error) => error.message.includes(path));
});

test('a group is removed with all that runs in it', async () => {
  const group = join(cgroupRoot(), `myelin-test-${process.pid}`);
  createCgroup(join(group, 'inner'));
  const children = [spawn('sleep', ['60']), spawn('sleep', ['60'])];
  const ended = children.map((child) => once(child, 'exit'));
  for (const [i, child] of children.entries()) addToCgroup(i === 0 ? group : join(group, 'inner'), child.pid ?? 0);
  assert.deepEqual(new Set(cgroupProcesses(group)), new Set(children.map(({ pid }) => pid)));
  assert.equal(await removeCgroup(group), true);
  await Promise.all(ended);
  assert.equal(existsSync(group), false);
  assert.equal(await removeCgroup(group), false);
  assert.deepEqual(cgroupProcesses(group), []);
});
