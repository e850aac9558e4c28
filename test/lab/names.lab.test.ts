import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadObjects } from '../../src/datapath/objects.ts';
import { myelin } from '../support/cli.ts';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * Rules about names, with real packets: a name server in the world, and hosts there that only their names tell apart.
 */

const server = '203.0.113.10';
const hosts = {
  api: ['203.0.113.11', '2001:db8::11'],
  edge: ['203.0.113.12', '2001:db8::12'],
  other: ['203.0.113.13', '2001:db8::13'],
} as const;
const zone = {
  'api.example': { ttl: 1, A: hosts.api[0], AAAA: hosts.api[1] },
  'x.cdn.example': { ttl: 300, CNAME: 'edge.test' },
  'edge.test': { ttl: 300, A: hosts.edge[0], AAAA: hosts.edge[1] },
  'other.example': { ttl: 300, A: hosts.other[0], AAAA: hosts.other[1] },
  // Resolves, but no rule is about what is there.
  'free.example': { ttl: 300, A: hosts.other[0] },
};
const policy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toCIDR: [${server}/32]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchName: api.example}, {matchPattern: "*.cdn.example"}, {matchName: free.example}]}
  - toFQDNs: [{matchName: api.example}, {matchPattern: "*.cdn.example"}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
`;

/** Resolves a name and connects to its first address at once: there is no second try. */
const resolveAndConnect = `
const [server, name, family, tcp] = process.argv.slice(1);
const { Resolver } = require('node:dns').promises;
const resolver = new Resolver({ timeout: 3000, tries: 1 });
resolver.setServers([server]);
resolver['resolve' + family](name).then(
  ([address]) => {
    const socket = require('node:net').connect({ host: address, port: 8080, timeout: 1500 });
    const end = (ok) => { console.log(JSON.stringify({ address, ok })); process.exit(); };
    socket.on('connect', () => end(true)).on('error', () => end(false)).on('timeout', () => end(false));
  },
  (error) => console.log(JSON.stringify({ error: error.code })),
);
`;

/** Asks over TCP, in pieces of so many bytes. @returns The answer's bytes, or an error. */
const askByTcp = `
const [server, hex, size] = process.argv.slice(1);
const bytes = Buffer.from(hex, 'hex');
const socket = require('node:net').connect({ host: server, port: 53, timeout: 1500 });
const end = (said) => { console.log(JSON.stringify(said)); process.exit(); };
socket.setNoDelay(true);
socket.on('connect', async () => {
  for (let at = 0; at < bytes.length; at += Number(size)) {
    socket.write(bytes.subarray(at, at + Number(size)));
    await new Promise((done) => setTimeout(done, 2));
  }
});
socket.on('data', (data) => end({ answer: data.length })).on('error', (e) => end({ error: e.code })).on('timeout', () => end({ error: 'timeout' }));
`;

interface Tried {
  readonly address?: string;
  readonly ok?: boolean;
  readonly error?: string;
}

describe('rules about names', { timeout: 120_000 }, () => {
  let world: PolicyLab;
  let client: TestPod;
  let bystander: TestPod;

  before(async () => {
    world = await PolicyLab.up({ nodes: 1 });
    const { lab } = world;
    for (const [v4, v6] of Object.values(hosts)) {
      await lab.exec('world', ['ip', 'address', 'add', `${v4}/32`, 'dev', 'eth0']);
      await lab.exec('world', ['ip', 'address', 'add', `${v6}/128`, 'dev', 'eth0', 'nodad']);
    }
    await lab.serve('world', '8080/TCP');
    const program = [
      process.execPath,
      join(import.meta.dirname, '../support/name-server.ts'),
      server,
      JSON.stringify(zone),
    ];
    const [file = '', ...args] = lab.lab.helperCommand('world', program);
    spawn(file, args, { stdio: 'ignore', detached: true }).unref();
    const make = (name: string) => lab.pod(name).on('node-1').labelled({ app: name }).create();
    [client, bystander] = await Promise.all([make('client'), make('bystander')]);
    await lab.eventually(async () => assert.equal((await resolve('other.example', 4, bystander)).ok, true));
  });
  after(async () => await world?.down());

  async function resolve(name: string, family: 4 | 6 = 4, pod = client): Promise<Tried> {
    const { stdout, stderr } = await world.lab.exec(pod, [
      process.execPath,
      '-e',
      resolveAndConnect,
      server,
      name,
      String(family),
    ]);
    assert.notEqual(stdout, '', stderr);
    return JSON.parse(stdout);
  }
  const reaches = async (address: string) => await world.lab.reaches(client, address, { port: 8080, timeoutMs: 500 });

  test('a name that may be asked is reached at the first try, over both families; other addresses of the host are not', async () => {
    assert.equal((await resolve('other.example')).ok, true, 'without a policy everything is');
    await world.apply(policy);
    await world.lab.eventually(async () => assert.deepEqual(await resolve('other.example'), { error: 'EREFUSED' }));
    assert.equal(await reaches(hosts.api[0]), false, 'nobody has asked yet');
    assert.deepEqual(await resolve('api.example'), { address: hosts.api[0], ok: true });
    assert.deepEqual(await resolve('api.example', 6), { address: hosts.api[1], ok: true });
    assert.equal(await reaches(hosts.api[0]), true);
    assert.equal(await reaches(hosts.other[0]), false);
    assert.deepEqual(await resolve('free.example'), { address: hosts.other[0], ok: false }, 'to ask is not to reach');
  });

  test('a wildcard, by way of an alias; in the flows and in why', async () => {
    assert.equal(await reaches(hosts.edge[0]), false);
    assert.deepEqual(await resolve('x.cdn.example'), { address: hosts.edge[0], ok: true });
    const { stdout } = await myelin('names', '--lab', world.lab.name);
    assert.match(stdout, /default\/client +x\.cdn\.example +203\.0\.113\.12 +\*\.cdn\.example/);
    const why = await myelin('why', 'default/client', hosts.edge[0], '--port', '8080', '--lab', world.lab.name);
    assert.match(why.stdout, /egress +allow +CiliumNetworkPolicy default\/names egress\[1\] +\(the datapath agrees\)/);
    await world.lab.eventually(async () => {
      const seen = await myelin('observe', '--lab', world.lab.name, '--last', '200');
      assert.match(seen.stdout, /default\/client:\d+ → world x\.cdn\.example \(203\.0\.113\.12:8080\)/);
      assert.match(seen.stdout, /DNS_DENIED/);
    });
  });

  test('over TCP a question is judged, and its answer teaches', async () => {
    const ask = async (name: string, size: number) => {
      const labels = name
        .split('.')
        .map((label) => String.fromCharCode(label.length) + label)
        .join('');
      const message = Buffer.concat([
        Buffer.from('000901000001000000000000', 'hex'),
        Buffer.from(labels, 'latin1'),
        Buffer.from('0000010001', 'hex'),
      ]);
      const framed = Buffer.concat([Buffer.from([0, message.length]), message]).toString('hex');
      const { stdout } = await world.lab.exec(client, [process.execPath, '-e', askByTcp, server, framed, String(size)]);
      return JSON.parse(stdout);
    };
    for (const size of [1000, 7]) {
      assert.ok((await ask('x.cdn.example', size)).answer > 20, `in pieces of ${size}`);
      assert.deepEqual(await ask('other.example', size), { error: 'timeout' });
    }
  });

  test('a restart of the agent neither opens nor closes what was learnt', async () => {
    const restarted = await myelin('lab', 'restart', 'node-1', '--name', world.lab.name);
    assert.equal(restarted.code, 0, restarted.stderr);
    assert.equal(await reaches(hosts.edge[0]), true);
    assert.equal(await reaches(hosts.other[0]), false);
    // And once the new agent has put its own revision in force.
    await world.lab.eventually(async () => {
      const { stdout } = await myelin('names', '--lab', world.lab.name, '-o', 'json');
      assert.ok(JSON.parse(stdout).some(({ name }: { name: string }) => name === 'x.cdn.example'));
    });
    assert.equal(await reaches(hosts.edge[0]), true);
    assert.deepEqual(await resolve('api.example'), { address: hosts.api[0], ok: true });
    assert.deepEqual(await resolve('other.example'), { error: 'EREFUSED' });
  });

  test('when its TTL has run out an address is not reached any more, what was opened goes on, and to ask again is enough', async () => {
    const pinDir = `${world.lab.lab.plan.bpf}/node-1`;
    const objects = loadObjects({ objectDir: join(import.meta.dirname, '../../build/bpf'), pinDir });
    try {
      const config = objects.maps.config.get(0) ?? assert.fail('there is no configuration');
      objects.maps.config.set(0, { ...config, nameFloorNs: 1_000_000_000n });
      for (const [key] of [...objects.maps.names.entries()]) objects.maps.names.delete(key);
      assert.equal(await reaches(hosts.api[0]), false);
      assert.equal((await resolve('api.example')).ok, true);
      await world.lab.eventually(async () => assert.equal(await reaches(hosts.api[0]), false));
      assert.equal((await resolve('api.example')).ok, true);
      objects.maps.config.set(0, config);
    } finally {
      objects.close();
    }
  });

  test('nothing of it is said to be a limit', async () => {
    const { stderr } = await world.apply(policy.replace('name: names', 'name: again'));
    assert.doesNotMatch(stderr, /Warning/);
    const { stdout } = await world.kubectl('get', 'cnp', 'names', '-o', 'json');
    const conditions: { status: string }[] = JSON.parse(stdout).status?.conditions ?? [];
    assert.deepEqual(
      conditions.filter(({ status }) => status === 'False'),
      [],
    );
  });
});
