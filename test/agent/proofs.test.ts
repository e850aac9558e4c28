import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Proofs } from '../../src/agent/proofs.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';
import type { IdentityNumber } from '../../src/model/identity.ts';

const local = parseIp('10.244.0.2');
const remote = parseIp('10.244.1.3');

function fixture() {
  const identities = new Map<string, number>([['uid-b', 300]]);
  const table = new Map<string, string>();
  const key = (a: IpAddress, b: IpAddress) => `${a} ${b}`;
  const proofs = new Proofs(
    {
      proveTunnel: (a, b, { identity, spi }) => table.set(key(a, b), `${identity}/${spi}`),
      forgetTunnel: (a, b) => table.delete(key(a, b)),
    },
    (uid) => identities.get(uid) as IdentityNumber | undefined,
  );
  return { identities, proofs, row: () => table.get(key(local, remote)) };
}

test('a proof carries the identity that the pod has now, and follows it when its labels change', () => {
  const { identities, proofs, row } = fixture();
  proofs.hold({ local, remote, remoteUid: 'uid-b', spi: 7 });
  assert.equal(row(), '300/7');
  identities.set('uid-b', 301);
  proofs.refresh();
  assert.equal(row(), '301/7');
});

test('a pod that is no longer known proves nothing, until it is known again', () => {
  const { identities, proofs, row } = fixture();
  proofs.hold({ local, remote, remoteUid: 'uid-b', spi: 7 });
  identities.delete('uid-b');
  proofs.refresh();
  assert.equal(row(), undefined);
  identities.set('uid-b', 300);
  proofs.refresh();
  assert.equal(row(), '300/7');
});

test('another pod at the address does not inherit the proof of the one before it', () => {
  const { identities, proofs, row } = fixture();
  proofs.hold({ local, remote, remoteUid: 'uid-b', spi: 7 });
  identities.set('uid-c', 400);
  identities.delete('uid-b');
  proofs.refresh();
  assert.equal(row(), undefined);
});

test('the end of an old association leaves the proof of the one that replaced it', () => {
  const { proofs, row } = fixture();
  proofs.hold({ local, remote, remoteUid: 'uid-b', spi: 7 });
  proofs.hold({ local, remote, remoteUid: 'uid-b', spi: 8 });
  proofs.forget(local, remote, 7);
  assert.equal(row(), '300/8');
  proofs.forget(local, remote, 8);
  assert.equal(row(), undefined);
});
