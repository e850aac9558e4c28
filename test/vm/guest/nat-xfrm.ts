import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../../src/kernel/command.ts';
import { findLink, ipBatch } from '../../../src/kernel/ip.ts';
import { nft } from '../../../src/kernel/nft.ts';
import { type IpAddress, parseIp } from '../../../src/model/address.ts';
import type { InstalledSa, TunnelDriverEvents, UnderlayAddress } from '../../../src/tunnel/driver.ts';
import { DriverLab, type DriverNode } from '../../support/driver-lab.ts';

/*
 * Node b is behind a NAT, which gives it other ports and another address. The test does for node a what the tunnels' manager does
 * (src/tunnel/world.ts): where a packet came from is where all that is held of the peer goes.
 */

const elsewhere = parseIp('192.168.0.99');
let lab: DriverLab;
let a: DriverNode;
let b: DriverNode;
let spi = 0x2000_1000;
const told: TunnelDriverEvents['moved'][0][] = [];

before(async () => {
  lab = await DriverLab.open(['xfrm', 'xfrm']);
  [a, b] = lab.nodes;
  const link = await findLink('eth0', { netns: b.netns });
  await ipBatch([`neigh replace ${elsewhere} lladdr ${link?.mac} dev eth0 nud permanent`], { netns: a.netns });
  let following = Promise.resolve();
  a.on('moved', (report) => {
    told.push(report);
    following = following.then(async () => {
      for (const sa of await a.list()) await a.movePeer(sa, report.from);
    });
  });
});
after(() => lab?.close());

/** What leaves b is seen as from there, and nothing reaches it elsewhere. The kernel's ESP has no UDP checksum, and nft would make one of none. */
async function behindNat(address: IpAddress, port: number): Promise<void> {
  await nft(
    `table ip nat
    delete table ip nat
    table ip nat {
      counter kept {}
      chain out {
        type filter hook postrouting priority 300
        ip saddr ${b.underlay} udp sport 4500 udp dport 4500 udp length 9 counter name kept
        ip saddr ${b.underlay} udp sport 4500 ip saddr set ${address} udp sport set ${port} udp checksum set 0
      }
      chain in {
        type filter hook prerouting priority -400
        ip daddr ${address} udp dport ${port} ip daddr set ${b.underlay} udp dport set 4500 udp checksum set 0 accept
        udp dport 4500 drop
      }
    }`,
    { netns: b.netns },
  );
}

const places = (sas: readonly InstalledSa[]) => sas.map(({ peer }) => `${peer.address} ${peer.port}`);
const place = ({ address, port }: UnderlayAddress) => `${address} ${port}`;
const out = async (of = spi) => (await a.list()).find((sa) => sa.direction === 'out' && sa.spi === of);
const lostOf = async (count: number) =>
  count - (await lab.ping(b, a.addresses[0], { count, intervalS: 0.05, waitS: 2 }));

test('a packet that was not sealed by the peer moves nothing', async () => {
  const [forward] = await lab.connect(spi);
  assert.equal(await lab.ping(b, a.addresses[0]), 3);
  const inbound = (await a.list()).find(({ direction }) => direction === 'in');
  const packet = Buffer.alloc(100, 7);
  packet.writeUInt32BE(inbound?.spi ?? 0, 0);
  packet.writeUInt32BE(10, 4);
  const program = fileURLToPath(new URL('../../support/inject-udp.ts', import.meta.url));
  const failures = async () => (await a.statistics()).drops.AUTHENTICATION ?? 0;
  const before = await failures();
  await run(process.execPath, [program, a.underlay, '4500'], { netns: b.netns, input: `${packet.toString('hex')}\n` });
  for (const end = Date.now() + 20_000; (await failures()) === before; ) assert.ok(Date.now() < end, 'it did not come');
  assert.equal(await lab.ping(b, a.addresses[0]), 3);
  assert.deepEqual(told, []);
  assert.equal((await out())?.spi, forward?.outbound.spi);
});

test('another port, another address and back: traffic goes on with the same keys, as far as they were', async (t) => {
  const older = await out();
  spi += 0x10;
  await lab.connect(spi);
  const ways: [IpAddress, number][] = [
    [b.underlay, 61_001],
    [b.underlay, 61_002],
    [elsewhere, 61_003],
    [elsewhere, 61_004],
    [b.underlay, 4500],
  ];
  for (const [address, port] of ways) {
    const before = await out();
    const since = told.length;
    await behindNat(address, port);
    const lost = await lostOf(40);
    t.diagnostic(`to ${address} ${port}: ${lost} of 40 lost at twenty a second, said ${told.length - since} times`);
    // What was answered to where nobody is any more, until the kernel's word had been heard; a word of the same port waits a second.
    assert.ok(lost <= 25, `${lost} of 40 were lost`);
    assert.equal(await lab.ping(a, b.addresses[1]), 3);
    assert.equal(await lab.ping(b, a.addresses[0]), 3);
    assert.equal(place(told.at(-1)?.from ?? { address, port: 0 }), place({ address, port }));
    assert.deepEqual(new Set(places(await a.list())), new Set([place({ address, port })]));
    const now = await out();
    assert.ok(now !== undefined && before !== undefined);
    assert.deepEqual({ ...now, peer: 0, statistics: 0 }, { ...before, peer: 0, statistics: 0 });
    assert.ok(now.statistics.sequence >= before.statistics.sequence + 6, 'the sequence began anew');
    assert.equal(now.statistics.packets, now.statistics.sequence, 'what was carried is forgotten');
    assert.ok(now.statistics.bytes > before.statistics.bytes);
  }
  // What was not in use went along.
  await a.remove((await out()) ?? assert.fail());
  assert.equal((await out(older?.spi))?.peer.port, 4500);
  assert.equal(await lab.ping(a, b.addresses[0]), 3);
});

test('the next agent finds a tunnel where its peer is', async () => {
  await behindNat(elsewhere, 61_005);
  await lostOf(10);
  assert.equal(await lab.ping(b, a.addresses[0]), 3);
  const before = await a.list();
  assert.deepEqual(new Set(places(before)), new Set([place({ address: elsewhere, port: 61_005 })]));
  await a.stop('SIGKILL');
  await a.start();
  const bare = (sas: readonly InstalledSa[]) => sas.map(({ statistics: _, ...sa }) => sa);
  assert.deepEqual(bare(await a.list()), bare(before));
  assert.equal(await lab.ping(b, a.addresses[0]), 3);
  await behindNat(elsewhere, 61_006);
  await lostOf(10);
  assert.equal(await lab.ping(a, b.addresses[0]), 3);
});

test('the NAT is kept from forgetting, by packets from the port that ESP has', async () => {
  await b.keepAlive({ address: a.underlay, port: 4500 });
  const kept = async () => (await run('nft', ['list', 'counter', 'ip', 'nat', 'kept'], { netns: b.netns })).stdout;
  for (const end = Date.now() + 20_000; !/packets 1 /.test(await kept()); ) assert.ok(Date.now() < end, 'nothing left');
});

test('what makes no sense is refused, and nothing is left behind', async () => {
  const sa = (await a.list()).find(({ direction }) => direction === 'out') ?? assert.fail();
  await assert.rejects(a.movePeer(sa, { address: parseIp('fd00::1'), port: 4500 }), /family/);
  await assert.rejects(a.movePeer(sa, { address: b.underlay, port: 0 }), /range/);
  await assert.rejects(a.movePeer({ ...sa, spi: 0x2fff_0000 }, { address: b.underlay, port: 4500 }), /there is no/);
  await lab.clear();
  for (const what of ['state', 'policy'])
    assert.equal((await run('ip', ['xfrm', what], { netns: a.netns })).stdout, '');
});
