import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type IpAddress, type MacAddress, parseIp, parseMac } from '../../src/model/address.ts';
import type { DropReason } from '../../src/model/verdict.ts';
import { arp, concat, etherTypes, frame, icmp, ip, neighbour, rawIp, solicitedNode, u16 } from '../support/packet.ts';
import { alice, bob, gateway, marks } from './cluster.ts';
import { frames, TestNode } from './node.ts';

const ownLinkLocal = parseIp('fe80::1:ff:fe00:101');
const allNodes = parseIp('ff02::1');
const allRouters = parseIp('ff02::2');
const listeners = parseIp('ff02::16');
const unspecified = parseIp('::');

describe('ARP from a pod', () => {
  const cases: readonly (readonly [string, DropReason | 'pass', Partial<Parameters<typeof arp>[0]>])[] = [
    ['asks for its gateway', 'pass', {}],
    ['answers', 'pass', { operation: 'reply', targetMac: alice.hostMac }],
    ['probes whether its address is free', 'pass', { senderIp: parseIp('0.0.0.0'), targetIp: alice.address4 }],
    ['claims another pod’s address', 'SPOOFED_NEIGHBOUR', { senderIp: bob.address4 }],
    ['claims the gateway', 'SPOOFED_NEIGHBOUR', { operation: 'reply', senderIp: gateway.address4 }],
    ['claims its address for another MAC', 'SPOOFED_NEIGHBOUR', { senderMac: bob.mac }],
  ];
  for (const [name, expected, change] of cases)
    test(name, () => {
      using node = new TestNode();
      const message = arp({
        operation: 'request',
        senderMac: alice.mac,
        senderIp: alice.address4,
        targetIp: gateway.address4,
        ...change,
      });
      const outcome = node.send(alice, frame(frames.from(alice), message, etherTypes.arp));
      assert.equal(outcome.reason ?? outcome.action, expected);
    });

  test('of another link type, or cut off, is malformed', () => {
    using node = new TestNode();
    const good = arp({
      operation: 'request',
      senderMac: alice.mac,
      senderIp: alice.address4,
      targetIp: gateway.address4,
    });
    for (const message of [concat(u16(6), good.slice(2)), good.slice(0, 20)])
      assert.equal(node.send(alice, frame(frames.from(alice), message, etherTypes.arp)).reason, 'MALFORMED');
  });
});

interface Message {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly type: 'routerSolicit' | 'routerAdvertise' | 'solicit' | 'advertise';
  readonly target?: IpAddress;
  readonly linkAddress?: MacAddress;
  readonly ttl?: number;
}

function message({ source, destination, ttl = 255, ...rest }: Message): Uint8Array {
  return frame(frames.from(alice), ip({ source, destination, ttl }, neighbour(rest)));
}

describe('neighbour discovery from a pod', () => {
  const solicit: Message = {
    source: alice.address6,
    destination: solicitedNode(gateway.address6),
    type: 'solicit',
    target: gateway.address6,
    linkAddress: alice.mac,
  };
  const advertise: Message = {
    source: alice.address6,
    destination: gateway.address6,
    type: 'advertise',
    target: alice.address6,
    linkAddress: alice.mac,
  };
  const cases: readonly (readonly [string, DropReason | 'pass', Message])[] = [
    ['asks for its gateway', 'pass', solicit],
    ['asks for its gateway from its link-local address', 'pass', { ...solicit, source: ownLinkLocal }],
    ['checks whether the gateway is there', 'pass', { ...solicit, destination: gateway.address6 }],
    [
      'probes whether its link-local address is free',
      'pass',
      { source: unspecified, destination: solicitedNode(ownLinkLocal), type: 'solicit', target: ownLinkLocal },
    ],
    ['asks for routers', 'pass', { source: ownLinkLocal, destination: allRouters, type: 'routerSolicit' }],
    ['advertises its address', 'pass', advertise],
    ['advertises its link-local address', 'pass', { ...advertise, source: ownLinkLocal, target: ownLinkLocal }],
    ['asks from another pod’s address', 'SPOOFED_SOURCE_IP', { ...solicit, source: bob.address6 }],
    ['asks from the gateway’s address', 'SPOOFED_SOURCE_IP', { ...solicit, source: gateway.address6 }],
    ['asks with another MAC', 'SPOOFED_NEIGHBOUR', { ...solicit, linkAddress: bob.mac }],
    ['advertises another pod’s address', 'SPOOFED_NEIGHBOUR', { ...advertise, target: bob.address6 }],
    ['advertises the gateway’s address', 'SPOOFED_NEIGHBOUR', { ...advertise, target: gateway.address6 }],
    ['advertises another MAC', 'SPOOFED_NEIGHBOUR', { ...advertise, linkAddress: bob.mac }],
    ['advertises to another pod', 'SPOOFED_NEIGHBOUR', { ...advertise, destination: bob.address6 }],
    [
      'plays router',
      'SPOOFED_NEIGHBOUR',
      { source: ownLinkLocal, destination: allNodes, type: 'routerAdvertise', linkAddress: alice.mac },
    ],
    [
      'asks for routers with another MAC',
      'SPOOFED_NEIGHBOUR',
      { source: ownLinkLocal, destination: allRouters, type: 'routerSolicit', linkAddress: bob.mac },
    ],
    ['asks through a router', 'MALFORMED', { ...solicit, ttl: 64 }],
  ];
  for (const [name, expected, given] of cases)
    test(name, () => {
      using node = new TestNode();
      const outcome = node.send(alice, message(given));
      assert.equal(outcome.reason ?? outcome.action, expected);
    });

  test('an option of length 0 is malformed, and does not hang the walk', () => {
    using node = new TestNode();
    const bytes = message(solicit);
    bytes[bytes.length - 7] = 0;
    assert.equal(node.send(alice, bytes).reason, 'MALFORMED');
  });

  test('a second option is looked at too', () => {
    using node = new TestNode();
    const body = icmp({
      family: 6,
      type: 135,
      payload: concat(
        new Uint8Array(16),
        Uint8Array.of(14, 1, 0, 0, 0, 0, 0, 0),
        Uint8Array.of(1, 1, 2, 0, 0, 0, 1, 2),
      ),
    });
    const ends = { source: alice.address6, destination: gateway.address6, ttl: 255 };
    assert.equal(node.send(alice, frame(frames.from(alice), ip(ends, body))).reason, 'SPOOFED_NEIGHBOUR');
  });

  test('multicast listener reports go to the node, with the router alert they must have', () => {
    using node = new TestNode();
    const report = icmp({ family: 6, type: 143 }).bytes(ownLinkLocal, listeners);
    const alert = { protocol: 0, rest: Uint8Array.of(0, 5, 2, 0, 0, 1, 0) };
    const packet = rawIp({ source: ownLinkLocal, destination: listeners, ttl: 1, extensions: [alert] }, 58, report);
    assert.equal(node.send(alice, frame(frames.from(alice), packet)).action, 'pass');
    const stolen = rawIp({ source: bob.address6, destination: listeners, ttl: 1, extensions: [alert] }, 58, report);
    assert.equal(node.send(alice, frame(frames.from(alice), stolen)).reason, 'SPOOFED_SOURCE_IP');
  });

  test('is allowed before the pod is ready, as ARP is', () => {
    using node = new TestNode();
    node.addPod(alice, { flags: 0 });
    assert.equal(node.send(alice, message(solicit)).action, 'pass');
    const ask = arp({
      operation: 'request',
      senderMac: alice.mac,
      senderIp: alice.address4,
      targetIp: gateway.address4,
    });
    assert.equal(node.send(alice, frame(frames.from(alice), ask, etherTypes.arp)).action, 'pass');
  });
});

describe('what the node says on the pod’s link', () => {
  const answer = neighbour({ type: 'advertise', target: gateway.address6, linkAddress: alice.hostMac });
  const toAlice = { source: gateway.address6, destination: alice.address6, ttl: 255 };
  const ask = arp({
    operation: 'request',
    senderMac: alice.hostMac,
    senderIp: gateway.address4,
    targetIp: alice.address4,
  });

  test('arrives', () => {
    using node = new TestNode();
    assert.equal(node.receive(alice, frame(frames.to(alice), ip(toAlice, answer)), 0).action, 'pass');
    assert.equal(node.receive(alice, frame(frames.to(alice), ip(toAlice, answer)), marks.host).action, 'pass');
    assert.equal(node.receive(alice, frame(frames.to(alice), ask, etherTypes.arp), 0).action, 'pass');
  });

  test('does not, from another MAC, or by way of a router, or under a pod’s proof', () => {
    using node = new TestNode();
    const stranger = { ...frames.to(alice), source: parseMac('02:00:00:00:99:99') };
    assert.equal(node.receive(alice, frame(stranger, ip(toAlice, answer)), 0).reason, 'NO_PROOF');
    assert.equal(node.receive(alice, frame(stranger, ask, etherTypes.arp), 0).reason, 'NO_PROOF');
    const routed = frame(frames.to(alice), ip({ ...toAlice, ttl: 254 }, answer));
    assert.equal(node.receive(alice, routed, 0).reason, 'NO_PROOF');
    const proven = marks.of(bob.identity);
    assert.equal(node.receive(alice, frame(frames.to(alice), ask, etherTypes.arp), proven).reason, 'NO_PROOF');
  });
});
