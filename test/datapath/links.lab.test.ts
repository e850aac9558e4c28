import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace } from '../../src/kernel/netns.ts';
import { alice, bob, gateway, type Pod, remote, service } from './cluster.ts';
import { addressOf, families } from './node.ts';

/** The programs on real links, with real sockets at both ends: what a test run of one packet cannot show. */

const directory = mkdtempSync(join(tmpdir(), 'myelin-links-'));
const netns = (name: string) => join(directory, name);
let nodeProcess: ChildProcess | undefined;
const servers: ChildProcess[] = [];

async function addPod(pod: Pod, name: string): Promise<void> {
  await createNamespace(netns(name));
  await ipBatch(
    [
      `link add ${name} address ${pod.hostMac} mtu 1404 type veth peer name eth0 address ${pod.mac} mtu 1404 netns ${netns(name)}`,
      `link set ${name} up`,
      `addr add ${gateway.address4}/32 dev ${name} scope link`,
      `addr add ${gateway.address6}/64 dev ${name} nodad`,
      `route add ${pod.address4}/32 dev ${name}`,
      `route add ${pod.address6}/128 dev ${name}`,
    ],
    { netns: netns('node') },
  );
  await ipBatch(
    [
      'link set eth0 up',
      `addr add ${pod.address4}/32 dev eth0`,
      `addr add ${pod.address6}/128 dev eth0 nodad`,
      `route add ${gateway.address4} dev eth0 scope link`,
      `route add default via ${gateway.address4}`,
      `route add default via ${gateway.address6} dev eth0`,
      `neigh add ${gateway.address4} dev eth0 lladdr ${pod.hostMac} nud permanent`,
      `neigh add ${gateway.address6} dev eth0 lladdr ${pod.hostMac} nud permanent`,
    ],
    { netns: netns(name) },
  );
}

/** Starts a program that serves until the end of the test. */
function serve(where: string, command: string, ...args: string[]): ChildProcess {
  const child = spawn('nsenter', [`--net=${netns(where)}`, '--', command, ...args], {
    stdio: 'ignore',
  });
  servers.push(child);
  return child;
}

/** A stream long enough that TCP makes segments of 64 KiB; an emulated machine has less time. */
const payload = randomBytes(Number(process.env.MYELIN_STREAM_MIB ?? 24) << 20);
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

before(async () => {
  await createNamespace(netns('node'));
  await createNamespace(netns('remote'));
  await addPod(alice, 'alice');
  await addPod(bob, 'bob');
  nodeProcess = spawn(
    'nsenter',
    [`--net=${netns('node')}`, '--', process.execPath, join(import.meta.dirname, 'link-node.ts')],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  await new Promise<void>((ready, failed) => {
    nodeProcess?.stdout?.once('data', () => ready());
    nodeProcess?.once('exit', (code) => failed(new Error(`the node ended with ${code}`)));
  });
  await ipBatch(['link set myelin0 mtu 1404 up', `link set far0 netns ${netns('remote')}`], { netns: netns('node') });
  await ipBatch(
    [
      'link set far0 mtu 1404 up',
      `addr add ${remote.address4}/32 dev far0`,
      `addr add ${remote.address6}/128 dev far0 nodad`,
      'route add default dev far0',
      'route add ::/0 dev far0',
    ],
    { netns: netns('remote') },
  );
  writeFileSync(join(directory, 'payload'), payload);
  for (const where of ['alice', 'bob', 'remote']) {
    for (const family of families) {
      const bind = family === 4 ? 'TCP4-LISTEN:8080' : 'TCP6-LISTEN:8080,ipv6only=1';
      serve(where, 'socat', `${bind},reuseaddr,fork`, `SYSTEM:cat ${join(directory, 'payload')}`);
      serve(where, 'socat', `UDP${family}-LISTEN:8080,fork${family === 6 ? ',ipv6only=1' : ''}`, 'PIPE');
    }
  }
  for (const where of ['alice', 'bob', 'remote']) await listening(where);
});

async function countServers(where: string, wanted: number): Promise<void> {
  for (let i = 0; i < 800; i++) {
    const { stdout } = await run('ss', ['-Hlntu'], { netns: netns(where) });
    if (stdout.split('\n').filter((line) => line.includes(':8080')).length === wanted) return;
    await new Promise((done) => setTimeout(done, 25));
  }
  throw new Error(`${where} has not ${wanted} servers`);
}

const listening = (where: string) => countServers(where, 4);
const silent = (where: string) => countServers(where, 0);

after(() => {
  for (const child of servers) child.kill();
  nodeProcess?.stdin?.end();
  for (const name of ['alice', 'bob', 'remote', 'node']) deleteNamespace(netns(name));
  rmSync(directory, { recursive: true, force: true });
});

/** Sends one datagram out of the first pod. @returns The answer's length, or the error that the socket reports. */
async function exchange(family: 4 | 6, address: string, port: number, length: number): Promise<string> {
  const script = `
    const socket = require('node:dgram').createSocket('udp${family}');
    const end = (what) => { console.log(what); process.exit(0); };
    socket.on('error', (error) => end(error.code));
    socket.on('message', (message) => end(message.length));
    socket.connect(${port}, '${address}', () => socket.send(Buffer.alloc(${length})));
    setTimeout(() => end('nothing'), 15_000);`;
  return (await run(process.execPath, ['-e', script], { netns: netns('alice') })).stdout.trim();
}

const host = (address: string) => (address.includes(':') ? `[${address}]` : address);

for (const family of families) {
  const at = (who: Parameters<typeof addressOf>[0]) => addressOf(who, family);
  const ways: readonly (readonly [string, string, number])[] = [
    ['a pod of the node', at(bob), 8080],
    ['a pod of the node through a service', at(service), 80],
    ['itself through a service', at(service), 81],
    ['a pod of another node', at(remote), 8080],
    ['a pod of another node through a service', at(service), 82],
  ];
  describe(`a pod reaches over IPv${family}`, () => {
    for (const [name, address, port] of ways) {
      test(`${name}: a TCP stream arrives whole, segments and checksums left to devices`, async () => {
        const target = join(directory, 'received');
        await run('socat', ['-u', `TCP${family}:${host(address)}:${port}`, `CREATE:${target}`], {
          netns: netns('alice'),
        });
        assert.equal(digest(readFileSync(target)), digest(payload));
      });

      test(`${name}: UDP is answered, also in fragments`, async () => {
        for (const length of [10, 4000]) assert.equal(await exchange(family, address, port, length), String(length));
      });
    }

    test('who asks it from another node: a TCP stream leaves whole', async () => {
      const target = join(directory, 'received');
      await run('socat', ['-u', `TCP${family}:${host(at(alice))}:8080`, `CREATE:${target}`], {
        netns: netns('remote'),
      });
      assert.equal(digest(readFileSync(target)), digest(payload));
    });

    test('whom it pings, also in fragments', async () => {
      for (const who of [bob, remote])
        for (const size of ['56', '3000'])
          await run('ping', ['-c1', '-W15', '-s', size, at(who)], { netns: netns('alice') });
    });
  });
}

test('a closed port behind a service is reported to who asked', async () => {
  for (const child of servers.splice(0)) child.kill();
  await Promise.all(['alice', 'bob', 'remote'].map(silent));
  for (const family of families)
    assert.equal(await exchange(family, addressOf(service, family), 80, 10), 'ECONNREFUSED');
});
