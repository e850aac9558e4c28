import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { summarizeCapture } from '../../../src/cli/demo/wire.ts';
import { logsDirectory } from '../../../src/lab/services.ts';
import { agentsOf } from '../../support/agents.ts';
import { TestLab, type TestPod } from '../../support/lab.ts';

/**
 * A cluster whose nodes have the kernel's tunnels, with real agents, handshakes and certificates; then one node goes over
 * to the engine. Everything here takes long: the machine is emulated.
 */

const ports = { esp: 4500, handshake: 4747, api: 6443, controller: 7443 };
const nodes = ['node-1', 'node-2'] as const;
/** The kernel drops at this limit what the engine would hold, so an emulated handshake has to be done between the soft one and it. */
const rekeyBytes = 3 << 19;

describe('a cluster on the kernel’s tunnels', () => {
  let lab: TestLab;
  let one: TestPod;
  let two: TestPod;

  before(async () => {
    lab = await TestLab.up({
      nodes: 2,
      driver: 'xfrm',
      files: [fileURLToPath(new URL('pods.yaml', import.meta.url))],
      startTimeoutMs: 240_000,
      readyTimeoutMs: 240_000,
      extra: ['--rekey-bytes', `${rekeyBytes}`],
    });
    [one, two] = await Promise.all([lab.running('one'), lab.running('two')]);
  });
  after(() => lab?.down());

  const driverOf = async (node: (typeof nodes)[number]) =>
    (await agentsOf(lab).tunnels(node)).map(({ driver }) => driver);

  async function reachEachOther(): Promise<void> {
    for (const family of [4, 6] as const)
      for (const [from, to] of [
        [one, two],
        [two, one],
      ] as const) {
        const host = family === 4 ? to.addresses[0] : `[${to.addresses[1]}]`;
        const page = await lab.exec(from, ['curl', '-gsS', '-m', '20', `http://${host}/`]);
        assert.equal(page.code, 0, `${from.name} to ${to.name}, IPv${family}: ${page.stderr}`);
        assert.match(page.stdout, new RegExp(`<p>${to.name}</p>`));
      }
  }

  test('pods of two nodes reach each other both ways, and the underlay carries ESP in UDP and nothing else of theirs', async () => {
    const capture = await lab.capture({ filter: 'ip or ip6' });
    await reachEachOther();
    const { file, lost } = await capture.stop();
    assert.equal(lost, 0);
    const seen = summarizeCapture(file, { pods: lab.lab.plan.podCidrs, ports, canary: 'HTTP/1.1' });
    assert.ok((seen.kinds.get('ESP in UDP')?.frames ?? 0) >= 20, 'the capture saw no tunnel');
    assert.equal(seen.kinds.get('plaintext'), undefined);
    assert.equal(seen.canarySightings, 0);
    for (const node of nodes) assert.deepEqual(await driverOf(node), ['xfrm']);
  });

  test('a key that has carried enough is replaced without a packet lost', async () => {
    const before = (await agentsOf(lab).tunnels('node-1'))[0]?.rekeys ?? 0;
    const { stdout } = await lab.exec(one, [
      'ping',
      '-q',
      '-f',
      '-i',
      '0.008',
      '-c',
      '3000',
      '-s',
      '1200',
      two.addresses[0],
    ]);
    assert.match(stdout, /3000 received/, stdout);
    const [tunnel] = await agentsOf(lab).tunnels('node-1');
    assert.ok((tunnel?.rekeys ?? 0) >= before + 2, `${tunnel?.rekeys} rekeys after ${before}`);
  });

  /** @returns How many packets of ten a second were lost until 25 in a row had come, each way. */
  async function lostWhile(change: () => Promise<void>): Promise<{ out: number; back: number }> {
    const count = async (from: TestPod, to: TestPod, done: Promise<void>) => {
      let lost = 0;
      let changed = false;
      done.then(
        () => {
          changed = true;
        },
        () => undefined,
      );
      for (let inARow = 0; !changed || inARow < 25; ) {
        const { stdout } = await lab.exec(from, ['ping', '-q', '-i', '0.1', '-c', '25', '-W', '1', to.addresses[0]]);
        const received = Number(/(\d+) received/.exec(stdout)?.[1]);
        lost += 25 - received;
        inARow = received === 25 ? 25 : 0;
      }
      return lost;
    };
    const done = change();
    const [out, back] = await Promise.all([count(one, two, done), count(two, one, done), done]);
    return { out, back };
  }

  /** How often an agent of node-2 has said that the old driver's last key is gone. */
  const changesOver = () =>
    readFileSync(`${logsDirectory(lab.lab.plan)}/agent-node-2.log`, 'utf8').split('all tunnels are the new driver’s')
      .length - 1;

  for (const driver of ['engine', 'xfrm'] as const)
    test(`one node goes over to ${driver}, and no packet is lost`, async (t) => {
      const changes = changesOver();
      const lost = await lostWhile(async () => {
        await lab.lab.stopAgent('node-2');
        lab.lab.startAgent('node-2', { driver });
        await lab.eventually(
          async () => {
            assert.equal((await lab.lab.status()).nodes.length, 2);
            await agentsOf(lab).tunnels('node-2');
            assert.equal(changesOver(), changes + 1, 'the old driver still has keys');
          },
          { timeoutMs: 240_000 },
        );
      });
      await lab.eventually(reachEachOther, { timeoutMs: 60_000 });
      assert.deepEqual([await driverOf('node-1'), await driverOf('node-2')], [['xfrm'], [driver]]);
      t.diagnostic(`to ${driver}: lost ${JSON.stringify(lost)} of ten a second`);
      assert.deepEqual(lost, { out: 0, back: 0 });
    });
});
