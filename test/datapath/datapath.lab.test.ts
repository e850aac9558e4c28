import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Datapath } from '../../src/datapath/datapath.ts';
import { DatapathError } from '../../src/datapath/error.ts';
import type { DatapathEvent } from '../../src/datapath/events.ts';
import type { ObjectOptions } from '../../src/datapath/objects.ts';
import { queryTc } from '../../src/kernel/bpf/tc.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { run } from '../../src/kernel/command.ts';
import { KernelError } from '../../src/kernel/error.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, listNamespaces } from '../../src/kernel/netns.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { clusterWith, pod, policy } from '../support/cluster.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { objectDir } from './maps.ts';

/** One node with two pods on real links: this process's namespace is the node's. */
runInOwnNamespace();

const node = 'node-1';
const directory = mkdtempSync(join(tmpdir(), 'myelin-datapath-'));
const pinDir = `/sys/fs/bpf/myelin-test-datapath-${process.pid}`;
const options: ObjectOptions = { objectDir, pinDir, maxEntries: { ct: 4096, service_flows: 1024 } };
const names = ['front', 'cart'] as const;
const addressOf = { front: '10.244.1.1', cart: '10.244.1.2' } as const;
const netns = (name: string) => join(directory, name);

const pods = new Map(
  names.map((name) => [name, pod(`shop/${name}`, { app: name }, node, [addressOf[name]], { uid: name })]),
);
const open: ClusterView = clusterWith([], { pods });
const closed: ClusterView = { ...open, policies: [policy('none', { podSelector: {}, policyTypes: ['Ingress'] })] };

async function linkOf(name: (typeof names)[number]) {
  const link = await findLink(name);
  assert.ok(link !== undefined);
  return link;
}

async function makeKnown(datapath: Datapath): Promise<void> {
  for (const [i, name] of names.entries()) {
    const { ifindex, mac } = await linkOf(name);
    const addresses = [parseIp(addressOf[name])];
    datapath.setEndpoint({
      uid: name,
      ifindex,
      mac: parseMac(`02:00:00:00:01:0${i}`),
      hostMac: parseMac(mac),
      addresses,
    });
  }
}

async function apply(datapath: Datapath, view: ClusterView): Promise<void> {
  await datapath.applyPolicy(compile(view, node, datapath.policy));
}

before(async () => {
  for (const [i, name] of names.entries()) {
    await createNamespace(netns(name));
    await ipBatch([
      `link add ${name} type veth peer name eth0 address 02:00:00:00:01:0${i} netns ${netns(name)}`,
      `link set ${name} up`,
      `addr add 169.254.1.1/32 dev ${name} scope link`,
      `route add ${addressOf[name]}/32 dev ${name}`,
    ]);
    const { mac } = await linkOf(name);
    await ipBatch(
      [
        'link set eth0 up',
        `addr add ${addressOf[name]}/32 dev eth0`,
        'route add 169.254.1.1 dev eth0 scope link',
        'route add default via 169.254.1.1',
        `neigh add 169.254.1.1 dev eth0 lladdr ${mac} nud permanent`,
      ],
      { netns: netns(name) },
    );
  }
});
after(() => {
  for (const path of listNamespaces(directory)) deleteNamespace(path);
  rmSync(directory, { recursive: true, force: true });
  removePinDirectory(pinDir);
});

/** @returns Whether all of some pings from front to cart came back. */
async function pings(): Promise<boolean> {
  const args = ['-c', '2', '-i', '0.05', '-W', '0.3', '-q', addressOf.cart];
  try {
    await run('ping', args, { netns: netns('front') });
    return true;
  } catch (error) {
    if (error instanceof KernelError && error.data.status === 1) return false;
    throw error;
  }
}

/** Pings all the while `work` goes on. @returns How many were lost. */
async function lostDuring(work: () => Promise<void>): Promise<number> {
  const args = [`--net=${netns('front')}`, 'ping', '-i', '0.002', '-W', '0.5', '-q', addressOf.cart];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  await sleep(100);
  await work();
  await sleep(50);
  child.kill('SIGINT');
  await once(child, 'close');
  const [, sent = '0', received = '0'] = /(\d+) packets transmitted, (\d+) received/.exec(output) ?? [];
  assert.ok(Number(sent) > 20, output);
  // The last one may have been under way.
  return Number(sent) - Number(received) - 1;
}

test('from the first guard to a policy: nothing, then what it allows, then what the next one allows', async () => {
  const events: DatapathEvent[] = [];
  await using datapath = Datapath.open(options, { onEvent: (event) => events.push(event) });
  datapath.setConfig({ icmpNs: 60_000_000_000n });
  await makeKnown(datapath);
  assert.equal(await pings(), false);
  // The node's own router discovery is denied too.
  const denials = () => events.filter(({ kind, protocol }) => kind === 'deny' && protocol === 1);
  const [denied] = denials();
  assert.equal(denied?.reason, 'ENDPOINT_NOT_READY');
  assert.equal(denied.verdict, 'deny');
  assert.equal(datapath.endpointById(denied.endpoint)?.uid, 'front');
  assert.ok(Math.abs(Date.now() - denied.time) < 10_000);
  assert.ok(datapath.metrics().drops.some(({ reason, packets }) => reason === 'ENDPOINT_NOT_READY' && packets > 0));

  await apply(datapath, open);
  assert.equal(await pings(), true);
  assert.ok(events.some(({ kind, protocol }) => kind === 'new' && protocol === 1));
  assert.ok(datapath.metrics().forwarded.egress.packets > 0);
  assert.deepEqual(datapath.losses(), { ring: 0, undecodable: 0 });
  assert.ok([...datapath.connections()].some(({ remote, protocol }) => remote === addressOf.cart && protocol === 1));

  await apply(datapath, closed);
  assert.equal(await pings(), false);
  const refused = denials().at(-1);
  assert.equal(refused?.reason, 'POLICY_DENIED');
  assert.equal(datapath.policy.rules.get(refused.rule)?.name, 'none');
  const { ifindex } = await linkOf('cart');
  const query = { ifindex, direction: 'ingress', remote: parseIp(addressOf.front), protocol: 1, port: 0 } as const;
  assert.equal(datapath.evaluate(query).reason, 'POLICY_DENIED');
  await apply(datapath, open);
  assert.equal(datapath.evaluate(query).verdict, 'allow');
  assert.equal(datapath.usage().endpoints?.used, 2);
  await datapath.close();
  assert.equal(await pings(), true, 'enforcement does not need this process');
});

test('a restart of the process loses no packet', async () => {
  const lost = await lostDuring(async () => {
    for (let i = 0; i < 2; i++) {
      await using datapath = Datapath.open(options);
      assert.equal(datapath.recreated, false);
      assert.ok(datapath.policy.peers.size > 0, 'the policy is read back');
      await makeKnown(datapath);
      assert.deepEqual(datapath.removeStrangers(), []);
      await apply(datapath, open);
      await datapath.close();
    }
  });
  assert.ok(lost <= 0, `${lost} lost`);
});

test('maps of another version are refused, or made anew under programs that go on with the old ones', async () => {
  const other = { ...options, maxEntries: { ...options.maxEntries, ct: 2048 } };
  assert.throws(
    () => Datapath.open(other),
    (error) => error instanceof DatapathError && error.code === 'IncompatibleState' && error.data.map === 'ct',
  );
  const { ifindex } = await linkOf('front');
  const before = queryTc(ifindex, 'ingress');
  const lost = await lostDuring(async () => {
    await using datapath = Datapath.open({ ...other, onIncompatible: 'recreate' });
    assert.equal(datapath.recreated, true);
    await makeKnown(datapath);
    assert.equal(queryTc(ifindex, 'ingress'), before, 'the old program is still there');
    await sleep(50);
    await apply(datapath, open);
    assert.notEqual(queryTc(ifindex, 'ingress'), before);
    await datapath.close();
  });
  assert.ok(lost <= 0, `${lost} lost`);
});

test('a pod that goes is forgotten with its tunnels', async () => {
  await using datapath = Datapath.open({ ...options, maxEntries: { ...options.maxEntries, ct: 2048 } });
  await makeKnown(datapath);
  await apply(datapath, open);
  const [local, remote] = [parseIp(addressOf.cart), parseIp('10.244.2.1')];
  const identity = datapath.policy.peers.get(local)?.identity;
  assert.ok(identity !== undefined);
  datapath.proveTunnel(local, remote, { identity, spi: 7 });
  assert.equal(datapath.tunnels().length, 1);
  assert.equal(datapath.removeEndpoint('cart'), true);
  assert.equal(datapath.removeEndpoint('cart'), false);
  assert.deepEqual(datapath.tunnels(), []);
  assert.equal(await pings(), false);
  const ends: DatapathEvent[] = [];
  await datapath.close();
  await using observer = Datapath.open(
    { ...options, maxEntries: { ...options.maxEntries, ct: 2048 } },
    { onEvent: (event) => ends.push(event) },
  );
  await observer.collectConnections();
  assert.ok(
    ends.some(({ kind }) => kind === 'end'),
    'the connections of endpoints that nobody made known end',
  );
  await observer.close();
});
