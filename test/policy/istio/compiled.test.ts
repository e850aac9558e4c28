import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIp } from '../../../src/model/address.ts';
import { compile } from '../../../src/policy/compile.ts';
import { decideSide, resolveFlow } from '../../../src/policy/decide.ts';
import { settle } from '../../../src/policy/istio/settle.ts';
import { lookup } from '../../../src/policy/lookup.ts';
import { clusterWith } from '../../support/cluster.ts';
import { authentication, authorization, pods } from './istio.ts';

const rule = (source: object, operation?: object) => ({
  from: [{ source }],
  ...(operation === undefined ? {} : { to: [{ operation }] }),
});
const cart = { selector: { matchLabels: { app: 'cart' } } };
/** A policy for each way in which a front end uses the rule form. */
const policies = [
  authorization('shop/a', { rules: [rule({ principals: ['*/sa/front'] }, { ports: ['80'] })] }),
  authorization('shop/b', { rules: [rule({ notNamespaces: ['shop'] }, { notPorts: ['80'] })] }),
  authorization('shop/c', { action: 'DENY', rules: [rule({ notPrincipals: ['*'] })] }),
  authorization('shop/d', { action: 'DENY', rules: [rule({ ipBlocks: ['10.244.2.0/24'] }, { notPorts: ['443'] })] }),
  authorization('shop/e', { rules: [{ when: [{ key: 'destination.ip', values: ['10.244.1.2', 'fd00::/16'] }] }] }),
  authorization('shop/f', {
    action: 'DENY',
    rules: [{ when: [{ key: 'destination.ip', notValues: ['10.0.0.0/8'] }] }],
  }),
  authorization('shop/g', { rules: [rule({ serviceAccounts: ['ops/front', 'admin'] }, { methods: ['GET'] })] }),
  authorization('istio-system/h', {
    ...cart,
    action: 'DENY',
    rules: [rule({ namespaces: ['ops*'] }, { paths: ['/x'] })],
  }),
  authentication('istio-system/i', { mtls: { mode: 'STRICT' } }),
  authentication('shop/j', { mtls: { mode: 'PERMISSIVE' } }),
  authentication('shop/k', { ...cart, mtls: { mode: 'STRICT' }, portLevelMtls: { 80: { mode: 'PERMISSIVE' } } }),
  authentication('shop/l', { ...cart, portLevelMtls: { 443: { mode: 'STRICT' } } }, '2026-01-01T00:00:00Z'),
];
const spaces = new Map(['shop', 'ops', 'ops-test', 'istio-system'].map((name) => [name, {}]));
const addresses = [
  '10.244.2.1',
  '10.244.2.2',
  '10.244.2.3',
  '10.244.1.3',
  'fd00:10:244:2::1',
  '203.0.113.9',
  '192.168.0.2',
];
const probes = [
  ...addresses.flatMap((from) =>
    (['TCP', 'UDP', 'SCTP'] as const).flatMap((protocol) =>
      [80, 443, 8080].map((port) => ({ from: parseIp(from), protocol, port })),
    ),
  ),
  ...addresses.map(
    (from) => ({ from: parseIp(from), protocol: from.includes(':') ? 'ICMPv6' : 'ICMP', port: 8 << 8 }) as const,
  ),
];

test('what is compiled says of every connection what the reference says', () => {
  fc.assert(
    fc.property(fc.subarray(policies), (chosen) => {
      const view = clusterWith(settle(chosen), {
        pods: new Map(pods.map((own) => [own.uid, own])),
        namespaces: spaces,
      });
      const image = compile(view, 'node-1');
      for (const to of ['shop/cart', 'shop/admin'])
        for (const { from, protocol, port } of probes) {
          const resolved = resolveFlow(view, { source: { address: from }, destination: { pod: to }, protocol, port });
          const expected = decideSide(view, resolved, 'ingress').verdict;
          const found = lookup(image, to, 'ingress', from, protocol, port).verdict;
          assert.equal(found, expected, `${from} → ${to} ${protocol} ${port} under ${chosen.map(({ name }) => name)}`);
        }
    }),
    { numRuns: 200 },
  );
});
