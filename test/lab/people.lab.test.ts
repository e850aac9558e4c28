import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { traceAnswerSchema, tunnelSchema } from '../../src/agent/wire.ts';
import { kinds, ownKinds } from '../../src/api/kinds.ts';
import { CertificateAuthority } from '../../src/identity/ca.ts';
import { parseCertificates } from '../../src/identity/certificate.ts';
import { pkiPaths } from '../../src/lab/pki.ts';
import { nodeDirectory } from '../../src/lab/services.ts';
import { type Agents, agentsOf } from '../support/agents.ts';
import { myelin } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/* What a person sees and sets: tunnels and what becomes of a handshake, metrics, conditions, the cluster's settings. */

describe('for people', () => {
  let lab: TestLab;
  let agents: Agents;
  const pods: TestPod[] = [];
  const pod = (index: number): TestPod => {
    const found = pods[index];
    assert.ok(found !== undefined);
    return found;
  };

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    await lab.namespace('other');
    const made = [
      lab.pod('a').on('node-1'),
      lab.pod('b').on('node-2').serving(80),
      lab.pod('c', 'other').on('node-2').serving(80),
    ];
    pods.push(...(await Promise.all(made.map((each) => each.create()))));
  });
  after(() => lab?.down());

  const cli = (...args: string[]) => myelin(...args, '--lab', lab.name);
  const reaches = (to: TestPod, timeoutMs = 2000) => lab.reaches(pod(0), to, { port: 80, timeoutMs });

  async function metrics(node: string): Promise<Map<string, number>> {
    const plan = lab.lab.node(node);
    const socketPath = `${nodeDirectory(lab.lab.plan, plan)}/agent.sock`;
    const text = await new Promise<string>((resolve, reject) => {
      request({ socketPath, path: '/metrics' }, (response) => {
        let all = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          all += part;
        });
        response.on('end', () => resolve(all));
      })
        .on('error', reject)
        .end();
    });
    return new Map(
      text
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('#'))
        .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
    );
  }

  test('tunnels are found by pod, namespace, node and state; a trace walks through a handshake and replaces the key', async () => {
    await lab.eventually(async () => assert.ok((await reaches(pod(1))) && (await reaches(pod(2)))), {
      timeoutMs: 20_000,
    });
    const list = async (...args: string[]) =>
      tunnelSchema.array().parse(JSON.parse((await cli('tunnels', '-o', 'json', ...args)).stdout));
    assert.deepEqual(
      (await list('-n', 'other', '--node', 'node-1')).map(({ remotePod }) => remotePod),
      ['other/c'],
    );
    assert.deepEqual(
      (await list('--pod', 'default/b', '--node', 'node-1')).map(({ remotePod }) => remotePod),
      ['default/b'],
    );
    assert.equal((await list('--state', 'waiting')).length, 0);
    assert.equal((await list('--peer-node', 'node-1')).length, 2);
    const [before] = await list('--pod', 'default/b', '--node', 'node-1');
    const traced = await cli('tunnels', 'trace', 'default/a', 'default/b', '-o', 'json');
    assert.equal(traced.code, 0, traced.stderr);
    const { trace, tunnel } = traceAnswerSchema.parse(JSON.parse(traced.stdout));
    assert.equal(trace?.outcome, 'done');
    assert.ok(trace.checks.length >= 9 && trace.checks.every(({ result }) => result === 'passed'));
    const steps = trace.steps.map(({ step }) => step);
    for (const part of [
      /certificate is at hand|peer’s certificate/,
      /keys are derived/,
      /receiving key/,
      /sending key/,
    ])
      assert.ok(
        steps.some((step) => part.test(step)),
        `${part}: ${steps.join('; ')}`,
      );
    assert.notEqual(tunnel?.spiIn, before?.spiIn);
    assert.match(
      (await cli('tunnels', 'trace', 'default/a', 'default/b')).stdout,
      /✓ it names the pod[\s\S]*the handshake is done/,
    );
  });

  test('a trace says which check of a certificate fails', async () => {
    await lab.lab.stopAgent('node-2', 'SIGKILL');
    const away = await cli('tunnels', 'trace', 'default/a', 'other/c', '--node', 'node-1');
    assert.equal(away.code, 3, away.stdout + away.stderr);
    assert.match(away.stdout, /no tunnel \(unreachable\)/);
    lab.lab.startAgent('node-2');
    await lab.eventually(async () => void (await agents.status('node-2')), { timeoutMs: 30_000 });
    const revoked = await cli('revoke', 'serviceaccount', 'other/default');
    assert.equal(revoked.code, 0, revoked.stderr);
    await lab.eventually(
      async () => {
        const { code, stdout } = await cli('tunnels', 'trace', 'default/a', 'other/c', '--node', 'node-1');
        assert.equal(code, 3);
        assert.match(stdout, /✗ nothing of it is revoked.*other\/sa\/default is revoked/);
      },
      { timeoutMs: 15_000 },
    );
    await lab.api.delete(ownKinds.Revocation, { name: 'sa-other-default' });
    await lab.eventually(async () => assert.ok(await reaches(pod(2))), { timeoutMs: 20_000 });
  });

  test('metrics count what happened', async () => {
    const read = await metrics('node-1');
    const value = (name: string) => read.get(name) ?? Number.NaN;
    assert.ok(value('myelin_tunnel_rekeys_total') >= 2);
    assert.ok(value('myelin_handshakes_total{role="initiator",outcome="done"}') >= 2);
    assert.ok(value('myelin_handshake_seconds_count{role="initiator"}') >= 2);
    assert.ok(value('myelin_tunnel_revoked_total') >= 1);
    assert.ok(value('myelin_tunnel_bytes_total{direction="out"}') > 0);
    assert.ok(value('myelin_tunnels{state="up"}') >= 1);
    assert.equal(value('myelin_tunnel_held_packets'), 0);
    assert.equal(value('myelin_revocations{kind="identity"}'), 0);
    assert.equal(value('myelin_condition{name="policy"}'), 1);
    assert.ok(value('myelin_node_certificate_expiry_seconds') > Date.now() / 1000);
  });

  test('the cluster’s default is changed while it runs, and a namespace may have its own', async () => {
    const settled = (verdict: 'allow' | 'deny', destination: string, port = 80) =>
      agents.settled({ source: 'default/a', destination, protocol: 'TCP', port }, verdict);
    const settings = (spec: object) =>
      ownKinds.ClusterSettings.schema.parse({
        apiVersion: 'myelin.dev/v1alpha1',
        kind: 'ClusterSettings',
        metadata: { name: 'default' },
        spec,
      });
    await lab.api.create(ownKinds.ClusterSettings, settings({ defaultVerdict: 'deny', rekeySeconds: 600 }));
    assert.equal(await settled('deny', 'default/b'), undefined);
    assert.equal(await reaches(pod(1), 700), false);
    await lab.eventually(async () => {
      const { status } = await lab.api.get(ownKinds.ClusterSettings, { name: 'default' });
      assert.equal(status?.conditions?.find(({ type }) => type === 'Effective')?.status, 'True');
    });
    for (const name of ['default', 'other'])
      await lab.api.patch(
        kinds.Namespace,
        { name },
        { type: 'merge', patch: { metadata: { annotations: { 'myelin.dev/default-verdict': 'allow' } } } },
      );
    assert.equal(await settled('allow', 'default/b'), undefined);
    await lab.eventually(async () => assert.ok(await reaches(pod(1))));
    await lab.api.patch(
      kinds.Namespace,
      { name: 'other' },
      { type: 'merge', patch: { metadata: { annotations: { 'myelin.dev/default-verdict': 'perhaps' } } } },
    );
    assert.equal(await settled('deny', 'other/c'), undefined, 'what is not understood denies');
    await lab.api.delete(ownKinds.ClusterSettings, { name: 'default' });
    await lab.api.patch(
      kinds.Namespace,
      { name: 'other' },
      { type: 'merge', patch: { metadata: { annotations: { 'myelin.dev/default-verdict': null } } } },
    );
    assert.equal(await settled('allow', 'other/c'), undefined);
  });

  test('a node’s certificate that ends soon is renewed by itself; a controller that is away is a condition', async () => {
    const { caDirectory, certificate } = pkiPaths(lab.lab.plan);
    const file = certificate('node-1');
    await lab.lab.stopAgent('node-1');
    const serialOf = () => parseCertificates(readFileSync(file, 'utf8'))[0];
    // As made almost a life ago: half a minute is left of it.
    const ca = await CertificateAuthority.open({
      trustDomain: 'cluster.local',
      directory: caDirectory,
      now: () => Date.now() - 30 * 86_400_000 + 12_000,
    });
    const { createPrivateKey, createPublicKey } = await import('node:crypto');
    const { buildCsr } = await import('../../src/identity/csr.ts');
    const privateKey = createPrivateKey(readFileSync(pkiPaths(lab.lab.plan).key('node-1'), 'utf8'));
    const old = await ca.signNode(await buildCsr({ privateKey, publicKey: createPublicKey(privateKey) }), 'node-1');
    writeFileSync(file, old.native.toString());
    lab.lab.startAgent('node-1');
    await lab.eventually(async () => assert.ok((serialOf()?.notAfter ?? 0) > Date.now() + 86_400_000), {
      timeoutMs: 30_000,
    });
    const words = async (name: string) => (await agents.status('node-1')).conditions.find((each) => each.name === name);
    await lab.eventually(async () => assert.equal((await words('node'))?.ok, true), { timeoutMs: 15_000 });
    await lab.lab.stopService('controller', 'SIGKILL');
    await lab.eventually(async () => assert.equal((await words('controller'))?.ok, false), { timeoutMs: 15_000 });
    assert.equal((await cli('status')).code, 1);
    lab.lab.startService('controller');
    await lab.eventually(async () => assert.equal((await words('controller'))?.ok, true), { timeoutMs: 45_000 });
  });
});
