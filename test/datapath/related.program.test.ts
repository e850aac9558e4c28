import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { protocolNumbers } from '../../src/model/port.ts';
import { internetChecksum } from '../support/checksum.ts';
import {
  concat,
  fragmentsOf,
  frame,
  icmpError,
  ip,
  ping,
  type Transport,
  tcp,
  u16,
  u32,
  udp,
} from '../support/packet.ts';
import { alice, bob, carol, marks, node as ownNode, remote, service, sets, world } from './cluster.ts';
import { type Addresses, addressOf, type Family, families, frames, into, outOf, TestNode } from './node.ts';

const query = udp({ source: 40000, destination: 53, payload: new Uint8Array(40) });

function quote(from: Addresses, to: Addresses, family: Family, transport: Transport): Uint8Array {
  return ip({ source: addressOf(from, family), destination: addressOf(to, family) }, transport);
}

/** Port unreachable, about a packet. */
function unreachable(quoted: Uint8Array): Transport {
  return (quoted[0] ?? 0) >> 4 === 6
    ? icmpError(quoted, { type: 1, code: 4 })
    : icmpError(quoted, { type: 3, code: 3 });
}

/** Packet too big, about a packet, with the size that would fit. */
function tooBig(quoted: Uint8Array): Transport {
  return (quoted[0] ?? 0) >> 4 === 6
    ? icmpError(quoted, { type: 2, rest: u32(1280) })
    : icmpError(quoted, { type: 3, code: 4, rest: u32(1280) });
}

/** The same bytes as a fragment from the middle, which they only look like the start of. */
function laterFragment(whole: Uint8Array): Uint8Array {
  if ((whole[0] ?? 0) >> 4 === 6) {
    const fragment = Uint8Array.of(whole[6] ?? 0, 0, 0, 64, 0, 0, 0, 1);
    const header = whole.slice(0, 40);
    header[6] = 44;
    return concat(header, fragment, whole.subarray(40));
  }
  const bytes = whole.slice();
  bytes[7] = 8;
  bytes.set([0, 0], 10);
  bytes.set(u16(internetChecksum(bytes.subarray(0, 20))), 10);
  return bytes;
}

for (const family of families)
  describe(`ICMP errors over IPv${family}`, () => {
    test('about a live connection pass both interfaces, past policy', () => {
      using node = new TestNode();
      node.addPod(bob, { egressSet: sets.isolated });
      node.addPod(alice, { ingressSet: sets.isolated });
      node.travel(alice, bob, outOf(alice, bob, family, query));
      const error = unreachable(quote(alice, bob, family, query));
      const outcome = node.travel(bob, alice, outOf(bob, alice, family, error));
      assert.equal(outcome.action, 'pass', outcome.reason);
      assert.equal(outcome.frame.ip?.transport?.checksum, 'true');
    });

    test('about a ping pass', () => {
      using node = new TestNode();
      node.addPod(bob, { egressSet: sets.isolated });
      const request = ping({ id: 9, family });
      node.travel(alice, bob, outOf(alice, bob, family, request));
      const error = unreachable(quote(alice, bob, family, request));
      assert.equal(node.travel(bob, alice, outOf(bob, alice, family, error)).action, 'pass');
    });

    test('about nothing do not', () => {
      using node = new TestNode();
      const error = unreachable(quote(alice, bob, family, query));
      assert.equal(node.send(bob, outOf(bob, alice, family, error)).reason, 'CT_INVALID');
      assert.equal(node.receive(alice, into(alice, bob, family, error), marks.of(bob.identity)).reason, 'CT_INVALID');
      assert.equal(node.receive(alice, into(alice, world, family, error), 0).reason, 'CT_INVALID');
    });

    test('about another connection than the pod’s own do not', () => {
      using node = new TestNode();
      node.travel(alice, bob, outOf(alice, bob, family, query));
      // Carol knows the ports, and speaks of what is between Alice and Bob.
      const error = unreachable(quote(alice, bob, family, query));
      assert.equal(node.send(carol, outOf(carol, alice, family, error)).reason, 'CT_INVALID');
      const arrived = into(alice, carol, family, error);
      assert.equal(node.receive(alice, arrived, marks.of(carol.identity)).reason, 'CT_INVALID');
      // Bob got no packet that was for Carol.
      const other = unreachable(quote(alice, carol, family, query));
      assert.equal(node.send(bob, outOf(bob, alice, family, other)).reason, 'CT_INVALID');
    });

    test('about a service’s connection, that do not know it by the service, do not', () => {
      using node = new TestNode();
      const front = { address: addressOf(service, family), port: 53, protocol: protocolNumbers.UDP };
      node.addService(front, [{ address: addressOf(bob, family), port: 5353 }]);
      node.travel(alice, bob, outOf(alice, service, family, query));
      const late = udp({ source: 5353, destination: 40000, payload: new Uint8Array(40) });
      const error = unreachable(quote(bob, alice, family, late));
      assert.equal(node.send(alice, outOf(alice, bob, family, error)).reason, 'CT_INVALID');
    });

    test('from a router of the world, about a connection to the world, pass without proof', () => {
      using node = new TestNode();
      node.send(alice, outOf(alice, world, family, query));
      const router = { address4: ownNode.address4, address6: ownNode.address6 };
      const error = tooBig(quote(alice, world, family, query));
      assert.equal(node.receive(alice, into(alice, router, family, error), 0).action, 'pass');
      assert.equal(node.receive(alice, into(alice, router, family, error), marks.host).action, 'pass');
    });

    test('about a connection to a pod need proof', () => {
      using node = new TestNode();
      node.send(alice, outOf(alice, remote, family, query));
      const error = tooBig(quote(alice, remote, family, query));
      assert.equal(node.receive(alice, into(alice, world, family, error), 0).reason, 'NO_PROOF');
      assert.equal(node.receive(alice, into(alice, remote, family, error), marks.of(remote.identity)).action, 'pass');
    });

    test('do not pass for a connection that the current revision has not judged', () => {
      using node = new TestNode();
      node.travel(alice, bob, outOf(alice, bob, family, query));
      node.configure({ revision: 2 });
      const error = outOf(bob, alice, family, unreachable(quote(alice, bob, family, query)));
      assert.equal(node.send(bob, error).reason, 'CT_INVALID');
      node.travel(alice, bob, outOf(alice, bob, family, query));
      assert.equal(node.travel(bob, alice, error).action, 'pass');
    });

    test('from a service’s backend come from the service, and quote what the client sent', () => {
      using node = new TestNode();
      const front = { address: addressOf(service, family), port: 53, protocol: protocolNumbers.UDP };
      node.addService(front, [{ address: addressOf(bob, family), port: 5353 }]);
      node.travel(alice, bob, outOf(alice, service, family, query));
      const seen = udp({ source: 40000, destination: 5353, payload: new Uint8Array(40) });
      const outcome = node.travel(bob, alice, outOf(bob, alice, family, unreachable(quote(alice, bob, family, seen))));
      assert.equal(outcome.action, 'pass', outcome.reason);
      const read = outcome.frame.ip;
      assert.equal(read?.source, front.address);
      assert.equal(read?.transport?.checksum, 'true');
      const quoted = read?.transport?.quoted;
      assert.equal(quoted?.source, addressOf(alice, family));
      assert.equal(quoted?.destination, front.address);
      assert.equal(quoted?.headerChecksumTrue, true);
      assert.deepEqual([quoted?.transport?.sourcePort, quoted?.transport?.destinationPort], [40000, 53]);
    });

    test('from a router, about a service’s connection, quote what the client sent and stay the router’s', () => {
      using node = new TestNode();
      const front = { address: addressOf(service, family), port: 443, protocol: protocolNumbers.TCP };
      node.addService(front, [{ address: addressOf(world, family), port: 6443 }]);
      const open = (port: number) => tcp({ source: 40000, destination: port });
      node.send(alice, outOf(alice, service, family, open(443)));
      const error = tooBig(quote(alice, world, family, open(6443)));
      const outcome = node.receive(alice, into(alice, ownNode, family, error), marks.host);
      assert.equal(outcome.action, 'pass', outcome.reason);
      assert.equal(outcome.frame.ip?.source, addressOf(ownNode, family));
      assert.equal(outcome.frame.ip?.transport?.checksum, 'true');
      assert.equal(outcome.frame.ip?.transport?.quoted?.destination, front.address);
      assert.equal(outcome.frame.ip?.transport?.quoted?.transport?.destinationPort, 443);
    });

    test('of a service’s client reach the backend, and quote what the backend sent', () => {
      using node = new TestNode();
      const front = { address: addressOf(service, family), port: 53, protocol: protocolNumbers.UDP };
      node.addService(front, [{ address: addressOf(bob, family), port: 5353 }]);
      node.travel(alice, bob, outOf(alice, service, family, query));
      const late = udp({ source: 53, destination: 40000, payload: new Uint8Array(40) });
      const outcome = node.travel(
        alice,
        bob,
        outOf(alice, service, family, unreachable(quote(service, alice, family, late))),
      );
      assert.equal(outcome.action, 'pass', outcome.reason);
      const read = outcome.frame.ip;
      assert.equal(read?.destination, addressOf(bob, family));
      assert.equal(read?.transport?.checksum, 'true');
      const quoted = read?.transport?.quoted;
      assert.equal(quoted?.source, addressOf(bob, family));
      assert.deepEqual([quoted?.transport?.sourcePort, quoted?.transport?.destinationPort], [5353, 40000]);
      assert.equal(quoted?.headerChecksumTrue, true);
    });

    test('that quote a later fragment, or too little, belong to nothing', () => {
      using node = new TestNode();
      node.travel(alice, bob, outOf(alice, bob, family, query));
      const whole = quote(alice, bob, family, query);
      const later = laterFragment(whole);
      for (const quoted of [later, whole.slice(0, family === 4 ? 24 : 44), new Uint8Array(20)]) {
        const type = family === 4 ? 3 : 1;
        const message = concat(Uint8Array.of(type, 3, 0, 0, 0, 0, 0, 0), quoted);
        const protocol = family === 4 ? protocolNumbers.ICMP : protocolNumbers.ICMPv6;
        const bytes = outOf(bob, alice, family, { protocol, bytes: () => message });
        assert.equal(node.send(bob, bytes).reason, 'CT_INVALID');
      }
    });
  });

test('a fragment of an ICMP error is refused: what it quotes could not be read whole', () => {
  using node = new TestNode();
  node.travel(alice, bob, outOf(alice, bob, 4, query));
  const error = icmpError(quote(alice, bob, 4, query), { type: 3, code: 3, quotedBytes: 68 });
  const [first = new Uint8Array()] = fragmentsOf(ip({ source: bob.address4, destination: alice.address4 }, error), 40);
  assert.equal(node.send(bob, frame(frames.from(bob), first)).reason, 'MALFORMED');
});

test('a hairpin’s ICMP error is refused by name', () => {
  using node = new TestNode();
  node.addService({ address: service.address4, port: 53, protocol: 17 }, [{ address: alice.address4, port: 5353 }]);
  node.travel(alice, alice, outOf(alice, service, 4, query));
  const seen = udp({ source: 40000, destination: 5353, payload: new Uint8Array(40) });
  const error = icmpError(quote(service, alice, 4, seen), { type: 3, code: 3 });
  assert.equal(node.send(alice, outOf(alice, service, 4, error)).reason, 'UNTRANSLATABLE');
});
