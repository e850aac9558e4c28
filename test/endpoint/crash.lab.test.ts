import assert from 'node:assert/strict';
import { mkdirSync, rmdirSync } from 'node:fs';
import { test } from 'node:test';
import type { Step } from '../../src/endpoint/hooks.ts';
import { ip, ipBatch } from '../../src/kernel/ip.ts';
import { podArgs, TestNode } from './harness.ts';

const everything = { config: { 'cni.dev/valid-attachments': [] } };

const stepsOfAdd: Step[] = ['reserved', 'linked', 'prepared', 'wired', 'announced', 'stored'];
const stepsOfDel: Step[] = ['forgotten', 'unlinked', 'released'];

for (const podLives of [true, false]) {
  const after = podLives ? '' : ', and the pod ends too';
  for (const killAt of stepsOfAdd) {
    test(`killed in ADD right after "${killAt}"${after}: the next start and GC leave nothing`, () =>
      TestNode.use(async (node) => {
        await node.start({ killAt });
        const netns = await node.pod('a');
        const refusal = await node.refused('ADD', { netns, args: podArgs('a') });
        assert.equal(refusal.code, 11);
        await node.ended();
        if (!podLives) node.dropPod(netns);
        const { reconciled } = await node.start();
        // Only an ADD that was wholly done, whose answer was lost, may stay: until DEL or GC.
        if (podLives && killAt === 'stored') assert.equal(reconciled.kept, 1);
        else await node.assertClean();
        await node.ok('GC', everything);
        await node.assertClean();
        if (!podLives) return;
        assert.doesNotMatch(JSON.stringify(await ip(['link'], { netns })), /eth0/);
        // The runtime tries again, in a new sandbox and in the same one.
        await node.ok('ADD', { netns, args: podArgs('a') });
        await node.ok('DEL');
        await node.ok('ADD', { netns, containerId: 'c2', args: podArgs('a') });
      }));
  }
}

for (const killAt of stepsOfDel) {
  test(`killed in DEL right after "${killAt}": asked again, nothing is left`, () =>
    TestNode.use(async (node) => {
      await node.start();
      const netns = await node.pod('a');
      await node.ok('ADD', { netns });
      await node.restart({ killAt });
      assert.equal((await node.refused('DEL', { netns })).code, 11);
      await node.ended();
      const { reconciled } = await node.start();
      assert.equal(reconciled.orphans, 0);
      if (killAt !== 'forgotten') await node.assertClean();
      await node.ok('DEL', { netns });
      await node.assertClean();
    }));
}

test('killed at a random moment among many ADDs and DELs: what is left is removed by GC', () =>
  TestNode.use(async (node) => {
    const names = Array.from({ length: 8 }, (_, n) => `p${n}`);
    const pods = await Promise.all(names.map((name) => node.pod(name)));
    for (let round = 0; round < 8; round++) {
      await node.start();
      const calls = names.map(async (containerId, n) => {
        const netns = pods[n] ?? '';
        const answer = await node.cni('ADD', { netns, containerId, args: podArgs(containerId) });
        if (answer.status === 0 && n % 2 === 0) await node.cni('DEL', { netns, containerId });
      });
      await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 250));
      await node.stop('SIGKILL');
      // Those that are refused wait for an agent: let them come to the next one, as a runtime's retries would.
      await node.start();
      await Promise.all(calls);
      await node.ok('GC', everything);
      await node.assertClean();
      for (const netns of pods) assert.doesNotMatch(JSON.stringify(await ip(['link'], { netns })), /eth0/);
      await node.stop();
    }
  }));

for (const failing of ['prepare', 'onAdded'] as const) {
  test(`ADD is undone where the agent fails in ${failing}`, () =>
    TestNode.use(async (node) => {
      await node.start({ failing, journal: node.journalFile });
      const netns = await node.pod('a');
      const refusal = await node.refused('ADD', { netns });
      assert.equal(refusal.code, 103);
      assert.equal(refusal.details, `${failing} was told to fail`);
      await node.assertClean();
      assert.match(node.journal.at(-1) ?? '', /^onRemoved c1/, 'whatever the agent knew already is taken back');
      assert.doesNotMatch(JSON.stringify(await ip(['link'], { netns })), /eth0/);
    }));
}

test('ADD is undone where the pod’s namespace refuses a route', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    const peer = await node.pod('peer');
    await ipBatch([`link add x0 type veth peer name x1 netns ${peer}`, 'link set x0 up', 'route add default dev x0'], {
      netns,
    });
    const refusal = await node.refused('ADD', { netns });
    assert.equal(refusal.code, 103);
    assert.match(refusal.details ?? '', /File exists/);
    await node.assertClean();
    assert.doesNotMatch(JSON.stringify(await ip(['link'], { netns })), /eth0/);
  }));

test('a DEL that the agent cannot finish is to be tried again, keeps the address, and is finished at the next start', () =>
  TestNode.use(async (node) => {
    await node.start({ failing: 'onRemoved' });
    const netns = await node.pod('a');
    await node.ok('ADD', { netns });
    for (let time = 0; time < 2; time++) {
      const refusal = await node.refused('DEL', { netns });
      assert.equal(refusal.code, 11);
      assert.equal(refusal.details, 'onRemoved was told to fail');
    }
    assert.equal((await node.refused('GC', everything)).code, 104);
    assert.equal(
      JSON.stringify(await ip(['link'], { netns: node.netns })).includes('"my'),
      false,
      'the interface is gone',
    );
    const other = await node.add({ netns, containerId: 'c2' });
    assert.equal(other.ips[0]?.address, '10.244.1.3/32');
    const { reconciled } = await node.restart();
    assert.deepEqual(reconciled, { kept: 1, dropped: 1, orphans: 0 });
    await node.ok('DEL', { containerId: 'c2' });
    await node.assertClean();
  }));

test('where the state cannot be written, ADD fails as I/O and nothing was made', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    mkdirSync(`${node.stateFile}.new`);
    assert.equal((await node.refused('ADD', { netns })).code, 5);
    await node.assertClean();
    rmdirSync(`${node.stateFile}.new`);
    await node.ok('ADD', { netns });
    await node.ok('DEL', { netns });
    await node.assertClean();
  }));

test('an IPv4-only node gives its pods no IPv6 at all', () =>
  TestNode.use(async (node) => {
    await node.start({ cidrs: ['10.244.7.0/24'] });
    const netns = await node.pod('a');
    const result = await node.add({ netns });
    assert.deepEqual(
      result.routes.map(({ dst }) => dst),
      ['169.254.1.1/32', '0.0.0.0/0'],
    );
    assert.doesNotMatch(JSON.stringify(await ip(['-6', 'addr', 'show', 'dev', 'eth0'], { netns })), /inet6/);
    await node.ok('CHECK', { netns, config: { prevResult: result } });
  }));
