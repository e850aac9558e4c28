import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { parseIp } from '../../src/model/address.ts';
import { type InboundSa, TunnelError, tunnelDropReasons } from '../../src/tunnel/driver.ts';
import { decodeMessage } from '../../src/tunnel/engine/messages.ts';
import {
  encodeInstall,
  encodeRemove,
  FrameReader,
  layout,
  messageType,
  protocolVersion,
} from '../../src/tunnel/engine/protocol.ts';
import { ip } from './arbitraries.ts';

const unit = fileURLToPath(new URL('../../build/native-asan/unit', import.meta.url));

/** What the C compiler says of native/protocol.h and native/stats.h. */
function compiled(kind: string): Record<string, number> {
  const { stdout } = spawnSync(unit, ['--layout'], { encoding: 'utf8' });
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  return Object.fromEntries(lines.filter(([k]) => k === kind).map(([, name = '', value]) => [name, Number(value)]));
}

describe('the control protocol in C and in TypeScript', () => {
  test('is one: sizes, message types, version', () => {
    assert.deepEqual({ ...layout }, compiled('size'));
    assert.deepEqual({ ...messageType }, compiled('message'));
    assert.deepEqual({ protocol: protocolVersion }, compiled('version'));
  });

  test('has one list of drop reasons', () => {
    const { COUNT, ...reasons } = compiled('drop');
    const ours = Object.fromEntries(Object.entries(tunnelDropReasons).map(([name, { code }]) => [name, code]));
    assert.deepEqual(ours, reasons);
    assert.equal(COUNT, Math.max(...Object.values(ours)) + 1);
  });
});

const plain = { noNullPrototype: true } as const;
const sa = fc.record(
  {
    direction: fc.constant('in' as const),
    spi: fc.integer({ min: 256, max: 0xffff_ffff }),
    selectors: fc.array(fc.record({ local: ip, remote: ip }, plain), { minLength: 1, maxLength: 2 }),
    peer: fc.record({ address: ip, port: fc.integer({ min: 1, max: 65535 }) }, plain),
    lifetimes: fc.record(
      {
        softBytes: fc.maxSafeNat(),
        hardBytes: fc.maxSafeNat(),
        softPackets: fc.maxSafeNat(),
        hardPackets: fc.maxSafeNat(),
      },
      { requiredKeys: [], ...plain },
    ),
    note: fc.string({ unit: 'binary', maxLength: 200 }),
  },
  plain,
);

const install = (value: Omit<InboundSa, 'key' | 'salt'>) =>
  encodeInstall(7, { ...value, key: Buffer.alloc(32, 0xaa), salt: Buffer.alloc(4, 0xbb) });

test('an install request has the length that it says, and holds key, salt and note', () => {
  fc.assert(
    fc.property(sa, (value) => {
      const message = install(value);
      const note = Buffer.from(value.note, 'utf8');
      assert.equal(message.readUInt32LE(0), message.length - 4);
      assert.equal(message.length, layout.header + layout.install + note.length);
      assert.equal(message.readUInt8(4), messageType.install);
      assert.ok(message.includes(Buffer.alloc(32, 0xaa)) && message.includes(Buffer.alloc(4, 0xbb)));
      assert.deepEqual(message.subarray(message.length - note.length), note);
    }),
  );
});

test('an SA comes back as it went, through the layout that both directions share', () => {
  fc.assert(
    fc.property(sa, fc.integer({ min: 64, max: 32768 }), (value, replayWindow) => {
      // MSG_SA put together from the parts of MSG_INSTALL at the places where native/protocol.h has them.
      const request = install({ ...value, replayWindow });
      const note = Buffer.from(value.note, 'utf8');
      const body = request.subarray(layout.header);
      const id = body.subarray(4, 4 + layout.saId);
      const rest = body.subarray(4 + layout.saId);
      const counters = Buffer.alloc(32);
      counters.writeBigUInt64LE(5n, 0);
      counters.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 16);
      const drops = Buffer.alloc(4 + 2 * 4);
      drops.writeUInt16LE(2, 0);
      drops.writeUInt16LE(note.length, 2);
      drops.writeUInt32LE(9, 8);
      const payload = Buffer.concat([
        Buffer.from([7, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]),
        id,
        Buffer.of(1),
        rest.subarray(0, 1 + 64 + 32 + 4),
        counters,
        drops,
        note,
      ]);
      const message = decodeMessage({ type: messageType.sa, payload });
      assert.ok(message.kind === 'sa');
      const { direction, spi, selectors, peer, lifetimes } = value;
      assert.deepEqual(message.sa, {
        direction,
        spi,
        peer,
        selectors,
        lifetimes,
        replayWindow: 2 ** Math.ceil(Math.log2(replayWindow)),
        note: note.toString('utf8'),
        expired: true,
        statistics: { packets: 5, bytes: 0, sequence: 0, drops: { UDP_TOO_SHORT: 9 } },
      });
      assert.equal(message.serial, 3n);
    }),
  );
});

test('the stream may be cut anywhere', () => {
  const peer = { address: parseIp('192.0.2.1'), port: 4500 };
  const messages = [256, 257, 258].map((spi) => encodeRemove(spi, { direction: 'out', spi, peer }));
  const stream = Buffer.concat(messages);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: stream.length })), (cuts) => {
      const reader = new FrameReader();
      const ends = [...cuts, stream.length].sort((a, b) => a - b);
      const frames = ends.flatMap((end, i) => reader.push(stream.subarray(ends[i - 1] ?? 0, end)));
      assert.deepEqual(
        frames.map(({ type, payload }) => [type, payload.readUInt32LE(0)]),
        [256, 257, 258].map((id) => [messageType.remove, id]),
      );
    }),
  );
});

test('garbage is refused with a typed error, never taken for a message', () => {
  const refused = (action: () => unknown) => {
    try {
      action();
    } catch (error) {
      assert.ok(error instanceof TunnelError && error.code === 'DriverProtocol', String(error));
    }
  };
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 400 }), (type, bytes) => {
      refused(() => decodeMessage({ type, payload: Buffer.from(bytes) }));
      refused(() => new FrameReader().push(Buffer.from(bytes)));
    }),
    { numRuns: 2000 },
  );
  for (const type of Object.values(messageType))
    assert.throws(() => decodeMessage({ type, payload: Buffer.alloc(3) }), TunnelError);
  assert.throws(() => new FrameReader().push(Buffer.alloc(5)), TunnelError);
  assert.throws(() => new FrameReader().push(Buffer.alloc(5, 0xff)), TunnelError);
});
