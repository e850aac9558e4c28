import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type EndpointAudit, endpointFlags, eventFlags } from '../../src/datapath/layouts.ts';
import { readMetrics } from '../../src/datapath/metrics.ts';
import { dropReasons } from '../../src/model/verdict.ts';
import { optionFlags } from '../../src/policy/image.ts';
import { tcp, udp } from '../support/packet.ts';
import { alice, bob, type Pod, service, sets } from './cluster.ts';
import { addressOf, families, into, type Outcome, outOf, TestNode } from './node.ts';

/** `EVENT_…` of bpf/lib/layout.h. */
const kinds = { new: 1, deny: 4, audit: 5 } as const;
const denying = 40;
const rule = 7;

const none: EndpointAudit = {
  ...{ ingressAdminSet: 0, ingressSet: sets.open, ingressMeshSet: 0 },
  ...{ egressAdminSet: 0, egressSet: sets.open, egressMeshSet: 0 },
};

describe('what audited policies would deny', () => {
  /** A node where the pod is open, and would not be by these sets. */
  const audited = (node: TestNode, pod: Pod, change: Partial<EndpointAudit>): void => {
    node.ruleSet(denying, [{ protocol: 6, port: 80, portLength: 16, verdict: 'deny', rule }]);
    node.maps.audits.set(pod.id, { ...none, ...change });
    node.addPod(pod, { flags: endpointFlags.ready | endpointFlags.audited });
  };
  const told = ({ events }: Outcome) => events.filter(({ kind }) => kind === kinds.audit);
  const open = tcp({ source: 40000, destination: 80 });

  for (const family of families)
    test(`passes, and is said with the rule, over IPv${family}`, () => {
      using node = new TestNode();
      audited(node, alice, { egressSet: denying });
      const sent = node.send(alice, outOf(alice, bob, family, open));
      assert.equal(sent.action, 'redirect');
      const [said, ...more] = told(sent);
      assert.equal(more.length, 0);
      assert.deepEqual(
        [said?.rule, said?.reason, said?.verdict, said?.direction],
        [rule, dropReasons.POLICY_DENIED_EXPLICIT.code, 1, 1],
      );
      assert.deepEqual([said?.source, said?.sourcePort], [addressOf(alice, family), 40000]);
      assert.deepEqual([said?.destination, said?.destinationPort], [addressOf(bob, family), 80]);
      assert.deepEqual([said?.sourceIdentity, said?.destinationIdentity], [alice.identity, bob.identity]);
      const { audited: counted, drops } = readMetrics(node.maps);
      assert.equal(counted.egress.packets, 1);
      assert.deepEqual(drops, []);
    });

  test('is asked where the connection is judged: once, and again when policy has changed, also at an answer', () => {
    using node = new TestNode();
    audited(node, bob, { ingressMeshSet: denying });
    const first = node.travel(alice, bob, outOf(alice, bob, 4, open));
    assert.equal(told(first).length, 1);
    const next = tcp({ source: 40000, destination: 80, flags: 'A' });
    assert.equal(told(node.travel(alice, bob, outOf(alice, bob, 4, next))).length, 0);
    node.configure({ revision: 2 });
    const answer = node.send(bob, outOf(bob, alice, 4, tcp({ source: 80, destination: 40000, flags: 'SA' })));
    assert.equal(answer.action, 'redirect');
    const [said] = told(answer);
    assert.deepEqual([said?.source, said?.destination, said?.direction], [alice.address4, bob.address4, 2]);
    assert.deepEqual([said?.sourceIdentity, said?.destinationIdentity], [alice.identity, bob.identity]);
  });

  test('is about the backend of a service, and names it', () => {
    using node = new TestNode();
    audited(node, alice, { egressAdminSet: denying });
    const id = node.addService({ address: service.address4, port: 8, protocol: 6 }, [
      { address: bob.address4, port: 80 },
    ]);
    const [said] = told(node.send(alice, outOf(alice, service, 4, tcp({ source: 40000, destination: 8 }))));
    assert.deepEqual([said?.destination, said?.destinationPort, said?.service], [bob.address4, 80, id]);
  });

  test('is not said of what is denied as it is, of what passes either way, nor without the flag', () => {
    using node = new TestNode();
    audited(node, alice, { egressSet: denying });
    assert.equal(told(node.send(alice, outOf(alice, bob, 4, udp({ source: 1, destination: 80 })))).length, 0);
    node.addPod(alice, {
      egressSet: sets.isolated,
      flags: endpointFlags.ready | endpointFlags.audited,
    });
    const denied = node.send(alice, outOf(alice, bob, 4, open));
    assert.equal(denied.reason, 'POLICY_DENIED');
    assert.equal(told(denied).length, 0);
    node.addPod(alice);
    assert.equal(told(node.send(alice, outOf(alice, bob, 4, open))).length, 0);
  });

  test('is joined with what is like it, as denials are', () => {
    using node = new TestNode();
    node.configure({ denyIntervalNs: 3_600_000_000_000n });
    audited(node, alice, { egressSet: denying });
    const count = (source: number) =>
      told(node.send(alice, outOf(alice, bob, 4, tcp({ source, destination: 80 })))).length;
    assert.deepEqual([count(1), count(2), count(3)], [1, 0, 0]);
    assert.equal(readMetrics(node.maps).audited.egress.packets, 3);
  });
});

describe('what a rule wants to be logged', () => {
  const logged = ({ events }: Outcome, kind: number) =>
    events.filter((one) => one.kind === kind && (one.flags & eventFlags.logged) !== 0);

  test('is said of every connection that it allows, and of every packet that it denies, joined or not', () => {
    using node = new TestNode();
    node.configure({ denyIntervalNs: 3_600_000_000_000n });
    node.ruleSet(denying, [{ protocol: 6, port: 80, portLength: 16, rule, flags: optionFlags.log }], {
      isolated: true,
    });
    const set = node.maps.ruleSets.get(denying);
    assert.ok(set !== undefined);
    node.maps.ruleSets.set(denying, { ...set, flags: set.flags | optionFlags.log });
    node.addPod(alice, { egressSet: denying });
    const allowed = node.send(alice, outOf(alice, bob, 4, tcp({ source: 1, destination: 80 })));
    assert.equal(logged(allowed, kinds.new).length, 1);
    for (const source of [2, 3]) {
      const denied = node.send(alice, outOf(alice, bob, 4, tcp({ source, destination: 81 })));
      assert.deepEqual(
        logged(denied, kinds.deny).map(({ unsaid, packets }) => [unsaid, packets]),
        [[0, 1n]],
      );
    }
    const next = node.send(alice, outOf(alice, bob, 4, tcp({ source: 1, destination: 80, flags: 'A' })));
    assert.equal(next.events.length, 0);
  });

  test('is said at a bounded rate for each rule, with how much was left out', () => {
    using node = new TestNode();
    node.ruleSet(denying, [
      { protocol: 6, port: 80, portLength: 16, rule, flags: optionFlags.log },
      { protocol: 6, port: 81, portLength: 16, rule: rule + 1, flags: optionFlags.log },
    ]);
    node.addPod(alice, { egressSet: denying });
    const said = (source: number, destination: number) =>
      logged(node.send(alice, outOf(alice, bob, 4, tcp({ source, destination }))), kinds.new).at(0);
    const many = Array.from({ length: 300 }, (_, i) => said(1000 + i, 80));
    const left = many.filter((one) => one === undefined).length;
    assert.ok(many[0] !== undefined && left > 200, `${left} of 300 were left out`);
    assert.ok(said(1, 81) !== undefined, 'another rule has its own');
    const limit = node.maps.logLimits.get(rule);
    const counted = many.reduce((sum, one) => sum + (one?.unsaid ?? 0), 0) + Number(limit?.unsaid ?? 0n);
    assert.equal(counted, left, 'what was left out is counted');
    node.maps.logLimits.set(rule, { nextNs: 0n, unsaid: 5n });
    assert.equal(said(2, 80)?.unsaid, 5);
  });

  test('is not said of the mark of an answer', () => {
    using node = new TestNode();
    node.ruleSet(denying, [{ rule, flags: optionFlags.log }]);
    node.addPod(bob, { ingressSet: denying });
    const received = node.travel(alice, bob, outOf(alice, bob, 4, tcp({ source: 1, destination: 80 })));
    assert.equal(logged(received, kinds.new).length, 1);
    const answer = node.receive(
      alice,
      into(alice, bob, 4, tcp({ source: 80, destination: 1, flags: 'SA' })),
      0x4d000000 | bob.identity,
    );
    assert.equal(answer.action, 'pass');
    assert.equal(answer.events.length, 0);
  });
});
