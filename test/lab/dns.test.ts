import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as packet from 'dns-packet';
import fc from 'fast-check';
import {
  addressFromArpa,
  answerQuestion,
  type DnsService,
  type DnsView,
  respond,
} from '../../src/lab/programs/dns-answers.ts';
import { ipToBytes, parseIp } from '../../src/model/address.ts';

const http = { name: 'http', protocol: 'TCP', port: 80 };
const web: DnsService = {
  namespace: 'shop',
  name: 'web',
  addresses: ['10.96.0.7', 'fd00:10:96::7'],
  headless: false,
  ports: [http],
  endpoints: [{ address: '10.244.0.9', ports: [{ ...http, port: 8080 }] }],
};
const db: DnsService = {
  ...web,
  name: 'db',
  addresses: [],
  headless: true,
  endpoints: [
    { address: '10.244.0.1', hostname: 'db-0', ports: [http] },
    { address: 'fd00:10:244::1', ports: [http] },
  ],
};
const out: DnsService = { ...web, name: 'out', addresses: [], externalName: 'example.com', endpoints: [] };
const services = new Map([web, db, out].map((each) => [`${each.namespace}/${each.name}`, each]));
const view: DnsView = {
  service: (key) => services.get(key),
  byAddress: (address) =>
    address === '10.96.0.7'
      ? { service: web }
      : address === '10.244.0.1'
        ? { service: db, hostname: 'db-0' }
        : undefined,
  hasNamespace: (name) => name === 'shop' || name === 'empty',
  hasPod: (namespace, address) => namespace === 'shop' && (address === '10.244.0.9' || address === 'fd00:10:244::9'),
};

function ask(name: string, type: packet.RecordType): [string, unknown[]] {
  const { rcode, answers } = answerQuestion({ name, type, class: 'IN' }, view, 'cluster.local');
  return [rcode, answers.map((each) => ('data' in each ? each.data : undefined))];
}

describe('cluster DNS', () => {
  const none: [string, unknown[]] = ['NOERROR', []];
  const unknown: [string, unknown[]] = ['NXDOMAIN', []];
  const cases: [string, packet.RecordType, [string, unknown[]]][] = [
    ['web.shop.svc.cluster.local', 'A', ['NOERROR', ['10.96.0.7']]],
    ['WEB.Shop.svc.cluster.LOCAL.', 'A', ['NOERROR', ['10.96.0.7']]],
    ['web.shop.svc.cluster.local', 'AAAA', ['NOERROR', ['fd00:10:96::7']]],
    ['web.shop.svc.cluster.local', 'MX', none],
    ['web.empty.svc.cluster.local', 'A', unknown],
    ['web.nowhere.svc.cluster.local', 'A', unknown],
    ['shop.svc.cluster.local', 'A', none],
    ['nowhere.svc.cluster.local', 'A', unknown],
    ['svc.cluster.local', 'A', none],
    ['x.web.shop.svc.cluster.local', 'A', unknown],
    ['db.shop.svc.cluster.local', 'A', ['NOERROR', ['10.244.0.1']]],
    ['db.shop.svc.cluster.local', 'AAAA', ['NOERROR', ['fd00:10:244::1']]],
    ['db-0.db.shop.svc.cluster.local', 'A', ['NOERROR', ['10.244.0.1']]],
    ['fd00-10-244-1.db.shop.svc.cluster.local', 'AAAA', ['NOERROR', ['fd00:10:244::1']]],
    ['out.shop.svc.cluster.local', 'A', ['NOERROR', ['example.com']]],
    ['10-244-0-9.shop.pod.cluster.local', 'A', ['NOERROR', ['10.244.0.9']]],
    ['fd00-10-244--9.shop.pod.cluster.local', 'AAAA', ['NOERROR', ['fd00:10:244::9']]],
    ['10-244-0-8.shop.pod.cluster.local', 'A', unknown],
    ['7.0.96.10.in-addr.arpa', 'PTR', ['NOERROR', ['web.shop.svc.cluster.local']]],
    ['1.0.244.10.in-addr.arpa', 'PTR', ['NOERROR', ['db-0.db.shop.svc.cluster.local']]],
    ['9.9.9.9.in-addr.arpa', 'PTR', unknown],
    ['example.com', 'A', unknown],
    ['cluster.local', 'A', none],
    ['notcluster.local', 'A', unknown],
    ['dns-version.cluster.local', 'TXT', ['NOERROR', ['1.1.0']]],
  ];
  for (const [name, type, expected] of cases)
    test(`${name} ${type}`, () => assert.deepEqual(ask(name, type), expected));

  test('SRV of a service names its port and its addresses', () => {
    const name = '_http._tcp.web.shop.svc.cluster.local';
    const reply = answerQuestion({ name, type: 'SRV', class: 'IN' }, view, 'cluster.local');
    const target = 'web.shop.svc.cluster.local';
    assert.deepEqual(reply.answers, [
      { name, type: 'SRV', ttl: 5, data: { target, port: 80, priority: 0, weight: 100 } },
    ]);
    assert.deepEqual(
      reply.additionals.map((each) => each.type),
      ['A', 'AAAA'],
    );
    assert.deepEqual(ask('_http._udp.web.shop.svc.cluster.local', 'SRV'), unknown);
  });

  test('SRV of a headless service names each endpoint', () => {
    const { answers } = answerQuestion(
      { name: '_http._tcp.db.shop.svc.cluster.local', type: 'SRV', class: 'IN' },
      view,
      'cluster.local',
    );
    assert.deepEqual(
      answers.map((each) => (each.type === 'SRV' ? each.data.target : '')),
      ['db-0.db.shop.svc.cluster.local', 'fd00-10-244-1.db.shop.svc.cluster.local'],
    );
  });

  test('an arpa name leads back to its address', () => {
    const v6 = fc.uint8Array({ minLength: 16, maxLength: 16 });
    fc.assert(
      fc.property(v6, (bytes) => {
        const text = [...bytes].flatMap((byte) => [byte >> 4, byte & 15]).map((nibble) => nibble.toString(16));
        const address = addressFromArpa(`${text.reverse().join('.')}.ip6.arpa`);
        assert.ok(address !== undefined);
        const found = ipToBytes(parseIp(address));
        assert.deepEqual([...found], [...bytes.subarray(16 - found.length)]);
      }),
    );
  });

  test('the response survives the wire and repeats id and question', () => {
    const query = packet.decode(
      packet.encode({
        type: 'query',
        id: 77,
        flags: packet.RECURSION_DESIRED,
        questions: [{ name: 'nope.com', type: 'A' }],
      }),
    );
    const reply = respond(query, view, 'cluster.local');
    assert.ok(reply !== undefined);
    const seen = packet.decode(packet.encode(reply));
    assert.equal(seen.id, 77);
    assert.equal((seen.flags ?? 0) & 15, 3);
    assert.equal(seen.flag_aa, true);
    assert.equal(seen.questions?.[0]?.name, 'nope.com');
    assert.equal(respond(seen, view, 'cluster.local'), undefined);
  });
});
