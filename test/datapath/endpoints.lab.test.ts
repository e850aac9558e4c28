import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { ConnectionTable } from '../../src/datapath/connections.ts';
import { type EndpointInterface, EndpointTable } from '../../src/datapath/endpoints.ts';
import type { DatapathEvent } from '../../src/datapath/events.ts';
import { type CtEntry, type CtKey, ctStates } from '../../src/datapath/layouts.ts';
import { Transaction } from '../../src/datapath/transaction.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import { identityNumber, reservedIdentity } from '../../src/model/identity.ts';
import type { EndpointEntry } from '../../src/policy/image.ts';
import { TestMaps } from './maps.ts';

const kernel = new TestMaps();
const { maps } = kernel;
afterEach(() => kernel.clear());
after(() => kernel.close());

const web: EndpointInterface = {
  uid: 'web',
  ifindex: 11,
  mac: parseMac('02:00:00:00:00:01'),
  hostMac: parseMac('02:00:00:00:00:02'),
  addresses: [parseIp('10.244.0.1'), parseIp('fd00::1')],
};
const sets = {
  ingressAdminSet: 4,
  ingressSet: 5,
  ingressMeshSet: 0,
  egressAdminSet: 0,
  egressSet: 6,
  egressMeshSet: 7,
  names: 3,
};
const policy: EndpointEntry = {
  identity4: identityNumber(300),
  identity6: identityNumber(301),
  addresses: web.addresses,
  ...sets,
};

test('an interface is closed until policy knows its pod, and again when policy forgets it', () => {
  const table = new EndpointTable(maps);
  table.set(web, undefined);
  const closed = maps.endpoints.get(11);
  assert.deepEqual(closed, {
    id: 1,
    identity4: reservedIdentity.any,
    identity6: reservedIdentity.any,
    ingressAdminSet: 0,
    ingressSet: 0,
    ingressMeshSet: 0,
    egressAdminSet: 0,
    egressSet: 0,
    egressMeshSet: 0,
    names: 0,
    flags: 0,
    mac: web.mac,
    hostMac: web.hostMac,
    addr4: web.addresses[0],
    addr6: web.addresses[1],
  });
  table.setPolicy(new Transaction(), 'web', policy);
  const open = { ...closed, identity4: 300, identity6: 301, ...sets, flags: 1 };
  assert.deepEqual(maps.endpoints.get(11), open);
  table.set(web, undefined);
  assert.deepEqual(maps.endpoints.get(11), open, 'made known again, it keeps its policy');
  table.setPolicy(new Transaction(), 'web', undefined);
  assert.deepEqual(maps.endpoints.get(11), closed);
  table.setPolicy(new Transaction(), 'nobody', policy);
});

test('after a restart an interface goes on as it was; another in its place starts closed under an id of its own', () => {
  const first = new EndpointTable(maps);
  first.set(web, policy);
  const before = maps.endpoints.get(11);
  const second = new EndpointTable(maps);
  second.set(web, undefined);
  assert.deepEqual(maps.endpoints.get(11), before);
  assert.equal(second.byId(1)?.uid, 'web');
  const third = new EndpointTable(maps);
  third.set({ ...web, uid: 'other', mac: parseMac('02:00:00:00:00:09') }, undefined);
  assert.equal(maps.endpoints.get(11)?.flags, 0);
  assert.equal(maps.endpoints.get(11)?.id, 2);
});

test('interfaces that nobody makes known after a restart are closed', () => {
  const first = new EndpointTable(maps);
  first.set(web, policy);
  first.set({ ...web, uid: 'other', ifindex: 12, addresses: [parseIp('10.244.0.2')] }, policy);
  const second = new EndpointTable(maps);
  second.set(web, undefined);
  assert.deepEqual(second.removeStrangers(), [12]);
  assert.equal(maps.endpoints.get(12), undefined);
  assert.equal(maps.local.get(parseIp('10.244.0.2')), undefined);
  assert.equal(maps.endpoints.get(11)?.flags, 1);
});

test('a revoked pod is closed through policies, another interface and a restart, until it is believed again', () => {
  const flags = (ifindex = 11) => maps.endpoints.get(ifindex)?.flags;
  const first = new EndpointTable(maps);
  first.set(web, policy);
  assert.deepEqual(first.revoke(new Set(['web', 'later'])), ['web']);
  assert.equal(flags(), 3);
  assert.deepEqual(first.revoke(new Set(['web', 'later'])), []);
  first.setPolicy(new Transaction(), 'web', undefined);
  assert.equal(flags(), 2);
  first.setPolicy(new Transaction(), 'web', policy);
  assert.equal(flags(), 3);
  first.set({ ...web, ifindex: 12 }, policy);
  assert.equal(flags(12), 3, 'a new interface of the same pod');
  first.set({ ...web, uid: 'later', ifindex: 13, addresses: [] }, policy);
  assert.equal(flags(13), 3, 'a pod that comes after its revocation');
  const second = new EndpointTable(maps);
  second.set({ ...web, ifindex: 12 }, policy);
  assert.equal(flags(12), 3, 'a process that has not heard who is believed keeps it closed');
  second.revoke(new Set());
  assert.equal(flags(12), 1);
});

test('an address belongs to who was given it last', () => {
  const table = new EndpointTable(maps);
  const [address] = web.addresses;
  assert.ok(address !== undefined);
  table.set(web, undefined);
  table.set({ ...web, uid: 'heir', ifindex: 12, addresses: [address] }, undefined);
  assert.equal(maps.local.get(address), 12);
  assert.equal(table.remove('web')?.ifindex, 11);
  assert.equal(maps.local.get(address), 12, 'the heir keeps it');
  assert.equal(table.remove('web'), undefined);
  assert.equal(table.byId(1)?.uid, 'web', 'its last events can be named');
  assert.equal(table.isLive(1), false);
  table.set({ ...web, uid: 'heir', ifindex: 12, addresses: [] }, undefined);
  assert.equal(maps.local.get(address), undefined);
  table.set({ ...web, uid: 'heir', ifindex: 13 }, undefined);
  assert.equal(maps.endpoints.get(12), undefined, 'a pod has one interface');
});

test('an id is never given again while connections are kept under it', () => {
  const key = connection(1);
  maps.connections.set({ ...key, endpoint: 41 }, entry({}));
  const table = new EndpointTable(maps);
  table.set(web, undefined);
  assert.equal(maps.endpoints.get(11)?.id, 42);
});

function connection(localPort: number, remote = '192.0.2.1'): CtKey {
  return { endpoint: 1, localPort, remotePort: 80, remote: parseIp(remote), protocol: 6 };
}

function entry(changes: Partial<CtEntry>): CtEntry {
  const now = process.hrtime.bigint();
  return {
    expiresNs: now + 60_000_000_000n,
    createdNs: now - 5_000_000_000n,
    packets: [3n, 2n],
    bytes: [300n, 200n],
    lastReportNs: 0n,
    rule: 17,
    revision: 4,
    remoteIdentity: reservedIdentity.world,
    service: 0,
    direction: 1,
    state: ctStates.established,
    tcpFlags: [2, 0x12],
    flags: 0,
    name: 0,
    class: 0,
    ...changes,
  };
}

test('what has expired is removed and its end told once; what lives stays', async () => {
  const endpoints = new EndpointTable(maps);
  endpoints.set(web, policy);
  const table = new ConnectionTable(maps, endpoints, () => identityNumber(300));
  const past = process.hrtime.bigint() - 1_000_000_000n;
  maps.connections.set(connection(1), entry({}));
  maps.connections.set(connection(2), entry({ expiresNs: past }));
  maps.connections.set(connection(3), entry({ expiresNs: past, state: ctStates.closed }));
  maps.connections.set(connection(4, '2001:db8::1'), entry({ expiresNs: past, direction: 2, service: 9 }));
  maps.connections.set({ ...connection(5), endpoint: 77 }, entry({}));
  const ends: DatapathEvent[] = [];
  assert.deepEqual(await table.collect((event) => ends.push(event)), { seen: 5, removed: 4 });
  assert.deepEqual(
    [...maps.connections.entries()].map(([{ localPort }]) => localPort),
    [1],
  );
  assert.equal(table.lastCount, 1);
  const byPort = new Map(
    ends.map((event) => [event.direction === 'egress' ? event.source.port : event.destination.port, event]),
  );
  assert.deepEqual(
    [...byPort.keys()].sort(),
    [2, 4, 5],
    'the end of a connection that closed was told by the datapath',
  );
  const egress = byPort.get(2);
  assert.deepEqual(
    { ...egress, time: 0, durationNs: 0 },
    {
      kind: 'end',
      time: 0,
      direction: 'egress',
      verdict: 'allow',
      protocol: 6,
      tcpFlags: 0x12,
      endpoint: 1,
      ifindex: 11,
      rule: 17,
      source: { address: '10.244.0.1', port: 2, identity: 300 },
      destination: { address: '192.0.2.1', port: 80, identity: reservedIdentity.world },
      service: 0,
      packets: 5,
      bytes: 500,
      durationNs: 0,
    },
  );
  assert.ok((egress?.durationNs ?? 0) >= 5e9);
  assert.deepEqual(byPort.get(4)?.destination, { address: 'fd00::1', port: 4, identity: 300 });
  assert.equal(byPort.get(4)?.service, 9);
  assert.equal(byPort.get(5)?.source.address, '0.0.0.0', 'its endpoint is not known any more');
  assert.deepEqual(await table.collect((event) => ends.push(event)), { seen: 1, removed: 0 });
});

test('connections are described as their endpoint sees them', () => {
  const endpoints = new EndpointTable(maps);
  endpoints.set(web, policy);
  const table = new ConnectionTable(maps, endpoints, () => reservedIdentity.any);
  maps.connections.set(connection(7), entry({ state: ctStates.halfClosed }));
  const [only] = table.all();
  assert.ok(only !== undefined && only.expiresIn > 50_000 && only.expiresIn <= 60_000);
  assert.deepEqual(
    { ...only, expiresIn: 0 },
    {
      endpoint: 1,
      protocol: 6,
      direction: 'egress',
      local: '10.244.0.1',
      localPort: 7,
      remote: '192.0.2.1',
      remotePort: 80,
      remoteIdentity: reservedIdentity.world,
      state: 'half-closed',
      packets: [3, 2],
      bytes: [300, 200],
      rule: 17,
      revision: 4,
      service: 0,
      expiresIn: 0,
    },
  );
});
