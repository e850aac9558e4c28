import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import type { PeerExpectation } from '../../src/identity/verify.ts';
import { parseIp } from '../../src/model/address.ts';
import { HandshakeError } from '../../src/tunnel/handshake/error.ts';
import { PeerVerifier } from '../../src/tunnel/handshake/peer.ts';
import { shownChain } from '../../src/tunnel/handshake/shown-chain.ts';
import { issueSvid, podIdentity, trustDomain } from '../identity/fixtures.ts';
import { addressesOf } from './fixtures.ts';

/** Decides about one chain again and again, while the world around it changes. */
async function setUp() {
  const ca = await CertificateAuthority.open({ trustDomain });
  const addresses = addressesOf(1);
  const svid = await issueSvid(ca, podIdentity('web', { addresses }));
  const world = { bundle: ca.bundle, now: Date.now() };
  const verifier = new PeerVerifier(
    () => world.bundle,
    () => world.now,
  );
  const shown = shownChain(svid.chain.map(({ der }) => der));
  const decide = (expected: Partial<Extract<PeerExpectation, { kind: 'pod' }>> = {}) => {
    try {
      return verifier.vouched(shown, { kind: 'pod', ...expected }).podUid;
    } catch (error) {
      assert.ok(error instanceof HandshakeError, String(error));
      return error.code;
    }
  };
  return { ca, svid, world, decide, addresses, uid: svid.podUid };
}

test('a chain that was looked at before is held against each pair’s own expectation', async () => {
  const { decide, addresses, svid, uid } = await setUp();
  for (const _ of ['first', 'again']) {
    assert.equal(decide(), uid);
    assert.equal(decide({ podUid: uid, spiffeId: svid.spiffeId, addresses }), uid);
    assert.equal(decide({ podUid: 'another' }), 'wrong-uid');
    assert.equal(decide({ spiffeId: 'spiffe://cluster.local/ns/a/sa/b' as typeof svid.spiffeId }), 'wrong-identity');
    assert.equal(decide({ addresses: [...addresses, parseIp('10.9.9.9')] }), 'wrong-address');
  }
});

test('a chain that was good is not for longer than it is: its end, a clock set back, a revocation, another root', async () => {
  const { ca, decide, world, svid, uid } = await setUp();
  const began = world.now;
  assert.equal(decide(), uid);
  world.now = svid.notAfter;
  assert.equal(decide(), uid);
  world.now = svid.notAfter + 1;
  assert.equal(decide(), 'expired');
  world.now = svid.notBefore - 1;
  assert.equal(decide(), 'not-yet-valid');
  world.now = began;
  assert.equal(decide(), uid);
  await ca.revoke({ podUids: [uid] });
  const believed = world.bundle;
  world.bundle = ca.bundle;
  assert.equal(decide(), 'revoked');
  world.bundle = believed;
  assert.equal(decide(), uid);
  world.bundle = (await CertificateAuthority.open({ trustDomain })).bundle;
  assert.equal(decide(), 'untrusted');
});
