import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * The tiers around NetworkPolicy, applied by kubectl and met by real packets on one node and across two: Admin denies what
 * a NetworkPolicy allows, passes on what it does not want to decide, and Baseline decides where no NetworkPolicy does.
 */

const allowAll = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: default}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}
`;
const guard = (tier: string, rules: string) => `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: ${tier.toLowerCase()}-guard}
spec:
  tier: ${tier}
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: default}}}
  ${rules}
`;
const fromOps = '[{namespaces: {matchLabels: {kubernetes.io/metadata.name: ops}}}]';

describe('ClusterNetworkPolicy', { timeout: 120_000 }, () => {
  let lab: PolicyLab;
  const pods = new Map<string, TestPod>();
  const pod = (name: string): TestPod => pods.get(name) ?? assert.fail(`there is no pod ${name}`);

  before(async () => {
    lab = await PolicyLab.up({ nodes: 2 });
    await lab.lab.namespace('ops');
    const made = [
      lab.lab.pod('web').on('node-1').serving(80, 81).create(),
      lab.lab.pod('bare').on('node-1').serving(80).create(),
      lab.lab.pod('client').on('node-2').create(),
      lab.lab.pod('near', 'ops').on('node-1').create(),
      lab.lab.pod('far', 'ops').on('node-2').create(),
    ];
    for (const one of await Promise.all(made)) pods.set(one.name, one);
    await lab.lab.serve('world', '8080/TCP');
  });
  after(() => lab?.down());

  test('Admin denies what a NetworkPolicy allows, and why says by which rule', async () => {
    await lab.apply(allowAll);
    await lab.verdict(pod('far'), pod('web'), 80, 'allow');
    await lab.apply(guard('Admin', `ingress: [{name: no ops, action: Deny, from: ${fromOps}}]`));
    await lab.verdict(pod('far'), pod('web'), 80, 'deny');
    await lab.verdict(pod('near'), pod('web'), 80, 'deny');
    await lab.verdict(pod('client'), pod('web'), 80, 'allow');
    assert.match(
      await lab.why(pod('far'), pod('web'), 80),
      /ingress +deny +ClusterNetworkPolicy admin-guard ingress\[0\] +\(the datapath agrees\)/,
    );
    const { stdout } = await lab.kubectl('get', 'clusternetworkpolicies');
    assert.match(stdout, /admin-guard +Admin +10 +True/);
  });

  test('Pass leaves to NetworkPolicy what a later rule would deny; the order of rules decides', async () => {
    const port = 'protocols: [{tcp: {destinationPort: {number: 81}}}]';
    await lab.apply(
      guard(
        'Admin',
        `ingress: [{action: Pass, from: ${fromOps}, ${port}}, {action: Deny, from: ${fromOps}}, {action: Accept, from: ${fromOps}}]`,
      ),
    );
    await lab.verdict(pod('far'), pod('web'), 81, 'allow');
    await lab.verdict(pod('near'), pod('web'), 81, 'allow');
    await lab.verdict(pod('far'), pod('web'), 80, 'deny');
    // With no NetworkPolicy what is passed comes to the cluster's default; nothing listens there.
    const question = { source: 'ops/far', destination: 'default/bare', protocol: 'TCP', port: 81 } as const;
    assert.equal(await lab.agents.settled(question, 'allow', 20_000), undefined);
    await lab.verdict(pod('far'), pod('bare'), 80, 'deny');
  });

  test('Baseline decides where no NetworkPolicy isolates', async () => {
    await lab.kubectl('delete', 'clusternetworkpolicy', 'admin-guard');
    await lab.apply(guard('Baseline', `ingress: [{action: Deny, from: ${fromOps}}]`));
    await lab.verdict(pod('far'), pod('bare'), 80, 'deny');
    await lab.verdict(pod('client'), pod('bare'), 80, 'allow');
    await lab.verdict(pod('far'), pod('web'), 80, 'allow');
    assert.match(await lab.why(pod('far'), pod('bare'), 80), /ClusterNetworkPolicy baseline-guard ingress\[0\]/);
  });

  test('Admin accepts where NetworkPolicy isolates, and denies networks outside', async () => {
    await lab.apply(
      guard(
        'Admin',
        `ingress: [{action: Accept, from: ${fromOps}}]
  egress: [{action: Deny, to: [{networks: ["203.0.113.0/24", "2001:db8::/32"]}]}]`,
      ),
    );
    await lab.apply(allowAll.replace('ingress: [{}]', 'ingress: []'));
    await lab.verdict(pod('far'), pod('web'), 80, 'allow');
    await lab.verdict(pod('client'), pod('web'), 80, 'deny');
    const question = { source: 'default/client', destination: '203.0.113.10', protocol: 'TCP', port: 8080 } as const;
    assert.equal(await lab.agents.settled(question, 'deny', 20_000), undefined);
    assert.equal(await lab.lab.reaches(pod('client'), '203.0.113.10', { port: 8080 }), false);
    await lab.lab.eventually(async () =>
      assert.ok(await lab.lab.reaches(pod('far'), '203.0.113.10', { port: 8080 }), 'another namespace’s pod'),
    );
  });

  test('domain names are enforced like the rest, and what is wrong is refused with its place', async () => {
    const { stderr } = await lab.apply(
      guard('Admin', 'egress: [{action: Accept, to: [{domainNames: ["*.example.com"]}]}]'),
    );
    assert.doesNotMatch(stderr, /Warning/);
    await assert.rejects(
      lab.apply(guard('Admin', 'ingress: [{action: Allow, from: [{namespaces: {}}]}]')),
      /spec\.ingress\[0\]\.action/,
    );
  });
});
