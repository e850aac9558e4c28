import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ownKinds } from '../../src/api/kinds.ts';
import { type Agents, agentsOf } from '../support/agents.ts';
import { myelin } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';
import { echo, Traffic } from '../support/traffic.ts';

/*
 * Somebody is believed no more: their traffic ends on every node, also between pods of one node, nothing new begins, others
 * notice nothing; it holds over restarts of everything, and ends when it is taken back. Traffic is counted by the pods.
 */

const port = 9000;
const mark = `canary-${randomBytes(8).toString('hex')}`;
/** No echo for so long is an end: datagrams go a hundred times a second. */
const silenceMs = 700;

describe('revocation', () => {
  let lab: TestLab;
  let agents: Agents;
  const pods = new Map<string, TestPod>();
  const pod = (name: string): TestPod => {
    const found = pods.get(name);
    assert.ok(found !== undefined);
    return found;
  };

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    const make = async (name: string, node: string, account: string) => {
      pods.set(name, await lab.pod(name).on(node).as(account).serving(80).create());
    };
    await lab.apply(
      ['alice', 'bob', 'carol'].map((name) => ({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } })),
    );
    await Promise.all([
      make('alice', 'node-1', 'alice'),
      make('bob-1', 'node-1', 'bob'),
      make('bob-2', 'node-2', 'bob'),
      make('carol', 'node-2', 'carol'),
    ]);
    await Promise.all(['bob-1', 'bob-2', 'carol'].map((name) => echo(lab, pod(name), port)));
  });
  after(() => lab?.down());

  const start = (from: string, to: string) => Traffic.start(lab, pod(from), { host: pod(to).addresses[0], port }, mark);
  const echoed = async (traffic: Traffic) => {
    const { tcp, udp } = await traffic.report();
    return tcp.echoed + udp.echoed;
  };

  async function revoke(...args: string[]): Promise<void> {
    const { code, stderr } = await myelin('revoke', ...args, '--lab', lab.name);
    assert.equal(code, 0, stderr);
  }

  /** @returns When the last echo came, once there has been none for a while. Unix milliseconds. */
  async function ended(traffic: Traffic): Promise<number> {
    let [count, last] = [await echoed(traffic), Date.now()];
    for (const deadline = Date.now() + 30_000; Date.now() - last < silenceMs; await sleep(20)) {
      assert.ok(Date.now() < deadline, `${traffic.name} goes on`);
      const now = await echoed(traffic);
      if (now !== count) [count, last] = [now, Date.now()];
    }
    return last;
  }

  async function goesOn(traffic: Traffic): Promise<void> {
    const from = await echoed(traffic);
    await lab.eventually(async () => assert.ok((await echoed(traffic)) >= from + 20, `${traffic.name} stands still`), {
      timeoutMs: 30_000,
    });
  }

  /** Traffic that must end, and traffic that must go on, when this is revoked; then all is as before. */
  async function cut(
    t: TestContext,
    args: readonly string[],
    name: string,
    ending: [string, string][],
    staying: [string, string],
  ) {
    const [others, ...ends] = await Promise.all([staying, ...ending].map(([from, to]) => start(from, to)));
    assert.ok(others !== undefined);
    try {
      const from = Date.now();
      const told = revoke(...args, '--reason', 'a test');
      const last = await Promise.all(ends.map(ended));
      await told;
      for (const [i, at] of last.entries())
        t.diagnostic(`${ends[i]?.name}: last echo ${at - from} ms after the command`);
      await goesOn(others);
      await Promise.all(ending.map(([source, to]) => cutOff(source, to)));
      await lab.api.delete(ownKinds.Revocation, { name });
      await Promise.all([...ending.map(([source, to]) => reaches(source, to)), goesOn(others)]);
    } finally {
      for (const each of [others, ...ends]) each.kill();
    }
  }

  async function cutOff(from: string, to: string): Promise<void> {
    const through = await lab.reaches(pod(from), pod(to), { port: 80, timeoutMs: silenceMs });
    assert.equal(through, false, `${from} → ${to}`);
  }

  async function reaches(from: string, to: string): Promise<void> {
    await lab.eventually(
      async () => assert.ok(await lab.reaches(pod(from), pod(to), { port: 80, timeoutMs: 2000 }), `${from} → ${to}`),
      { timeoutMs: 30_000 },
    );
  }

  test('a pod: its tunnels end and none begins, also to the pod beside it nothing passes, until it is taken back', async (t) => {
    const uid = pod('alice').uid;
    const ways: [string, string][] = [
      ['alice', 'bob-2'],
      ['alice', 'bob-1'],
    ];
    await cut(t, ['pod', 'default/alice'], `pod-${uid}`, ways, ['bob-1', 'carol']);
    const drops = (await agents.status('node-1')).drops.datapath;
    assert.ok((drops.REVOKED ?? 0) > 0, JSON.stringify(drops));
  });

  test('a service account: every pod of it, on every node', async (t) => {
    const ways: [string, string][] = [
      ['alice', 'bob-2'],
      ['alice', 'bob-1'],
    ];
    await cut(t, ['serviceaccount', 'default/bob'], 'sa-default-bob', ways, ['alice', 'carol']);
  });

  test('a node: every pod on it', async (t) => {
    await cut(
      t,
      ['node', 'node-2'],
      'node-node-2',
      [
        ['alice', 'bob-2'],
        ['alice', 'carol'],
      ],
      ['alice', 'bob-1'],
    );
  });

  test('a certificate: the pod that has it', async (t) => {
    await reaches('alice', 'bob-2');
    const tunnel = (await agents.tunnels('node-1')).find(
      ({ remotePod, state }) => remotePod === 'default/bob-2' && state === 'up',
    );
    const serial = tunnel?.remoteSerial ?? '';
    await cut(t, ['serial', serial], `serial-${serial}`, [['alice', 'bob-2']], ['alice', 'bob-1']);
  });

  test('it holds while agents, controller and API are killed and come back', async () => {
    await revoke('pod', 'default/alice');
    const isCut = () => Promise.all(['bob-1', 'bob-2'].map((to) => cutOff('alice', to)));
    await isCut();
    await Promise.all([
      lab.lab.stopService('controller', 'SIGKILL'),
      lab.lab.stopService('api', 'SIGKILL'),
      ...['node-1', 'node-2'].map((node) => lab.lab.stopAgent(node, 'SIGKILL')),
    ]);
    await isCut();
    lab.lab.startService('api');
    for (const node of ['node-1', 'node-2']) lab.lab.startAgent(node);
    // The agents are there before the controller is: nobody has told them anything yet.
    await lab.eventually(
      async () => void (await Promise.all(['node-1', 'node-2'].map((node) => agents.status(node)))),
      {
        timeoutMs: 30_000,
      },
    );
    await isCut();
    lab.lab.startService('controller');
    await lab.eventually(
      async () => {
        const { conditions } = await agents.status('node-1');
        assert.match(conditions.find(({ name }) => name === 'revoked')?.message ?? '', /default\/alice is cut off/);
      },
      { timeoutMs: 30_000 },
    );
    await isCut();
    // The other side is told why.
    await lab.reaches(pod('carol'), pod('alice'), { port: 80, timeoutMs: silenceMs });
    await lab.eventually(async () => {
      const tunnel = (await agents.tunnels('node-2')).find(({ remotePod }) => remotePod === 'default/alice');
      assert.match(tunnel?.lastError ?? '', /revoked/);
    });
    await revoke('undo', `pod-${pod('alice').uid}`);
    await Promise.all(['bob-1', 'bob-2'].map((to) => reaches('alice', to)));
  });

  test('what is revoked, and where the CA stands, can be read', async () => {
    await revoke('serviceaccount', 'default/nobody', '--reason', 'left the team', '--expires', '2h');
    const listed = await myelin('revoke', 'list', '--lab', lab.name);
    assert.match(listed.stdout, /sa-default-nobody +service account default\/nobody +yes +left the team/);
    const again = await myelin(
      'revoke',
      'sa',
      'default/nobody',
      '--reason',
      'said twice',
      '--lab',
      lab.name,
      '-o',
      'json',
    );
    assert.equal(JSON.parse(again.stdout).spec.reason, 'said twice');
    const absent = await myelin('revoke', 'pod', 'default/nobody', '--lab', lab.name);
    assert.deepEqual([absent.code, /there is no pod default\/nobody/.test(absent.stderr)], [1, true]);
    const ca = await myelin('ca', 'status', '--lab', lab.name);
    assert.match(ca.stdout, /signs/);
    const rotated = await myelin('ca', 'rotate', '--lab', lab.name);
    assert.match(rotated.stdout, /published, signs nothing yet[\s\S]*may sign in/);
    const early = await myelin('ca', 'rotate', '--lab', lab.name);
    assert.deepEqual([early.code, /may sign from/.test(early.stderr)], [1, true], early.stdout);
  });
});
