import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpointFlags } from '../../src/datapath/layouts.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import { type DropReason, dropReasons } from '../../src/model/verdict.ts';
import {
  concat,
  etherTypes,
  fragmentsOf,
  frame,
  icmp,
  ip,
  neighbour,
  other,
  ping,
  tcp,
  udp,
} from '../support/packet.ts';
import {
  alice,
  bob,
  carol,
  identity,
  marks,
  nobody,
  otherNode,
  node as ownNode,
  remote,
  rules,
  service,
  sets,
  world,
} from './cluster.ts';
import { frames, into, type Outcome, objectDir, outOf, TestNode } from './node.ts';

const revoked = endpointFlags.ready | endpointFlags.revoked;
const syn = tcp({ source: 40000, destination: 80 });
const query = udp({ source: 40000, destination: 53, payload: new Uint8Array(64) });
const plain = { source: alice.address4, destination: bob.address4 };
const fromAlice = frames.from(alice);
const underlay = { source: parseMac('02:00:00:00:ff:01'), destination: parseMac('02:00:00:00:ff:02') };

/** What happens to requests, not to packets: http.program.test.ts and http.lab.test.ts; names.program.test.ts; the proxy's. */
type RequestReason = Extract<
  DropReason,
  `HTTP_${string}` | `DNS_${string}` | `NAMES_${string}` | `TLS_${string}` | `PROXY_${string}`
>;

/** For each reason, the ways here to be dropped for it. Every one starts on a node of its own. */
const ways: Readonly<
  Record<Exclude<DropReason, RequestReason>, Readonly<Record<string, (node: TestNode) => Outcome>>>
> = {
  POLICY_DENIED: {
    'egress isolated': (node) => {
      node.addPod(alice, { egressSet: sets.isolated });
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'ingress isolated': (node) => {
      node.addPod(bob, { ingressSet: sets.isolated });
      return node.travel(alice, bob, outOf(alice, bob, 6, syn));
    },
    'another port is allowed': (node) => {
      node.addPod(bob, { ingressSet: sets.web });
      return node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 81 })));
    },
    'another protocol is allowed': (node) => {
      node.addPod(bob, { ingressSet: sets.web });
      return node.travel(alice, bob, outOf(alice, bob, 4, udp({ source: 40000, destination: 80 })));
    },
    'an ICMP type is no port': (node) => {
      node.addPod(bob, { ingressSet: sets.web });
      return node.travel(alice, bob, outOf(alice, bob, 4, ping({ id: 80 })));
    },
  },
  POLICY_DENIED_EXPLICIT: {
    'a deny above an allow': (node) => {
      node.ruleSet(9, [
        { protocol: 6, port: 80, portLength: 16, precedence: 5 },
        { identity: alice.identity, precedence: 6, verdict: 'deny', rule: rules.deny },
      ]);
      node.addPod(bob, { ingressSet: 9 });
      return node.travel(alice, bob, outOf(alice, bob, 4, syn));
    },
    'a deny beside an allow of the same precedence': (node) => {
      node.ruleSet(9, [
        { protocol: 6, precedence: 5, verdict: 'deny', rule: rules.deny },
        { protocol: 6, port: 80, portLength: 16, precedence: 5 },
      ]);
      node.addPod(bob, { ingressSet: 9 });
      return node.travel(alice, bob, outOf(alice, bob, 4, syn));
    },
  },
  ENDPOINT_NOT_READY: {
    'no endpoint on the link sends': (node) => node.run('from_pod', outOf(alice, bob, 4, syn)),
    'no endpoint on the link receives': (node) => node.run('to_pod', into(bob, alice, 4, syn)),
    'its flag is not set': (node) => {
      node.addPod(alice, { flags: 0 });
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'it has no rule set': (node) => {
      node.addPod(alice, { egressSet: 0 });
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'its peer’s flag is not set': (node) => {
      node.addPod(bob, { flags: 0 });
      return node.travel(alice, bob, outOf(alice, bob, 4, syn));
    },
    'its peer’s link is gone': (node) => {
      node.maps.endpoints.delete(bob.ifindex);
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'out of a tunnel': (node) => {
      node.maps.endpoints.delete(alice.ifindex);
      return node.runTunnel(into(alice, remote, 4, syn));
    },
    'off the underlay': (node) => {
      node.maps.endpoints.delete(alice.ifindex);
      return node.run('from_underlay', into(alice, world, 4, syn));
    },
  },
  SPOOFED_SOURCE_IP: {
    'another pod’s address': (node) =>
      node.send(alice, frame(fromAlice, ip({ ...plain, source: carol.address4 }, syn))),
    'another pod’s IPv6 address': (node) =>
      node.send(alice, frame(fromAlice, ip({ source: carol.address6, destination: bob.address6 }, syn))),
    'the unspecified address, where the pod has no IPv6': (node) => {
      node.addPod(alice, { addr6: undefined });
      return node.send(alice, frame(fromAlice, ip({ source: parseIp('::'), destination: bob.address6 }, syn)));
    },
    'its link-local address, beyond the link': (node) =>
      node.send(
        alice,
        frame(fromAlice, ip({ source: parseIp('fe80::5'), destination: bob.address6 }, ping({ id: 1, family: 6 }))),
      ),
    'loopback, from the underlay': (node) =>
      node.run(
        'from_underlay',
        frame(underlay, ip({ source: parseIp('127.0.0.1'), destination: alice.address4 }, syn)),
      ),
    'link-local, from the underlay': (node) =>
      node.run('from_underlay', frame(underlay, ip({ source: parseIp('fe80::1'), destination: alice.address6 }, syn))),
  },
  SPOOFED_SOURCE_MAC: {
    'another pod’s MAC': (node) => node.send(alice, frame({ ...fromAlice, source: carol.mac }, ip(plain, syn))),
  },
  SPOOFED_NEIGHBOUR: {
    'a router advertisement': (node) =>
      node.send(
        alice,
        frame(
          fromAlice,
          ip(
            { source: parseIp('fe80::5'), destination: parseIp('ff02::1'), ttl: 255 },
            neighbour({ type: 'routerAdvertise' }),
          ),
        ),
      ),
  },
  UNKNOWN_L3: {
    'an EtherType of its own': (node) => node.send(alice, frame(fromAlice, new Uint8Array(46), 0x88b5)),
  },
  UNKNOWN_L4: {
    GRE: (node) => node.send(alice, outOf(alice, bob, 4, other(47))),
    'a tunnel header of its own': (node) => node.send(alice, outOf(alice, bob, 6, other(50, new Uint8Array(64)))),
    'ICMP in IPv6': (node) => node.send(alice, outOf(alice, bob, 6, ping({ id: 1, family: 4 }))),
    'ICMPv6 in IPv4': (node) => node.send(alice, outOf(alice, bob, 4, ping({ id: 1, family: 6 }))),
    'ICMP redirect': (node) =>
      node.send(alice, outOf(alice, bob, 4, other(1, Uint8Array.of(5, 0, 0xfa, 0xff, 0, 0, 0, 0)))),
    'more extension headers than the bound': (node) => {
      const extensions = Array.from({ length: 7 }, () => ({ protocol: 60, rest: Uint8Array.of(0, 1, 4, 0, 0, 0, 0) }));
      return node.send(alice, outOf(alice, bob, 6, syn, { extensions }));
    },
  },
  MALFORMED: {
    'cut off in the payload': (node) => node.send(alice, outOf(alice, bob, 4, query).slice(0, 90)),
    'cut off in the TCP header': (node) => node.send(alice, outOf(alice, bob, 4, syn).slice(0, 48)),
    'a TCP header longer than the packet': (node) => {
      const bytes = outOf(alice, bob, 4, syn);
      bytes[46] = 0xf0;
      return node.send(alice, bytes);
    },
    'a UDP length beyond the packet': (node) => {
      const bytes = outOf(alice, bob, 4, query);
      bytes[38] = 0x10;
      return node.send(alice, bytes);
    },
    'SYN and FIN': (node) => node.send(alice, outOf(alice, bob, 4, tcp({ source: 1, destination: 2, flags: 'SF' }))),
    'no TCP flag': (node) => node.send(alice, outOf(alice, bob, 4, tcp({ source: 1, destination: 2, flags: '' }))),
    'an echo request with a code': (node) =>
      node.send(alice, outOf(alice, bob, 4, icmp({ family: 4, type: 8, code: 1 }))),
    'an ICMPv6 echo request with a code': (node) =>
      node.send(alice, outOf(alice, bob, 6, icmp({ family: 6, type: 128, code: 1 }))),
    'version 5': (node) => {
      const bytes = outOf(alice, bob, 4, syn);
      bytes[14] = 0x55;
      return node.send(alice, bytes);
    },
    'an IPv4 address on the wire of IPv6': (node) => {
      const bytes = outOf(alice, bob, 6, syn);
      bytes.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 12], 38);
      return node.send(alice, bytes);
    },
    'a fragment over the TCP header': (node) => {
      const [, second = new Uint8Array()] = fragmentsOf(
        ip(plain, tcp({ source: 1, destination: 2, payload: new Uint8Array(64) })),
        8,
      );
      return node.send(alice, frame(fromAlice, second));
    },
    'a first fragment that ends in the TCP header': (node) => {
      const [first = new Uint8Array()] = fragmentsOf(
        ip(plain, tcp({ source: 1, destination: 2, payload: new Uint8Array(64) })),
        16,
      );
      return node.send(alice, frame(fromAlice, first));
    },
  },
  FRAGMENT_WITHOUT_FIRST: {
    'the second alone': (node) => {
      const [, second = new Uint8Array()] = fragmentsOf(ip(plain, query), 32);
      return node.send(alice, frame(fromAlice, second));
    },
    'the second alone, IPv6': (node) => {
      const [, second = new Uint8Array()] = fragmentsOf(
        ip({ source: alice.address6, destination: bob.address6 }, query),
        32,
      );
      return node.send(alice, frame(fromAlice, second));
    },
  },
  UNKNOWN_PEER: {
    'nobody’s address': (node) => node.send(alice, outOf(alice, nobody, 4, syn)),
    'nobody’s IPv6 address': (node) => node.send(alice, outOf(alice, nobody, 6, syn)),
    'a pod that was here': (node) => {
      node.maps.local.delete(bob.address4);
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'somebody’s link-local address': (node) =>
      node.send(alice, frame(fromAlice, ip({ source: alice.address6, destination: parseIp('fe80::99') }, syn))),
    'arrives at another pod’s link': (node) => node.receive(bob, into(carol, alice, 4, syn), marks.of(alice.identity)),
  },
  NO_PROOF: {
    'a pod’s packet without a mark': (node) => node.receive(bob, into(bob, alice, 4, syn), 0),
    'a world’s packet without a mark': (node) => node.receive(bob, into(bob, world, 4, syn), 0),
    'a pod’s packet under the world’s mark': (node) => node.receive(bob, into(bob, alice, 4, syn), marks.world),
    'another mark': (node) => node.receive(bob, into(bob, world, 6, syn), 0x4c000001),
    'a neighbour’s advertisement from another pod': (node) =>
      node.receive(
        bob,
        into(bob, alice, 6, neighbour({ type: 'advertise', target: alice.address6, linkAddress: alice.mac }), {
          ttl: 255,
        }),
        marks.of(alice.identity),
      ),
  },
  PLAINTEXT: {
    'from a known pod': (node) => node.run('from_underlay', into(alice, remote, 4, syn)),
    'from an address of the cluster’s': (node) => node.run('from_underlay', into(alice, nobody, 6, syn)),
    'from a node': (node) => node.run('from_underlay', into(alice, otherNode, 4, syn)),
    'from a service': (node) => node.run('from_underlay', into(alice, service, 4, syn)),
  },
  TUNNEL_SELECTOR: {
    'no association for the pair': (node) => node.runTunnel(into(alice, remote, 4, syn)),
    'the kernel’s proof is missing': (node) => {
      node.configure({ flags: 4 });
      node.maps.tunnels.set(
        { local: alice.address4, remote: remote.address4 },
        { identity: remote.identity, spi: 7, previousSpi: 0 },
      );
      return node.runTunnel(into(alice, remote, 4, syn));
    },
    'the association is of nobody': (node) => {
      node.maps.tunnels.set(
        { local: alice.address4, remote: remote.address4 },
        { identity: identity(0), spi: 7, previousSpi: 0 },
      );
      return node.runTunnel(into(alice, remote, 4, syn));
    },
  },
  TUNNEL_TO_NODE: {
    'for the node': (node) =>
      node.runTunnel(frame(underlay, ip({ source: remote.address4, destination: parseIp('192.0.2.1') }, syn))),
  },
  NO_SERVICE_BACKEND: {
    'a service that is not': (node) => node.send(alice, outOf(alice, service, 4, syn)),
    'a service without backends': (node) => {
      node.addService({ address: service.address6, port: 80, protocol: 6 }, []);
      return node.send(alice, outOf(alice, service, 6, syn));
    },
    'a service whose backend is not in the map': (node) => {
      node.addService({ address: service.address4, port: 80, protocol: 6 }, [{ address: bob.address4, port: 80 }]);
      node.maps.backends.delete({ service: 70, slot: 0 });
      return node.send(alice, outOf(alice, service, 4, syn));
    },
    'another port of a service': (node) => {
      node.addService({ address: service.address4, port: 80, protocol: 6 }, [{ address: bob.address4, port: 80 }]);
      return node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 81 })));
    },
  },
  CT_INVALID: {
    'SYN-ACK to nothing': (node) =>
      node.send(alice, outOf(alice, bob, 4, tcp({ source: 80, destination: 40000, flags: 'SA' }))),
    'RST of nothing': (node) =>
      node.send(alice, outOf(alice, bob, 6, tcp({ source: 80, destination: 40000, flags: 'R' }))),
    'echo reply to nothing': (node) => node.send(alice, outOf(alice, bob, 4, ping({ id: 5, reply: true }))),
  },
  CT_FULL: {
    'a table that is full': () => assert.fail('has a test of its own'),
  },
  SERVICE_CONFLICT: {
    'the ports of a stream that lives, once directly and once through a service': (node) => {
      node.addService({ address: service.address4, port: 80, protocol: 6 }, [{ address: bob.address4, port: 8080 }]);
      node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 40000, destination: 8080 })));
      const answer = outOf(bob, alice, 4, tcp({ source: 8080, destination: 40000, flags: 'SA' }));
      assert.equal(node.travel(bob, alice, answer).action, 'pass');
      return node.send(alice, outOf(alice, service, 4, syn));
    },
  },
  MULTICAST: {
    'IPv4 multicast': (node) =>
      node.send(alice, frame(fromAlice, ip({ ...plain, destination: parseIp('224.0.0.251') }, query))),
    broadcast: (node) =>
      node.send(alice, frame(fromAlice, ip({ ...plain, destination: parseIp('255.255.255.255') }, query))),
    IGMP: (node) => node.send(alice, frame(fromAlice, ip({ ...plain, destination: parseIp('224.0.0.22') }, other(2)))),
    'IPv6 multicast': (node) =>
      node.send(alice, frame(fromAlice, ip({ source: alice.address6, destination: parseIp('ff02::fb') }, query))),
    'IPv6 multicast ping': (node) =>
      node.send(
        alice,
        frame(fromAlice, ip({ source: alice.address6, destination: parseIp('ff02::1') }, ping({ id: 1, family: 6 }))),
      ),
    'to a pod': (node) =>
      node.receive(
        bob,
        frame(frames.to(bob), ip({ source: alice.address4, destination: parseIp('224.0.0.251') }, query)),
        marks.host,
      ),
  },
  SOURCE_ROUTED: {
    'loose source route': (node) =>
      node.send(alice, outOf(alice, bob, 4, syn, { options: Uint8Array.of(131, 7, 4, 10, 0, 0, 1) })),
    'strict source route behind others': (node) =>
      node.send(
        alice,
        outOf(alice, bob, 4, syn, { options: Uint8Array.of(1, 1, 7, 7, 4, 0, 0, 0, 0, 137, 7, 4, 10, 0, 0, 1) }),
      ),
    'routing header 0': (node) => {
      const routing = { protocol: 43, rest: concat(Uint8Array.of(2, 0, 1, 0, 0, 0, 0), new Uint8Array(16)) };
      return node.send(alice, outOf(alice, bob, 6, syn, { extensions: [routing] }));
    },
    'routing header behind hop-by-hop options': (node) => {
      const hopByHop = { protocol: 0, rest: Uint8Array.of(0, 1, 4, 0, 0, 0, 0) };
      const routing = { protocol: 43, rest: Uint8Array.of(0, 4, 0, 0, 0, 0, 0) };
      return node.send(alice, outOf(alice, bob, 6, syn, { extensions: [hopByHop, routing] }));
    },
  },
  LEAK_PREVENTED: {
    'a pod’s source on the uplink': (node) => node.run('to_underlay', outOf(alice, world, 4, syn)),
    'a pod’s source on the uplink, IPv6': (node) => node.run('to_underlay', outOf(alice, world, 6, syn)),
    'for a pod on the uplink': (node) =>
      node.run('to_underlay', frame(underlay, ip({ source: otherNode.address4, destination: remote.address4 }, syn))),
    'for a pod, under the mark of an answer to the world': (node) =>
      node.run('to_underlay', outOf(alice, remote, 4, syn), { mark: marks.world }),
    'for a node, under the mark of an answer to the world': (node) =>
      node.run('to_underlay', outOf(alice, otherNode, 4, syn), { mark: marks.world }),
    'no tunnel device': (node) => {
      node.configure({ tunnelIfindex: 0 });
      return node.send(alice, outOf(alice, remote, 4, syn));
    },
  },
  TTL_EXCEEDED: {
    'time to live 0': (node) => node.send(alice, outOf(alice, bob, 4, syn, { ttl: 0 })),
    'hop limit 0': (node) => node.send(alice, outOf(alice, bob, 6, syn, { ttl: 0 })),
  },
  VLAN: {
    'a tag': (node) => node.send(alice, frame({ ...fromAlice, vlan: 5 }, ip(plain, syn))),
    'a provider’s tag': (node) =>
      node.send(alice, frame(fromAlice, concat(Uint8Array.of(0, 5, 8, 0), ip(plain, syn)), etherTypes.qinq)),
    'a tag, to a pod': (node) =>
      node.receive(bob, frame({ ...frames.to(bob), vlan: 5 }, ip(plain, syn)), marks.of(alice.identity)),
  },
  TOO_BIG: {
    'larger than the link': (node) =>
      node.send(alice, outOf(alice, bob, 4, udp({ source: 1, destination: 2, payload: new Uint8Array(1400) }))),
    'segments larger than the link': (node) => {
      const segments = outOf(
        alice,
        remote,
        4,
        tcp({ source: 1, destination: 2, flags: 'A', payload: new Uint8Array(3000) }),
      );
      return node.send(alice, segments, { gsoSize: 1500, gsoSegs: 2 });
    },
  },
  UNKNOWN_RULE_SET: {
    egress: (node) => {
      node.addPod(alice, { egressSet: 77 });
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    ingress: (node) => {
      node.addPod(bob, { ingressSet: 77 });
      return node.travel(alice, bob, outOf(alice, bob, 4, syn));
    },
  },
  UNTRANSLATABLE: {
    'a fragment of SCTP to a service with another target port': (node) => {
      node.addService({ address: service.address4, port: 80, protocol: 132 }, [{ address: bob.address4, port: 8080 }]);
      const packet = ip(
        { source: alice.address4, destination: service.address4 },
        other(132, concat(Uint8Array.of(9, 9, 0, 80), new Uint8Array(60))),
      );
      const [first = new Uint8Array()] = fragmentsOf(packet, 32);
      return node.send(alice, frame(fromAlice, first));
    },
  },
  REVOKED: {
    'from a revoked pod, to one beside it': (node) => {
      node.addPod(alice, { flags: revoked });
      return node.send(alice, outOf(alice, bob, 4, syn));
    },
    'from a revoked pod, to the world': (node) => {
      node.addPod(alice, { flags: revoked });
      return node.send(alice, outOf(alice, world, 6, syn));
    },
    'to a revoked pod': (node) => {
      node.addPod(bob, { flags: revoked });
      return node.travel(alice, bob, outOf(alice, bob, 6, syn));
    },
    'to a revoked pod, on a connection that it had': (node) => {
      node.travel(alice, bob, outOf(alice, bob, 4, syn));
      node.addPod(bob, { flags: revoked });
      return node.travel(alice, bob, outOf(alice, bob, 4, syn));
    },
    'from its own node': (node) => {
      node.addPod(alice, { flags: revoked });
      return node.receive(alice, into(alice, ownNode, 4, syn), marks.host);
    },
  },
};

for (const [reason, byName] of Object.entries(ways)) {
  if (reason === 'CT_FULL') continue;
  for (const [name, way] of Object.entries(byName))
    test(`${reason}: ${name}`, () => {
      using node = new TestNode();
      const outcome = way(node);
      assert.equal(outcome.action, 'drop');
      assert.equal(outcome.reason, reason);
    });
}

test('CT_FULL: a table that is full', () => {
  const object = BpfObject.open(`${objectDir}/from_pod.full.bpf.o`);
  assert.equal(object.maps.get('ct')?.maxEntries, 1);
  using node = new TestNode({ fullConnections: true });
  assert.equal(node.send(alice, outOf(alice, bob, 4, syn)).action, 'redirect');
  const second = node.send(alice, outOf(alice, bob, 4, tcp({ source: 40001, destination: 80 })));
  assert.equal(second.reason, 'CT_FULL');
  assert.equal(node.send(alice, outOf(alice, bob, 4, syn)).action, 'redirect', 'what is in the table goes on');
});

test('every reason has a way', () => {
  const packets = Object.keys(dropReasons).filter((reason) => !/^(HTTP|DNS|NAMES|TLS|PROXY)_/.test(reason));
  assert.deepEqual(Object.keys(ways).sort(), packets.sort());
});

test('the numbers of the reasons are those of the C enum', () => {
  for (const file of ['from_pod', 'to_pod', 'from_tunnel', 'from_proxy', 'underlay']) {
    const { FORWARDED, ...codes } = Object.fromEntries(
      BpfObject.open(`${objectDir}/${file}.bpf.o`).btf.enumeration('drop_reason') ?? [],
    );
    assert.equal(FORWARDED, 0);
    assert.deepEqual(codes, Object.fromEntries(Object.entries(dropReasons).map(([name, { code }]) => [name, code])));
  }
});
