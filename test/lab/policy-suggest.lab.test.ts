import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { myelin } from '../support/cli.ts';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * Policies out of what agents saw: applied, they let through what was seen and nothing else. And before they are applied,
 * what others would change for it.
 */

describe('policies out of recorded flows', { timeout: 120_000 }, () => {
  let lab: PolicyLab;
  const pods = new Map<string, TestPod>();
  const pod = (name: string): TestPod => pods.get(name) ?? assert.fail(`there is no pod ${name}`);
  const file = join(tmpdir(), `myelin-suggested-${process.pid}.yaml`);

  before(async () => {
    lab = await PolicyLab.up({ nodes: 2 });
    const made = [
      lab.lab.pod('web').on('node-1').serving(80, 81).create(),
      lab.lab.pod('client').on('node-2').create(),
      lab.lab.pod('other').on('node-1').create(),
    ];
    for (const one of await Promise.all(made)) pods.set(one.name, one);
    await lab.packets(pod('client'), pod('web'), 80, 'allow');
  });
  after(async () => {
    rmSync(file, { force: true });
    await lab?.down();
  });

  test('what would change is told, and nothing is changed', async () => {
    const closed = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {matchLabels: {app: web}}}
`;
    writeFileSync(file, closed);
    const { code, stdout, stderr } = await myelin('policy', 'diff', '-f', file, '--lab', lab.lab.name);
    assert.equal(code, 2, stderr);
    assert.match(
      stdout,
      /default\/client +default\/web +TCP 80 +\d+ +allow +deny +ingress: .*NetworkPolicy default\/closed/,
    );
    assert.ok(await lab.lab.reaches(pod('client'), pod('web'), { port: 80 }));
  });

  test('under what is suggested it goes on, and nothing else does', async () => {
    const { code, stdout, stderr } = await myelin('policy', 'suggest', '-n', 'default', '--lab', lab.lab.name);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /# \d+ × default\/client → default\/web TCP 80\n/);
    writeFileSync(file, stdout);
    const diff = await myelin('policy', 'diff', '-f', file, '--lab', lab.lab.name);
    assert.equal(diff.code, 0, diff.stdout);
    await lab.kubectl('apply', '-f', file);
    await lab.verdict(pod('other'), pod('web'), 80, 'deny');
    await lab.verdict(pod('client'), pod('web'), 81, 'deny');
    await lab.verdict(pod('client'), pod('web'), 80, 'allow');
  });
});
