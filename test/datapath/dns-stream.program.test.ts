import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import type { IpAddress } from '../../src/model/address.ts';
import { tcp } from '../support/packet.ts';
import { alice, world } from './cluster.ts';
import { a, answering, NameNode, question } from './name-node.ts';
import { into, type Outcome, outOf } from './node.ts';

/** DNS over TCP (bpf/lib/dns_stream.h): messages in any pieces, and what a pod might do to say other than is read. */

const runs = Number(process.env.MYELIN_DNS_RUNS ?? 3000) / 10;
const none = new Uint8Array();
const framed = (message: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message]);
const outcome = ({ action, reason }: Outcome) => reason ?? action;

/** A connection of alice's to a server's port 53, after its handshake. */
class Stream {
  readonly #own: NameNode;
  readonly source: number;
  readonly first = 0xffff_ff00;
  up = this.first + 1;
  down = 5001;

  constructor(own: NameNode) {
    this.#own = own;
    this.source = own.newPort();
    assert.equal(this.send(none, { seq: this.first, flags: 'S' }), 'pass');
    assert.equal(this.receive(none, { seq: 5000, flags: 'SA' }), 'pass');
    assert.equal(this.send(none), 'pass');
  }

  /** What becomes of a segment of alice's; the stream goes on behind it if it passes and is the next. */
  send(payload: Uint8Array, { seq = this.up, flags = 'PA' }: { seq?: number; flags?: string } = {}): string {
    const packet = tcp({ source: this.source, destination: 53, flags, payload, seq: seq >>> 0 });
    const became = outcome(this.#own.node.send(alice, outOf(alice, world, 4, packet)));
    if (became === 'pass' && seq === this.up) this.up += payload.length;
    return became;
  }

  receive(payload: Uint8Array, { seq = this.down, flags = 'PA' }: { seq?: number; flags?: string } = {}): string {
    const packet = tcp({ source: 53, destination: this.source, flags, payload, seq });
    const became = outcome(this.#own.node.receive(alice, into(alice, world, 4, packet), 0));
    if (became === 'pass' && seq === this.down) this.down += payload.length;
    return became;
  }
}

/** Cuts bytes at places that are taken from the numbers. */
function pieces(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [...new Set([0, ...cuts.map((cut) => cut % bytes.length), bytes.length])].sort((x, y) => x - y);
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end));
}

const splits = fc.record({
  asked: fc.array(fc.constantFrom('api.example', 'x.cdn.example', 'other.test'), { minLength: 1, maxLength: 4 }),
  up: fc.array(fc.nat(1000), { maxLength: 12 }),
  down: fc.array(fc.nat(1000), { maxLength: 12 }),
  again: fc.nat(11),
});

describe('in any pieces', () => {
  const own = new NameNode();
  after(() => own[Symbol.dispose]());

  test('questions pass, and each answer has taught when the piece passes that it ends in, and not before', () => {
    fc.assert(
      fc.property(splits, ({ asked, up, down, again }) => {
        own.forget();
        const stream = new Stream(own);
        const up53 = pieces(Buffer.concat(asked.map((name, id) => framed(question(name, 'A', id)))), up);
        for (const piece of up53) {
          const before = stream.up;
          assert.equal(stream.send(piece), 'pass');
          assert.equal(stream.send(piece, { seq: before }), 'pass', 'the same once more');
        }
        const answers = asked.map((name, id) => framed(answering(name, [a(name, `203.0.113.${10 + id}`)], { id })));
        const known = new Set<IpAddress | string>();
        let said = 0;
        for (const [i, piece] of pieces(Buffer.concat(answers), down).entries()) {
          if (i === again) assert.equal(stream.receive(piece, { seq: stream.down + 1 }), 'DNS_MALFORMED', 'too early');
          const before = stream.down;
          assert.equal(stream.receive(piece), 'pass');
          said += piece.length;
          let end = 0;
          for (const [id, answer] of answers.entries()) {
            end += answer.length;
            if (end <= said && asked[id] !== 'other.test') known.add(`203.0.113.${10 + id}`);
          }
          assert.deepEqual(new Set(own.learnt().keys()), known);
          if (i === again) assert.equal(stream.receive(piece, { seq: before }), 'pass', 'the same once more');
        }
      }),
      { numRuns: runs },
    );
  });

  test('a long answer is followed up to what fits; what is longer, or broken, does not come through', () => {
    own.forget();
    const stream = new Stream(own);
    stream.send(framed(question('api.example')));
    const many = Array.from({ length: 60 }, (_, i) => a('api.example', `203.0.114.${i}`));
    const long = framed(answering('api.example', many));
    for (const piece of pieces(long, [1, 2, 500, 900])) assert.equal(stream.receive(piece), 'pass');
    assert.equal(own.learnt().size, 60);
    assert.equal(stream.receive(Buffer.from([0x10, 0x01, 0, 0])), 'DNS_MALFORMED');
    const other = new Stream(own);
    assert.equal(other.receive(framed(answering('api.example', [a('api.example')]))), 'DNS_UNASKED');
  });
});

describe('which names may be asked', () => {
  const own = new NameNode({ asked: ['api.example', '**.wild.example'] });
  after(() => own[Symbol.dispose]());
  const good = framed(question('api.example'));
  const bad = framed(question('other.example'));

  test('a question that is denied is, with the piece that it ends in, however often that comes', () => {
    const stream = new Stream(own);
    assert.equal(stream.send(good), 'pass');
    assert.equal(stream.send(bad), 'DNS_DENIED');
    assert.equal(stream.send(bad.subarray(0, 20)), 'pass');
    for (let i = 0; i < 3; i++) assert.equal(stream.send(bad.subarray(20)), 'DNS_DENIED');
    assert.equal(stream.send(bad.subarray(20, 21)), 'pass');
    assert.equal(stream.send(bad.subarray(21)), 'DNS_DENIED');
    assert.equal(stream.send(Buffer.concat([bad.subarray(21), good])), 'DNS_MALFORMED', 'not with one that is not');
  });

  test('as resolvers ask: both families in one segment, and the answers in one', () => {
    own.forget();
    const stream = new Stream(own);
    const both = Buffer.concat([good, framed(question('api.example', 'AAAA', 9))]);
    assert.equal(stream.send(both), 'pass');
    const address = { name: 'api.example', type: 'AAAA', ttl: 300, data: '2001:db8:5::5' } as const;
    const answers = [
      answering('api.example', [a('api.example')]),
      answering('api.example', [address], { id: 9, type: 'AAAA' }),
    ];
    assert.equal(stream.receive(Buffer.concat(answers.map(framed))), 'pass');
    assert.deepEqual(new Set(own.learnt().keys()), new Set(['203.0.113.5', '2001:db8:5::5']));
    assert.equal(stream.send(Buffer.concat([good, bad])), 'DNS_MALFORMED');
    assert.equal(stream.send(Buffer.concat([good, good, good, good, good])), 'DNS_MALFORMED', 'too many at once');
  });

  test('what was sent cannot be sent otherwise, nor be stepped over', () => {
    const stream = new Stream(own);
    const at = stream.up;
    assert.equal(stream.send(good.subarray(0, 20)), 'pass');
    assert.equal(stream.send(bad.subarray(0, 20), { seq: at }), 'DNS_MALFORMED', 'other bytes');
    assert.equal(stream.send(good.subarray(0, 20), { seq: at }), 'pass', 'the same bytes');
    assert.equal(stream.send(bad, { seq: at }), 'DNS_MALFORMED', 'other bytes, and more');
    assert.equal(stream.send(good.subarray(25), { seq: at + 25 }), 'DNS_MALFORMED', 'a gap');
    // One whole message to who reads it by itself; to the server its tail is what counts.
    const hidden = framed(Buffer.concat([question('api.example').subarray(0, 18), bad]));
    assert.equal(stream.send(hidden, { seq: at }), 'DNS_MALFORMED');
    assert.equal(stream.send(good, { seq: at }), 'pass', 'all of it, with what had come');
    assert.equal(stream.send(good), 'DNS_MALFORMED', 'the stream stands behind that now');
    stream.up = at + good.length;
    assert.equal(stream.send(good), 'pass');
  });

  test('a stream that lives is not begun anew, also where the pod says that it has ended', () => {
    const stream = new Stream(own);
    assert.equal(stream.send(good.subarray(0, 20)), 'pass');
    stream.send(none, { seq: stream.up + 5, flags: 'S' });
    assert.equal(stream.send(good, { seq: stream.up + 6 }), 'DNS_MALFORMED');
    stream.send(none, { seq: stream.up + 1000, flags: 'R' });
    assert.equal(stream.send(none, { seq: stream.up + 5, flags: 'S' }), 'pass');
    assert.equal(stream.send(good, { seq: stream.up + 6 }), 'DNS_MALFORMED');
    // A new connection of these ports begins far away.
    const far = stream.up + 50_000_000;
    assert.equal(stream.send(none, { seq: far, flags: 'S' }), 'pass');
    assert.equal(stream.send(good, { seq: far + 1 }), 'pass');
  });

  test('what nobody has seen begin, and what is too long to be kept, does not go', () => {
    const source = own.newPort();
    const middle = tcp({ source, destination: 53, flags: 'PA', payload: good });
    assert.equal(outcome(own.node.send(alice, outOf(alice, world, 4, middle))), 'DNS_MALFORMED');
    const stream = new Stream(own);
    assert.equal(stream.send(Buffer.from([2, 0])), 'DNS_MALFORMED');
    assert.equal(stream.send(Buffer.alloc(600)), 'DNS_MALFORMED');
    const first = stream.up;
    for (let i = 0; i < 50; i++) assert.equal(stream.send(good), 'pass', 'but as much as it likes, one by one');
    assert.equal(stream.send(good, { seq: first }), 'DNS_MALFORMED', 'and what came long ago is not known any more');
  });
});
