import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '../../src/model/address.ts';
import type { SaId, UnderlayAddress } from '../../src/tunnel/driver.ts';
import type { RemotePod } from '../../src/tunnel/peers.ts';
import { addressesOf, between, TestCluster, type TestNode, until } from './fixtures.ts';

/*
 * A peer behind a NAT: where its newest packet came from is where packets for it go, until its node is believed elsewhere.
 */

const nat: UnderlayAddress = { address: parseIp('203.0.113.9'), port: 61_000 };
const place = ({ address, port }: UnderlayAddress) => `${address} ${port}`;

test('a node that a NAT has moved is followed with all of its pods, by keys to come too, until it is elsewhere', async (t) => {
  const cluster = await TestCluster.make(t);
  const [a, b, c] = [await cluster.node(), await cluster.node(), await cluster.node()];
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  const cache = await cluster.pod(b, 'cache', { addresses: addressesOf(3) });
  const other = await cluster.pod(c, 'other', { addresses: addressesOf(4) });
  const all = [db, cache, other];
  for (const remote of all) a.driver.send(between(web, remote));
  const up = async (node: TestNode) => (await node.manager.list()).filter(({ state }) => state === 'up');
  await until('three tunnels', async () => (await up(a)).length === 3 && (await up(b)).length === 2);

  const row = async (remote: RemotePod) =>
    (await a.manager.list()).find(({ remote: pod }) => pod.uid === remote.pod.uid) ?? assert.fail();
  const sending = async (remote: RemotePod) => {
    const { spiOut } = await row(remote);
    const sa = (await a.driver.list()).find(({ direction, spi }) => direction === 'out' && spi === spiOut);
    return sa === undefined ? '' : place(sa.peer);
  };
  const inbound = async (remote: RemotePod): Promise<SaId> => ({
    direction: 'in',
    spi: (await row(remote)).spiIn ?? 0,
    peer: { address: remote.node.address, port: 4500 },
  });
  const home = await Promise.all(all.map(sending));

  // An SPI that is nobody's newest moves nothing.
  a.driver.emit('moved', { sa: { ...(await inbound(db)), spi: 4_000_000_000 }, from: nat });
  assert.deepEqual(await Promise.all(all.map(sending)), home);

  a.driver.emit('moved', { sa: await inbound(db), from: nat });
  await until('the move', async () => (await sending(db)) === place(nat) && (await sending(cache)) === place(nat));
  assert.equal(await sending(other), home[2]);
  assert.deepEqual(a.manager.peers().map(place).sort(), [home[2] ?? '', place(nat)].sort());

  const { rekeys } = await row(db);
  a.driver.emit('soft', { sa: await inbound(db), cause: 'bytes' });
  await until('new keys', async () => (await row(db)).rekeys > rekeys);
  assert.equal(await sending(db), place(nat));

  // The node itself is elsewhere now, as everybody hears from the API. What the driver has lost keeps nothing else from moving.
  await a.driver.remove(await inbound(db));
  const moved = { ...b.peer, address: parseIp('127.250.250.250') };
  for (const pod of [db, cache]) a.view.learn({ ...pod, node: moved });
  await a.manager.reconcile();
  for (const pod of [db, cache])
    await until('the new place', async () => (await sending(pod)).startsWith('127.250.250.250 '));
});
