import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { attacks } from '../../src/cli/demo/attacks.ts';
import { askCatalogue } from '../../src/cli/demo/requests.ts';
import { Stage } from '../../src/cli/demo/stage.ts';
import { staleCache } from '../../src/cli/demo/stale-cache.ts';
import { summarizeCapture } from '../../src/cli/demo/wire.ts';
import { TestLab } from '../support/lab.ts';

/* What the demo tries against the shop, one attack a test: forged sources, injected and replayed packets, reused addresses. */

describe('attacks on the shop', () => {
  let lab: TestLab;
  let stage: Stage;
  let capture: Buffer;

  before(async () => {
    lab = await TestLab.up({
      nodes: 2,
      dns: true,
      files: [resolve(import.meta.dirname, '../../examples/boutique')],
      readyTimeoutMs: 90_000,
    });
    stage = new Stage(lab.lab);
    const listening = await lab.capture();
    const customer = await stage.podOf('boutique', 'loadgenerator');
    await lab.eventually(async () => {
      const { status, stderr } = await stage.inPod('boutique', customer.metadata.name, [
        'curl',
        '-sSfm5',
        'http://frontend/',
      ]);
      assert.equal(status, 0, stderr);
    });
    capture = (await listening.stop()).file;
  });
  after(() => lab?.down());

  test('the catalogue gets what its policy lets be asked of it, and a proxy with the same rules answers alike', async () => {
    const { rows, connections } = await askCatalogue(stage);
    assert.equal(rows.length, 15);
    for (const { way, request, statuses, expected, count } of rows)
      assert.deepEqual({ statuses, asked: count > 0 }, { statuses: [expected], asked: true }, `${request}, ${way}`);
    assert.equal(connections, 1);
  });

  for (const attack of attacks)
    test(`${attack.name}: stopped, and counted`, async () => {
      const { stopped, by } = await attack.run(stage, capture);
      assert.ok(stopped, by);
    });

  test('a reused address while a peer’s cache is stale: nothing passes under the old identity', async () => {
    const listening = await lab.capture();
    const outcome = await staleCache(stage).finally(async () => {
      const { file } = await listening.stop();
      const ports = { esp: 4500, handshake: 4747, api: 6443, controller: 7443 };
      const { kinds, oddities } = summarizeCapture(file, { pods: lab.lab.plan.podCidrs, ports, canary: 'none' });
      assert.equal(kinds.get('plaintext')?.frames ?? 0, 0, oddities.join('; '));
    });
    assert.ok(outcome.stopped, outcome.by);
    // It is the proof that failed, not the network: the node that was cut off still took the address for the old pod's.
    assert.match(outcome.by, /\bwrong-\w+ \d/);
  });
});
