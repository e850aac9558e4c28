import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HintedPorts } from '../../src/agent/proxy/ports.ts';
import type { ProxyClient, ProxyMode, ProxyPort } from '../../src/datapath/proxy/ports.ts';
import { parseIp } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { compile } from '../../src/policy/compile.ts';
import { cilium } from '../support/cilium.ts';
import { clusterWith } from '../support/cluster.ts';

/** A node with `shop/cart`, to which a policy lets requests to port 80; the datapath's map is one here. */
function node(
  options: {
    learnt?: readonly ProxyPort[];
    clients?: readonly ProxyClient[];
    proxy?: PodView['proxy'];
    hints?: readonly number[];
  } = {},
) {
  const asks = cilium({
    endpointSelector: { matchLabels: { app: 'cart' } },
    ingress: [{ toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], rules: { http: [{ path: '/a' }] } }] }],
  });
  const policy = compile(clusterWith(asks), 'node-1');
  const map = new Map((options.learnt ?? []).map(({ endpoint, port, mode }) => [`${endpoint} ${port}`, mode]));
  const ids = new Map([
    ['shop/cart', 1],
    ['shop/front-1', 2],
  ]);
  const ports = new HintedPorts({
    datapath: {
      policy,
      proxyPorts: () =>
        [...map].map(([key, mode]) => {
          const [endpoint = 0, port = 0] = key.split(' ').map(Number);
          return { endpoint, port, mode };
        }),
      proxyClients: () => [...(options.clients ?? [])],
      setProxyPort: (uid: string, port: number, mode: ProxyMode | undefined) => {
        const key = `${ids.get(uid)} ${port}`;
        if (mode === undefined) map.delete(key);
        else map.set(key, mode);
      },
      endpointById: (id: number) => ({ uid: [...ids].find(([, own]) => own === id)?.[0] ?? '' }),
    },
    hints: () => (options.hints ?? []).map((port) => ({ address: parseIp('10.244.1.2'), port })),
    pod: () => (options.proxy === undefined ? {} : { proxy: options.proxy }),
  });
  return { needed: ports.refresh(), map: [...map] };
}

test('nothing is said, and nothing needed', () => {
  assert.deepEqual(node(), { needed: false, map: [] });
});

test('what Services say of pods whose requests are read', () => {
  assert.deepEqual(node({ hints: [80] }), { needed: true, map: [['1 80', 'always']] });
});

test('what the datapath has learnt is a need; of pods whose requests nobody asks for, none', () => {
  const learnt = (endpoint: number) => [{ endpoint, port: 80, mode: 'always' }] as const;
  assert.equal(node({ learnt: learnt(1) }).needed, true);
  assert.equal(node({ learnt: learnt(2) }).needed, false);
});

test('whom the kernel could not answer needs a proxy, unless the pod forbids it', () => {
  const clients = (endpoint: number) => [{ endpoint, port: 80, remote: parseIp('10.244.2.9') }];
  assert.deepEqual(node({ clients: clients(1) }), { needed: true, map: [] });
  assert.equal(node({ clients: clients(2) }).needed, false);
  assert.equal(node({ clients: clients(1), proxy: 'never' }).needed, false);
});

test('a pod that forbids the proxy has none, whatever was said or learnt', () => {
  const learnt = [{ endpoint: 1, port: 81, mode: 'always' }] as const;
  const { needed, map } = node({ hints: [80], learnt, proxy: 'never' });
  assert.deepEqual(
    [needed, new Map(map)],
    [
      false,
      new Map([
        ['1 81', 'never'],
        ['1 80', 'never'],
      ]),
    ],
  );
});
