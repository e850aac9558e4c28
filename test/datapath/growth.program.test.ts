import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Datapath } from '../../src/datapath/datapath.ts';
import { RevisionRefused } from '../../src/datapath/error.ts';
import type { GrowthStep } from '../../src/datapath/growth/growth.ts';
import { BpfMap } from '../../src/kernel/bpf/map.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { parseIp } from '../../src/model/address.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { apply, assertJudgedAs, assertVerdicts, devices, makeDevices, makeKnown, smallest } from './growth-node.ts';

/** Maps grow under programs that are at devices: whatever is there is asked at every moment that there can be. */
runInOwnNamespace();

const pins = `/sys/fs/bpf/myelin-test-growth-${process.pid}`;
let count = 0;
const freshPins = () => `${pins}/${count++}`;
before(makeDevices);
after(() => removePinDirectory(pins));

const [few, many] = [4, 200];

test('while maps grow no packet’s verdict changes, and what is written meanwhile is there afterwards', async () => {
  const steps: GrowthStep[] = [];
  const [from, to] = await devices();
  const pair = [parseIp('10.244.1.2'), parseIp('10.244.2.1')] as const;
  let asked = few;
  const datapath = Datapath.open(
    { ...smallest, pinDir: freshPins(), mostEntries: { tunnel_in: 2 ** 16 } },
    {
      onGrowth: (step) => {
        steps.push(step);
        assertVerdicts(from, to, asked, step);
        // A proof of who sends, with each step another.
        const identity = datapath.policy.peers.get(pair[0])?.identity;
        if (identity !== undefined) datapath.proveTunnel(...pair, { identity, spi: steps.length });
      },
    },
  );
  await makeKnown(datapath);
  await apply(datapath, few);
  await assertJudgedAs(few, 'at first');
  assert.deepEqual(steps, []);
  await apply(datapath, many);
  asked = many;
  await assertJudgedAs(many, 'in the end');
  const places = steps.filter((step) => step === 'replacing').length;
  assert.ok(places >= 4, `${places} places`);
  assert.deepEqual([...new Set(steps)], ['made', 'copied', 'replacing', 'replaced', 'second-pin', 'pinned', 'done']);
  assert.equal(datapath.tunnels()[0]?.[1].spi, steps.length);
  const { policy, peers, endpoints } = datapath.usage();
  assert.ok(policy !== undefined && peers !== undefined && endpoints !== undefined);
  assert.equal(policy.grownFrom, 16);
  assert.ok(policy.used > many && policy.used <= 0.8 * policy.capacity, JSON.stringify(policy));
  assert.ok(peers.capacity > many && policy.bytes > 0 && (policy.most ?? 0) > policy.capacity);
  assert.deepEqual([endpoints.grownFrom, endpoints.most], [undefined, undefined]);
  await datapath.close();
});

test('a process that dies at any step of it leaves all that was in force, and the next one goes on from there', async () => {
  const child = join(import.meta.dirname, 'growth-child.ts');
  const grow = (pinDir: string, fatal: number) => {
    const args = [...process.execArgv, child, pinDir, `${few}`, `${many}`, `${fatal}`];
    const { stdout, signal, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.equal(signal, fatal === 0 ? null : 'SIGKILL', stderr);
    return stdout.trim().split('\n');
  };
  const whole = grow(freshPins(), 0);
  await assertJudgedAs(many, 'nobody dies');
  // Of the places that change over one after the other, the first and the last but one are all there is to tell apart.
  const places = whole.flatMap((step, i) => (step === 'replacing' ? [i] : []));
  const skipped = new Set(places.slice(1, -2));
  for (const [i, step] of whole.entries()) {
    if (skipped.has(i)) continue;
    const pinDir = freshPins();
    assert.deepEqual(grow(pinDir, i + 1), whole.slice(0, i + 1));
    await assertJudgedAs(few, `dead after ${step} (${i})`);
    const datapath = Datapath.open({ ...smallest, pinDir });
    await makeKnown(datapath);
    assert.deepEqual(
      readdirSync(pinDir).filter((name) => name.endsWith('_next')),
      [],
    );
    await assertJudgedAs(few, `adopted after ${step} (${i})`);
    await apply(datapath, few);
    await assertJudgedAs(few, `the same again after ${step} (${i})`);
    if (step === 'replacing' || step === 'pinned') {
      await apply(datapath, many);
      await assertJudgedAs(many, `grown after ${step} (${i})`);
    }
    await datapath.close();
    removePinDirectory(pinDir);
  }
});

test('what a process has let grow is taken over by the next with its capacity', async () => {
  const pinDir = freshPins();
  const first = Datapath.open({ ...smallest, pinDir });
  await makeKnown(first);
  await apply(first, many);
  const grown = first.usage().policy?.capacity ?? 0;
  await first.close();
  await assertJudgedAs(many, 'without a process');
  const steps: GrowthStep[] = [];
  await using second = Datapath.open({ ...smallest, pinDir }, { onGrowth: (step) => steps.push(step) });
  assert.equal(second.recreated, false);
  assert.equal(second.usage().policy?.capacity, grown);
  assert.equal(second.usage().policy?.grownFrom, 16);
  await makeKnown(second);
  await assertJudgedAs(many, 'taken over');
  await apply(second, many);
  const { used = 0, capacity = 0 } = second.usage().policy ?? {};
  assert.ok(capacity >= 3 * used, 'there was room for what was, what will be, and what bridges the two');
  assert.ok(steps.includes('done'));
});

test('beyond the most that a map may have a revision is refused as a whole, and nothing grows for it', async () => {
  const pinDir = freshPins();
  const steps: GrowthStep[] = [];
  await using datapath = Datapath.open(
    { ...smallest, pinDir, mostEntries: { policy: 64 } },
    { onGrowth: (step) => steps.push(step) },
  );
  await makeKnown(datapath);
  await apply(datapath, few);
  const [image, entries, capacities] = [datapath.policy, dump(pinDir), datapath.usage()];
  await assert.rejects(
    apply(datapath, many),
    (error) =>
      error instanceof RevisionRefused && error.map === 'policy' && error.capacity === 16 && error.needed > many,
  );
  assert.equal(datapath.policy, image);
  assert.deepEqual([dump(pinDir), datapath.usage()], [entries, capacities]);
  assert.deepEqual(steps, []);
  await assertJudgedAs(few, 'refused');
  await apply(datapath, 20);
  assert.equal(datapath.usage().policy?.capacity, 64);
  await assertJudgedAs(20, 'as much as may be');
});

test('where it cannot be finished both generations say the same, whatever is written, and it is finished the next time', async () => {
  let failing = false;
  await using datapath = Datapath.open(
    { ...smallest, pinDir: freshPins() },
    {
      onGrowth: (step) => {
        if (failing && step === 'replacing') throw new Error('this device cannot be reached');
      },
    },
  );
  await makeKnown(datapath);
  await apply(datapath, few);
  failing = true;
  await assert.rejects(apply(datapath, many), RevisionRefused);
  assert.match(datapath.growthProblem ?? '', /cannot be reached/);
  await assertJudgedAs(few, 'half');
  await apply(datapath, few + 1);
  await assertJudgedAs(few + 1, 'half, with another policy');
  await apply(datapath, few);
  failing = false;
  await apply(datapath, many);
  await assertJudgedAs(many, 'finished');
  assert.equal(datapath.growthProblem, undefined);
});

test('services grow too, and a device that has gone meanwhile is no obstacle', async () => {
  await using datapath = Datapath.open({ ...smallest, pinDir: freshPins() });
  await makeKnown(datapath);
  await apply(datapath, few);
  // No such device: as one whose pod went away unnoticed.
  const front = (i: number) => ({ address: parseIp(`10.96.1.${i}`), port: 80 });
  const fronts = Array.from({ length: 50 }, (_, i) => ({
    name: `shop/s${i}:80`,
    protocol: 'TCP' as const,
    front: front(i),
    backends: [{ address: parseIp('10.244.1.2'), port: 80 }],
  }));
  await datapath.applyServices(fronts);
  assert.equal(datapath.serviceAt(front(49), 'TCP')?.backends.length, 1);
  assert.equal(datapath.usage().services?.grownFrom, 4);
  await assertJudgedAs(few, 'with services');
});

/** Every entry of the maps of policy. */
function dump(pinDir: string): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    ['policy', 'rule_sets', 'peers', 'prefixes', 'endpoints'].map((name) => {
      const map = BpfMap.openPinned(join(pinDir, name));
      const entries = [...map.entries()].map((pair) =>
        pair.map((bytes) => Buffer.from(bytes).toString('hex')).join(' '),
      );
      map.close();
      return [name, entries.sort()];
    }),
  );
}
