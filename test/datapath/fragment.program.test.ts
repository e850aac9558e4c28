import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { protocolNumbers } from '../../src/model/port.ts';
import { fragmentsOf, frame, ip, ping, udp } from '../support/packet.ts';
import { alice, bob, carol, rules, service, sets } from './cluster.ts';
import { addressOf, families, frames, TestNode } from './node.ts';

const payload = Uint8Array.from({ length: 200 }, (_, i) => i);
const query = udp({ source: 40000, destination: 53, payload });

for (const family of families)
  describe(`fragments over IPv${family}`, () => {
    const ends = { source: addressOf(alice, family), destination: addressOf(bob, family) };
    const cut = (transport = query, id = 1) =>
      fragmentsOf(ip(ends, transport), 80, id).map((fragment) => frame(frames.from(alice), fragment));

    test('arrive all, as one connection', () => {
      using node = new TestNode();
      for (const bytes of cut()) assert.equal(node.travel(alice, bob, bytes).action, 'pass');
      const entries = [...node.maps.connections.entries()];
      assert.equal(entries.length, 2);
      for (const [, entry] of entries) assert.deepEqual(entry.packets, [3n, 0n]);
    });

    test('of a ping arrive all', () => {
      using node = new TestNode();
      const large = ping({ id: 9, family, payload });
      for (const bytes of cut(large)) assert.equal(node.travel(alice, bob, bytes).action, 'pass');
    });

    test('arrive in any order of the later ones', () => {
      using node = new TestNode();
      const [first, second, third] = cut();
      for (const bytes of [first, third, second])
        assert.equal(node.travel(alice, bob, bytes ?? new Uint8Array()).action, 'pass');
    });

    test('of a first that was denied do not arrive', () => {
      using node = new TestNode();
      node.addPod(alice, { egressSet: sets.isolated });
      const [first, second] = cut().map((bytes) => node.send(alice, bytes));
      assert.equal(first?.reason, 'POLICY_DENIED');
      assert.equal(first?.events[0]?.rule, rules.isolation);
      assert.equal(second?.reason, 'FRAGMENT_WITHOUT_FIRST');
    });

    test('are denied once policy denies their connection', () => {
      using node = new TestNode();
      const [first, second, third] = cut();
      node.send(alice, first ?? new Uint8Array());
      assert.equal(node.send(alice, second ?? new Uint8Array()).action, 'redirect');
      node.addPod(alice, { egressSet: sets.isolated });
      node.configure({ revision: 2 });
      assert.equal(node.send(alice, third ?? new Uint8Array()).reason, 'POLICY_DENIED');
    });

    test('with another identification are another packet’s', () => {
      using node = new TestNode();
      node.send(alice, cut(query, 1)[0] ?? new Uint8Array());
      assert.equal(node.send(alice, cut(query, 2)[1] ?? new Uint8Array()).reason, 'FRAGMENT_WITHOUT_FIRST');
    });

    test('that come too late are dropped', () => {
      using node = new TestNode();
      node.configure({ fragmentNs: 1n });
      const [first = new Uint8Array(), second = new Uint8Array()] = cut();
      node.send(alice, first);
      let reason: string | undefined;
      // The kernel's coarse clock moves every few milliseconds.
      for (let i = 0; i < 10_000 && reason === undefined; i++) reason = node.send(alice, second).reason;
      assert.equal(reason, 'FRAGMENT_WITHOUT_FIRST');
    });

    test('of another pod are another packet’s', () => {
      using node = new TestNode();
      node.send(alice, cut()[0] ?? new Uint8Array());
      const fromCarol = fragmentsOf(ip({ ...ends, source: addressOf(carol, family) }, query), 80, 1);
      const stolen = frame(frames.from(carol), fromCarol[1] ?? new Uint8Array());
      assert.equal(node.send(carol, stolen).reason, 'FRAGMENT_WITHOUT_FIRST');
    });

    test('to a service are all translated, and their checksum is true once they are together', () => {
      using node = new TestNode();
      const front = { address: addressOf(service, family), port: 53, protocol: protocolNumbers.UDP };
      node.addService(front, [{ address: addressOf(bob, family), port: 5353 }]);
      const packet = ip({ source: addressOf(alice, family), destination: front.address }, query);
      const outcomes = fragmentsOf(packet, 80).map((fragment) =>
        node.travel(alice, bob, frame(frames.from(alice), fragment)),
      );
      for (const { action, frame: read } of outcomes) {
        assert.equal(action, 'pass');
        assert.equal(read.ip?.destination, addressOf(bob, family));
        assert.equal(read.ip?.headerChecksumTrue, true);
      }
      assert.equal(outcomes[0]?.frame.ip?.transport?.destinationPort, 5353);
      const together = outcomes.flatMap(({ frame: read }) => [...(read.ip?.payload ?? [])]);
      const whole = ip(
        { source: addressOf(alice, family), destination: addressOf(bob, family) },
        udp({ source: 40000, destination: 5353, payload }),
      );
      assert.deepEqual(together, [...whole.subarray(family === 4 ? 20 : 40)]);
    });
  });
