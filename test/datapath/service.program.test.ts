import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { IpAddress } from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import { sctp, type Transport, tcp, udp } from '../support/packet.ts';
import type { ReadIp } from '../support/packet-reader.ts';
import {
  alice,
  bob,
  carol,
  identity,
  marks,
  otherNode,
  node as ownNode,
  remote,
  rules,
  service,
  sets,
} from './cluster.ts';
import { addressOf, type Family, families, into, type Outcome, outOf, TestNode } from './node.ts';

const payload = Uint8Array.of(1, 2, 3, 4, 5);
type Ports = { readonly source: number; readonly destination: number };
interface Kind {
  readonly protocol: number;
  readonly request: (ports: Ports) => Transport;
  readonly reply: (ports: Ports) => Transport;
}
const kinds: Readonly<Record<string, Kind>> = {
  TCP: {
    protocol: protocolNumbers.TCP,
    request: (ports) => tcp({ ...ports, payload }),
    reply: (ports) => tcp({ ...ports, flags: 'SA', payload }),
  },
  UDP: {
    protocol: protocolNumbers.UDP,
    request: (ports) => udp({ ...ports, payload }),
    reply: (ports) => udp({ ...ports, payload }),
  },
  SCTP: {
    protocol: protocolNumbers.SCTP,
    request: (ports) => sctp(ports),
    reply: (ports) => sctp({ ...ports, chunk: 2, payload: new Uint8Array(57) }),
  },
};

function assertPacket(
  outcome: Outcome,
  expected: Partial<Omit<ReadIp, 'transport'>> & { ports: readonly [number, number] },
) {
  assert.notEqual(outcome.action, 'drop', outcome.reason);
  const read = outcome.frame.ip;
  assert.ok(read?.transport);
  const { ports, ...addresses } = expected;
  for (const [name, value] of Object.entries(addresses))
    assert.equal(Object.entries(read).find(([k]) => k === name)?.[1], value);
  assert.deepEqual([read.transport.sourcePort, read.transport.destinationPort], ports);
  assert.equal(read.transport.checksum, 'true');
  assert.equal(read.headerChecksumTrue, true);
}

function front(family: Family, protocol: number = protocolNumbers.TCP, port = 80) {
  return { address: addressOf(service, family), port, protocol };
}

for (const family of families)
  for (const [name, { protocol, request, reply }] of Object.entries(kinds))
    describe(`a ${name} service over IPv${family}`, () => {
      const at = (who: { address4: IpAddress; address6: IpAddress }) => addressOf(who, family);

      test('is reached at its backend, which answers from the service’s address', () => {
        using node = new TestNode();
        node.addService(front(family, protocol), [{ address: at(bob), port: 8080 }]);
        const asked = node.travel(
          alice,
          bob,
          outOf(alice, service, family, request({ source: 40000, destination: 80 })),
        );
        assertPacket(asked, { source: at(alice), destination: at(bob), ports: [40000, 8080] });
        const answered = node.travel(
          bob,
          alice,
          outOf(bob, alice, family, reply({ source: 8080, destination: 40000 })),
        );
        assertPacket(answered, { source: at(service), destination: at(alice), ports: [80, 40000] });
      });

      test('with its target’s port is translated too', () => {
        using node = new TestNode();
        node.addService(front(family, protocol), [{ address: at(bob), port: 80 }]);
        const asked = node.travel(
          alice,
          bob,
          outOf(alice, service, family, request({ source: 40000, destination: 80 })),
        );
        assertPacket(asked, { source: at(alice), destination: at(bob), ports: [40000, 80] });
      });

      test('is reached from its only backend, whose answer comes back to itself', () => {
        using node = new TestNode();
        node.addPod(alice, { ingressSet: sets.isolated, egressSet: sets.isolated });
        node.addService(front(family, protocol), [{ address: at(alice), port: 8080 }]);
        for (let round = 0; round < 2; round++) {
          node.configure({ revision: 1 + round });
          const asked = node.travel(
            alice,
            alice,
            outOf(alice, service, family, request({ source: 40000, destination: 80 })),
          );
          assertPacket(asked, { source: at(service), destination: at(alice), ports: [40000, 8080] });
          const answered = node.travel(
            alice,
            alice,
            outOf(alice, service, family, reply({ source: 8080, destination: 40000 })),
          );
          assertPacket(answered, { source: at(service), destination: at(alice), ports: [80, 40000] });
        }
      });
    });

test('a UDP packet without a checksum stays without', () => {
  using node = new TestNode();
  node.addService(front(4, protocolNumbers.UDP, 53), [{ address: bob.address4, port: 5353 }]);
  const asked = node.travel(
    alice,
    bob,
    outOf(alice, service, 4, udp({ source: 40000, destination: 53, checksum: 'none' })),
  );
  assert.equal(asked.frame.ip?.transport?.checksum, 'none');
  assert.equal(asked.frame.ip?.transport?.destinationPort, 5353);
});

test('an SCTP packet whose checksum the device fills in is left without', () => {
  using node = new TestNode();
  node.addService(front(4, protocolNumbers.SCTP), [{ address: bob.address4, port: 8080 }]);
  const asked = node.travel(
    alice,
    bob,
    outOf(alice, service, 4, sctp({ source: 4, destination: 80, checksum: 'offloaded' })),
  );
  assert.equal(asked.frame.ip?.transport?.checksum, 'none');
});

test('SCTP’s checksum is corrected for every length', () => {
  using node = new TestNode();
  node.addService(front(4, protocolNumbers.SCTP), [{ address: bob.address4, port: 8080 }]);
  for (const length of [0, 1, 2, 3, 100, 255, 256, 1023, 1300]) {
    const packet = sctp({ source: 4000 + length, destination: 80, payload: new Uint8Array(length).fill(length) });
    const asked = node.travel(alice, bob, outOf(alice, service, 4, packet));
    assertPacket(asked, { destination: bob.address4, ports: [4000 + length, 8080] });
  }
});

test('a connection keeps its backend, and new ones are spread evenly', () => {
  using node = new TestNode();
  const backends = [bob, carol, remote].map(({ address4 }) => ({ address: address4, port: 8080 }));
  node.addService(front(4), backends);
  const counts = new Map<string | undefined, number>();
  const connections = 1500;
  for (let port = 1; port <= connections; port++) {
    const opened = node.send(alice, outOf(alice, service, 4, tcp({ source: port, destination: 80 })));
    const chosen = opened.frame.ip?.destination;
    counts.set(chosen, (counts.get(chosen) ?? 0) + 1);
    for (const flags of ['S', 'A', 'PA', 'FA']) {
      const next = node.send(alice, outOf(alice, service, 4, tcp({ source: port, destination: 80, flags })));
      assert.equal(next.frame.ip?.destination, chosen);
    }
  }
  assert.deepEqual([...counts.keys()].sort(), backends.map(({ address }) => address).sort());
  // Six standard deviations of a binomial distribution: one chance in a thousand million.
  const expected = connections / 3;
  const deviation = 6 * Math.sqrt(expected * (2 / 3));
  for (const count of counts.values()) assert.ok(Math.abs(count - expected) < deviation, `${[...counts.values()]}`);
});

test('policy is asked about the backend, not the service', () => {
  using node = new TestNode();
  node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
  node.ruleSet(9, [{ identity: bob.identity, protocol: 6, port: 8080, portLength: 16, rule: rules.web }], {
    isolated: true,
  });
  node.addPod(alice, { egressSet: 9 });
  const allowed = node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 80 })));
  assert.equal(allowed.action, 'redirect');
  assert.equal(allowed.events[0]?.rule, rules.web);
  assert.equal(allowed.events[0]?.service, 70);
  node.addService(front(4, 6, 81), [{ address: bob.address4, port: 80 }], 71);
  const denied = node.send(alice, outOf(alice, service, 4, tcp({ source: 40001, destination: 81 })));
  assert.equal(denied.reason, 'POLICY_DENIED');
  assert.equal(denied.frame.ip?.destination, service.address4, 'a packet that is dropped was not translated');
  const [event] = denied.events;
  assert.deepEqual([event?.destination, event?.destinationPort, event?.service], [bob.address4, 80, 71]);
});

test('a backend on another node is reached through the tunnel, and answers under its proof', () => {
  using node = new TestNode();
  node.addService(front(6), [{ address: remote.address6, port: 8080 }]);
  const asked = node.send(alice, outOf(alice, service, 6, tcp({ source: 40000, destination: 80 })));
  assert.equal(asked.action, 'redirect');
  assert.equal(asked.mark, 0);
  assertPacket(asked, { destination: remote.address6, ports: [40000, 8080] });
  const answer = into(alice, remote, 6, tcp({ source: 8080, destination: 40000, flags: 'SA' }));
  assertPacket(node.receive(alice, answer, marks.of(remote.identity)), {
    source: service.address6,
    ports: [80, 40000],
  });
});

test('a backend that is a node is reached by the node’s stack, and answers from the service', () => {
  using node = new TestNode();
  node.addService(front(4, 6, 443), [{ address: ownNode.address4, port: 6443 }]);
  const asked = node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 443 })));
  assert.equal(asked.action, 'pass');
  assertPacket(asked, { destination: ownNode.address4, ports: [40000, 6443] });
  const answer = tcp({ source: 6443, destination: 40000, flags: 'SA' });
  assertPacket(node.receive(alice, into(alice, ownNode, 4, answer), marks.host), {
    source: service.address4,
    ports: [443, 40000],
  });
});

test('another node’s answer, which has no proof, comes from the service too', () => {
  using node = new TestNode();
  node.addService(front(4, 6, 443), [{ address: otherNode.address4, port: 6443 }]);
  assert.equal(node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 443 }))).action, 'pass');
  const answer = tcp({ source: 6443, destination: 40000, flags: 'SA' });
  assertPacket(node.receive(alice, into(alice, otherNode, 4, answer), 0), {
    source: service.address4,
    ports: [443, 40000],
  });
});

describe('when backends change', () => {
  const ask = (source: number, flags = 'S') => outOf(alice, service, 4, tcp({ source, destination: 80, flags }));

  test('an open connection stays, a new one goes to the new backend', () => {
    using node = new TestNode();
    node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
    assert.equal(node.send(alice, ask(1)).frame.ip?.destination, bob.address4);
    node.addService(front(4), [{ address: carol.address4, port: 8080 }]);
    assert.equal(node.send(alice, ask(1, 'PA')).frame.ip?.destination, bob.address4);
    assert.equal(node.send(alice, ask(2)).frame.ip?.destination, carol.address4);
  });

  test('a new connection from the port of a closed one goes to the new backend', () => {
    using node = new TestNode();
    node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
    node.send(alice, ask(1));
    node.send(alice, ask(1, 'R'));
    node.addService(front(4), [{ address: carol.address4, port: 8080 }]);
    assert.equal(node.send(alice, ask(1)).frame.ip?.destination, carol.address4);
  });

  test('a UDP client of a pod that is no more goes to another at once', () => {
    using node = new TestNode();
    const query = outOf(alice, service, 4, udp({ source: 40000, destination: 53 }));
    node.addService(front(4, protocolNumbers.UDP, 53), [{ address: bob.address4, port: 53 }]);
    assert.equal(node.send(alice, query).frame.ip?.destination, bob.address4);
    node.maps.peers.delete(bob.address4);
    node.addService(front(4, protocolNumbers.UDP, 53), [{ address: carol.address4, port: 53 }]);
    assert.equal(node.send(alice, query).frame.ip?.destination, carol.address4);
  });

  test('a client’s ports that come round again, directly this time or by the service, are answered from where they asked', () => {
    using node = new TestNode();
    node.addService(front(4, protocolNumbers.UDP, 53), [{ address: bob.address4, port: 53 }]);
    const ports = { source: 40000, destination: 53 };
    const ways = [
      { query: outOf(alice, service, 4, udp(ports)), from: service.address4 },
      { query: outOf(alice, bob, 4, udp(ports)), from: bob.address4 },
      { query: outOf(alice, service, 4, udp(ports)), from: service.address4 },
    ];
    for (const { query, from } of ways) {
      assert.equal(node.travel(alice, bob, query).action, 'pass');
      const answer = node.travel(bob, alice, outOf(bob, alice, 4, udp({ source: 53, destination: 40000 })));
      assert.equal(answer.frame.ip?.source, from);
    }
  });

  test('a stream that nobody answered leaves its ports to the next, whichever way that goes', () => {
    using node = new TestNode();
    node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
    assert.equal(node.send(alice, ask(1)).action, 'redirect');
    const direct = outOf(alice, bob, 4, tcp({ source: 1, destination: 8080 }));
    assert.equal(node.travel(alice, bob, direct).action, 'pass');
    const answer = outOf(bob, alice, 4, tcp({ source: 8080, destination: 1, flags: 'SA' }));
    assert.equal(node.travel(bob, alice, answer).frame.ip?.source, bob.address4);
  });

  test('a stream whose connection entry is lost stays with its backend', () => {
    using node = new TestNode();
    node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
    node.send(alice, ask(1));
    for (const [key] of [...node.maps.connections.entries()]) node.maps.connections.delete(key);
    node.addService(front(4), [{ address: carol.address4, port: 8080 }]);
    assert.equal(node.send(alice, ask(1, 'PA')).frame.ip?.destination, bob.address4);
  });

  test('a service that is no more has no answers', () => {
    using node = new TestNode();
    node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
    node.travel(alice, bob, ask(1));
    node.maps.services.delete(front(4));
    node.maps.serviceFronts.delete(70);
    const answer = node.travel(bob, alice, outOf(bob, alice, 4, tcp({ source: 8080, destination: 1, flags: 'SA' })));
    assert.equal(answer.reason, 'NO_SERVICE_BACKEND');
    assert.equal(node.send(alice, ask(2)).reason, 'NO_SERVICE_BACKEND');
  });
});

test('a hairpin whose ports are all one is refused', () => {
  using node = new TestNode();
  node.addService(front(4), [{ address: alice.address4, port: 80 }]);
  const outcome = node.send(alice, outOf(alice, service, 4, tcp({ source: 80, destination: 80 })));
  assert.equal(outcome.reason, 'SERVICE_CONFLICT');
});

test('another pod of the same identity is no hairpin', () => {
  using node = new TestNode();
  node.addPod(bob, { identity4: alice.identity, identity6: alice.identity, ingressSet: sets.isolated });
  node.addService(front(4), [{ address: bob.address4, port: 8080 }]);
  const outcome = node.travel(alice, bob, outOf(alice, service, 4, tcp({ source: 40000, destination: 80 })));
  assert.equal(outcome.reason, 'POLICY_DENIED');
});

test('nobody answers a hairpin’s client but itself', () => {
  using node = new TestNode();
  node.addService(front(4), [{ address: alice.address4, port: 8080 }]);
  node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 80 })));
  const forged = into(alice, service, 4, tcp({ source: 80, destination: 40000, flags: 'SA' }));
  assert.equal(node.receive(alice, forged, 0).reason, 'NO_PROOF');
  const answer = outOf(alice, service, 4, tcp({ source: 8081, destination: 40000, flags: 'SA' }));
  assert.equal(node.send(alice, answer).reason, 'NO_SERVICE_BACKEND', 'from another port it is no answer');
  assert.equal(
    node.receive(alice, forged, marks.of(identity(999))).action,
    'pass',
    'to_pod trusts the proof of from_pod',
  );
});
