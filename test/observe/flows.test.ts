import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters, styleText } from 'node:util';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import type { FlowEvent } from '../../src/model/flow.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { filterToQuery, matchesFilter, parseFilter } from '../../src/observe/filter.ts';
import { FlowLog } from '../../src/observe/flow-log.ts';
import { decidedBy, formatBytes, formatFlow } from '../../src/observe/format.ts';

function flow(changes: Partial<FlowEvent> = {}): FlowEvent {
  return {
    kind: 'new',
    time: Date.UTC(2026, 0, 1),
    node: 'node-1',
    direction: 'ingress',
    protocol: 'TCP',
    source: {
      kind: 'pod',
      namespace: 'shop',
      name: 'front-6f7d8c9b5-x2x4z',
      serviceAccount: 'front',
      node: 'node-1',
      address: parseIp('10.244.1.2'),
      port: 40_000,
      identity: reservedIdentity.world,
    },
    destination: { kind: 'world', address: parseIp('192.0.2.1'), port: 443, identity: reservedIdentity.world },
    verdict: 'allow',
    packets: 1,
    bytes: 60,
    ...changes,
  };
}

test('a filter finds pods by full name, namespace and the name of their Deployment', () => {
  for (const pod of ['shop/front-6f7d8c9b5-x2x4z', 'front-6f7d8c9b5-x2x4z', 'shop/', 'shop/front', 'front'])
    assert.ok(matchesFilter(flow(), { pod }), pod);
  for (const pod of ['other/front', 'back', 'other/', 'shop/fron']) assert.ok(!matchesFilter(flow(), { pod }), pod);
  assert.ok(matchesFilter(flow(), { from: 'front', to: 'world', port: 443, protocol: 'TCP', verdict: 'allow' }));
  assert.ok(!matchesFilter(flow(), { from: 'world' }));
  assert.ok(!matchesFilter(flow(), { address: '10.244.1.3' }));
});

test('a filter survives the way through a URL', () => {
  const filter = parseFilter({ pod: 'a/b', port: '53', protocol: 'udp', verdict: 'deny' });
  assert.deepEqual(filter, { pod: 'a/b', port: 53, protocol: 'UDP', verdict: 'deny' });
  assert.deepEqual(parseFilter(filterToQuery(filter)), filter);
});

test('a protocol may be given by name or number, an address in any of its spellings', () => {
  for (const protocol of ['tcp', 'TCP', '6'])
    assert.deepEqual(parseFilter({ protocol }), { protocol: 'TCP' }, protocol);
  for (const protocol of ['icmpv6', '58'])
    assert.ok(matchesFilter(flow({ protocol: 'ICMPv6' }), parseFilter({ protocol })), protocol);
  assert.ok(matchesFilter(flow({ protocol: 89 }), parseFilter({ protocol: '89' })));
  assert.throws(() => parseFilter({ protocol: 'tpc' }), /protocol is ICMP, TCP, .* not "tpc"/);
  assert.throws(() => parseFilter({ protocol: '256' }), /up to 255/);
  const destination = {
    kind: 'world',
    address: parseIp('2001:db8::1'),
    port: 443,
    identity: reservedIdentity.world,
  } as const;
  assert.ok(matchesFilter(flow({ destination }), parseFilter({ address: '2001:0DB8:0::0001' })));
  assert.ok(matchesFilter(flow(), parseFilter({ address: '::ffff:192.0.2.1' })));
});

test('a filter that means nothing is refused with what was expected', () => {
  assert.throws(() => parseFilter({ verdict: 'maybe' }), /'allow', 'deny' or 'audit'/);
  assert.throws(() => parseFilter({ port: '70000' }), /up to 65535/);
  assert.throws(() => parseFilter({ address: '10.0.0.256' }), /IP address/);
});

test('the log keeps the newest flows in order and counts what it overwrote', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 0, max: 30 }),
      fc.integer({ min: 0, max: 10 }),
      (capacity, pushed, limit) => {
        const log = new FlowLog({ capacity, ringLosses: () => 7 });
        for (let i = 0; i < pushed; i++) log.push(flow({ packets: i }));
        const kept = Math.min(capacity, pushed);
        const expected = Array.from({ length: Math.min(limit, kept) }, (_, i) => pushed - Math.min(limit, kept) + i);
        assert.deepEqual(
          log.recent({}, limit).map((f) => f.packets),
          expected,
        );
        assert.deepEqual(log.losses, { ring: 7, overwritten: pushed - kept, slowFollower: 0, proxy: 0 });
      },
    ),
  );
});

test('a follower gets what matches, until it stops', () => {
  const log = new FlowLog({ capacity: 2, ringLosses: () => 0 });
  const seen: number[] = [];
  const stop = log.follow({ verdict: 'deny' }, (f) => seen.push(f.packets));
  log.push(flow({ packets: 1 }));
  log.push(flow({ packets: 2, verdict: 'deny' }));
  stop();
  log.push(flow({ packets: 3, verdict: 'deny' }));
  assert.deepEqual(seen, [2]);
});

test('every verdict says what decided', () => {
  const rule = { kind: 'NetworkPolicy', namespace: 'shop', name: 'cart', direction: 'ingress', index: 2 } as const;
  assert.equal(decidedBy(flow({ rule })), 'NetworkPolicy shop/cart ingress[2]');
  assert.equal(decidedBy(flow()), 'ingress: no policy selects the pod');
  assert.match(
    decidedBy(flow({ verdict: 'deny', reason: 'POLICY_DENIED', rule: { ...rule, index: -1 } })),
    /POLICY_DENIED.*shop\/cart ingress/,
  );
  assert.equal(formatFlow(flow(), false), stripVTControlCharacters(formatFlow(flow(), true)));
  assert.ok(formatFlow(flow(), true).includes(styleText('green', 'allow', { validateStream: false })));
  assert.deepEqual([0, 1023, 1024, 1536, 5 * 2 ** 30].map(formatBytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '5.0 GiB',
  ]);
});

test('what is audited and what is to be logged say so in their line, and a filter finds the former', () => {
  const rule = { kind: 'NetworkPolicy', namespace: 'shop', name: 'p', direction: 'ingress', index: -1 } as const;
  const audited = flow({ kind: 'audit', reason: 'POLICY_DENIED', rule });
  assert.match(
    formatFlow(audited, false),
    / audit audit .*ingress: POLICY_DENIED \(.*, NetworkPolicy shop\/p ingress\)$/,
  );
  assert.ok(matchesFilter(audited, { verdict: 'audit' }));
  assert.ok(!matchesFilter(audited, { verdict: 'allow' }));
  assert.ok(!matchesFilter(flow(), { verdict: 'audit' }));
  const logged = flow({ rule, log: { text: 'edge', unsaid: 0 } });
  assert.match(formatFlow(logged, false), / {2}“edge”$/);
  assert.match(
    formatFlow({ ...logged, log: { text: 'edge', unsaid: 3 } }, false),
    / {2}“edge” \(3 more before this\)$/,
  );
});

test('TLS is said by its server name, and of a request within it which that was', () => {
  const seen = (http: NonNullable<FlowEvent['http']>) => formatFlow(flow({ kind: 'request', http }), false);
  const read = { method: 'GET', path: '/a', status: 200, unsaid: 0 };
  const none = { method: '', path: '', unsaid: 0 };
  assert.match(seen(read), / GET \/a → 200 /);
  assert.match(seen({ ...read, tls: { serverName: 'shop.example' } }), / GET \/a in TLS shop\.example → 200 /);
  assert.match(seen({ ...none, tls: {} }), / TLS without a name /);
  assert.match(seen({ ...none, status: 400, tls: {} }), / unreadable in TLS without a name → 400 /);
});
