import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type KeyReport, keySchema } from '../../src/agent/wire.ts';
import { kinds } from '../../src/api/kinds.ts';
import { run } from '../../src/kernel/command.ts';
import { myelin } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/*
 * Where keys are, and where they are not. They are known to this test because the agents were started to give them away;
 * agents that were not do not.
 */

const nodes = ['node-1', 'node-2'] as const;
const pings = 5;

describe('keys of tunnels', () => {
  let lab: TestLab;
  let keys: readonly KeyReport[];
  const pods: TestPod[] = [];

  before(async () => {
    lab = await TestLab.up({ nodes: 2, extra: ['--allow-key-export'] });
    for (const node of nodes) pods.push(await lab.pod(`pod-${node}`).on(node).serving(80).create());
  });
  after(() => lab?.down());

  async function exported(): Promise<KeyReport[]> {
    const { code, stdout, stderr } = await myelin('debug', 'keys', '--lab', lab.name, '-o', 'json');
    assert.equal(code, 0, stderr);
    return keySchema.array().parse(JSON.parse(stdout));
  }

  test('what is on the wire can be read by tshark with the keys that were asked for, and by nobody without; asking leaves a warning', async () => {
    const [from, to] = pods;
    assert.ok(from !== undefined && to !== undefined);
    await lab.singleFrames();
    const capture = await lab.capture();
    for (const address of to.addresses) {
      const ping = await lab.exec(from, ['ping', '-c', String(pings), '-i', '0.05', '-W', '5', address], {
        privileged: true,
      });
      assert.equal(ping.code, 0, ping.stdout + ping.stderr);
    }
    const { file } = await capture.stop();
    const path = join(lab.lab.plan.directory, 'keys-test.pcap');
    writeFileSync(path, file);
    keys = await exported();
    assert.equal(keys.length, 4, 'two directions, each known to two nodes');
    const { stdout: lines } = await myelin('debug', 'keys', '--lab', lab.name);
    const table = lines
      .trim()
      .split('\n')
      .flatMap((line) => ['-o', `uat:esp_sa:${line}`]);
    const read = async (options: readonly string[]) => {
      const show = ['-T', 'fields', '-e', 'ip.dst', '-e', 'ipv6.dst'];
      const filter = 'icmp.type == 8 || icmpv6.type == 128';
      const { stdout } = await run('tshark', ['-r', path, '-Y', filter, ...options, ...show]);
      return stdout.split('\n').filter((line) => to.addresses.some((address) => line.includes(address))).length;
    };
    assert.equal(await read(['-o', 'esp.enable_encryption_decode:TRUE', ...table]), 2 * pings);
    assert.equal(await read([]), 0);
    const events = await lab.api.list(kinds.Event, { namespace: 'default' });
    for (const node of nodes) {
      const said = events.entries
        .flatMap(({ object }) => object ?? [])
        .filter(({ involvedObject }) => involvedObject.name === node);
      assert.ok(
        said.some(({ type, reason }) => type === 'Warning' && reason === 'KeysExported'),
        node,
      );
    }
  });

  test('a key is in no file of the lab, in no log, and in no process’s arguments or environment', async () => {
    assert.ok(keys.length > 0);
    const needles = keys.flatMap(({ secret }) => {
      const bytes = Buffer.from(secret, 'hex').subarray(0, 32);
      const base64 = bytes.toString('base64').slice(0, 40);
      return [
        bytes,
        Buffer.from(bytes.toString('hex')),
        Buffer.from(base64),
        Buffer.from(bytes.toString('base64url').slice(0, 40)),
      ];
    });
    const holds = (content: Buffer) => needles.some((needle) => content.includes(needle));
    const { directory, cgroup } = lab.lab.plan;
    const planted = join(directory, 'planted');
    writeFileSync(planted, `{"key":"${keys[0]?.secret}"}`);
    const found = filesBelow(directory).filter((path) => holds(readFileSync(path)));
    assert.deepEqual(found, [planted], 'the one that was put there to be found');
    const processes = processesBelow(cgroup);
    assert.ok(processes.length >= 4 + 2 * nodes.length, `${processes.length} processes`);
    for (const pid of processes)
      for (const name of ['cmdline', 'environ'])
        assert.equal(holds(read(`/proc/${pid}/${name}`)), false, `/proc/${pid}/${name}`);
    // Private keys of pods are made in agents' memory: the only ones in files are those that the lab's own set-up wrote.
    const privateKeys = filesBelow(directory).filter((path) => readFileSync(path).includes('PRIVATE KEY'));
    assert.deepEqual(
      privateKeys.filter((path) => !path.startsWith(`${directory}/pki/`)),
      [],
    );
  });

  test('neither agents nor engines can be dumped', async () => {
    for (const node of nodes) {
      const programs = processesBelow(lab.lab.nodeCgroup(node));
      assert.equal(programs.length, 2, 'the agent and its engine');
      for (const pid of programs) {
        assert.match(read(`/proc/${pid}/limits`).toString(), /^Max core file size +0 +/m, String(pid));
        // What may not be dumped is root's, whoever it runs as.
        assert.equal(statSync(`/proc/${pid}/environ`).uid, 0);
      }
    }
  });

  test('an agent that was not started to give keys gives none', async () => {
    await lab.lab.stopAgent('node-2');
    lab.lab.startAgent('node-2', { extra: [] });
    await lab.eventually(
      async () => {
        const { code, stderr } = await myelin('debug', 'keys', '--lab', lab.name, '--node', 'node-2');
        assert.equal(code, 1);
        assert.match(stderr, /not started with --allow-key-export/);
      },
      { timeoutMs: 30_000 },
    );
  });
});

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch {
    // It has ended.
    return Buffer.alloc(0);
  }
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function processesBelow(cgroup: string): number[] {
  return readdirSync(cgroup, { recursive: true, withFileTypes: true })
    .filter(({ name }) => name === 'cgroup.procs')
    .flatMap((entry) => read(join(entry.parentPath, entry.name)).toString().split('\n'))
    .filter((line) => line !== '')
    .map(Number);
}
