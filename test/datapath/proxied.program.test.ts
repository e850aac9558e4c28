import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ctFlags, ctStates, endpointFlags } from '../../src/datapath/layouts.ts';
import { classHash } from '../../src/datapath/proxy/classes.ts';
import { firstNameIdentity } from '../../src/model/identity.ts';
import { optionFlags } from '../../src/policy/image.ts';
import { arp, etherTypes, fragmentsOf, frame, icmpError, ip, tcp, udp } from '../support/packet.ts';
import { alice, bob, carol, identity, marks, type Pod, remote, rules, service, sets, world } from './cluster.ts';
import { type Addresses, addressOf, type Family, families, into, type Outcome, outOf, TestNode } from './node.ts';

/** Connections that go by way of the proxy, packet by packet: where each is sent, and as whom. */

const link = 4001;
const proxyMac = '02:4d:59:4c:50:02';
const asked = 50;
const deniedByMesh = 51;

const ports = { source: 40000, destination: 80 };
const back = { source: 80, destination: 40000 };
const syn = tcp(ports);
const data = tcp({ ...ports, flags: 'A', payload: new Uint8Array(100) });
const synAck = tcp({ ...back, flags: 'SA' });
const answer = tcp({ ...back, flags: 'A', payload: new Uint8Array(100) });

/** A node with a proxy, where the rule set `asked` leaves port 80 to it. */
function nodeWithProxy(flags = 0): TestNode {
  const node = new TestNode();
  node.configure({ proxyIfindex: link });
  node.ruleSet(asked, [{ protocol: 6, port: 80, portLength: 16, verdict: 'proxy', rule: rules.web, flags }], {
    isolated: true,
  });
  node.ruleSet(deniedByMesh, [{ protocol: 6, port: 80, portLength: 16, verdict: 'deny', rule: rules.deny }]);
  return node;
}

const mark = (who: { identity: number }) => 0x50000000 | who.identity;
const outsideOf = (who: Addresses) => ('identity' in who ? marks.of(identity(Number(who.identity))) : marks.world);

/** “Fragmentation needed”, “packet too big”. */
const tooBig = (quoted: Uint8Array) =>
  icmpError(quoted, (quoted[0] ?? 0) >> 4 === 6 ? { type: 2 } : { type: 3, code: 4 });

/** What the proxy sends, in whoever's name. */
function fromProxy(node: TestNode, from: Addresses, to: Addresses, family: Family, segment: ReturnType<typeof tcp>) {
  const ends = { source: addressOf(from, family), destination: addressOf(to, family) };
  return node.run('from_proxy', frame({ source: alice.mac, destination: alice.hostMac }, ip(ends, segment)));
}

/** The frame is on its way to the proxy, and says whose it is. */
function assertDiverted(
  outcome: Outcome,
  seen: { from: 'client' | 'server'; identity: number; pattern?: number },
): void {
  assert.equal(outcome.action, 'redirect', outcome.reason);
  assert.equal(outcome.mark, 0);
  const bytes = outcome.bytes.subarray(0, 12);
  assert.equal(Buffer.from(bytes.subarray(0, 6)).toString('hex'), proxyMac.replaceAll(':', ''));
  const [first = 0, high = 0, low = 0, a = 0, b = 0, c = 0] = bytes.subarray(6);
  assert.equal(first & 3, 2, 'locally administered, of one');
  assert.equal(first & 4 ? 'client' : 'server', seen.from);
  assert.equal((first >> 3) * 65536 + high * 256 + low, seen.pattern ?? 0);
  assert.equal(a * 65536 + b * 256 + c, seen.identity);
}

const entryOf = (node: TestNode, pod: Pod) =>
  [...node.maps.connections.entries()].find(([key]) => key.endpoint === pod.id)?.[1] ??
  assert.fail('there is an entry');

for (const family of families)
  describe(`over IPv${family}`, () => {
    for (const client of [remote, world, alice] as const)
      test(`a request of ${client === alice ? 'a pod' : client === world ? 'the world' : 'another node’s pod'} and its answer take the way through the proxy`, () => {
        using node = nodeWithProxy();
        node.addPod(bob, { ingressSet: asked });
        const from = outsideOf(client);
        const who = 'identity' in client ? client.identity : 2;
        const opened = node.receive(bob, into(bob, client, family, syn), from);
        assertDiverted(opened, { from: 'server', identity: who });
        assert.equal(entryOf(node, bob).flags & ctFlags.proxied, ctFlags.proxied);
        assert.equal(opened.events[0]?.rule, rules.web);

        const connects = fromProxy(node, client, bob, family, syn);
        assert.equal(connects.action, 'redirect');
        assert.deepEqual([connects.frame.source, connects.frame.destination], [bob.hostMac, bob.mac]);
        assert.equal(connects.mark, mark({ identity: who }));
        const arrives = node.receive(bob, connects.bytes, connects.mark);
        assert.deepEqual([arrives.action, arrives.mark], ['pass', 0]);
        assertDiverted(node.send(bob, outOf(bob, client, family, synAck)), { from: 'client', identity: who });

        const answers = fromProxy(node, bob, client, family, synAck);
        assert.equal(answers.action, client === world ? 'pass' : 'redirect');
        if (client === world) assert.equal(answers.mark, marks.worldAs(identity(2)), 'keeps the pod’s address');
        if (client === alice) assert.equal(answers.mark, mark(bob));
        assertDiverted(node.receive(bob, into(bob, client, family, data), from), { from: 'server', identity: who });
        assert.deepEqual(entryOf(node, bob).packets, [2n, 1n], 'what pods send is counted, and once');
      });

    test('what leaves a pod for another node, the world or a service goes by the proxy too, and comes back as it was asked', () => {
      for (const server of [remote, world] as const) {
        using node = nodeWithProxy();
        node.addPod(alice, { egressSet: asked });
        const who = 'identity' in server ? server.identity : 2;
        assertDiverted(node.send(alice, outOf(alice, server, family, syn)), { from: 'client', identity: who });
        const connects = fromProxy(node, alice, server, family, syn);
        assert.equal(connects.action, server === world ? 'pass' : 'redirect');
        assert.equal(connects.mark, 0, 'nothing keeps it from being masqueraded');
        assertDiverted(node.receive(alice, into(alice, server, family, synAck), outsideOf(server)), {
          from: 'server',
          identity: who,
        });
        const answers = fromProxy(node, server, alice, family, synAck);
        assert.equal(answers.mark, mark({ identity: who }));
        assert.equal(node.receive(alice, answers.bytes, answers.mark).action, 'pass');
      }
    });

    test('the proxy sees the backend, the pod its service', () => {
      using node = nodeWithProxy();
      node.addPod(alice, { egressSet: asked });
      const front = { address: addressOf(service, family), port: 80, protocol: 6 };
      node.addService(front, [{ address: addressOf(bob, family), port: 80 }]);
      const sent = node.send(alice, outOf(alice, service, family, syn));
      assertDiverted(sent, { from: 'client', identity: bob.identity });
      assert.equal(sent.frame.ip?.destination, addressOf(bob, family));
      const connects = fromProxy(node, alice, bob, family, syn);
      assert.equal(connects.mark, mark(alice));
      assert.equal(node.receive(bob, connects.bytes, connects.mark).action, 'pass');
      const reply = node.send(bob, outOf(bob, alice, family, synAck));
      assert.equal(reply.mark, marks.of(bob.identity), 'the server’s own policy knows of no proxy');
      const returned = node.receive(alice, reply.bytes, reply.mark);
      assertDiverted(returned, { from: 'server', identity: bob.identity });
      assert.equal(returned.frame.ip?.source, addressOf(bob, family));
      const answers = fromProxy(node, bob, alice, family, synAck);
      const delivered = node.receive(alice, answers.bytes, answers.mark);
      assert.deepEqual([delivered.action, delivered.frame.ip?.source], ['pass', addressOf(service, family)]);
    });

    test('with both ends’ policies asking, the proxy is passed once', () => {
      using node = nodeWithProxy();
      node.addPod(alice, { egressSet: asked });
      node.addPod(bob, { ingressSet: asked });
      assertDiverted(node.send(alice, outOf(alice, bob, family, syn)), { from: 'client', identity: bob.identity });
      const connects = fromProxy(node, alice, bob, family, syn);
      assert.equal(connects.mark, mark(alice));
      assert.equal(node.receive(bob, connects.bytes, connects.mark).action, 'pass');
      assert.equal(entryOf(node, bob).flags & ctFlags.proxied, ctFlags.proxied);
      assertDiverted(node.send(bob, outOf(bob, alice, family, synAck)), { from: 'client', identity: alice.identity });
      const answers = fromProxy(node, bob, alice, family, synAck);
      assert.equal(answers.mark, mark(bob));
      assert.equal(node.receive(alice, answers.bytes, answers.mark).action, 'pass');
    });

    test('a router’s complaint about what the proxy sent comes to the proxy', () => {
      using node = nodeWithProxy();
      node.addPod(alice, { egressSet: asked });
      node.send(alice, outOf(alice, world, family, syn));
      const quoted = ip({ source: addressOf(alice, family), destination: addressOf(world, family) }, syn);
      const complaint = node.receive(alice, into(alice, world, family, tooBig(quoted)), marks.world);
      assertDiverted(complaint, { from: 'server', identity: 2 });
    });
  });

describe('the proxy speaks for nobody else', () => {
  const refused: Readonly<Record<string, (node: TestNode) => Outcome>> = {
    'where there is no connection': (node) => fromProxy(node, alice, bob, 4, syn),
    'on a connection that is none of its': (node) => {
      node.travel(alice, bob, outOf(alice, bob, 4, syn));
      return fromProxy(node, alice, bob, 4, data);
    },
    'by opening one against the direction of its own': (node) => {
      node.addPod(bob, { ingressSet: asked });
      node.receive(bob, into(bob, remote, 4, syn), marks.of(remote.identity));
      return fromProxy(node, bob, remote, 4, tcp({ ...back, flags: 'S' }));
    },
    'on another port of the same two': (node) => {
      node.addPod(bob, { ingressSet: asked });
      node.receive(bob, into(bob, remote, 4, syn), marks.of(remote.identity));
      return fromProxy(node, remote, bob, 4, tcp({ source: 40000, destination: 81 }));
    },
    'with neither end on the node': (node) => fromProxy(node, remote, world, 4, syn),
    'over another protocol': (node) =>
      node.run(
        'from_proxy',
        frame(
          { source: alice.mac, destination: bob.mac },
          ip({ source: alice.address4, destination: bob.address4 }, udp(ports)),
        ),
      ),
    'in fragments': (node) => {
      const whole = ip(
        { source: alice.address4, destination: bob.address4, dontFragment: false },
        tcp({ ...ports, payload: new Uint8Array(64) }),
      );
      const [first = whole] = fragmentsOf(whole, 32);
      return node.run('from_proxy', frame({ source: alice.mac, destination: bob.mac }, first));
    },
  };
  for (const [how, run] of Object.entries(refused))
    test(how, () => {
      using node = nodeWithProxy();
      assert.equal(run(node).reason, 'PROXY_CONNECTION');
    });

  test('and what its stack says to the link is nobody’s business', () => {
    using node = nodeWithProxy();
    const who = frame(
      { source: alice.mac, destination: bob.mac },
      arp({ operation: 'request', senderMac: alice.mac, senderIp: alice.address4, targetIp: bob.address4 }),
      etherTypes.arp,
    );
    const heard = node.run('from_proxy', who);
    assert.deepEqual([heard.action, heard.reason], ['drop', undefined]);
  });

  test('nor any more for a pod that nobody believes', () => {
    using node = nodeWithProxy();
    node.addPod(alice, { egressSet: asked });
    node.send(alice, outOf(alice, world, 4, syn));
    node.addPod(alice, { egressSet: asked, flags: endpointFlags.ready | endpointFlags.revoked });
    assert.equal(fromProxy(node, alice, world, 4, syn).reason, 'REVOKED');
  });

  test('nor for one whose policy has changed since', () => {
    using node = nodeWithProxy();
    node.addPod(alice, { egressSet: asked });
    node.send(alice, outOf(alice, world, 4, syn));
    assert.equal(fromProxy(node, alice, world, 4, syn).action, 'pass');
    node.addPod(alice, { egressSet: sets.isolated });
    node.configure({ proxyIfindex: link, revision: 2 });
    assert.equal(fromProxy(node, alice, world, 4, data).reason, 'POLICY_DENIED');
  });

  test('a mark of its own proves what it says at the pod, like any other', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    const opened = node.receive(bob, into(bob, alice, 4, syn), mark(alice));
    assert.equal(opened.action, 'pass', 'opened through the other end’s entry');
    assert.equal(entryOf(node, bob).remoteIdentity, alice.identity);
    node.addPod(carol, { ingressSet: sets.isolated });
    assert.equal(node.receive(carol, into(carol, alice, 4, syn), mark(alice)).reason, 'POLICY_DENIED');
  });
});

describe('who judges', () => {
  const arrives = (node: TestNode, transport = syn) =>
    node.receive(bob, into(bob, remote, 4, transport), marks.of(remote.identity));

  test('without a proxy nothing is let in that it is to judge, nor goes on', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    node.configure({});
    assert.equal(arrives(node).reason, 'PROXY_ABSENT');
    assert.deepEqual([...node.maps.connections.entries()], []);
    node.configure({ proxyIfindex: link });
    arrives(node);
    node.configure({});
    assert.equal(arrives(node, data).reason, 'PROXY_ABSENT');
    assert.equal(node.send(bob, outOf(bob, remote, 4, answer)).reason, 'PROXY_ABSENT');
  });

  const plain = { protocol: 6, port: 80, portLength: 16 } as const;
  const cases: Readonly<Record<string, [(node: TestNode) => void, 'diverted' | 'pass' | 'POLICY_DENIED_EXPLICIT']>> = {
    'a mesh gate that denies outright': [
      (node) => node.addPod(bob, { ingressSet: asked, ingressMeshSet: deniedByMesh }),
      'POLICY_DENIED_EXPLICIT',
    ],
    'a mesh gate that asks the proxy of what the network gate allows': [
      (node) => node.addPod(bob, { ingressMeshSet: asked }),
      'diverted',
    ],
    'an admin level that asks the proxy, whatever the rest says': [
      (node) => node.addPod(bob, { ingressAdminSet: asked, ingressSet: sets.isolated }),
      'diverted',
    ],
    'an admin level that allows before it': [
      (node) => {
        node.ruleSet(60, [{ ...plain, verdict: 'allow' }]);
        node.addPod(bob, { ingressAdminSet: 60, ingressSet: asked });
      },
      'pass',
    ],
    'a rule that allows more surely': [
      (node) => {
        node.ruleSet(60, [
          { ...plain, verdict: 'proxy', precedence: 1 },
          { ...plain, identity: remote.identity, verdict: 'allow', precedence: 2 },
        ]);
        node.addPod(bob, { ingressSet: 60 });
      },
      'pass',
    ],
    'an allowance as sure': [
      (node) => {
        node.ruleSet(60, [
          { ...plain, identity: remote.identity, verdict: 'proxy' },
          { ...plain, verdict: 'allow' },
        ]);
        node.addPod(bob, { ingressSet: 60 });
      },
      'pass',
    ],
    'a denial as sure': [
      (node) => {
        node.ruleSet(60, [
          { ...plain, identity: remote.identity, verdict: 'proxy' },
          { ...plain, verdict: 'deny' },
        ]);
        node.addPod(bob, { ingressSet: 60 });
      },
      'POLICY_DENIED_EXPLICIT',
    ],
  };
  for (const [what, [set, expected]] of Object.entries(cases))
    test(`${what}: ${expected}`, () => {
      using node = nodeWithProxy();
      set(node);
      const outcome = arrives(node);
      if (expected === 'diverted') assertDiverted(outcome, { from: 'server', identity: remote.identity });
      else assert.equal(outcome.reason ?? outcome.action, expected);
    });

  test('the proxy is told by which name a destination was admitted', () => {
    using node = nodeWithProxy();
    const pattern = firstNameIdentity + 0x1_2344;
    node.ruleSet(60, [{ protocol: 6, port: 80, portLength: 16, identity: pattern, verdict: 'proxy' }], {
      isolated: true,
    });
    node.addPod(alice, { egressSet: 60, names: 9 });
    node.maps.nameMatchers.set(9, { flags: 1, adminSet: 0, networkSet: 0, meshSet: 0 });
    const now = process.hrtime.bigint();
    node.maps.names.set(
      { endpoint: alice.id, address: world.address4 },
      { learntNs: now, expiresNs: [now + 60_000_000_000n], patterns: [identity(pattern)], name: 'a.example' },
    );
    const seen = { from: 'client', identity: 2, pattern: 0x1_2345 } as const;
    assertDiverted(node.send(alice, outOf(alice, world, 4, syn)), seen);
    assertDiverted(node.send(alice, outOf(alice, world, 4, syn)), seen);
  });
});

describe('over time', () => {
  const arrives = (node: TestNode, who: number, transport = data) =>
    node.receive(bob, into(bob, remote, 4, transport), marks.of(identity(who)));
  const broken = 32;

  test('another number of the same class goes on, another class is told to both ends', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    node.maps.identityClasses.set(remote.identity, classHash('app=a'));
    node.maps.identityClasses.set(900, classHash('app=a'));
    node.maps.identityClasses.set(901, classHash('app=b'));
    arrives(node, remote.identity, syn);
    assertDiverted(arrives(node, 900), { from: 'server', identity: 900 });
    assert.equal(entryOf(node, bob).remoteIdentity, 900);
    const ended = arrives(node, 901);
    assert.equal(ended.reason, 'HTTP_UNREAD');
    assertDiverted(ended, { from: 'server', identity: 901 });
    assert.equal(ended.frame.ip?.transport?.tcpFlags, 'RA', 'the proxy is told by a reset in the packet’s place');
    assert.equal(entryOf(node, bob).flags & broken, broken);
    assert.equal(arrives(node, 900).reason, 'HTTP_UNREAD', 'what is over is over');
  });

  test('a number of no class that anybody knows is nobody’s', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    arrives(node, remote.identity, syn);
    assert.equal(arrives(node, 900).reason, 'HTTP_UNREAD');
  });

  test('what was open is not taken over, and what is taken over is not given back', () => {
    using node = nodeWithProxy();
    assert.equal(arrives(node, remote.identity, syn).action, 'pass');
    node.addPod(bob, { ingressSet: asked });
    node.configure({ proxyIfindex: link, revision: 2 });
    assert.equal(arrives(node, remote.identity).reason, 'HTTP_UNREAD');
    const again = tcp({ source: 40001, destination: 80 });
    assertDiverted(arrives(node, remote.identity, again), { from: 'server', identity: remote.identity });
    node.addPod(bob);
    node.configure({ proxyIfindex: link, revision: 3 });
    const later = tcp({ source: 40001, destination: 80, flags: 'A' });
    assertDiverted(arrives(node, remote.identity, later), { from: 'server', identity: remote.identity });
  });

  test('what policy resets is reset on both sides of the proxy', () => {
    using node = nodeWithProxy();
    node.addPod(alice, { egressSet: asked });
    node.send(alice, outOf(alice, remote, 4, syn));
    node.ruleSet(60, [{ verdict: 'deny', flags: optionFlags.reset }]);
    node.addPod(alice, { egressSet: 60 });
    node.configure({ proxyIfindex: link, revision: 2 });
    const told = node.send(alice, outOf(alice, remote, 4, data));
    assert.equal(told.reason, 'POLICY_DENIED_EXPLICIT');
    assert.deepEqual([told.frame.source, told.frame.destination], [alice.hostMac, alice.mac], 'its own pod is told');
    assert.equal(told.frame.ip?.transport?.tcpFlags, 'R');
    const other = node.receive(alice, into(alice, remote, 4, answer), marks.of(remote.identity));
    assertDiverted(other, { from: 'server', identity: remote.identity });
    assert.equal(other.frame.ip?.transport?.tcpFlags, 'RA');
  });

  test('a reset of the proxy’s to who opened the connection ends it, and the next one with the same ports is another', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    arrives(node, remote.identity, syn);
    assert.equal(fromProxy(node, bob, remote, 4, tcp({ ...back, flags: 'R' })).action, 'redirect');
    assert.equal(entryOf(node, bob).state, ctStates.closed);
    assertDiverted(arrives(node, remote.identity, syn), { from: 'server', identity: remote.identity });
    assert.equal(entryOf(node, bob).state, ctStates.opening);
  });

  test('a table that forgot it has it again with the client’s next packet', () => {
    using node = nodeWithProxy();
    node.addPod(bob, { ingressSet: asked });
    arrives(node, remote.identity, syn);
    for (const [key] of [...node.maps.connections.entries()]) node.maps.connections.delete(key);
    assert.equal(fromProxy(node, bob, remote, 4, answer).reason, 'PROXY_CONNECTION');
    assertDiverted(arrives(node, remote.identity), { from: 'server', identity: remote.identity });
    assert.equal(fromProxy(node, bob, remote, 4, answer).action, 'redirect');
  });
});
