import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { stringOr } from '../../src/api/json.ts';
import { policyResources } from '../../src/api/kinds.ts';
import { type Agents, agentsOf } from '../support/agents.ts';
import { myelin } from '../support/cli.ts';
import { type Source, TestLab, type TestPod } from '../support/lab.ts';

/*
 * Cilium's policies, applied by kubectl and met by real packets: labels, an entity, ports, a service and a rule that denies;
 * and a rule for HTTP, which closes and says so.
 */

const layer4 = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {"k8s:app": client}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
  - fromEntities: [world]
    toPorts: [{ports: [{port: "81", protocol: TCP}]}]
  ingressDeny:
  - fromEndpoints: [{matchLabels: {tier: bad}}]
`;
const layer7 = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {"k8s:app": client}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{topic: orders}]}}]
  - fromEndpoints: [{matchLabels: {"k8s:app": client}}]
    toPorts: [{ports: [{port: "81", protocol: TCP}]}]
`;
const clusterWide = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: no-outside}
spec:
  endpointSelector: {matchLabels: {app: client}}
  enableDefaultDeny: {egress: false}
  egressDeny: [{toEntities: [world]}]
`;

const toService = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: to-web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toServices: [{k8sService: {serviceName: web}}]}]
`;
const service = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80}], ipFamilyPolicy: RequireDualStack}
`;

const resource = policyResources.find(({ kind }) => kind === 'CiliumNetworkPolicy');
const file = join(tmpdir(), `myelin-cilium-${process.pid}.yaml`);

describe('policies of Cilium’s kinds', { timeout: 120_000 }, () => {
  let lab: TestLab;
  let agents: Agents;
  const pods = new Map<string, TestPod>();
  const pod = (name: string): TestPod => pods.get(name) ?? assert.fail(`there is no pod ${name}`);

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    const made = [
      lab.pod('web').on('node-1').labelled({ app: 'web' }).serving(80, 81).create(),
      lab.pod('near').on('node-1').labelled({ app: 'client' }).create(),
      lab.pod('far').on('node-2').labelled({ app: 'client' }).create(),
      lab.pod('bad').on('node-2').labelled({ app: 'client', tier: 'bad' }).create(),
      lab.pod('other').on('node-2').labelled({ app: 'other' }).create(),
    ];
    for (const one of await Promise.all(made)) pods.set(one.name, one);
    await lab.serve('world', '8080/TCP');
    await lab.routeWorld();
  });
  after(async () => {
    rmSync(file, { force: true });
    await lab?.down();
  });

  const kubectl = async (...args: readonly string[]) => {
    const result = await myelin('lab', 'kubectl', '--name', lab.name, '--', ...args);
    assert.equal(result.code, 0, result.stderr);
    return result;
  };
  const apply = async (text: string) => {
    writeFileSync(file, text);
    return await kubectl('apply', '-f', file);
  };
  const nameOf = (end: Source | TestPod): string => (typeof end === 'string' ? end : `${end.namespace}/${end.name}`);

  /** Waits until all nodes agree on the verdict, and then looks at packets of both families. */
  async function assertVerdict(from: Source, to: TestPod, port: number, verdict: 'allow' | 'deny'): Promise<void> {
    const question = { source: nameOf(from), destination: nameOf(to), protocol: 'TCP', port } as const;
    assert.equal(await agents.settled(question, verdict, 20_000), undefined, `${nameOf(from)} → ${nameOf(to)} ${port}`);
    for (const family of [4, 6] as const)
      await lab.eventually(async () => {
        const since = Date.now();
        const { ok, error } = await lab.probe(from, to, { port, family });
        if (ok === (verdict === 'allow')) return;
        const drops = (await agents.denials({}, since)).map(({ reason, rule, source, destination }) => ({
          ...{ reason, rule, source, destination },
        }));
        assert.fail(
          `${nameOf(from)} → ${nameOf(to)} ${port} over IPv${family}: ${verdict} was expected; ${error ?? ''} ${JSON.stringify(drops)}`,
        );
      });
  }

  test('allows by labels, and denies what a denying rule names before all that', async () => {
    await assertVerdict(pod('other'), pod('web'), 80, 'allow');
    await apply(layer4);
    const web = pod('web');
    await assertVerdict(pod('near'), web, 80, 'allow');
    await assertVerdict(pod('far'), web, 80, 'allow');
    await assertVerdict(pod('far'), web, 81, 'deny');
    await assertVerdict(pod('other'), web, 80, 'deny');
    await assertVerdict(pod('bad'), web, 80, 'deny');
    await assertVerdict('world', web, 80, 'deny');
    await assertVerdict('world', web, 81, 'allow');
  });

  test('a service that a policy names opens when it gets backends, and closes when it is gone', async () => {
    await apply(toService);
    await assertVerdict(pod('near'), pod('web'), 80, 'deny');
    await apply(service);
    await assertVerdict(pod('near'), pod('web'), 80, 'allow');
    await kubectl('delete', 'service', 'web');
    await assertVerdict(pod('near'), pod('web'), 80, 'deny');
    await kubectl('delete', 'ciliumnetworkpolicy', 'to-web');
    await assertVerdict(pod('near'), pod('web'), 80, 'allow');
  });

  test('myelin why names the rule by its list, and the drop does too', async () => {
    const since = Date.now();
    assert.equal(await lab.reaches(pod('bad'), pod('web'), { port: 80 }), false);
    const why = await myelin('why', 'default/bad', 'default/web', '--port', '80', '--lab', lab.name);
    assert.equal(why.code, 3, why.stderr);
    assert.match(
      why.stdout,
      /ingress +deny +CiliumNetworkPolicy default\/web ingressDeny\[0\] +\(the datapath agrees\)/,
    );
    const allowed = await myelin('why', 'default/far', 'default/web', '--port', '80', '--lab', lab.name);
    assert.match(
      allowed.stdout,
      /ingress +allow +CiliumNetworkPolicy default\/web ingress\[0\] +\(the datapath agrees\)/,
    );
    await lab.eventually(async () => {
      const drops = await agents.denials({ destination: 'default/web' }, since - 1000);
      assert.ok(
        drops.some(
          ({ rule }) => rule?.kind === 'CiliumNetworkPolicy' && rule.list === 'ingressDeny' && rule.index === 0,
        ),
        JSON.stringify(drops.map(({ rule }) => rule)),
      );
    });
  });

  test('a rule for what nobody reads closes, kubectl and the status say so, and the rest of the policy holds', async () => {
    const { stderr } = await apply(layer7);
    assert.match(stderr, /Warning: spec\.ingress\[0\]\.toPorts\[0\]\.rules\.kafka: /);
    await assertVerdict(pod('near'), pod('web'), 80, 'deny');
    await assertVerdict(pod('far'), pod('web'), 80, 'deny');
    await assertVerdict(pod('far'), pod('web'), 81, 'allow');
    assert.ok(resource !== undefined);
    await lab.eventually(
      async () => {
        const { status } = await lab.api.get(resource, { namespace: 'default', name: 'web' });
        const condition = status?.conditions?.find(({ type }) => type === 'Enforced');
        assert.equal(condition?.status, 'False');
        assert.match(
          stringOr(condition?.message, ''),
          /spec\.ingress\[0\]\.toPorts\[0\]\.rules\.kafka: .* allows nothing/,
        );
      },
      { timeoutMs: 20_000 },
    );
    assert.match((await kubectl('get', 'cnp')).stdout, /web +False/);
  });

  test('policy check holds a manifest against the lab’s pods and policies', async () => {
    writeFileSync(
      file,
      layer4
        .replace('name: web', 'name: another')
        .replace('port: "80"', 'port: "8080"')
        .replace('tier: bad', 'tier: worse'),
    );
    const { code, stdout, stderr } = await myelin('policy', 'check', '-f', file, '--lab', lab.name);
    assert.equal(code, 2, stderr);
    assert.match(stdout, /another +spec\.ingress\[0\] +no pod that it is about has TCP 8080: they have TCP 80/);
    assert.match(stdout, /another +spec\.ingressDeny\[0\] +matches no pod: there are no pods with tier=worse/);
    assert.match(stderr, /held against \d+ pods of the cluster; 0 errors, 2 warnings/);
  });

  test('a cluster-wide policy that only denies leaves everything else open', async () => {
    await kubectl('delete', 'cnp', 'web');
    await apply(clusterWide);
    const question = { source: 'default/far', destination: '203.0.113.10', protocol: 'TCP', port: 8080 } as const;
    assert.equal(await agents.settled(question, 'deny', 20_000), undefined);
    await lab.eventually(async () =>
      assert.equal(await lab.reaches(pod('far'), '203.0.113.10', { port: 8080 }), false),
    );
    await assertVerdict(pod('far'), pod('web'), 80, 'allow');
    await lab.eventually(async () => assert.ok(await lab.reaches(pod('other'), '203.0.113.10', { port: 8080 })));
  });
});
