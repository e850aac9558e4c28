import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIp } from '../../../src/model/address.ts';
import type { PodView } from '../../../src/model/endpoint.ts';
import { identityNumber, reservedIdentity } from '../../../src/model/identity.ts';
import { compile } from '../../../src/policy/compile.ts';
import type { PolicyImage } from '../../../src/policy/image.ts';
import { identityOf, lookup } from '../../../src/policy/lookup.ts';
import { buildProxyImage } from '../../../src/policy/proxy/build.ts';
import { candidates } from '../../../src/policy/proxy/judge.ts';
import type { Request } from '../../../src/policy/request.ts';
import { cilium } from '../../support/cilium.ts';
import { clusterWith, pods } from '../../support/cluster.ts';

const node = 'node-1';
const [front, cart] = [parseIp('10.244.1.1'), parseIp('10.244.1.2')];
const far = parseIp('10.244.2.1');

const ports = (port: string) => [{ port, protocol: 'TCP' }];
const http = (port: string, path: string) => ({ ports: ports(port), rules: { http: [{ path }] } });
const tls = (port: string, name: string) => ({ ports: ports(port), serverNames: [name] });
const into = (...toPorts: object[]) => ({
  endpointSelector: { matchLabels: { app: 'cart' } },
  ingress: [{ fromEndpoints: [{ matchLabels: { app: 'front' } }], toPorts }],
});
const out = (...toPorts: object[]) => ({
  endpointSelector: { matchLabels: { app: 'front' } },
  egress: [{ toEndpoints: [{ matchLabels: { app: 'cart' } }], toPorts }],
});

function withProxy(name: string, proxy: NonNullable<PodView['proxy']>) {
  return { pods: new Map(pods.map((pod) => [pod.uid, pod.uid === name ? { ...pod, proxy } : pod])) };
}

function reader(image: PolicyImage, port: number): string {
  const { verdict, byRequest } = lookup(image, 'shop/cart', 'ingress', front, 'TCP', port);
  return byRequest === true ? 'kernel' : verdict;
}

describe('who reads requests', () => {
  const asks = into(http('80', '/a'), tls('443', 'a.example'));

  test('the kernel what it can, the proxy the rest', () => {
    const [policy] = cilium(asks);
    assert.equal(policy?.limits, undefined);
    const image = compile(clusterWith(cilium(asks)), node);
    assert.deepEqual([reader(image, 80), reader(image, 443), reader(image, 81)], ['kernel', 'proxy', 'deny']);
  });

  test('what is asked at a port of the proxy’s is the proxy’s', () => {
    const image = compile(clusterWith(cilium(into(http('80', '/a'), tls('80', 'a.example'), http('81', '/b')))), node);
    assert.deepEqual([reader(image, 80), reader(image, 81)], ['proxy', 'kernel']);
  });

  test('what is asked of those who ask', () => {
    const image = compile(clusterWith(cilium(out(http('80', '/a')))), node);
    assert.equal(lookup(image, 'shop/front-1', 'egress', cart, 'TCP', 80).verdict, 'proxy');
    assert.equal(lookup(image, 'shop/front-1', 'egress', cart, 'UDP', 80).verdict, 'deny');
  });

  test('all of it, where a pod or a policy asks for the proxy', () => {
    const ofPod = compile(clusterWith(cilium(asks), withProxy('shop/cart', 'required')), node);
    const ofPolicy = compile(clusterWith(cilium(asks, { 'myelin.dev/proxy': 'required' })), node);
    for (const image of [ofPod, ofPolicy])
      assert.deepEqual([reader(image, 80), reader(image, 443)], ['proxy', 'proxy']);
  });

  test('none of it, where a pod forbids it: what only the proxy reads is closed', () => {
    for (const annotations of [{}, { 'myelin.dev/proxy': 'required' }]) {
      const image = compile(clusterWith(cilium(asks, annotations), withProxy('shop/cart', 'never')), node);
      assert.deepEqual([reader(image, 80), reader(image, 443)], ['kernel', 'deny']);
    }
  });

  test('or a policy, which says so of itself', () => {
    const policies = cilium(asks, { 'myelin.dev/proxy': 'never' });
    assert.deepEqual(policies[0]?.limits, [
      {
        field: 'spec.ingress[0]',
        reason:
          'only the proxy reads such requests, which the policy forbids: connections that only this rule would allow are denied',
      },
    ]);
    for (const changes of [{}, withProxy('shop/cart', 'required')]) {
      const image = compile(clusterWith(policies, changes), node);
      assert.deepEqual([reader(image, 80), reader(image, 443)], ['kernel', 'deny']);
    }
  });

  test('a proxy is needed where something is left to it, and only there', () => {
    assert.equal(buildProxyImage(compile(clusterWith(cilium(into(http('80', '/a')))), node)).needed, false);
    assert.equal(buildProxyImage(compile(clusterWith(cilium(asks)), node)).needed, true);
  });
});

describe('the judge', () => {
  const image = compile(clusterWith([...cilium(into(http('80', '/a'), tls('443', 'a.example')))]), node);
  const proxied = buildProxyImage(image).image;
  const peer = identityOf(image, 'shop/front-2', far) ?? reservedIdentity.any;
  const connection = { client: far, server: cart, port: 443, identity: peer, pattern: reservedIdentity.any };
  const sni: Request = { kind: 'tls', serverName: 'a.example' };

  test('knows who the datapath says it is', () => {
    const judge = candidates(proxied, connection);
    assert.ok(judge.known);
    assert.equal(judge.judge(sni).verdict, 'allow');
    assert.match(judge.judge(sni).text ?? '', /^CiliumNetworkPolicy shop\/asks ingress/);
    assert.deepEqual(
      [judge.judge({ kind: 'tls', serverName: 'b.example' }).reason, judge.judge(undefined).verdict],
      ['TLS_DENIED', 'deny'],
    );
  });

  test('lets nobody in whom its image does not know', () => {
    const judge = candidates(proxied, { ...connection, identity: identityNumber(9999) });
    assert.deepEqual([judge.known, judge.judge(sni).verdict, judge.judge(sni).reason], [false, 'deny', 'UNKNOWN_PEER']);
  });

  test('says where its image has nothing to judge a connection by', () => {
    assert.equal(candidates(proxied, { ...connection, port: 9 }).known, false);
  });

  test('takes a pod of the node for who it is, whatever is said', () => {
    const judge = candidates(proxied, { ...connection, client: front, identity: identityNumber(9999) });
    assert.ok(judge.known);
    assert.equal(judge.judge(sni).verdict, 'allow');
  });

  test('asks both ends of the node, but not who has let it go already', () => {
    const both = compile(
      clusterWith(
        [...cilium(into(http('80', '/a'))), ...cilium(out(http('80', '/b')))].map((one, i) => ({
          ...one,
          name: `p${i}`,
        })),
      ),
      node,
    );
    const own = {
      client: front,
      server: cart,
      port: 80,
      identity: reservedIdentity.any,
      pattern: reservedIdentity.any,
    };
    const get = (target: string): Request => ({ kind: 'http', method: 'GET', target, headers: [] });
    const whole = candidates(buildProxyImage(both).image, own);
    assert.deepEqual([whole.judge(get('/a')).direction, whole.judge(get('/a')).verdict], ['egress', 'deny']);
    assert.deepEqual([whole.judge(get('/b')).direction, whole.judge(get('/b')).verdict], ['ingress', 'deny']);
    const atServer = candidates(buildProxyImage(both).image, { ...own, seenFrom: 'server' });
    assert.equal(atServer.judge(get('/a')).verdict, 'allow');
  });

  test('follows a name to the patterns that it is one of', () => {
    const fqdn = (pattern: object, path: string) => ({ toFQDNs: [pattern], toPorts: [http('80', path)] });
    const egress = [fqdn({ matchName: 'db.example.com' }, '/one'), fqdn({ matchPattern: '*.example.com' }, '/all')];
    const named = compile(clusterWith(cilium({ endpointSelector: { matchLabels: { app: 'front' } }, egress })), node);
    const numberOf = (wanted: string) =>
      [...named.patterns].find(([, text]) => text === wanted)?.[0] ?? reservedIdentity.any;
    const judged = (pattern: string, target: string) =>
      candidates(buildProxyImage(named).image, {
        client: front,
        server: parseIp('203.0.113.9'),
        port: 80,
        identity: reservedIdentity.world,
        pattern: numberOf(pattern),
      }).judge({ kind: 'http', method: 'GET', target, headers: [] }).verdict;
    assert.deepEqual(
      [
        judged('db.example.com', '/one'),
        judged('db.example.com', '/all'),
        judged('*.example.com', '/one'),
        judged('*.example.com', '/all'),
      ],
      ['allow', 'allow', 'deny', 'allow'],
    );
  });
});
