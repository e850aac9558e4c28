import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { type Answer, decode, encode } from 'dns-packet';
import fc from 'fast-check';
import { evaluateMaps } from '../../src/datapath/evaluate.ts';
import { parseIp } from '../../src/model/address.ts';
import { matchesDomain } from '../../src/policy/request/domain.ts';
import { addressesIn, readAnswer, readByPacket } from '../support/dns-reference.ts';
import { tcp } from '../support/packet.ts';
import { alice, nobody, otherNode, world } from './cluster.ts';
import { a, answering, ids, NameNode, patterns, question } from './name-node.ts';
import { type Addresses, addressOf, families, outOf } from './node.ts';

/*
 * bpf/lib/dns.h and bpf/lib/names.h in the programs that have them: what answers teach, and what they do not; which
 * questions may go. What a message says is held against a reader of the tests' own.
 */

const cname = (name: string, data: string): Answer => ({ name, type: 'CNAME', ttl: 300, data });
const host = { address4: parseIp('203.0.113.5'), address6: parseIp('2001:db8:5::5') };
const elsewhere = { address4: parseIp('203.0.113.6'), address6: parseIp('2001:db8:5::6') };
const syn = (source: number) => tcp({ source, destination: 443 });

describe('what answers teach', () => {
  const own = new NameNode();
  after(() => own[Symbol.dispose]());
  const { node } = own;
  /** Asks for a name and hands in the answer to it. */
  const resolve = (name: string, answers: Answer[], type: 'A' | 'AAAA' = 'A') => {
    const port = own.newPort();
    assert.equal(own.ask(port, question(name, type)).action, 'pass');
    return own.answer(port, answering(name, answers, { type }));
  };

  test('an address is allowed as soon as its answer passes, of both families; no other is', () => {
    for (const family of families)
      assert.equal(node.send(alice, outOf(alice, host, family, syn(1))).reason, 'POLICY_DENIED');
    assert.equal(resolve('API.Example', [a('api.example')]).action, 'pass');
    assert.equal(
      resolve('api.example', [{ name: 'api.example', type: 'AAAA', ttl: 300, data: host.address6 }], 'AAAA').action,
      'pass',
    );
    for (const family of families) {
      const sent = node.send(alice, outOf(alice, host, family, syn(1)));
      assert.equal(sent.action, 'pass');
      assert.equal(sent.events[0]?.rule, 200);
      const query = { ifindex: alice.ifindex, direction: 'egress', protocol: 6, port: 443 } as const;
      const asked = (who: Addresses) => evaluateMaps(node.maps, { ...query, remote: addressOf(who, family) });
      assert.deepEqual([asked(host).verdict, asked(host).rule, asked(elsewhere).verdict], ['allow', 200, 'deny']);
      assert.equal(node.send(alice, outOf(alice, elsewhere, family, syn(2))).reason, 'POLICY_DENIED');
      const port = tcp({ source: 3, destination: 80 });
      assert.equal(node.send(alice, outOf(alice, host, family, port)).reason, 'POLICY_DENIED');
    }
    assert.equal([...node.maps.names.entries()][0]?.[1].name, 'api.example');
  });

  test('what has run out admits nothing new; what was admitted goes on, also under a new revision', () => {
    own.forget();
    resolve('api.example', [a('api.example')]);
    assert.equal(node.send(alice, outOf(alice, host, 4, syn(11))).action, 'pass');
    const key = { endpoint: alice.id, address: host.address4 };
    const value = node.maps.names.get(key) ?? assert.fail('nothing is learnt');
    node.maps.names.set(key, { ...value, expiresNs: value.expiresNs.map((at) => (at === 0n ? 0n : 1n)) });
    assert.equal(node.send(alice, outOf(alice, host, 4, syn(12))).reason, 'POLICY_DENIED');
    const data = tcp({ source: 11, destination: 443, flags: 'A' });
    assert.equal(node.send(alice, outOf(alice, host, 4, data)).action, 'pass');
    own.configure({ revision: 2 });
    assert.equal(node.send(alice, outOf(alice, host, 4, data)).action, 'pass', 'judged again by the name it has');
    node.maps.names.delete(key);
    own.configure({ revision: 3 });
    assert.equal(node.send(alice, outOf(alice, host, 4, data)).action, 'pass', 'collected, too');
    own.place({ egressSet: 2 });
    own.configure({ revision: 4 });
    assert.equal(node.send(alice, outOf(alice, host, 4, data)).reason, 'POLICY_DENIED', 'its rule is gone');
    own.place({});
    own.configure({});
  });

  test('a TTL counts for no less than the floor and no more than the ceiling', () => {
    const secondsOf = (ttl: number, settings: Parameters<NameNode['configure']>[0]) => {
      own.forget();
      own.configure(settings);
      resolve('api.example', [a('api.example', '203.0.113.5', ttl)]);
      const [[, { expiresNs, learntNs }] = assert.fail('nothing is learnt')] = [...node.maps.names.entries()];
      return Number((expiresNs[0] ?? 0n) - learntNs) / 1e9;
    };
    assert.equal(secondsOf(1, {}), 60);
    assert.equal(secondsOf(3600, {}), 3600);
    assert.equal(secondsOf(0x7fff_ffff, {}), 86_400);
    assert.equal(secondsOf(0xffff_ffff, {}), 60, 'RFC 2181 section 8');
    assert.equal(secondsOf(5, { nameFloorNs: 2_000_000_000n }), 5);
    assert.equal(secondsOf(5, { nameFloorNs: 2_000_000_000n, nameCeilingNs: 3_000_000_000n }), 3);
    own.configure({});
  });

  test('the name that is asked for counts for the addresses of its whole chain, in any order, and nobody else’s', () => {
    own.forget();
    const chain = [
      cname('x.cdn.example', 'edge.other.test'),
      a('stranger.test', '203.0.113.9'),
      a('EDGE2.other.test', '203.0.113.7'),
      cname('edge.other.test', 'edge2.OTHER.test'),
      a('x.cdn.example', '203.0.113.8'),
    ];
    assert.equal(resolve('x.cdn.example', chain).action, 'pass');
    assert.deepEqual([...own.learnt()].sort(), [
      ['203.0.113.7', [1]],
      ['203.0.113.8', [1]],
    ]);
  });

  test('many names on one address; a name is of all patterns that it matches; one of none teaches nothing', () => {
    own.forget();
    resolve('api.example', [a('api.example')]);
    resolve('a.b.wild.example', [a('a.b.wild.example')]);
    resolve('a.b.cdn.example', [a('a.b.cdn.example', '203.0.113.44')]);
    assert.deepEqual([...own.learnt()], [['203.0.113.5', [0, 2]]]);
  });

  test('addresses of pods, nodes and services are nobody’s name', () => {
    own.forget();
    for (const { address4 } of [alice, nobody, otherNode, { address4: parseIp('10.96.0.50') }])
      assert.equal(resolve('api.example', [a('api.example', address4)]).action, 'pass');
    assert.deepEqual([...own.learnt()], []);
  });

  test('only an answer to what was asked, of whom it was asked, with its id', () => {
    own.forget();
    const port = own.newPort();
    const said = answering('api.example', [a('api.example')]);
    assert.equal(own.answer(port, said).reason, 'NO_PROOF', 'nobody was asked');
    own.ask(port, question('x.cdn.example'));
    assert.equal(own.answer(port, said).reason, 'DNS_UNASKED', 'another name was asked for');
    own.ask(port, question('api.example', 'A', ids.b));
    assert.equal(own.answer(port, said).reason, 'DNS_UNASKED', 'with another id');
    own.ask(port, question('api.example', 'AAAA'));
    assert.equal(own.answer(port, said).reason, 'DNS_UNASKED', 'for another type');
    assert.equal(own.answer(port, said, 4, elsewhere).reason, 'NO_PROOF', 'somebody else answers');
    assert.equal(own.answer(port, answering('no.example', [a('no.example')])).action, 'pass', 'nothing to learn');
    assert.deepEqual([...own.learnt()], []);
    assert.equal(own.answer(port, answering('api.example', [a('api.example')], { id: ids.b })).action, 'pass');
    assert.equal(own.learnt().size, 1);
  });

  test('what cannot be read does not come through, if its name is one; a truncated answer does, and teaches nothing', () => {
    own.forget();
    const port = own.newPort();
    own.ask(port, question('api.example'));
    const whole = answering('api.example', [a('api.example')]);
    const loop = Buffer.from(whole);
    // The owner of the record becomes a pointer to itself.
    const owner = loop.length - 14 - 'api.example'.length - 2;
    loop.writeUInt16BE(0xc000 | owner, owner);
    for (const broken of [loop, whole.subarray(0, -1), whole.subarray(0, 11), Buffer.alloc(0)])
      assert.equal(own.answer(port, broken).reason, 'DNS_MALFORMED', broken.toString('hex'));
    const truncated = answering('api.example', [a('api.example')], { flags: 0x380 }).subarray(0, -1);
    assert.equal(own.answer(port, truncated).action, 'pass');
    assert.deepEqual([...own.learnt()], []);
  });
});

test('where there is no room to learn, the answer does not come through', () => {
  const many = Array.from({ length: 9 }, (_, i) => `h*${'*'.repeat(i)}.x.example`);
  const nine = ['a.example', 'b.example', ...Array.from({ length: 7 }, (_, i) => `n${i}.example`)];
  using full = new NameNode({ maxEntries: { ct: 64, policy: 4096, names: 2 } });
  const resolve = (own: NameNode, name: string, data: string) => {
    const port = own.newPort();
    own.ask(port, question(name));
    return own.answer(port, answering(name, [a(name, data)]));
  };
  const outcomes = [5, 6, 7, 8, 9].map((last) => resolve(full, 'api.example', `203.0.113.${last}`));
  assert.ok(
    outcomes.some(({ reason }) => reason === 'NAMES_FULL'),
    JSON.stringify(outcomes.map(({ reason }) => reason)),
  );
  assert.equal(outcomes.filter(({ action }) => action === 'pass').length, full.learnt().size);
  using wide = new NameNode({ learnt: many });
  assert.equal(resolve(wide, 'host.x.example', '203.0.113.5').reason, 'NAMES_FULL', 'a name of nine patterns');
  using crowded = new NameNode({ learnt: nine });
  const said = nine.map((name) => resolve(crowded, name, '203.0.113.5'));
  assert.deepEqual(
    said.map(({ action, reason }) => reason ?? action),
    [...new Array<string>(8).fill('pass'), 'NAMES_FULL'],
  );
});

describe('which names may be asked', () => {
  const own = new NameNode({ asked: ['api.example', '**.wild.example'] });
  after(() => own[Symbol.dispose]());

  test('each question is judged by its name, also on one socket; what is refused is answered', () => {
    const port = own.newPort();
    assert.equal(own.ask(port, question('api.example')).action, 'pass');
    for (const family of families) {
      const refused = own.ask(port, question('other.example'), family);
      assert.equal(refused.action, 'redirect');
      assert.equal(refused.reason, 'DNS_DENIED');
      const { ip, source } = refused.frame;
      assert.equal(source, alice.hostMac);
      assert.deepEqual(
        [ip?.source, ip?.destination, ip?.transport?.sourcePort, ip?.transport?.destinationPort],
        [addressOf(world, family), addressOf(alice, family), 53, port],
      );
      assert.equal(ip?.transport?.checksum, 'true');
      const { flags = 0, type } = decode(Buffer.from(ip?.payload.subarray(8) ?? []));
      assert.deepEqual([type, flags & 0xf], ['response', 5]);
    }
    assert.equal(own.answer(port, answering('api.example', [a('api.example')])).action, 'pass');
    assert.equal(own.ask(port, question('a.wild.example', 'A', ids.b)).action, 'pass');
    assert.equal(own.ask(own.newPort(), question('.')).reason, 'DNS_DENIED');
    assert.equal(own.answer(port, answering('other.example', [])).reason, 'DNS_UNASKED');
  });

  test('the answer to a question that was allowed comes through a change of policy', () => {
    const port = own.newPort();
    own.ask(port, question('api.example'));
    own.configure({ revision: 2 });
    assert.equal(own.answer(port, answering('api.example', [a('api.example')])).action, 'pass');
    own.configure({});
  });

  test('what is no question that can be read is none', () => {
    const port = own.newPort();
    const good = question('api.example');
    const two = encode({
      type: 'query',
      id: 1,
      questions: [
        { name: 'api.example', type: 'A' },
        { name: 'b', type: 'A' },
      ],
    });
    const update = Buffer.from(good);
    update.writeUInt16BE(0x2800, 2);
    const pointer = Buffer.from([...good.subarray(0, 12), 0xc0, 12, 0, 1, 0, 1]);
    const response = answering('api.example', []);
    for (const bad of [two, update, pointer, response, good.subarray(0, -1), Buffer.from('hello')])
      assert.equal(own.ask(port, bad).reason, 'DNS_MALFORMED', bad.toString('hex'));
  });
});

const runs = Number(process.env.MYELIN_DNS_RUNS ?? 3000);

/** Messages as servers write them, with names compressed at will. */
const nameArbitrary = fc.constantFrom(
  'api.example',
  'x.cdn.example',
  'y.wild.example',
  'edge.test',
  'a.edge.test',
  'Api.exAmple',
);
const recordArbitrary = fc.record({
  owner: nameArbitrary,
  type: fc.constantFrom(1, 1, 28, 5, 5, 16, 65),
  last: fc.nat(9),
  target: nameArbitrary,
  compress: fc.boolean(),
  class: fc.constantFrom(1, 1, 1, 1, 3),
});
const messageArbitrary = fc.record({
  question: nameArbitrary,
  records: fc.array(recordArbitrary, { maxLength: 8 }),
  mutations: fc.oneof(fc.constant([]), fc.array(fc.record({ at: fc.nat(160), byte: fc.nat(255) }), { maxLength: 2 })),
  cut: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.nat(200) }),
});

/** Writes names with pointers to where they, or ends of them, stand already. */
class Writer {
  readonly bytes: number[] = [];
  readonly #seen = new Map<string, number>();

  name(name: string, compress: boolean): void {
    let rest = name;
    while (rest !== '') {
      const known = this.#seen.get(rest);
      if (compress && known !== undefined) {
        this.bytes.push(0xc0 | (known >> 8), known & 0xff);
        return;
      }
      if (!this.#seen.has(rest)) this.#seen.set(rest, this.bytes.length);
      const [label = '', ...others] = rest.split('.');
      this.bytes.push(label.length, ...Buffer.from(label));
      rest = others.join('.');
    }
    this.bytes.push(0);
  }

  number(value: number, size: number): void {
    for (let i = size - 1; i >= 0; i--) this.bytes.push(Math.floor(value / 256 ** i) & 0xff);
  }
}

test('whatever a message is, nothing is learnt from it that a reader of RFC 1035 does not find in it; of a whole one, all', () => {
  using own = new NameNode();
  const port = own.newPort();
  let [learnt, whole, malformed] = [0, 0, 0];
  fc.assert(
    fc.property(messageArbitrary, ({ question: asked, records, mutations, cut }) => {
      own.forget();
      own.ask(port, question(asked));
      const writer = new Writer();
      for (const value of [ids.a, 0x8180, 1, records.length, 0, 0]) writer.number(value, 2);
      writer.name(asked, false);
      for (const value of [1, 1]) writer.number(value, 2);
      for (const { owner, type, last, target, compress, class: family } of records) {
        const data = [203, 0, 113, last];
        writer.name(owner, compress);
        writer.number(type, 2);
        writer.number(family, 2);
        writer.number(300, 4);
        const at = writer.bytes.length;
        writer.number(0, 2);
        if (type === 5) writer.name(target, compress);
        else if (type === 28) writer.bytes.push(0x20, 1, 0xd, 0xb8, ...new Array<number>(8).fill(0), ...data);
        else writer.bytes.push(...data);
        const length = writer.bytes.length - at - 2;
        writer.bytes.splice(at, 2, length >> 8, length & 0xff);
      }
      const intact = mutations.length === 0 && cut === undefined;
      for (const { at, byte } of mutations) if (at < writer.bytes.length && at >= 2) writer.bytes[at] = byte;
      const message = Buffer.from(writer.bytes.slice(0, cut));
      const outcome = own.answer(port, message);
      const read = readAnswer(message);
      const found = own.learnt();
      if (read === undefined) {
        malformed++;
        assert.equal(found.size, 0, message.toString('hex'));
        return;
      }
      const byPacket = readByPacket(message);
      if (byPacket !== undefined && intact) assert.equal(read.records.length, byPacket.length);
      const matched = patterns.flatMap((pattern, i) => (matchesDomain(read.question, { pattern }) ? [i] : []));
      const expected = addressesIn(read);
      for (const [address, numbers] of found) {
        assert.ok(expected.has(address), `${address} of ${message.toString('hex')}`);
        assert.deepEqual(numbers, matched);
      }
      learnt += found.size;
      // A name has one CNAME at most (RFC 1034 section 3.6.2): of several the datapath follows the first.
      const aliases = read.records.flatMap(({ owner, alias }) => (alias === undefined ? [] : [owner]));
      if (!intact || matched.length === 0 || new Set(aliases).size < aliases.length) return;
      whole++;
      assert.equal(outcome.action, 'pass', message.toString('hex'));
      assert.deepEqual([...found.keys()].sort(), [...expected].sort(), message.toString('hex'));
    }),
    { numRuns: runs },
  );
  assert.ok(
    learnt > runs / 12 && whole > runs / 30 && malformed > runs / 30,
    JSON.stringify({ learnt, whole, malformed }),
  );
});
