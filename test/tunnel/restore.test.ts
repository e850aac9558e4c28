import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatSpiffeId } from '../../src/model/identity.ts';
import type { InstalledSa } from '../../src/tunnel/driver.ts';
import { decodeNote, encodeNote, longestNote, type SaNote } from '../../src/tunnel/note.ts';
import type { LocalPod } from '../../src/tunnel/peers.ts';
import { planRestore } from '../../src/tunnel/restore.ts';
import { addressesOf, View } from './fixtures.ts';

const trustDomain = 'cluster.local';
const letter = fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz0123456789');
const name = (maxLength: number) => fc.string({ unit: letter, minLength: 1, maxLength });
const spi = fc.integer({ min: 256, max: 0xffff_ffff });
const time = fc.integer({ min: 0, max: 4e12 });
const aNote: fc.Arbitrary<SaNote> = fc
  .record({
    localUid: fc.uuid(),
    uid: fc.uuid(),
    pod: fc.oneof(name(253), fc.constant('p'.repeat(253))),
    namespace: fc.oneof(name(63), fc.constant('n'.repeat(63))),
    serviceAccount: fc.oneof(name(253), fc.constant('s'.repeat(253))),
    remoteSerial: fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 1, maxLength: 40 }),
    node: fc.oneof(name(253), fc.constant('m'.repeat(253))),
    spiIn: spi,
    spiOut: spi,
    establishedAt: time,
    rekeyAt: time,
    expiresAt: time,
    group: fc.option(fc.constant('X25519MLKEM768'), { nil: undefined }),
    nodeSerial: fc.option(fc.constant('f'.repeat(40)), { nil: undefined }),
  })
  .map(({ uid, pod, namespace, serviceAccount, ...rest }) => ({
    ...rest,
    radius: rest.nodeSerial === undefined ? ('pod' as const) : ('node' as const),
    remote: { namespace, name: pod, uid },
    remoteSpiffeId: formatSpiffeId({ trustDomain, namespace, serviceAccount }),
    cipher: 'TLS_AES_256_GCM_SHA384',
  }));

test('a note fits the driver’s kilobyte and keeps everything that decides', () => {
  fc.assert(
    fc.property(aNote, (note) => {
      const text = encodeNote(note);
      assert.ok(text !== '' && Buffer.byteLength(text) <= longestNote, `${text.length}`);
      const read = decodeNote(text, trustDomain);
      assert.ok(read);
      const { remote, node, ...rest } = read;
      const { remote: wasRemote, node: wasNode, ...was } = note;
      assert.deepEqual(rest, was);
      assert.equal(remote.uid, wasRemote.uid);
      // Only what people read is ever left out.
      assert.ok(node === wasNode || node === '');
      assert.ok(remote.name === wasRemote.name || remote.name === remote.uid);
    }),
  );
});

test('what is no note is none', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => assert.equal(decodeNote(text, trustDomain), undefined)),
  );
});

const local: LocalPod = {
  pod: { namespace: 'shop', name: 'web', uid: 'web-uid' },
  spiffeId: formatSpiffeId({ trustDomain, namespace: 'shop', serviceAccount: 'web' }),
  addresses: addressesOf(1),
};

function pair(
  spiIn: number,
  over: Partial<SaNote> & { remoteAddress?: number; halves?: ('in' | 'out')[]; expired?: boolean } = {},
): InstalledSa[] {
  const { remoteAddress = 2, halves = ['in', 'out'], expired = false, ...rest } = over;
  const note: SaNote = {
    localUid: 'web-uid',
    remote: { namespace: 'shop', name: 'db', uid: 'db-uid' },
    remoteSpiffeId: formatSpiffeId({ trustDomain, namespace: 'shop', serviceAccount: 'db' }),
    remoteSerial: 'abc',
    node: 'node-2',
    spiIn,
    spiOut: spiIn + 1,
    establishedAt: spiIn,
    rekeyAt: 80_000,
    expiresAt: 100_000,
    cipher: 'TLS_AES_256_GCM_SHA384',
    group: 'X25519',
    radius: 'pod',
    nodeSerial: undefined,
    ...rest,
  };
  const [address] = addressesOf(200);
  const [here] = addressesOf(1);
  const [there] = addressesOf(remoteAddress);
  assert.ok(address && here && there);
  return halves.map((direction) => ({
    direction,
    spi: direction === 'in' ? note.spiIn : note.spiOut,
    peer: { address, port: 4500 },
    selectors: [{ local: here, remote: there }],
    lifetimes: {},
    replayWindow: 4096,
    note: encodeNote(note),
    expired,
    statistics: { packets: 0, bytes: 0, sequence: 0, drops: {} },
  }));
}

const plan = (installed: readonly InstalledSa[], view = new View(), now = 50_000) =>
  planRestore(installed, { trustDomain, locals: new Map([['web-uid', local]]), resolver: view, now });

test('of a pair’s keys the newest whole one is the tunnel; older ones may still be received under', () => {
  const { tunnels, remove } = plan([...pair(3000), ...pair(1000), ...pair(2000), ...pair(4000, { halves: ['in'] })]);
  assert.equal(tunnels.length, 1);
  assert.equal(tunnels[0]?.state.up?.spiIn, 3000);
  assert.deepEqual(tunnels[0]?.state.retired.map(({ spi: old }) => old).sort(), [1000, 2000, 4000]);
  assert.deepEqual(remove.map(({ direction, spi: old }) => `${direction} ${old}`).sort(), ['out 1001', 'out 2001']);
});

test('what nobody owns, what has ended and what is half goes', () => {
  const everything = [
    ...pair(1000, { localUid: 'gone' }),
    ...pair(2000, { remote: { namespace: 'a', name: 'b', uid: 'u2' }, remoteAddress: 3, expiresAt: 49_999 }),
    ...pair(3000, { remote: { namespace: 'a', name: 'b', uid: 'u3' }, remoteAddress: 4, halves: ['out'] }),
    ...pair(4000, { remote: { namespace: 'a', name: 'b', uid: 'u4' }, remoteAddress: 5, expired: true }),
    ...pair(5000, { remote: { namespace: 'a', name: 'b', uid: 'u5' }, remoteAddress: 6 }).map((sa) => ({
      ...sa,
      note: '{"v":2}',
    })),
  ];
  const { tunnels, remove } = plan(everything);
  assert.deepEqual(tunnels, []);
  assert.equal(remove.length, everything.length);
});

test('two pods at one remote address: the one that is believed to be there stays, else the newer', () => {
  const rival = { remote: { namespace: 'shop', name: 'thief', uid: 'thief-uid' } };
  const installed = [...pair(1000), ...pair(2000, rival)];
  assert.equal(plan(installed).tunnels[0]?.remote.pod.uid, 'thief-uid');
  const view = new View();
  const believed = plan(pair(1000)).tunnels[0]?.remote;
  assert.ok(believed);
  view.learn(believed);
  const { tunnels, remove } = plan(installed, view);
  assert.deepEqual(
    tunnels.map(({ remote }) => remote.pod.uid),
    ['db-uid'],
  );
  assert.deepEqual(remove.map(({ spi: old }) => old).sort(), [2000, 2001]);
});

test('a pair whose key is in the driver that is being left wants another at once; with a newer one elsewhere it does not', () => {
  const leaving = (sas: readonly InstalledSa[]) => sas.map((sa) => ({ ...sa, leaving: true }));
  assert.equal(plan(pair(1000)).tunnels[0]?.state.up?.rekeyAt, 80_000);
  assert.equal(plan(leaving(pair(1000))).tunnels[0]?.state.up?.rekeyAt, 50_000);
  const { tunnels, remove } = plan([...leaving(pair(1000)), ...pair(2000)]);
  assert.equal(tunnels[0]?.state.up?.rekeyAt, 80_000);
  assert.deepEqual(
    remove.map(({ spi: old }) => old),
    [1001],
  );
});
