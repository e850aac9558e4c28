import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * Istio's policies, applied by kubectl and met by real packets on one node and across two: who calls is known by the proof
 * that came with the packets, and whoever has none is kept out where proof is asked for.
 */

const authorization = (name: string, spec: string, version = 'v1') => `apiVersion: security.istio.io/${version}
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: default}
spec: ${spec}
`;
const authentication = (spec: string) => `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: default}
spec: {selector: {matchLabels: {app: web}}, ${spec}}
`;

describe('Istio’s policies', { timeout: 120_000 }, () => {
  let lab: PolicyLab;
  const pods = new Map<string, TestPod>();
  const pod = (name: string): TestPod => pods.get(name) ?? assert.fail(`there is no pod ${name}`);

  before(async () => {
    lab = await PolicyLab.up({ nodes: 2 });
    await lab.lab.routeWorld();
    await lab.lab.namespace('ops');
    const accounts = ['front', 'other'].map((name) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace: 'default' },
    }));
    await lab.lab.apply(accounts);
    const made = [
      lab.lab.pod('web').on('node-1').serving(80, 81).create(),
      lab.lab.pod('near').on('node-1').as('front').create(),
      lab.lab.pod('far').on('node-2').as('front').create(),
      lab.lab.pod('other').on('node-2').as('other').create(),
      lab.lab.pod('scan', 'ops').on('node-2').create(),
    ];
    for (const one of await Promise.all(made)) pods.set(one.name, one);
  });
  after(() => lab?.down());

  test('ALLOW lets in by principal and port, and nobody else; an older version of the API is the same', async () => {
    await lab.verdict(pod('scan'), pod('web'), 80, 'allow');
    const rules =
      '{from: [{source: {principals: ["cluster.local/ns/default/sa/front"]}}], to: [{operation: {ports: ["80"]}}]}';
    await lab.apply(authorization('web', `{selector: {matchLabels: {app: web}}, rules: [${rules}]}`, 'v1beta1'));
    await lab.verdict(pod('far'), pod('web'), 80, 'allow');
    await lab.verdict(pod('near'), pod('web'), 80, 'allow');
    await lab.verdict(pod('far'), pod('web'), 81, 'deny');
    await lab.verdict(pod('other'), pod('web'), 80, 'deny');
    await lab.verdict(pod('scan'), pod('web'), 80, 'deny');
    await lab.verdict('world', pod('web'), 80, 'deny');
    assert.match(
      await lab.why(pod('far'), pod('web'), 80),
      /ingress +allow +AuthorizationPolicy default\/web rules\[0\] +\(the datapath agrees\)/,
    );
  });

  test('DENY goes before it, and a NetworkPolicy is asked too: both gates must let a flow pass', async () => {
    await lab.apply(authorization('web', '{rules: [{}]}'));
    await lab.apply(authorization('no-ops', '{action: DENY, rules: [{from: [{source: {namespaces: ["op*"]}}]}]}'));
    await lab.verdict(pod('scan'), pod('web'), 80, 'deny');
    await lab.verdict(pod('other'), pod('web'), 80, 'allow');
    assert.match(
      await lab.why(pod('scan'), pod('web'), 80),
      /ingress +deny +AuthorizationPolicy default\/no-ops rules\[0\] +\(the datapath agrees\)/,
    );
    const since = Date.now();
    assert.equal(await lab.lab.reaches(pod('scan'), pod('web'), { port: 80 }), false);
    await lab.lab.eventually(async () => {
      const drops = await lab.agents.denials({ destination: 'default/web' }, since - 1000);
      assert.ok(
        drops.some(({ rule }) => rule?.kind === 'AuthorizationPolicy' && rule.name === 'no-ops'),
        JSON.stringify(drops.map(({ rule }) => rule)),
      );
    });
    await lab.lab.policy('closed', { podSelector: { matchLabels: { app: 'web' } } });
    await lab.verdict(pod('other'), pod('web'), 80, 'deny');
    await lab.kubectl('delete', 'networkpolicy', 'closed');
    await lab.kubectl('delete', 'authorizationpolicies', 'web', 'no-ops');
    await lab.verdict(pod('scan'), pod('web'), 80, 'allow');
  });

  test('STRICT keeps out the world and other nodes’ own processes; a port may be left open', async () => {
    await lab.verdict('world', pod('web'), 80, 'allow');
    await lab.apply(authentication('mtls: {mode: STRICT}'));
    await lab.verdict('world', pod('web'), 80, 'deny');
    // Which has no tunnel, and in clear nobody of the cluster is heard.
    await lab.packets('node-2', pod('web'), 80, 'deny');
    for (const from of ['near', 'far', 'scan']) await lab.verdict(pod(from), pod('web'), 80, 'allow');
    // The pod's own node asks it whether it is well.
    await lab.packets('node-1', pod('web'), 80, 'allow');
    assert.match(await lab.why('world', pod('web'), 80), /PeerAuthentication default\/web/);
    await lab.apply(authentication('mtls: {mode: STRICT}, portLevelMtls: {81: {mode: PERMISSIVE}}'));
    await lab.verdict('world', pod('web'), 81, 'allow');
    await lab.verdict('world', pod('web'), 80, 'deny');
    await lab.kubectl('delete', 'peerauthentication', 'web');
    await lab.verdict('world', pod('web'), 80, 'allow');
  });

  test('a rule for what nobody reads closes, kubectl and the status say so, and the other rules hold', async () => {
    const named = '{when: [{key: request.auth.principal, values: ["somebody"]}]}';
    const other = '{from: [{source: {serviceAccounts: ["other"]}}]}';
    const { stderr } = await lab.apply(authorization('web', `{rules: [${named}, ${other}]}`));
    assert.match(stderr, /Warning: spec\.rules\[0\]\.when\[0\]\S*: .* allows nothing/);
    await lab.verdict(pod('far'), pod('web'), 80, 'deny');
    await lab.verdict(pod('other'), pod('web'), 80, 'allow');
    await lab.condition('AuthorizationPolicy', 'web', 'Enforced', /when\[0\]\S*: .* allows nothing/, 'default');
    assert.match((await lab.kubectl('get', 'ap')).stdout, /web +False/);
  });
});
