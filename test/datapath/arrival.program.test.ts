import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readMetrics } from '../../src/datapath/metrics.ts';
import { type IpAddress, parseIp, parseMac } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import type { DropReason } from '../../src/model/verdict.ts';
import {
  arp,
  concat,
  type Extension,
  etherTypes,
  fragmentsOf,
  frame,
  ip,
  neighbour,
  type Transport,
  tcp,
  udp,
} from '../support/packet.ts';
import { alice, bob, identity, marks, otherNode, node as ownNode, remote, rules, sets, world } from './cluster.ts';
import { addressOf, families, into, outOf, TestNode } from './node.ts';

const none = new Uint8Array();
const open = tcp({ source: 40000, destination: 80 });
const underlay = { source: parseMac('02:00:00:00:ff:01'), destination: parseMac('02:00:00:00:ff:02') };
const wire = (source: IpAddress, destination: IpAddress, transport = open) =>
  frame(underlay, ip({ source, destination }, transport));

for (const family of families) {
  const at = (who: Parameters<typeof addressOf>[0]) => addressOf(who, family);

  describe(`out of a tunnel, IPv${family}`, () => {
    const proven = (node: TestNode, number = remote.identity) =>
      node.maps.tunnels.set({ local: at(alice), remote: at(remote) }, { identity: number, spi: 7, previousSpi: 6 });

    test('a packet takes the identity that the pair proved, and the MACs of its link', () => {
      using node = new TestNode();
      proven(node);
      const outcome = node.runTunnel(wire(at(remote), at(alice)));
      assert.equal(outcome.action, 'redirect');
      assert.equal(outcome.mark, marks.of(remote.identity));
      assert.equal(outcome.frame.destination, alice.mac);
      assert.equal(outcome.frame.source, alice.hostMac);
      assert.equal(node.receive(alice, outcome.bytes, outcome.mark).action, 'pass');
    });

    test('policy judges what was proven, not what is remembered of the address', () => {
      using node = new TestNode();
      // The address was Remote's; somebody else's key opened this packet.
      node.ruleSet(9, [{ identity: remote.identity, protocol: 6, rule: rules.web }], { isolated: true });
      node.addPod(alice, { ingressSet: 9 });
      proven(node, identity(777));
      const outcome = node.runTunnel(wire(at(remote), at(alice)));
      assert.equal(node.receive(alice, outcome.bytes, outcome.mark).reason, 'POLICY_DENIED');
    });

    test('a packet for another pod of the node than the association’s is dropped', () => {
      using node = new TestNode();
      proven(node);
      assert.equal(node.runTunnel(wire(at(remote), at(bob))).reason, 'TUNNEL_SELECTOR');
      assert.equal(node.runTunnel(wire(at(world), at(alice))).reason, 'TUNNEL_SELECTOR');
    });

    test('a packet that goes on to the node or further is dropped', () => {
      using node = new TestNode();
      proven(node);
      for (const to of [ownNode, otherNode, remote, world])
        assert.equal(node.runTunnel(wire(at(remote), at(to))).reason, 'TUNNEL_TO_NODE');
    });

    test('fragments of a proven pair arrive; one without its first, or over the transport header, does not', () => {
      using node = new TestNode();
      proven(node);
      const arrive = (packet: Uint8Array) => {
        const outcome = node.runTunnel(frame(underlay, packet));
        assert.equal(outcome.action, 'redirect');
        return node.receive(alice, outcome.bytes, outcome.mark);
      };
      const pieces = (transport: Transport, size: number, id: number) =>
        fragmentsOf(ip({ source: at(remote), destination: at(alice) }, transport), size, id);
      const query = udp({ source: 40000, destination: 53, payload: new Uint8Array(64) });
      const [first = none, second = none] = pieces(query, 40, 1);
      assert.equal(arrive(second).reason, 'FRAGMENT_WITHOUT_FIRST');
      assert.equal(arrive(first).action, 'pass');
      assert.equal(arrive(second).action, 'pass');
      const [, over = none] = pieces(tcp({ source: 1, destination: 2, payload: new Uint8Array(64) }), 8, 2);
      assert.equal(arrive(over).reason, 'MALFORMED');
      const [short = none] = pieces(tcp({ source: 1, destination: 2, payload: new Uint8Array(64) }), 16, 3);
      assert.equal(arrive(short).reason, 'MALFORMED');
    });

    test('a fragment is held against the pair and the node like any other packet', () => {
      using node = new TestNode();
      proven(node);
      const query = udp({ source: 40000, destination: 53, payload: new Uint8Array(64) });
      for (const [to, reason] of [
        [bob, 'TUNNEL_SELECTOR'],
        [ownNode, 'TUNNEL_TO_NODE'],
      ] as const)
        for (const piece of fragmentsOf(ip({ source: at(remote), destination: at(to) }, query), 40))
          assert.equal(node.runTunnel(frame(underlay, piece)).reason, reason);
    });

    test('options that steer, and headers that contradict themselves, end at the tunnel', () => {
      using node = new TestNode();
      proven(node);
      const ends = { source: at(remote), destination: at(alice) };
      const given = (extra: Partial<Parameters<typeof ip>[0]>) => frame(underlay, ip({ ...ends, ...extra }, open));
      const option = (...bytes: number[]) => given({ options: Uint8Array.from(bytes) });
      const extension = (...chain: Extension[]) => given({ extensions: chain });
      const routing = { protocol: 43, rest: concat(Uint8Array.of(2, 0, 1, 0, 0, 0, 0), new Uint8Array(16)) };
      const hopByHop = { protocol: 0, rest: Uint8Array.of(0, 1, 4, 0, 0, 0, 0) };
      const destination = { protocol: 60, rest: Uint8Array.of(0, 1, 4, 0, 0, 0, 0) };
      const refused: [Uint8Array, DropReason][] =
        family === 4
          ? [
              [option(131, 7, 4, 10, 0, 0, 1), 'SOURCE_ROUTED'],
              [option(1, 1, 7, 7, 4, 0, 0, 0, 0, 137, 7, 4, 10, 0, 0, 1), 'SOURCE_ROUTED'],
              [option(7, 60, 4, 0), 'MALFORMED'],
              [option(7, 1, 0, 0), 'MALFORMED'],
            ]
          : [
              [extension(routing), 'SOURCE_ROUTED'],
              [extension(hopByHop, routing), 'SOURCE_ROUTED'],
              [extension(...Array.from({ length: 7 }, () => destination)), 'UNKNOWN_L4'],
            ];
      const whole = wire(at(remote), at(alice));
      for (const length of [14 + (family === 4 ? 20 : 40), whole.length - 1])
        refused.push([whole.slice(0, length), 'MALFORMED']);
      const otherVersion = whole.slice();
      otherVersion[14] = 0x55;
      refused.push([otherVersion, 'MALFORMED'], [frame(underlay, new Uint8Array(46), 0x88b5), 'UNKNOWN_L3']);
      for (const [bytes, reason] of refused) assert.equal(node.runTunnel(bytes).reason, reason);
      // What only says something to hosts passes.
      assert.equal(node.runTunnel(family === 4 ? option(1, 1, 1, 0) : extension(destination)).action, 'redirect');
    });

    test('what a peer keeps sending is counted, and said once in an interval', () => {
      using node = new TestNode();
      node.configure({ denyIntervalNs: 3600n * 1_000_000_000n });
      proven(node);
      const count = () => readMetrics(node.maps).drops.find(({ reason }) => reason === 'TUNNEL_TO_NODE')?.packets ?? 0;
      const before = count();
      const said = Array.from({ length: 50 }, () => node.runTunnel(wire(at(remote), at(ownNode))).events.length);
      assert.deepEqual(said, [1, ...Array(49).fill(0)]);
      assert.equal(count() - before, 50);
    });

    test('a remote pod is answered through the tunnel', () => {
      using node = new TestNode();
      node.addPod(alice, { egressSet: sets.isolated });
      assert.equal(node.receive(alice, into(alice, remote, family, open), marks.of(remote.identity)).action, 'pass');
      const answer = tcp({ source: 80, destination: 40000, flags: 'SA' });
      assert.equal(node.send(alice, outOf(alice, remote, family, answer)).action, 'redirect');
    });
  });

  describe(`the underlay, IPv${family}`, () => {
    test('brings the world to a pod’s own address, judged as the world', () => {
      using node = new TestNode();
      const outcome = node.run('from_underlay', wire(at(world), at(alice)));
      assert.equal(outcome.action, 'redirect');
      assert.equal(outcome.mark, marks.world);
      assert.equal(outcome.frame.destination, alice.mac);
      assert.equal(node.receive(alice, outcome.bytes, outcome.mark).action, 'pass');
      node.addPod(alice, { ingressSet: sets.isolated });
      const other = node.run('from_underlay', wire(at(world), at(alice), tcp({ source: 1, destination: 80 })));
      assert.equal(node.receive(alice, other.bytes, other.mark).reason, 'POLICY_DENIED');
    });

    test('brings the world under the identity of the CIDR that a policy names', () => {
      using node = new TestNode();
      node.addPrefix(parsePrefix(family === 4 ? '198.51.100.0/24' : '2001:db8:ffff::/48'), 'world', 800);
      const outcome = node.run('from_underlay', wire(at(world), at(alice)));
      node.ruleSet(9, [{ identity: 800, protocol: 6 }], { isolated: true });
      node.addPod(alice, { ingressSet: 9 });
      assert.equal(node.receive(alice, outcome.bytes, outcome.mark).action, 'pass');
    });

    test('lets the pod’s answer to the world out, under its own address', () => {
      using node = new TestNode();
      node.addPod(alice, { egressSet: sets.isolated });
      const arrived = node.run('from_underlay', wire(at(world), at(alice)));
      node.receive(alice, arrived.bytes, arrived.mark);
      const answer = tcp({ source: 80, destination: 40000, flags: 'SA' });
      const sent = node.send(alice, outOf(alice, world, family, answer));
      assert.equal(sent.action, 'pass');
      assert.equal(node.run('to_underlay', sent.bytes, { mark: sent.mark }).action, 'pass');
      assert.equal(node.run('to_underlay', sent.bytes).reason, 'LEAK_PREVENTED');
    });

    test('lets pass what has no pod at either end', () => {
      using node = new TestNode();
      const esp = udp({ source: 4500, destination: 4500, payload: new Uint8Array(64) });
      assert.equal(node.run('from_underlay', wire(at(otherNode), at(ownNode), esp)).action, 'pass');
      assert.equal(node.run('to_underlay', wire(at(ownNode), at(otherNode), esp)).action, 'pass');
      assert.equal(node.run('to_underlay', wire(at(ownNode), at(world))).action, 'pass');
      assert.equal(node.run('from_underlay', wire(at(world), at(ownNode))).action, 'pass');
    });
  });
}

test('the uplink’s ARP and neighbour discovery pass', () => {
  using node = new TestNode();
  const ask = arp({
    operation: 'request',
    senderMac: underlay.source,
    senderIp: otherNode.address4,
    targetIp: ownNode.address4,
  });
  const solicit = frame(
    underlay,
    ip(
      { source: parseIp('fe80::1'), destination: parseIp('ff02::1:ff00:1'), ttl: 255 },
      neighbour({ type: 'solicit', target: ownNode.address6, linkAddress: underlay.source }),
    ),
  );
  for (const program of ['from_underlay', 'to_underlay'] as const) {
    assert.equal(node.run(program, frame(underlay, ask, etherTypes.arp)).action, 'pass');
    assert.equal(node.run(program, solicit).action, 'pass');
  }
});

test('an odd packet is judged by its addresses on the way out', () => {
  using node = new TestNode();
  const routed = { options: Uint8Array.of(131, 7, 4, 10, 0, 0, 1) };
  const leak = frame(underlay, ip({ source: alice.address4, destination: world.address4, ...routed }, open));
  assert.equal(node.run('to_underlay', leak).reason, 'LEAK_PREVENTED');
  const own = frame(underlay, ip({ source: ownNode.address4, destination: world.address4, ...routed }, open));
  assert.equal(node.run('to_underlay', own).action, 'pass');
});
