import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ctStates } from '../../src/datapath/layouts.ts';
import { ping, sctp, sctpChunks, type Transport, tcp, udp } from '../support/packet.ts';
import { alice, bob, identity, marks, node as ownNode, remote, rules, sets, world } from './cluster.ts';
import { families, into, outOf, TestNode } from './node.ts';

/** A request, and what answers it. */
const exchanges: Readonly<Record<string, (family: 4 | 6) => readonly [Transport, Transport]>> = {
  TCP: () => [tcp({ source: 40000, destination: 80 }), tcp({ source: 80, destination: 40000, flags: 'SA' })],
  UDP: () => [udp({ source: 40000, destination: 53 }), udp({ source: 53, destination: 40000 })],
  SCTP: () => [sctp({ source: 40000, destination: 99 }), sctp({ source: 99, destination: 40000, chunk: 2 })],
  ping: (family) => [ping({ id: 77, family }), ping({ id: 77, family, reply: true })],
};

for (const family of families)
  for (const [name, make] of Object.entries(exchanges))
    describe(`${name} over IPv${family}`, () => {
      const [request, reply] = make(family);

      test('arrives at another pod of the node with proof and the MACs of its link', () => {
        using node = new TestNode();
        const sent = node.send(alice, outOf(alice, bob, family, request));
        assert.equal(sent.action, 'redirect');
        assert.equal(sent.mark, marks.of(alice.identity));
        assert.equal(sent.frame.source, bob.hostMac);
        assert.equal(sent.frame.destination, bob.mac);
        const received = node.receive(bob, sent.bytes, sent.mark);
        assert.equal(received.action, 'pass');
        assert.equal(received.mark, 0, 'the proof ends at the pod');
      });

      test('is answered past policy that lets neither side open anything back', () => {
        using node = new TestNode();
        node.addPod(alice, { ingressSet: sets.isolated });
        node.addPod(bob, { egressSet: sets.isolated });
        assert.equal(node.travel(alice, bob, outOf(alice, bob, family, request)).action, 'pass');
        assert.equal(node.travel(bob, alice, outOf(bob, alice, family, reply)).action, 'pass');
      });

      test('is not answered where nothing was asked', () => {
        using node = new TestNode();
        node.addPod(bob, { egressSet: sets.isolated });
        assert.equal(node.send(bob, outOf(bob, alice, family, reply)).action, 'drop');
      });

      test('keeps one entry per endpoint for both directions, which counts both', () => {
        using node = new TestNode();
        node.travel(alice, bob, outOf(alice, bob, family, request));
        node.travel(bob, alice, outOf(bob, alice, family, reply));
        const entries = [...node.maps.connections.entries()];
        assert.deepEqual(entries.map(([key]) => key.endpoint).sort(), [alice.id, bob.id]);
        for (const [key, entry] of entries) {
          assert.deepEqual(entry.packets, [1n, 1n]);
          assert.equal(entry.state, ctStates.established);
          assert.equal(entry.direction, key.endpoint === alice.id ? 1 : 2);
        }
      });
    });

test('the node reaches its pod whatever policy says, and is answered, even before the pod is ready', () => {
  using node = new TestNode();
  node.addPod(alice, { flags: 0, ingressSet: 0, egressSet: 0 });
  for (const family of families) {
    const probe = tcp({ source: 50000, destination: 8080 });
    assert.equal(node.receive(alice, into(alice, ownNode, family, probe), marks.host).action, 'pass');
    const answer = tcp({ source: 8080, destination: 50000, flags: 'SA' });
    assert.equal(node.send(alice, outOf(alice, ownNode, family, answer)).action, 'pass');
    const own = tcp({ source: 8081, destination: 50000 });
    assert.equal(node.send(alice, outOf(alice, ownNode, family, own)).reason, 'ENDPOINT_NOT_READY');
  }
});

test('a pod reaches its own node only if policy lets it', () => {
  using node = new TestNode();
  const knock = tcp({ source: 40000, destination: 6443 });
  assert.equal(node.send(alice, outOf(alice, ownNode, 4, knock)).action, 'pass');
  node.addPod(alice, { egressSet: sets.isolated });
  const again = tcp({ source: 40001, destination: 6443 });
  assert.equal(node.send(alice, outOf(alice, ownNode, 4, again)).reason, 'POLICY_DENIED');
  const gateway = { address4: ownNode.address4, address6: ownNode.address6 };
  assert.equal(node.send(alice, outOf(alice, gateway, 6, again)).reason, 'POLICY_DENIED');
});

test('the node answers a pod from an address that policy’s CIDRs tell apart', () => {
  using node = new TestNode();
  for (const address of [ownNode.address4, ownNode.address6])
    node.maps.peers.set(address, { identity: identity(900), kind: 3 });
  node.ruleSet(9, [{ identity: 900, protocol: 6, precedence: 1 }], { isolated: true });
  node.addPod(alice, { egressSet: 9 });
  assert.equal(node.send(alice, outOf(alice, ownNode, 4, tcp({ source: 40000, destination: 6443 }))).action, 'pass');
  const answer = tcp({ source: 6443, destination: 40000, flags: 'SA' });
  assert.equal(node.receive(alice, into(alice, ownNode, 4, answer), marks.host).action, 'pass');
});

test('the world answers without proof, and opens nothing', () => {
  using node = new TestNode();
  const sent = node.send(alice, outOf(alice, world, 4, tcp({ source: 40000, destination: 443 })));
  assert.equal(sent.action, 'pass', 'it goes to the node’s stack, which masquerades it');
  assert.equal(sent.mark, 0);
  const answer = tcp({ source: 443, destination: 40000, flags: 'SA' });
  assert.equal(node.receive(alice, into(alice, world, 4, answer), 0).action, 'pass');
  const other = tcp({ source: 443, destination: 40001, flags: 'SA' });
  assert.equal(node.receive(alice, into(alice, world, 4, other), 0).reason, 'CT_INVALID');
  const open = tcp({ source: 443, destination: 40001 });
  assert.equal(node.receive(alice, into(alice, world, 4, open), 0).reason, 'NO_PROOF');
});

test('what a pod asked of a pod, nobody answers without proof', () => {
  using node = new TestNode();
  assert.equal(node.send(alice, outOf(alice, remote, 4, tcp({ source: 40000, destination: 443 }))).action, 'redirect');
  const answer = tcp({ source: 443, destination: 40000, flags: 'SA' });
  assert.equal(node.receive(alice, into(alice, remote, 4, answer), 0).reason, 'NO_PROOF');
  // Nor if the cluster has forgotten meanwhile that the address is a pod's.
  node.maps.peers.delete(remote.address4);
  for (const [key] of [...node.maps.prefixes.entries()]) node.maps.prefixes.delete(key);
  assert.equal(node.receive(alice, into(alice, remote, 4, answer), 0).reason, 'NO_PROOF');
  assert.equal(node.receive(alice, into(alice, remote, 4, answer), marks.of(remote.identity)).action, 'pass');
});

test('an address of the world’s that has become a pod’s answers no more without proof', () => {
  using node = new TestNode();
  node.send(alice, outOf(alice, world, 4, tcp({ source: 40000, destination: 443 })));
  node.maps.peers.set(world.address4, { identity: identity(777), kind: 2 });
  const answer = tcp({ source: 443, destination: 40000, flags: 'SA' });
  assert.equal(node.receive(alice, into(alice, world, 4, answer), 0).reason, 'NO_PROOF');
});

test('a pod that is not ready any more has no open connections but its node’s', () => {
  using node = new TestNode();
  node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 80 })));
  node.receive(alice, into(alice, ownNode, 4, tcp({ source: 50000, destination: 8080 })), marks.host);
  node.addPod(alice, { flags: 0 });
  const data = tcp({ source: 40000, destination: 80, flags: 'PA' });
  assert.equal(node.send(alice, outOf(alice, bob, 4, data)).reason, 'ENDPOINT_NOT_READY');
  const probed = tcp({ source: 8080, destination: 50000, flags: 'SA' });
  assert.equal(node.send(alice, outOf(alice, ownNode, 4, probed)).action, 'pass');
});

test('a mark that a pod sets proves nothing', () => {
  using node = new TestNode();
  const sent = node.send(alice, outOf(alice, world, 4, tcp({ source: 40000, destination: 443 })), { mark: marks.host });
  assert.equal(sent.mark, 0);
  const local = node.send(alice, outOf(alice, bob, 4, tcp({ source: 40000, destination: 443 })), {
    mark: marks.of(remote.identity),
  });
  assert.equal(local.mark, marks.of(alice.identity));
});

test('a pod that is pinged cannot send requests of its own as if they were replies', () => {
  using node = new TestNode();
  node.addPod(bob, { egressSet: sets.isolated });
  assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, ping({ id: 7 }))).action, 'pass');
  assert.equal(node.send(bob, outOf(bob, alice, 4, ping({ id: 7 }))).reason, 'POLICY_DENIED');
  assert.equal(node.send(bob, outOf(bob, alice, 4, ping({ id: 7, reply: true }))).action, 'redirect');
});

test('a SYN against the direction of a connection is judged as a connection of its own', () => {
  using node = new TestNode();
  node.addPod(bob, { egressSet: sets.isolated });
  assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 4000, destination: 80 }))).action, 'pass');
  assert.equal(node.send(bob, outOf(bob, alice, 4, tcp({ source: 80, destination: 4000 }))).reason, 'POLICY_DENIED');
  const answer = tcp({ source: 80, destination: 4000, flags: 'SA' });
  assert.equal(node.send(bob, outOf(bob, alice, 4, answer)).action, 'redirect', 'the first connection goes on');
});

describe('a stream whose entry is lost', () => {
  const data = tcp({ source: 40000, destination: 80, flags: 'PA' });
  const forget = (node: TestNode) => {
    for (const [key] of [...node.maps.connections.entries()]) node.maps.connections.delete(key);
  };

  test('goes on with the originator’s next packet, if policy would let it open', () => {
    using node = new TestNode();
    node.addPod(bob, { ingressSet: sets.web, egressSet: sets.isolated });
    node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 80 })));
    forget(node);
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).action, 'pass');
    const answer = tcp({ source: 80, destination: 40000, flags: 'PA' });
    assert.equal(node.travel(bob, alice, outOf(bob, alice, 4, answer)).action, 'pass');
  });

  test('does not go on if policy would not', () => {
    using node = new TestNode();
    node.addPod(bob, { ingressSet: sets.web });
    node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 80 })));
    forget(node);
    node.addPod(bob, { ingressSet: sets.isolated });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).reason, 'POLICY_DENIED');
  });
});

describe('TCP', () => {
  const step = (node: TestNode, from: 'client' | 'server', flags: string) => {
    const bytes =
      from === 'client'
        ? outOf(alice, bob, 4, tcp({ source: 40000, destination: 80, flags }))
        : outOf(bob, alice, 4, tcp({ source: 80, destination: 40000, flags }));
    return from === 'client' ? node.travel(alice, bob, bytes) : node.travel(bob, alice, bytes);
  };
  const states = (node: TestNode) => [...new Set([...node.maps.connections.entries()].map(([, { state }]) => state))];
  const secondsLeft = (node: TestNode) =>
    [...node.maps.connections.entries()].map(([, { expiresNs }]) =>
      Math.round(Number(expiresNs - process.hrtime.bigint()) / 1e9),
    );

  test('opens, is established, half closes and closes, each with its time to live', () => {
    using node = new TestNode();
    step(node, 'client', 'S');
    assert.deepEqual(states(node), [ctStates.opening]);
    assert.deepEqual(secondsLeft(node), [60, 60]);
    step(node, 'server', 'SA');
    step(node, 'client', 'A');
    assert.deepEqual(states(node), [ctStates.established]);
    assert.deepEqual(secondsLeft(node), [21600, 21600]);
    step(node, 'client', 'FA');
    assert.deepEqual(states(node), [ctStates.halfClosed]);
    assert.deepEqual(secondsLeft(node), [120, 120]);
    assert.equal(step(node, 'server', 'PA').action, 'pass', 'the other half still speaks');
    step(node, 'server', 'FA');
    assert.deepEqual(states(node), [ctStates.closed]);
    assert.deepEqual(secondsLeft(node), [10, 10]);
    const soon = process.hrtime.bigint() + 5_000_000_000n;
    for (const [key, entry] of [...node.maps.connections.entries()])
      node.maps.connections.set(key, { ...entry, expiresNs: soon });
    assert.equal(step(node, 'client', 'A').action, 'pass', 'the last acknowledgement');
    assert.deepEqual(secondsLeft(node), [5, 5], 'which does not keep what is closed');
  });

  test('ends with a reset of either side', () => {
    for (const side of ['client', 'server'] as const) {
      using node = new TestNode();
      step(node, 'client', 'S');
      step(node, 'server', 'SA');
      assert.equal(step(node, side, 'R').action, 'pass');
      assert.deepEqual(states(node), [ctStates.closed]);
    }
  });

  test('a closed connection’s ports open a new one, which is judged anew', () => {
    using node = new TestNode();
    node.addPod(bob, { ingressSet: sets.web });
    step(node, 'client', 'S');
    step(node, 'server', 'SA');
    step(node, 'server', 'R');
    assert.equal(step(node, 'client', 'S').action, 'pass');
    assert.deepEqual(states(node), [ctStates.opening]);
    step(node, 'server', 'RA');
    node.addPod(bob, { ingressSet: sets.isolated });
    assert.equal(step(node, 'client', 'S').reason, 'POLICY_DENIED');
  });

  test('SCTP’s association ends with ABORT', () => {
    using node = new TestNode();
    node.travel(alice, bob, outOf(alice, bob, 4, sctp({ source: 5, destination: 6 })));
    node.travel(bob, alice, outOf(bob, alice, 4, sctp({ source: 6, destination: 5, chunk: sctpChunks.abort })));
    assert.deepEqual(states(node), [ctStates.closed]);
  });
});

test('an entry that has expired is none', () => {
  using node = new TestNode();
  node.addPod(bob, { egressSet: sets.isolated });
  node.travel(alice, bob, outOf(alice, bob, 4, udp({ source: 40000, destination: 53 })));
  for (const [key, entry] of [...node.maps.connections.entries()])
    node.maps.connections.set(key, { ...entry, expiresNs: process.hrtime.bigint() - 1_000_000_000n });
  const answer = udp({ source: 53, destination: 40000 });
  assert.equal(node.send(bob, outOf(bob, alice, 4, answer)).reason, 'POLICY_DENIED');
});

describe('when policy changes', () => {
  const request = tcp({ source: 40000, destination: 80 });
  const data = tcp({ source: 40000, destination: 80, flags: 'PA' });
  const answer = tcp({ source: 80, destination: 40000, flags: 'PA' });

  const opened = () => {
    const node = new TestNode();
    node.addPod(bob, { ingressSet: sets.web });
    node.travel(alice, bob, outOf(alice, bob, 4, request));
    node.travel(bob, alice, outOf(bob, alice, 4, answer));
    return node;
  };

  test('a connection that it still allows goes on, under the rule that now decides', () => {
    using node = opened();
    node.ruleSet(9, [{ identity: alice.identity, protocol: 6, rule: 555 }], { isolated: true });
    node.addPod(bob, { ingressSet: 9 });
    node.configure({ revision: 2 });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).action, 'pass');
    const entry = [...node.maps.connections.entries()].find(([key]) => key.endpoint === bob.id)?.[1];
    assert.equal(entry?.rule, 555);
    assert.equal(entry?.revision, 2);
  });

  test('a connection that it denies ends, in both directions, and cannot be turned around', () => {
    using node = opened();
    node.addPod(bob, { ingressSet: sets.isolated });
    node.configure({ revision: 2 });
    const denied = node.travel(alice, bob, outOf(alice, bob, 4, data));
    assert.equal(denied.reason, 'POLICY_DENIED');
    assert.equal(denied.events[0]?.rule, rules.isolation);
    // Bob may open connections to Alice, but this is not one of them.
    assert.equal(node.travel(bob, alice, outOf(bob, alice, 4, answer)).reason, 'POLICY_DENIED');
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).reason, 'POLICY_DENIED');
  });

  test('and changes back, the connection goes on', () => {
    using node = opened();
    node.addPod(bob, { ingressSet: sets.isolated });
    node.configure({ revision: 2 });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).action, 'drop');
    node.addPod(bob, { ingressSet: sets.web });
    node.configure({ revision: 3 });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).action, 'pass');
    assert.equal(node.travel(bob, alice, outOf(bob, alice, 4, answer)).action, 'pass');
  });

  test('without a new revision an open connection is not asked again', () => {
    using node = opened();
    node.addPod(bob, { ingressSet: sets.isolated });
    assert.equal(node.travel(alice, bob, outOf(alice, bob, 4, data)).action, 'pass');
  });

  test('a peer that proves to be somebody else is judged as that', () => {
    using node = opened();
    node.ruleSet(9, [{ identity: alice.identity, protocol: 6 }], { isolated: true });
    node.addPod(bob, { ingressSet: 9 });
    const bytes = into(bob, alice, 4, data);
    assert.equal(node.receive(bob, bytes, marks.of(alice.identity)).action, 'pass');
    assert.equal(node.receive(bob, bytes, marks.of(identity(999))).reason, 'POLICY_DENIED');
    assert.equal(node.receive(bob, bytes, marks.of(alice.identity)).action, 'pass');
  });
});

test('an endpoint’s two addresses may stand for two identities', () => {
  using node = new TestNode();
  node.addPod(alice, { identity4: identity(401), identity6: identity(601) });
  const open = tcp({ source: 40000, destination: 80 });
  assert.equal(node.send(alice, outOf(alice, bob, 4, open)).mark, marks.of(identity(401)));
  assert.equal(node.send(alice, outOf(alice, bob, 6, open)).mark, marks.of(identity(601)));
});

test('a forgotten flow that an eviction took is no hole: the table holds what was used last', () => {
  using node = new TestNode({ maxEntries: { ct: 64, service_flows: 64, fragments: 64, denials: 64 } });
  for (let port = 1; port <= 1000; port++) {
    const sent = node.send(alice, outOf(alice, world, 4, udp({ source: port, destination: 53 })));
    assert.equal(sent.action, 'pass');
  }
  const last = udp({ source: 53, destination: 1000 });
  assert.equal(node.receive(alice, into(alice, world, 4, last), 0).action, 'pass');
  const first = udp({ source: 53, destination: 1 });
  assert.equal(node.receive(alice, into(alice, world, 4, first), 0).reason, 'NO_PROOF');
});
