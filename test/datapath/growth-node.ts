import assert from 'node:assert/strict';
import type { Datapath } from '../../src/datapath/datapath.ts';
import type { ObjectOptions } from '../../src/datapath/objects.ts';
import { BpfProgram } from '../../src/kernel/bpf/program.ts';
import { queryTc, type TcDirection } from '../../src/kernel/bpf/tc.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { type IpAddress, parseIp, parseMac } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { compile } from '../../src/policy/compile.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { clusterWith, pod, policy } from '../support/cluster.ts';
import { frame, ip, tcp } from '../support/packet.ts';
import { objectDir } from './maps.ts';

/*
 * A node with two pods on real devices of this process's namespace, and a cluster of any size around it. Whatever is at
 * the devices is asked, whoever loaded it.
 */

const node = 'node-1';
const front = { name: 'front', address: parseIp('10.244.1.1'), mac: parseMac('02:00:00:00:01:00') };
const cart = { name: 'cart', address: parseIp('10.244.1.2'), mac: parseMac('02:00:00:00:01:01') };
const own = [front, cart];
const hostMac = parseMac('0e:00:00:00:01:00');
/** Nothing is sent: no device of that index need exist. */
const tunnelIfindex = 2001;

/** So small that every larger cluster makes maps grow. */
export const smallest: ObjectOptions = {
  objectDir,
  maxEntries: { ct: 4096, service_flows: 1024, policy: 16, rule_sets: 64, peers: 16, services: 4, backends: 8 },
};

export async function makeDevices(): Promise<void> {
  await ipBatch(own.map(({ name }) => `link add ${name} type veth peer name ${name}-in`));
}

async function ifindexOf(name: string): Promise<number> {
  const link = await findLink(name);
  assert.ok(link !== undefined);
  return link.ifindex;
}

export async function makeKnown(datapath: Datapath): Promise<void> {
  datapath.setConfig({ tunnelIfindex });
  for (const { name, address, mac } of own)
    datapath.setEndpoint({ uid: `shop/${name}`, ifindex: await ifindexOf(name), mac, hostMac, addresses: [address] });
}

const remote = (i: number): IpAddress => parseIp(`10.244.${2 + (i >> 8)}.${i & 255}`);

/** So many pods elsewhere, all of them different to policy, and each with a port of its own that `front` may reach. */
export function clusterOf(size: number): ClusterView {
  const others = Array.from({ length: size }, (_, i): PodView => {
    return pod(`shop/remote-${i}`, { n: `${i}` }, 'node-2', [remote(i)]);
  });
  const ours = own.map(({ name, address }) => pod(`shop/${name}`, { app: name }, node, [address]));
  const egress = others.map((_, i) => ({
    to: [{ podSelector: { matchLabels: { n: `${i}` } } }],
    ports: [{ port: 1000 + i }],
  }));
  const shop = [{ podSelector: { matchLabels: { app: 'front' } } }];
  return clusterWith(
    [
      policy('front', {
        podSelector: { matchLabels: { app: 'front' } },
        policyTypes: ['Egress'],
        egress: [...egress, { to: [{ podSelector: { matchLabels: { app: 'cart' } } }] }],
      }),
      policy('cart', {
        podSelector: { matchLabels: { app: 'cart' } },
        policyTypes: ['Ingress'],
        ingress: [{ from: shop, ports: [{ port: 80 }] }],
      }),
    ],
    { pods: new Map([...ours, ...others].map((one) => [one.uid, one])) },
  );
}

export async function apply(datapath: Datapath, size: number): Promise<void> {
  await datapath.applyPolicy(compile(clusterOf(size), node, datapath.policy));
}

let sourcePort = 10_000;

/**
 * Asks the programs that are at the devices, each time by a new connection.
 * @param size Of the cluster that should be in force.
 */
export async function assertJudgedAs(size: number, what: string): Promise<void> {
  const [from, to] = [await ifindexOf(front.name), await ifindexOf(cart.name)];
  assertVerdicts(from, to, size, what);
}

/** The same in one go: nothing else of this process comes between. */
export function assertVerdicts(from: number, to: number, size: number, what: string): void {
  const send = (destination: IpAddress, port: number) => {
    sourcePort = sourcePort >= 60_000 ? 10_000 : sourcePort + 1;
    const source = sourcePort;
    const packet = ip({ source: front.address, destination }, tcp({ source, destination: port }));
    return run(from, 'ingress', frame({ source: front.mac, destination: hostMac }, packet));
  };
  for (const i of new Set([0, 1, size - 1])) {
    assert.equal(send(remote(i), 1000 + i).retval, redirect, `${what}: ${i} is reached`);
    assert.equal(send(remote(i), 999).retval, drop, `${what}: ${i} is not reached at another port`);
  }
  assert.equal(send(remote(size), 1000 + size).retval, drop, `${what}: nobody is there yet`);
  for (const [port, verdict] of [
    [80, pass],
    [81, drop],
  ] as const) {
    const sent = send(cart.address, port);
    assert.equal(sent.retval, redirect, `${what}: on its way to the other pod`);
    const { retval } = run(to, 'egress', sent.dataOut, sent.ctxOut.mark);
    assert.equal(retval, verdict, `${what}: the other pod at port ${port}`);
  }
}

const [pass, drop, redirect] = [0, 2, 7];

function run(ifindex: number, direction: TcDirection, data: Uint8Array, mark = 0) {
  const id = queryTc(ifindex, direction);
  assert.ok(id !== undefined, `nothing is at ${direction} of device ${ifindex}`);
  using opened = BpfProgram.openById(id);
  return opened.program.testRun({ data, ctx: { ifindex, mark } });
}

export async function devices(): Promise<readonly [number, number]> {
  return [await ifindexOf(front.name), await ifindexOf(cart.name)];
}
