import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '../../../src/model/address.ts';
import { compile } from '../../../src/policy/compile.ts';
import type { PolicyImage, RuleSet } from '../../../src/policy/image.ts';
import { policyKinds } from '../../../src/policy/kinds.ts';
import { lookup } from '../../../src/policy/lookup.ts';
import { couldTalk } from '../../../src/policy/reachable.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { clusterWith } from '../../support/cluster.ts';

const front = parseIp('10.244.1.1');
const node = 'node-1';

/** A policy that lets requests for these paths reach `shop/cart` on port 80. */
function reads(...paths: readonly string[]): readonly Policy[] {
  return readsWith({}, ...paths);
}

/** @param annotations Of the policy. */
function readsWith(annotations: Readonly<Record<string, string>>, ...paths: readonly string[]): readonly Policy[] {
  const cilium = policyKinds.find(({ kind }) => kind === 'CiliumNetworkPolicy') ?? assert.fail('there is the kind');
  const parsed = cilium.parse({
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumNetworkPolicy',
    metadata: { name: 'reads', namespace: 'shop', annotations },
    spec: {
      endpointSelector: { matchLabels: { app: 'cart' } },
      ingress: [
        {
          fromEndpoints: [{ matchLabels: { app: 'front' } }],
          toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], rules: { http: paths.map((path) => ({ path })) } }],
        },
      ],
    },
  });
  return parsed.ok ? parsed.policies : assert.fail('the policy is one');
}

function setOf(image: PolicyImage): RuleSet {
  return image.ruleSets.get(image.endpoints.get('shop/cart')?.ingressSet ?? 0) ?? assert.fail('the pod has a set');
}

function asks(image: PolicyImage, target: string): string {
  const request = { kind: 'http', method: 'GET', target, headers: [] } as const;
  return lookup(image, 'shop/cart', 'ingress', front, 'TCP', 80, false, { request }).verdict;
}

test('what is asked of requests is part of what a set means: another path is another set, the same one the same', () => {
  const first = compile(clusterWith(reads('/a')), node);
  const again = compile(clusterWith(reads('/a')), node, first);
  assert.equal(setOf(again).id, setOf(first).id);
  const other = compile(clusterWith(reads('/b')), node, again);
  assert.notEqual(setOf(other).id, setOf(first).id);
  assert.deepEqual([asks(first, '/a'), asks(other, '/a'), asks(other, '/b')], ['allow', 'deny', 'allow']);
});

test('who may only make some requests may shake hands', () => {
  const image = compile(clusterWith(reads('/a')), node);
  assert.equal(couldTalk(image, 'shop/cart', [parseIp('10.244.2.1')]), true);
  assert.equal(lookup(image, 'shop/cart', 'ingress', front, 'TCP', 80).byRequest, true);
  assert.equal(lookup(image, 'shop/cart', 'ingress', front, 'TCP', 81).byRequest, undefined);
});

const words = Array.from({ length: 26 }, (_, i) => `.*word${String.fromCharCode(97 + i)}.*`);

test('what is too big for the datapath is the proxy’s', () => {
  const policies = reads(...words);
  assert.equal(policies[0]?.limits, undefined);
  const image = compile(clusterWith(policies), node);
  assert.equal(asks(image, '/worda'), 'proxy');
  assert.equal(couldTalk(image, 'shop/cart', [parseIp('10.244.2.1')]), true);
  assert.equal(setOf(image).matcher, undefined);
});

test('what is too big is taken strictly where the proxy is forbidden, and said', () => {
  const policies = readsWith({ 'myelin.dev/proxy': 'never' }, ...words);
  assert.deepEqual(
    policies[0]?.limits?.map(({ field }) => field),
    ['spec'],
  );
  assert.match(
    policies[0]?.limits?.[0]?.reason ?? '',
    /^the policy asks for more than .*: no request is allowed by it/,
  );
  const set = setOf(compile(clusterWith(policies), node));
  assert.match(set.unread ?? '', /^asks for more than/);
  assert.equal(set.matcher, undefined);
  assert.deepEqual(set.entries, []);
});

test('what no bytes can tell is left out of what is allowed, and said', () => {
  const policies = reads('/é', '/a');
  assert.deepEqual(policies[0]?.limits, [
    { field: 'spec.ingress[0]', reason: 'it asks for characters that are not of ASCII: such requests are not allowed' },
  ]);
  const image = compile(clusterWith(policies), node);
  assert.equal(asks(image, '/a'), 'allow');
  assert.equal(asks(image, '/%C3%A9'), 'deny');
});

test('a path that is not spelt as it is read is said: a rule about it is about nothing', () => {
  const istio = policyKinds.find(({ kind }) => kind === 'AuthorizationPolicy') ?? assert.fail('there is the kind');
  const paths = ['/a b', '/%61dmin*', '/a//b', '/ok/%20/*', '*.png', '/{*}/a', '/a/..'];
  const parsed = istio.parse({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'paths', namespace: 'shop' },
    spec: { action: 'DENY', rules: [{ to: [{ operation: { paths } }] }] },
  });
  assert.ok(parsed.ok);
  assert.deepEqual(
    parsed.policies[0]?.limits?.map(({ field, reason }) => `${field}: ${reason}`),
    [
      'spec.rules[0]: no request has the path /a b: requests for it are refused',
      'spec.rules[0]: no request has the path /%61dmin: it is read as /admin',
      'spec.rules[0]: no request has the path /a//b: it is read as /a/b',
      'spec.rules[0]: no request has the path /a/..: it is read as /',
    ],
  );
});
