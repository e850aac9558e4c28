import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import fc from 'fast-check';
import { BundleStore, bundleDocument, parseBundle } from '../../src/identity/bundle.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { IdentityError } from '../../src/identity/error.ts';
import type { Issuer } from '../../src/identity/svid.ts';
import { renewalDelayMs, retryDelayMs, SvidStore } from '../../src/identity/svid-store.ts';
import { parseIp } from '../../src/model/address.ts';
import { DirectIssuer, podIdentity, silent, trustDomain } from './fixtures.ts';

const minute = 60_000;

/** Time stands still until a sleeper is woken; then it is as late as the sleeper wanted. */
class Clock {
  /** Certificates know whole seconds only. */
  now = Math.floor(Date.now() / 1000) * 1000;
  readonly sleepers: { ms: number; wake: () => void }[] = [];
  readonly #arrivals: (() => void)[] = [];

  readonly sleep = (ms: number, signal: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
      this.sleepers.push({ ms, wake: resolve });
      for (const arrived of this.#arrivals.splice(0)) arrived();
    });

  async next(): Promise<number> {
    if (this.sleepers.length === 0) await new Promise<void>((resolve) => this.#arrivals.push(resolve));
    return this.sleepers[0]?.ms ?? 0;
  }

  async wake(): Promise<number> {
    const ms = await this.next();
    this.now += ms;
    this.sleepers.shift()?.wake();
    return ms;
  }
}

async function set(random = 0.5) {
  const clock = new Clock();
  const ca = await CertificateAuthority.open({ trustDomain, now: () => clock.now, overlapMs: 0 });
  const issuer = new DirectIssuer(ca);
  const bundles = new BundleStore(ca.bundle);
  const store = new SvidStore(
    {},
    { issuer, bundles, logger: silent, now: () => clock.now, random: () => random, sleep: clock.sleep },
  );
  return { clock, ca, issuer, bundles, store };
}

test('a pod’s certificate is made, renewed at half of its life with a new key, and forgotten with the pod', async () => {
  const { clock, store, issuer } = await set();
  const first = await store.add(podIdentity('web'));
  assert.equal(store.add(podIdentity('web')), store.add(podIdentity('web')), 'a pod is kept once');
  assert.equal(store.get(first.podUid), first);
  assert.equal(await clock.next(), 30 * minute);
  const renewed = once(store, 'renewed');
  await clock.wake();
  const [second, previous] = await renewed;
  assert.equal(previous, first);
  assert.equal(store.get(first.podUid), second);
  assert.equal(second.notAfter, first.notAfter + 30 * minute);
  assert.ok(!second.chain[0].publicKey.equals(first.chain[0]?.publicKey));
  store.remove(first.podUid);
  assert.equal(store.get(first.podUid), undefined);
  assert.equal(issuer.requests.length, 2);
  assert.deepEqual(store.statistics(), { held: 0, waiting: 0, issued: 1, renewed: 1, failed: 0, expired: 0 });
});

test('when renewal fails the certificate is kept until it expires, and not a moment longer', async () => {
  const { clock, store, issuer } = await set();
  const svid = await store.add(podIdentity('web'));
  issuer.failures.push(...Array.from({ length: 200 }, () => new IdentityError('IssuerUnreachable', 'away')));
  await clock.wake();
  const expired = once(store, 'expired');
  let pauses = 0;
  while (clock.now < svid.notAfter) {
    await clock.next();
    if (clock.now < svid.notAfter) assert.equal(store.get(svid.podUid), svid);
    assert.ok((await clock.wake()) <= 30_000);
    pauses++;
  }
  assert.equal(store.get(svid.podUid), undefined);
  assert.deepEqual(await expired, [svid.podUid]);
  assert.ok(pauses > 60 && pauses < 200, `${pauses} attempts in half an hour`);
  assert.equal(store.lastError(svid.podUid)?.message, 'away');
  issuer.failures.length = 0;
  const issued = once(store, 'issued');
  await clock.wake();
  await issued;
  assert.ok(store.get(svid.podUid));
  assert.equal(store.lastError(svid.podUid), undefined);
});

test('the first certificate is awaited through failures; a removed pod is abandoned', async () => {
  const { clock, store, issuer } = await set();
  issuer.failures.push(new IdentityError('IssueRefused', 'no', { data: { reason: 'no-such-pod' } }), new Error('odd'));
  const waiting = store.add(podIdentity('web'));
  await clock.wake();
  await clock.wake();
  assert.equal((await waiting).podUid, podIdentity('web').pod.uid);
  issuer.failures.push(new Error('no'));
  const never = store.add(podIdentity('db'));
  await clock.next();
  store.close();
  await assert.rejects(never, { code: 'Abandoned' });
  await assert.rejects(store.add(podIdentity('late')), { code: 'Abandoned' });
});

test('a certificate that is not what was asked for is never taken', async () => {
  const { clock, ca, store, issuer } = await set();
  const foreign = await CertificateAuthority.open({ trustDomain, now: () => clock.now });
  const wrong: ((request: Parameters<Issuer['issue']>[0]) => Parameters<Issuer['issue']>[0])[] = [
    (request) => ({ ...request, serviceAccount: 'other' }),
    (request) => ({ ...request, pod: { ...request.pod, uid: 'other' } }),
    (request) => ({ ...request, addresses: [parseIp('10.244.9.9')] }),
  ];
  const direct = new DirectIssuer(ca);
  const impostor = new DirectIssuer(foreign);
  let calls = 0;
  issuer.issue = async (request) => {
    const change = wrong[calls++];
    if (change !== undefined) return await direct.issue(change(request));
    // Signed by somebody else, with the proper bundle beside it.
    if (calls === 4) return { ...(await impostor.issue(request)), bundle: bundleDocument(ca.bundle) };
    if (calls === 5) return { ...(await direct.issue(request)), chain: 'garbage' };
    if (calls === 6) return await direct.issue(direct.requests[0] ?? request); // another key's request
    return await direct.issue(request);
  };
  const failed: string[] = [];
  store.on('failed', (_, error) => failed.push((error as IdentityError).code));
  const waiting = store.add(podIdentity('web'));
  for (let i = 0; i < 6; i++) {
    await clock.next();
    assert.equal(store.get(podIdentity('web').pod.uid), undefined);
    await clock.wake();
  }
  await waiting;
  assert.deepEqual(failed, Array(6).fill('BadCertificate'));
  store.close();
});

test('bundles come with certificates and are never taken backwards', async () => {
  const { clock, ca, bundles, store } = await set();
  const old = ca.bundle;
  await store.add(podIdentity('web'));
  await ca.prepare();
  const renewed = once(store, 'renewed');
  await clock.wake();
  await renewed;
  assert.equal(bundles.current.sequence, ca.bundle.sequence);
  assert.equal(bundles.current.roots.length, 2);
  assert.equal(bundles.offer(old), false);
  assert.equal(bundles.offer({ ...ca.bundle, trustDomain: 'elsewhere', sequence: 99 }), false);
  assert.equal(bundles.current.roots.length, 2);
  store.close();
});

test('a bundle that does not parse, or has a root that is none, is refused', async () => {
  const ca = await CertificateAuthority.open({ trustDomain });
  const good = bundleDocument(ca.bundle);
  assert.equal(parseBundle(good).roots.length, 1);
  const leaf = await ca.issueNode('n1');
  const other = await CertificateAuthority.open({ trustDomain });
  const bad: unknown[] = [
    undefined,
    null,
    7,
    'x',
    [],
    {},
    { ...good, roots: '' },
    { ...good, roots: leaf.chain },
    { ...good, sequence: -1 },
    { ...good, sequence: 1.5 },
    { ...good, trustDomain: 'Not A Domain' },
    { ...good, extra: true },
  ];
  for (const document of bad) assert.throws(() => parseBundle(document), IdentityError, JSON.stringify(document));
  assert.equal(parseBundle({ ...good, roots: good.roots + bundleDocument(other.bundle).roots }).roots.length, 2);
});

test('delays are bounded and spread', () => {
  const unit = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1000 }), unit, (failures, random) => {
      const delay = retryDelayMs(failures, 100, 30_000, random);
      assert.ok(delay >= 50 && delay <= 30_000);
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: -1000, max: 86_400_000 }), unit, (left, random) => {
      const delay = renewalDelayMs(left, 0, random);
      assert.ok(delay >= 0 && delay <= Math.max(0, left * 0.55) && (left <= 0 || delay >= left * 0.45));
    }),
  );
});
