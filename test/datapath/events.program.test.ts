import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type DatapathEvent, decodeEvent } from '../../src/datapath/events.ts';
import { readMetrics } from '../../src/datapath/metrics.ts';
import { tcp, udp } from '../support/packet.ts';
import { alice, bob, rules, sets, world } from './cluster.ts';
import { type Outcome, outOf, TestNode } from './node.ts';

const toBob = (flags: string) => outOf(alice, bob, 4, tcp({ source: 40000, destination: 80, flags }));
const toAlice = (flags: string) => outOf(bob, alice, 4, tcp({ source: 80, destination: 40000, flags }));

function decoded({ events }: Outcome): DatapathEvent[] {
  return events.flatMap((record) => decodeEvent(record) ?? []);
}

test('a connection is reported when it opens and when it ends, at each interface', () => {
  using node = new TestNode();
  node.addPod(bob, { ingressSet: sets.web });
  const [opened] = decoded(node.travel(alice, bob, toBob('S')));
  assert.equal(opened?.kind, 'new');
  assert.equal(opened.direction, 'ingress');
  assert.equal(opened.verdict, 'allow');
  assert.equal(opened.rule, rules.web);
  assert.equal(opened.endpoint, bob.id);
  assert.deepEqual(opened.source, { address: alice.address4, port: 40000, identity: alice.identity });
  assert.deepEqual(opened.destination, { address: bob.address4, port: 80, identity: bob.identity });
  assert.equal(opened.packets, 1);
  assert.deepEqual(decoded(node.travel(bob, alice, toAlice('SA'))), []);
  assert.deepEqual(decoded(node.travel(alice, bob, toBob('FA'))), []);
  const last = node.send(bob, toAlice('FA'));
  const [ended] = decoded(last);
  assert.equal(ended?.kind, 'end');
  assert.equal(ended.direction, 'ingress', 'the direction is the connection’s, not the last packet’s');
  assert.deepEqual(ended.source, opened.source);
  assert.deepEqual(ended.destination, opened.destination);
  assert.equal(ended.packets, 4);
  assert.equal(ended.bytes, 4 * 40);
  assert.ok((ended.durationNs ?? 0) > 0);
  assert.equal(decoded(node.receive(alice, last.bytes, last.mark))[0]?.direction, 'egress');
});

test('a connection that lasts is reported at intervals', () => {
  using node = new TestNode();
  node.configure({ reportIntervalNs: 3600n * 1_000_000_000n });
  node.send(alice, toBob('S'));
  assert.deepEqual(decoded(node.send(alice, toBob('A'))), []);
  for (const [key, entry] of [...node.maps.connections.entries()])
    node.maps.connections.set(key, { ...entry, lastReportNs: entry.lastReportNs - 3600n * 1_000_000_000n });
  const [report] = decoded(node.send(alice, toBob('A')));
  assert.equal(report?.kind, 'periodic');
  assert.equal(report.packets, 3);
  assert.deepEqual(decoded(node.send(alice, toBob('A'))), []);
});

describe('denials', () => {
  const denied = (node: TestNode, port: number) =>
    node.send(alice, outOf(alice, world, 6, udp({ source: 1, destination: port })));

  test('name the rule or the reason', () => {
    using node = new TestNode();
    node.addPod(alice, { egressSet: sets.isolated });
    const [event] = decoded(denied(node, 53));
    assert.equal(event?.kind, 'deny');
    assert.equal(event.reason, 'POLICY_DENIED');
    assert.equal(event.rule, rules.isolation);
    assert.equal(event.direction, 'egress');
    assert.deepEqual(event.destination, { address: world.address6, port: 53, identity: 2 });
  });

  test('that repeat are counted, and reported once per interval', () => {
    using node = new TestNode();
    node.configure({ denyIntervalNs: 3600n * 1_000_000_000n });
    node.addPod(alice, { egressSet: sets.isolated });
    assert.equal(decoded(denied(node, 53))[0]?.packets, 1);
    for (let i = 0; i < 9; i++) assert.deepEqual(decoded(denied(node, 53)), []);
    assert.equal(decoded(denied(node, 54)).length, 1, 'another port is another denial');
    node.configure({ denyIntervalNs: 0n });
    const [again] = decoded(denied(node, 53));
    assert.equal(again?.packets, 10);
    assert.equal(again.bytes, 10 * 62);
  });

  test('are all in the metrics, reported or not', () => {
    using node = new TestNode();
    node.configure({ denyIntervalNs: 3600n * 1_000_000_000n });
    node.addPod(alice, { egressSet: sets.isolated });
    for (let i = 0; i < 10; i++) denied(node, 53);
    const { drops, forwarded } = readMetrics(node.maps);
    assert.deepEqual(drops, [{ reason: 'POLICY_DENIED', direction: 'egress', packets: 10, bytes: 10 * 62 }]);
    assert.deepEqual(forwarded.egress, { packets: 0, bytes: 0 });
  });
});

test('what passes is counted in both directions, with its bytes', () => {
  using node = new TestNode();
  node.travel(alice, bob, toBob('S'));
  const { forwarded, drops } = readMetrics(node.maps);
  assert.deepEqual(forwarded, { egress: { packets: 1, bytes: 54 }, ingress: { packets: 1, bytes: 54 } });
  assert.deepEqual(drops, []);
});

test('events that find the ring full are counted, and the packets pass', () => {
  using node = new TestNode({ maxEntries: { events: 4096, ct: 4096 } });
  const first = node.runUnread(64);
  assert.equal(
    first.every(({ action }) => action === 'redirect'),
    true,
  );
  const fits = Math.floor(4096 / (104 + 8));
  const lost = node.maps.eventLosses.sum(0, (value) => value);
  // The ring keeps a record's worth of room to itself at the end.
  assert.ok(lost >= BigInt(64 - fits) && lost <= BigInt(64 - fits + 1), `${lost} of 64 lost`);
});
