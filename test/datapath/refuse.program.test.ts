import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ctStates } from '../../src/datapath/layouts.ts';
import { optionFlags } from '../../src/policy/image.ts';
import { icmpError, ip, ping, type Transport, tcp, udp } from '../support/packet.ts';
import type { ReadFrame } from '../support/packet-reader.ts';
import { alice, bob, marks, otherNode, node as ownNode, type Pod, remote, service, sets, world } from './cluster.ts';
import { addressOf, type Family, families, into, outOf, TestNode } from './node.ts';

const denying = 40;

/** A node where what is denied comes with these options, by a rule or by isolation. */
function nodeWith(flags: number, by: 'rule' | 'isolation' = 'rule'): TestNode {
  const node = new TestNode();
  node.ruleSet(denying, by === 'rule' ? [{ verdict: 'deny', rule: 7, flags }] : [], { isolated: by === 'isolation' });
  if (by === 'isolation') {
    const set = node.maps.ruleSets.get(denying);
    assert.ok(set !== undefined);
    node.maps.ruleSets.set(denying, { ...set, flags: set.flags | flags });
  }
  return node;
}

interface Segment {
  readonly flags: string | undefined;
  readonly sequence: number;
  readonly acknowledgment: number;
}

/** What there is in a frame that was made into a reset; all its checksums must be true. */
function resetOf(frame: ReadFrame): Segment & { ends: string } {
  const { ip: packet } = frame;
  assert.ok(packet?.transport !== undefined);
  assert.equal(packet.protocol, 6);
  assert.ok(packet.headerChecksumTrue);
  assert.equal(packet.transport.checksum, 'true');
  assert.equal(packet.payload.length, 20);
  const view = new DataView(packet.payload.buffer, packet.payload.byteOffset, packet.payload.length);
  return {
    flags: packet.transport.tcpFlags,
    sequence: view.getUint32(4),
    acknowledgment: view.getUint32(8),
    ends: `${packet.source}:${packet.transport.sourcePort} ${packet.destination}:${packet.transport.destinationPort}`,
  };
}

function assertProhibited(frame: ReadFrame, family: Family, quoted: Uint8Array): void {
  const { ip: packet } = frame;
  assert.ok(packet?.transport?.quoted !== undefined);
  assert.ok(packet.headerChecksumTrue);
  assert.equal(packet.transport.checksum, 'true');
  assert.deepEqual([packet.payload[0], packet.payload[1]], family === 4 ? [3, 13] : [1, 1]);
  assert.deepEqual(packet.payload.slice(8), quoted.slice(0, 128));
}

const ends = (from: Pod, to: Pod, family: Family, ports: string) => {
  const [source, destination] = ports.split(' ');
  return `${addressOf(from, family)}:${source} ${addressOf(to, family)}:${destination}`;
};

for (const family of families)
  describe(`what is rejected over IPv${family}`, () => {
    for (const by of ['rule', 'isolation'] as const)
      test(`a SYN that ${by} keeps from leaving is reset, as if whom it is for had`, () => {
        using node = nodeWith(optionFlags.reject, by);
        node.addPod(alice, { egressSet: denying });
        const syn = tcp({ source: 40000, destination: 80, seq: 0xffff_ffff, payload: new Uint8Array(3) });
        const sent = node.send(alice, outOf(alice, bob, family, syn));
        assert.equal(sent.action, 'redirect');
        assert.equal(sent.reason, by === 'rule' ? 'POLICY_DENIED_EXPLICIT' : 'POLICY_DENIED');
        assert.deepEqual([sent.frame.source, sent.frame.destination], [alice.hostMac, alice.mac]);
        assert.deepEqual(resetOf(sent.frame), {
          ...{ flags: 'RA', sequence: 0, acknowledgment: 3 },
          ends: ends(bob, alice, family, '80 40000'),
        });
      });

    test('a SYN that may not enter is reset to the pod that sent it, which gets it as an answer', () => {
      using node = nodeWith(optionFlags.reject);
      node.addPod(bob, { ingressSet: denying });
      const refused = node.travel(
        alice,
        bob,
        outOf(alice, bob, family, tcp({ source: 40000, destination: 80, seq: 5 })),
      );
      assert.equal(refused.action, 'redirect');
      assert.equal(refused.mark, marks.of(bob.identity));
      assert.deepEqual([refused.frame.source, refused.frame.destination], [alice.hostMac, alice.mac]);
      assert.equal(resetOf(refused.frame).acknowledgment, 6);
      const answer = node.receive(alice, refused.bytes, refused.mark);
      assert.equal(answer.action, 'pass');
      assert.equal([...node.maps.connections.entries()][0]?.[1].state, ctStates.closed);
    });

    test('a datagram that may not enter is answered to the pod that sent it, also through a service', () => {
      using node = nodeWith(optionFlags.reject);
      node.addPod(bob, { ingressSet: denying });
      const address = addressOf(service, family);
      node.addService({ address, port: 53, protocol: 17 }, [{ address: addressOf(bob, family), port: 5353 }]);
      const query = udp({ source: 40000, destination: 53, payload: new Uint8Array(301).fill(7) });
      const asked = outOf(alice, service, family, query);
      const sent = node.send(alice, asked);
      const refused = node.receive(bob, sent.bytes, sent.mark);
      assert.equal(refused.action, 'redirect');
      assertProhibited(refused.frame, family, sent.bytes.slice(14));
      const answer = node.receive(alice, refused.bytes, refused.mark);
      assert.equal(answer.action, 'pass');
      assert.equal(answer.frame.ip?.source, address);
      assert.equal(answer.frame.ip?.transport?.quoted?.destination, address);
      assert.equal(answer.frame.ip?.transport?.quoted?.transport?.destinationPort, 53);
    });

    test('pings and datagrams that may not leave are answered with what they were', () => {
      using node = nodeWith(optionFlags.reject);
      node.addPod(alice, { egressSet: denying });
      for (const transport of [udp({ source: 1, destination: 2 }), ping({ id: 7, family })]) {
        const asked = outOf(alice, world, family, transport);
        const sent = node.send(alice, asked);
        assert.equal(sent.action, 'redirect');
        assert.deepEqual([sent.frame.source, sent.frame.destination], [alice.hostMac, alice.mac]);
        assert.deepEqual(
          [sent.frame.ip?.source, sent.frame.ip?.destination],
          [addressOf(world, family), addressOf(alice, family)],
        );
        assertProhibited(sent.frame, family, asked.slice(14));
      }
    });

    test('a pod of another node is answered into its tunnel', () => {
      using node = nodeWith(optionFlags.reject);
      node.addPod(bob, { ingressSet: denying });
      const knock = tcp({ source: 40000, destination: 80, seq: 9 });
      const refused = node.receive(bob, into(bob, remote, family, knock), marks.of(remote.identity));
      assert.equal(refused.action, 'redirect');
      assert.equal(refused.mark, 0);
      assert.equal(resetOf(refused.frame).ends, ends(bob, remote, family, '80 40000'));
    });

    test('a segment from the middle of a connection is reset where its sender expects it', () => {
      using node = nodeWith(optionFlags.reject);
      node.addPod(alice, { egressSet: denying });
      const middle = tcp({
        source: 40000,
        destination: 80,
        flags: 'A',
        seq: 1000,
        ack: 77,
        payload: new Uint8Array(9),
      });
      const { flags, sequence } = resetOf(node.send(alice, outOf(alice, bob, family, middle)).frame);
      assert.deepEqual([flags, sequence], ['R', 77]);
    });
  });

/** What is never answered, whatever policy asks for. */
const unanswered: Readonly<Record<string, (family: Family) => Uint8Array>> = {
  'a reset': (family) => outOf(alice, bob, family, tcp({ source: 40000, destination: 80, flags: 'R' })),
  'an ICMP error': (family) => {
    const between = { source: addressOf(bob, family), destination: addressOf(alice, family) };
    const quoted = ip(between, udp({ source: 53, destination: 40000 }));
    return outOf(alice, bob, family, icmpError(quoted, { type: family === 4 ? 3 : 1 }));
  },
};
for (const [name, make] of Object.entries(unanswered))
  test(`${name} is not answered`, () => {
    using node = nodeWith(optionFlags.reject | optionFlags.reset);
    node.addPod(alice, { egressSet: denying });
    for (const family of families) assert.equal(node.send(alice, make(family)).action, 'drop');
  });

test('nobody is answered who has not proved who it is', () => {
  using node = nodeWith(optionFlags.reject);
  node.addPod(bob, { ingressSet: denying });
  const knock = tcp({ source: 40000, destination: 80 });
  assert.equal(node.receive(bob, into(bob, world, 4, knock), 0).action, 'drop');
  assert.equal(node.receive(bob, into(bob, otherNode, 4, knock), 0).action, 'drop');
  assert.equal(node.receive(bob, into(bob, remote, 4, knock), 0).action, 'drop');
});

for (const family of families)
  test(`the world is answered out of the uplink, under the pod’s own address: IPv${family}`, () => {
    using node = nodeWith(optionFlags.reject);
    node.addPod(bob, { ingressSet: denying });
    const knock = into(bob, world, family, tcp({ source: 40000, destination: 80, seq: 5 }));
    const refused = node.receive(bob, knock, marks.world);
    assert.equal(refused.action, 'redirect');
    assert.equal(refused.mark, marks.world, 'so that it may leave');
    assert.deepEqual(
      [refused.frame.ip?.source, refused.frame.ip?.destination],
      [addressOf(bob, family), addressOf(world, family)],
    );
    assert.equal(resetOf(refused.frame).acknowledgment, 6);
    const asked = into(bob, world, family, udp({ source: 40001, destination: 80, payload: new Uint8Array(200) }));
    assertProhibited(node.receive(bob, asked, marks.world).frame, family, asked.slice(14));
    node.configure({ uplinkIfindex: 0 });
    assert.equal(node.receive(bob, knock, marks.world).action, 'drop', 'there is none');
  });

test('without the option nothing is answered, nor what is dropped for anything but policy', () => {
  using node = nodeWith(0);
  node.addPod(alice, { egressSet: denying });
  const knock = tcp({ source: 40000, destination: 80 });
  assert.equal(node.send(alice, outOf(alice, bob, 4, knock)).action, 'drop');
  using other = nodeWith(optionFlags.reject);
  other.addPod(alice, { egressSet: denying, flags: 0 });
  assert.equal(other.send(alice, outOf(alice, bob, 4, knock)).reason, 'ENDPOINT_NOT_READY');
  assert.equal(other.send(alice, outOf(alice, bob, 4, knock)).action, 'drop');
});

test('one who knocks too often is not answered any more, and others are', () => {
  using node = nodeWith(optionFlags.reject);
  node.addPod(alice, { egressSet: denying });
  const outcomes = Array.from(
    { length: 400 },
    (_, i) => node.send(alice, outOf(alice, bob, 4, tcp({ source: 1000 + i, destination: 80 }))).action,
  );
  assert.equal(outcomes[0], 'redirect');
  assert.ok(outcomes.includes('drop'), 'of 400 at once not all are answered');
  const toRemote = node.send(alice, outOf(alice, remote, 4, tcp({ source: 1, destination: 80 })));
  assert.equal(toRemote.action, 'redirect');
});

describe('connections that policy denies after it has admitted them', () => {
  const request: Record<string, (family: Family) => Transport> = {
    TCP: () => tcp({ source: 40000, destination: 80, flags: 'A', seq: 100, ack: 200 }),
    UDP: () => udp({ source: 40000, destination: 53 }),
    ping: (family) => ping({ id: 9, family }),
  };
  const opening: typeof request = { ...request, TCP: () => tcp({ source: 40000, destination: 80 }) };

  /** A node where alice has a connection to bob that bob's policy denies from now on. */
  const admitted = (flags: number, name: string, family: Family): TestNode => {
    const node = nodeWith(flags);
    const first = opening[name]?.(family);
    assert.ok(first !== undefined);
    assert.equal(node.travel(alice, bob, outOf(alice, bob, family, first)).action, 'pass');
    node.configure({ revision: 2 });
    node.addPod(bob, { ingressSet: denying });
    return node;
  };
  const next = (node: TestNode, name: string, family: Family) => {
    const transport = request[name]?.(family);
    assert.ok(transport !== undefined);
    const bytes = outOf(alice, bob, family, transport);
    return { bytes, outcome: node.travel(alice, bob, bytes) };
  };

  for (const family of families)
    for (const name of Object.keys(request)) {
      test(`keep: ${name} over IPv${family} goes on, and a new one is judged`, () => {
        using node = admitted(optionFlags.keep, name, family);
        assert.equal(next(node, name, family).outcome.action, 'pass');
        node.configure({ revision: 3 });
        assert.equal(next(node, name, family).outcome.action, 'pass');
        const fresh = name === 'ping' ? ping({ id: 10, family }) : udp({ source: 40001, destination: 53 });
        assert.equal(node.travel(alice, bob, outOf(alice, bob, family, fresh)).reason, 'POLICY_DENIED_EXPLICIT');
      });

      test(`re-evaluate: ${name} over IPv${family} is dropped without a word`, () => {
        using node = admitted(0, name, family);
        assert.equal(next(node, name, family).outcome.action, 'drop');
      });

      test(`reset: ${name} over IPv${family} is told`, () => {
        using node = admitted(optionFlags.reset, name, family);
        const { outcome } = next(node, name, family);
        assert.equal(outcome.reason, 'POLICY_DENIED_EXPLICIT');
        if (name === 'TCP') {
          assert.equal(outcome.action, 'pass', 'the pod gets the reset in the place of the segment');
          assert.deepEqual([outcome.frame.source, outcome.frame.destination], [bob.hostMac, bob.mac]);
          assert.deepEqual(resetOf(outcome.frame), {
            ...{ flags: 'RA', sequence: 100, acknowledgment: 200 },
            ends: ends(alice, bob, family, '40000 80'),
          });
          return;
        }
        assert.equal(outcome.action, 'redirect');
        const answer = node.receive(alice, outcome.bytes, outcome.mark);
        assert.equal(answer.action, 'pass');
      });
    }

  test('kept is what was admitted between these two: no SYN, and nobody else at the address', () => {
    using node = admitted(optionFlags.keep, 'TCP', 4);
    const again = node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 80 })));
    assert.equal(again.reason, 'POLICY_DENIED_EXPLICIT');
    const stranger = into(bob, alice, 4, tcp({ source: 40000, destination: 80, flags: 'A' }));
    assert.equal(node.receive(bob, stranger, marks.of(remote.identity)).reason, 'POLICY_DENIED_EXPLICIT');
    assert.equal(node.receive(bob, stranger, marks.of(alice.identity)).action, 'pass');
  });

  test('what is kept ends when policy that does not keep denies it', () => {
    using node = admitted(optionFlags.keep, 'UDP', 4);
    assert.equal(next(node, 'UDP', 4).outcome.action, 'pass');
    node.addPod(bob, { ingressSet: sets.isolated });
    node.configure({ revision: 3 });
    assert.equal(next(node, 'UDP', 4).outcome.reason, 'POLICY_DENIED');
  });

  test('the reset itself passes the policy that asks for it, in both directions, and ends the connection', () => {
    using node = admitted(optionFlags.reset, 'TCP', 4);
    const forth = tcp({ source: 40000, destination: 80, flags: 'RA', seq: 100 });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, forth)).action, 'pass');
    const back = tcp({ source: 80, destination: 40000, flags: 'R', seq: 200 });
    assert.equal(node.travel(bob, alice, outOf(bob, alice, 4, back)).action, 'pass');
    for (const [, { state }] of node.maps.connections.entries()) assert.equal(state, ctStates.closed);
    assert.equal(
      node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 1, destination: 80, flags: 'R' }))).reason,
      'CT_INVALID',
    );
  });

  test('where the pod itself may not go on, it is told, also by whom it has reached through a service', () => {
    using node = nodeWith(optionFlags.reset);
    node.addService({ address: service.address4, port: 80, protocol: 6 }, [{ address: bob.address4, port: 8080 }]);
    const open = tcp({ source: 40000, destination: 80 });
    assert.equal(node.travel(alice, bob, outOf(alice, service, 4, open)).action, 'pass');
    node.configure({ revision: 2 });
    node.addPod(alice, { egressSet: denying });
    const middle = tcp({ source: 40000, destination: 80, flags: 'PA', seq: 100, ack: 200, payload: new Uint8Array(5) });
    const sent = node.send(alice, outOf(alice, service, 4, middle));
    assert.equal(sent.action, 'redirect');
    assert.deepEqual(resetOf(sent.frame), {
      ...{ flags: 'R', sequence: 200, acknowledgment: 0 },
      ends: `${service.address4}:80 ${alice.address4}:40000`,
    });
    const answer = tcp({ source: 8080, destination: 40000, flags: 'A', seq: 200, ack: 105 });
    const received = node.receive(alice, into(alice, bob, 4, answer), marks.of(bob.identity));
    assert.equal(received.action, 'pass');
    assert.deepEqual(resetOf(received.frame), {
      ...{ flags: 'RA', sequence: 200, acknowledgment: 105 },
      ends: `${service.address4}:80 ${alice.address4}:40000`,
    });
  });
});

test('the pod’s node is never denied, so never answered', () => {
  using node = nodeWith(optionFlags.reject);
  node.addPod(bob, { ingressSet: denying });
  const probe = tcp({ source: 40000, destination: 80 });
  assert.equal(node.receive(bob, into(bob, ownNode, 4, probe), marks.host).action, 'pass');
});
