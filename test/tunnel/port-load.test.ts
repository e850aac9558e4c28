import assert from 'node:assert/strict';
import { connect as connectTcp, type Socket } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { Admission } from '../../src/tunnel/handshake/admission.ts';
import { addressesOf, between, TestCluster, until } from './fixtures.ts';

test('who is let in is within every limit, always, and a place that is given back is a place', () => {
  const limits = { total: 6, perAddress: 3, strangers: 2, strangersPerSecond: 4 };
  const step = fc.oneof(
    fc.record({ enter: fc.integer({ min: 0, max: 5 }) }),
    fc.record({ leave: fc.nat() }),
    fc.record({ wait: fc.integer({ min: 0, max: 2000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      let now = 0;
      const admission = new Admission(limits, () => now);
      const inside: { address: number; leave: () => void }[] = [];
      const strangersLately: number[] = [];
      for (const each of steps) {
        if ('wait' in each) now += each.wait;
        else if ('leave' in each) {
          const [gone] = inside.splice(each.leave % Math.max(1, inside.length), 1);
          gone?.leave();
          gone?.leave();
        } else {
          const address = each.enter;
          const stranger = address >= 4;
          const leave = admission.enter(`${address}`, stranger);
          const from = inside.filter((other) => other.address === address).length;
          const strangers = inside.filter((other) => other.address >= 4).length;
          const room = inside.length < limits.total && from < limits.perAddress;
          if (leave === undefined) {
            // Nobody is turned away but for a limit; a node never for what strangers do, while there is room.
            if (!stranger) assert.ok(!room);
            continue;
          }
          assert.ok(room);
          if (stranger) {
            assert.ok(strangers < limits.strangers);
            strangersLately.push(now);
            // Within any second no more than what the bucket holds and what it gained.
            assert.ok(strangersLately.filter((at) => at > now - 1000).length <= 2 * limits.strangersPerSecond);
          }
          inside.push({ address, leave });
        }
        assert.equal(admission.open, inside.length);
      }
    }),
  );
});

const closed = (socket: Socket) =>
  new Promise<void>((resolve) => (socket.destroyed ? resolve() : socket.once('close', () => resolve())));

test('strangers that come by the thousand, and stay or go, cost neither memory nor the nodes their handshakes', async (t) => {
  const cluster = await TestCluster.make(t);
  const limits = { strangers: 8, strangersPerSecond: 20 };
  const [a, b] = [await cluster.node(), await cluster.node({ limits, timeoutMs: 200 })];
  const web = await cluster.pod(a, 'web', { addresses: addressesOf(1) });
  const db = await cluster.pod(b, 'db', { addresses: addressesOf(2) });
  const refused = () => b.manager.statistics().refused;
  const flood = async (count: number) => {
    const sockets: Socket[] = [];
    for (let i = 0; i < count; i++) {
      // From loopback's addresses, none of them a node's.
      const socket = connectTcp({
        host: b.address,
        port: b.manager.port,
        localAddress: `127.77.${i % 200}.${1 + (i % 250)}`,
      });
      socket.on('error', () => {}).resume();
      sockets.push(socket);
      if (i % 3 === 0) socket.write('\x16\x03\x01');
      if (i % 100 === 99) await Promise.all(sockets.splice(0).map(closed));
    }
  };
  const before = () => {
    globalThis.gc?.();
    return process.memoryUsage().rss / 2 ** 20;
  };
  await flood(200);
  const base = before();
  await flood(2000);
  const grown = before() - base;
  assert.ok(grown < 40, `${grown.toFixed(1)} MiB more after 2,000 strangers`);
  // Almost all were turned away before TLS had anything to do; the others when their time was over.
  await until('all gone', () => b.manager.statistics().connections === 0);
  const { 'too-many': tooMany = 0, timeout = 0, disconnected = 0 } = refused();
  assert.equal(tooMany + timeout + disconnected, 2200, JSON.stringify(refused()));
  assert.ok(tooMany > 1500, `${tooMany} turned away`);
  // While strangers fill every place that strangers have, a node's handshake is done as ever.
  b.view.nodes.set(parseIp('127.0.0.1'), { name: a.name, address: parseIp('127.0.0.1') });
  const still = Array.from({ length: 40 }, (_, i) =>
    connectTcp({ host: b.address, port: b.manager.port, localAddress: `127.78.0.${i + 1}` }).on('error', () => {}),
  );
  await until('turned away', () => (refused()['too-many'] ?? 0) > tooMany);
  a.driver.send(between(web, db));
  await until('delivered', () => a.driver.fates.get('delivered') === 1);
  for (const socket of still) socket.destroy();
});

test('what TLS fails with is counted by its reason', async (t) => {
  const cluster = await TestCluster.make(t);
  const node = await cluster.node();
  const say = async (bytes: Buffer) => {
    const socket = connectTcp(node.manager.port, node.address);
    socket.on('error', () => {}).resume();
    socket.end(bytes);
    await closed(socket);
  };
  await say(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await say(Buffer.from('SSH-2.0-x\r\n'.repeat(20)));
  await say(Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]));
  await until('counted', () => (node.manager.statistics().refused.tls ?? 0) === 3);
  const { tlsErrors } = node.manager.statistics();
  assert.equal(
    Object.values(tlsErrors).reduce((sum, count) => sum + count, 0),
    3,
  );
  assert.ok(Object.keys(tlsErrors).length >= 2, JSON.stringify(tlsErrors));
});
