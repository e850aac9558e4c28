import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Quarantine } from '../../src/agent/quarantine.ts';
import { BundleStore, type TrustBundle } from '../../src/identity/bundle.ts';
import { type RevocationsDocument, revocationsFrom } from '../../src/identity/revocation.ts';
import { parseIp } from '../../src/model/address.ts';
import { formatSpiffeId } from '../../src/model/identity.ts';
import { silent } from '../identity/fixtures.ts';

const trustDomain = 'cluster.local';
const none: RevocationsDocument = { serials: [], podUids: [], spiffeIds: [] };

function fixture() {
  const bundle = (sequence: number, revocations: Partial<RevocationsDocument> = {}): TrustBundle => ({
    trustDomain,
    sequence,
    roots: [],
    revocations: revocationsFrom({ ...none, ...revocations }),
  });
  const bundles = new BundleStore(bundle(0));
  const known = new Set(['a', 'b']);
  const calls: string[][] = [];
  const quarantine = new Quarantine({
    bundles,
    pods: () => ['a', 'b', 'c'].map((uid) => ({ namespace: 'shop', name: `pod-${uid}`, uid })),
    identity: (uid) =>
      known.has(uid)
        ? {
            pod: { namespace: 'shop', name: `pod-${uid}`, uid },
            spiffeId: formatSpiffeId({ trustDomain, namespace: 'shop', serviceAccount: uid }),
            addresses: [parseIp('10.244.0.1')],
          }
        : undefined,
    svid: () => undefined,
    node: () => ({ uri: 'spiffe://cluster.local/node/n1', serial: 'abc' }),
    close: (uids) => {
      calls.push([...uids].sort());
      return [...uids];
    },
    logger: silent,
  });
  bundles.on('changed', () => quarantine.refresh());
  const offer = (sequence: number, revocations?: Partial<RevocationsDocument>) =>
    bundles.offer(bundle(sequence, revocations));
  return { quarantine, offer, calls, last: () => calls.at(-1), learn: (uid: string) => known.add(uid) };
}

test('until a controller has said who is revoked, nobody is let out', () => {
  const { quarantine, calls } = fixture();
  quarantine.refresh();
  assert.deepEqual(calls, []);
});

test('pods are closed by UID, service account, and with their node; one that is not known yet by its UID', () => {
  const { quarantine, offer, last, learn } = fixture();
  offer(1, { podUids: ['c'] });
  assert.deepEqual(last(), ['c']);
  offer(2, { spiffeIds: ['spiffe://cluster.local/ns/shop/sa/b', 'spiffe://cluster.local/ns/shop/sa/c'] });
  assert.deepEqual(last(), ['b']);
  learn('c');
  quarantine.refresh();
  assert.deepEqual(last(), ['b', 'c']);
  assert.match(quarantine.held[0]?.why ?? '', /sa\/b is revoked/);
  offer(3, { spiffeIds: ['spiffe://cluster.local/node/n1'] });
  assert.deepEqual(last(), ['a', 'b', 'c']);
  offer(4, { serials: ['abc'] });
  assert.deepEqual(last(), ['a', 'b', 'c'], 'the node’s own certificate');
  offer(5);
  assert.deepEqual(last(), []);
  assert.deepEqual(quarantine.held, []);
});
