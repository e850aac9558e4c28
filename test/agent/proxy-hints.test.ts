import assert from 'node:assert/strict';
import { test } from 'node:test';
import { portHints } from '../../src/agent/proxy/hints.ts';
import type { EndpointSlice, Service } from '../../src/api/kinds.ts';

type Port = NonNullable<NonNullable<Service['spec']>['ports']>[number];

function hintsOf(port: Omit<Port, 'port'>, ofSlice: { appProtocol?: string } = {}): string[] {
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'shop', name: 'web' },
    spec: { ports: [{ port: 80, ...port }] },
  };
  const slice: EndpointSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'shop', name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ name: port.name ?? '', port: 8080, protocol: port.protocol ?? 'TCP', ...ofSlice }],
    endpoints: [{ addresses: ['10.244.1.2'] }, { addresses: ['10.244.2.2'] }],
  };
  return portHints([service], [slice]).map(({ address, port: number }) => `${address} ${number}`);
}

const both = ['10.244.1.2 8080', '10.244.2.2 8080'];

for (const [what, port] of [
  ['Kubernetes’ own protocol name', { appProtocol: 'kubernetes.io/h2c' }],
  ['in any case', { appProtocol: 'GRPC' }],
  ['a name', { name: 'grpc' }],
  ['a name that begins so', { name: 'http2-api' }],
  ['h2c', { name: 'h2c-web' }],
] as const)
  test(`a Service’s port says what is spoken: ${what}`, () => assert.deepEqual(hintsOf(port), both));

for (const [what, port] of [
  ['nothing is said', {}],
  ['a name that only looks so', { name: 'grpcish' }],
  ['a protocol goes before the name', { name: 'grpc', appProtocol: 'http' }],
  ['another transport', { name: 'grpc', protocol: 'UDP' }],
] as const)
  test(`a Service’s port says no such thing: ${what}`, () => assert.deepEqual(hintsOf(port), []));

test('an EndpointSlice says it for itself', () => {
  assert.deepEqual(hintsOf({ name: 'api' }, { appProtocol: 'kubernetes.io/h2c' }), both);
});
