import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { BundleStore, bundleDocument } from '../../src/identity/bundle.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { IdentityError } from '../../src/identity/error.ts';
import { NodeCertificate } from '../../src/identity/node-certificate.ts';
import { silent } from './fixtures.ts';

const day = 86_400_000;

async function start(t: TestContext, issueFor: string = 'n1') {
  const directory = mkdtempSync(join(tmpdir(), `myelin-node-cert-${process.pid}-`));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const clock = { now: Date.now() };
  const ca = await CertificateAuthority.open({ trustDomain: 'cluster.local', now: () => clock.now });
  const files = { certFile: join(directory, 'n1.pem'), keyFile: join(directory, 'n1.key') };
  const issued = await ca.issueNode('n1');
  writeFileSync(files.certFile, issued.chain);
  writeFileSync(files.keyFile, issued.privateKey);
  const pauses: number[] = [];
  let failing = 0;
  let renewed = 0;
  const stop = new AbortController();
  t.after(() => stop.abort());
  const sleeping: PromiseWithResolvers<void>[] = [];
  const kept = new NodeCertificate(
    { node: 'n1', ...files },
    {
      issue: async (csr) => {
        if (failing > 0) {
          failing--;
          throw new IdentityError('IssuerUnreachable', 'the controller is away');
        }
        return { chain: (await ca.signNode(csr, issueFor)).native.toString(), bundle: bundleDocument(ca.bundle) };
      },
      bundles: new BundleStore(ca.bundle),
      logger: silent,
      onRenewed: () => {
        renewed++;
      },
      now: () => clock.now,
      random: () => 0.5,
      sleep: (ms) => {
        pauses.push(ms);
        clock.now += ms;
        const turn = Promise.withResolvers<void>();
        sleeping.push(turn);
        return turn.promise;
      },
    },
  );
  void kept.keep(stop.signal);
  /** Lets the pause that it is in end; resolves in the next. */
  const wake = async () => {
    const before = pauses.length;
    sleeping.at(-1)?.resolve();
    while (pauses.length === before) await new Promise((resolve) => setImmediate(resolve));
  };
  return { kept, files, pauses, wake, fail: (times: number) => (failing = times), renewed: () => renewed, issued };
}

test('a node’s certificate is renewed at its half-life, for the same key, in memory and in its file', async (t) => {
  const { kept, files, pauses, wake, renewed, issued } = await start(t);
  const first = kept.identity.chain[0];
  assert.equal(Math.round((pauses[0] ?? 0) / day), 15);
  await wake();
  const second = kept.identity.chain[0];
  assert.notEqual(second?.serialNumber, first?.serialNumber);
  assert.ok(second !== undefined && first !== undefined && second.publicKey.equals(first.publicKey));
  assert.equal(readFileSync(files.certFile, 'utf8'), kept.credentials.chain);
  assert.equal(readFileSync(files.keyFile, 'utf8'), issued.privateKey);
  assert.equal(renewed(), 1);
  assert.equal(Math.round((pauses[1] ?? 0) / day), 15);
});

test('a renewal that fails is tried again, sooner than it ends, and says so meanwhile', async (t) => {
  const { kept, pauses, wake, fail } = await start(t);
  const first = kept.identity;
  fail(3);
  await wake();
  assert.match(kept.error ?? '', /away/);
  assert.equal(kept.identity, first, 'what there is stays in use');
  await wake();
  await wake();
  assert.ok(pauses.slice(1).every((ms) => ms <= 300_000));
  await wake();
  assert.equal(kept.error, undefined);
  assert.notEqual(kept.identity, first);
});

test('a certificate of another node is not taken', async (t) => {
  const { kept, wake, renewed } = await start(t, 'n2');
  await wake();
  assert.match(kept.error ?? '', /n2/);
  assert.equal(renewed(), 0);
});
