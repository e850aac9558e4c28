import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, Service } from '../../src/api/kinds.ts';
import { serviceFronts } from '../../src/service/translation.ts';

const service = (spec: Service['spec']): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { namespace: 'shop', name: 'cart' },
  spec,
});

const slice = (
  addressType: 'IPv4' | 'IPv6',
  endpoints: EndpointSlice['endpoints'],
  ports: EndpointSlice['ports'],
): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { namespace: 'shop', name: `cart-${addressType}`, labels: { 'kubernetes.io/service-name': 'cart' } },
  addressType,
  endpoints,
  ports,
});

const http = [{ name: 'http', port: 8080, protocol: 'TCP' as const }];

test('a dual-stack service has one front a family, each with the backends of its own family', () => {
  const fronts = serviceFronts(
    [service({ clusterIPs: ['10.96.0.9', 'fd00:10:96::9'], ports: [{ name: 'http', port: 80, targetPort: 8080 }] })],
    [
      slice('IPv4', [{ addresses: ['10.244.1.3'] }, { addresses: ['10.244.0.2'] }], http),
      slice('IPv6', [{ addresses: ['fd00:10:244:1::3'] }], http),
    ],
  );
  assert.deepEqual(fronts, [
    {
      name: 'shop/cart:80',
      protocol: 'TCP',
      front: { address: '10.96.0.9', port: 80 },
      backends: [
        { address: '10.244.0.2', port: 8080 },
        { address: '10.244.1.3', port: 8080 },
      ],
    },
    {
      name: 'shop/cart:80',
      protocol: 'TCP',
      front: { address: 'fd00:10:96::9', port: 80 },
      backends: [{ address: 'fd00:10:244:1::3', port: 8080 }],
    },
  ]);
});

test('an endpoint that is not ready gets nothing, unless the service publishes such ones', () => {
  const slices = [
    slice(
      'IPv4',
      [
        { addresses: ['10.244.1.3'], conditions: { ready: false } },
        { addresses: ['10.244.1.4'], conditions: {} },
      ],
      http,
    ),
  ];
  const ports = [{ name: 'http', port: 80 }];
  const addresses = (spec: Service['spec']) =>
    serviceFronts([service(spec)], slices).flatMap((f) => f.backends.map((b) => b.address));
  assert.deepEqual(addresses({ clusterIP: '10.96.0.9', ports }), ['10.244.1.4']);
  assert.deepEqual(addresses({ clusterIP: '10.96.0.9', ports, publishNotReadyAddresses: true }), [
    '10.244.1.3',
    '10.244.1.4',
  ]);
});

test('ports go by name and protocol: a slice for another port is no backend', () => {
  const fronts = serviceFronts(
    [
      service({
        clusterIP: '10.96.0.9',
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP' },
          { name: 'dns-tcp', port: 53 },
        ],
      }),
    ],
    [slice('IPv4', [{ addresses: ['10.244.1.3'] }], [{ name: 'dns', port: 5353, protocol: 'UDP' }])],
  );
  assert.deepEqual(
    fronts.map(({ protocol, backends }) => [protocol, backends.length]),
    [
      ['UDP', 1],
      ['TCP', 0],
    ],
  );
});

test('headless and external services are names only; a service of another namespace lends no backends', () => {
  const slices = [slice('IPv4', [{ addresses: ['10.244.1.3'] }], http)];
  assert.deepEqual(serviceFronts([service({ clusterIP: 'None', ports: [{ port: 80 }] })], slices), []);
  assert.deepEqual(serviceFronts([service({ type: 'ExternalName', externalName: 'example.org' })], slices), []);
  const elsewhere = {
    ...service({ clusterIP: '10.96.0.9', ports: [{ name: 'http', port: 80 }] }),
    metadata: { namespace: 'other', name: 'cart' },
  };
  assert.deepEqual(serviceFronts([elsewhere], slices)[0]?.backends, []);
});
