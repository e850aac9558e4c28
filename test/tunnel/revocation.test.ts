import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Revocations, revocationsFrom } from '../../src/identity/revocation.ts';
import { parseIp } from '../../src/model/address.ts';
import { formatSpiffeId } from '../../src/model/identity.ts';
import type { LocalPod, RemotePod } from '../../src/tunnel/peers.ts';
import { whyPairRevoked } from '../../src/tunnel/revocation.ts';

const trustDomain = 'cluster.local';
const pod = (name: string, address: string): LocalPod => ({
  pod: { namespace: 'shop', name, uid: `uid-${name}` },
  spiffeId: formatSpiffeId({ trustDomain, namespace: 'shop', serviceAccount: name }),
  addresses: [parseIp(address)],
});
const local = pod('a', '10.244.0.1');
const remote: RemotePod = { ...pod('b', '10.244.1.1'), node: { name: 'n2', address: parseIp('192.0.2.2') } };
const own = { serials: ['a1', 'f1'], nodeUri: 'spiffe://cluster.local/node/n1' };
const revoked = (what: { serials?: string[]; podUids?: string[]; spiffeIds?: string[] }): Revocations =>
  revocationsFrom({ serials: [], podUids: [], spiffeIds: [], ...what });
const why = (what: Parameters<typeof revoked>[0], peerSerials = ['b2', 'f2']) =>
  whyPairRevoked({ local, remote }, own, peerSerials, revoked(what), trustDomain);

test('either end, its service account, its node, or a certificate of its proof ends a pair, and the reason names it', () => {
  for (const uid of ['uid-a', 'uid-b'])
    assert.match(why({ podUids: [uid] }) ?? '', new RegExp(`shop/${uid.slice(4)} is revoked`));
  for (const account of ['a', 'b'])
    assert.match(why({ spiffeIds: [`spiffe://cluster.local/ns/shop/sa/${account}`] }) ?? '', /sa\/. is revoked/);
  for (const node of ['n1', 'n2'])
    assert.match(why({ spiffeIds: [`spiffe://cluster.local/node/${node}`] }) ?? '', new RegExp(`${node} is revoked`));
  for (const serial of ['a1', 'f1', 'b2', 'f2'])
    assert.match(why({ serials: [serial] }) ?? '', new RegExp(`${serial} is revoked`));
});

test('what is revoked of others ends nothing', () => {
  assert.equal(
    why({
      serials: ['c3'],
      podUids: ['uid-c'],
      spiffeIds: [
        'spiffe://cluster.local/ns/shop/sa/c',
        'spiffe://cluster.local/node/n3',
        'spiffe://other/ns/shop/sa/a',
      ],
    }),
    undefined,
  );
});

test('a node whose name no certificate can have is nobody’s to revoke by name, and its pods are held to the rest', () => {
  const odd = { ...remote, node: { ...remote.node, name: 'Not A Node' } };
  const ask = (what: Parameters<typeof revoked>[0]) =>
    whyPairRevoked({ local, remote: odd }, own, [], revoked(what), trustDomain);
  assert.equal(ask({ spiffeIds: ['spiffe://cluster.local/node/n2'] }), undefined);
  assert.match(ask({ podUids: ['uid-b'] }) ?? '', /revoked/);
});
