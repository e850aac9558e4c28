import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CniError, cniErrorNumbers } from '../../src/endpoint/cni/error.ts';
import { parseRequest, type RawRequest } from '../../src/endpoint/cni/request.ts';
import { addResult, readPrevResult } from '../../src/endpoint/cni/result.ts';
import { type CniVersion, cniVersions } from '../../src/endpoint/cni/version.ts';
import type { Endpoint } from '../../src/endpoint/endpoint.ts';
import { hostInterfaceOf, isHostInterface, macOf } from '../../src/endpoint/endpoint.ts';
import type { IpAddress } from '../../src/model/address.ts';

const config = { cniVersion: '1.1.0', name: 'pods', type: 'myelin-cni' };
const add: RawRequest = {
  command: 'ADD',
  containerId: 'c0ffee',
  netns: '/run/netns/x',
  ifName: 'eth0',
  args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1;K8S_POD_UID=0f-12;K8S_POD_INFRA_CONTAINER_ID=c0ffee',
  path: '/opt/cni/bin',
  config,
};
const gc = { command: 'GC', config: { ...config, 'cni.dev/valid-attachments': [] } };

function refusal(change: Partial<RawRequest>): CniError {
  try {
    parseRequest({ ...add, ...change });
  } catch (error) {
    assert.ok(error instanceof CniError, String(error));
    return error;
  }
  assert.fail('was not refused');
}

test('a request names the pod, the network and the agent’s socket', () => {
  const request = parseRequest(add);
  assert.deepEqual(request, {
    command: 'ADD',
    containerId: 'c0ffee',
    netns: '/run/netns/x',
    ifName: 'eth0',
    pod: { namespace: 'shop', name: 'cart-1', uid: '0f-12' },
    config: { cniVersion: '1.1.0', name: 'pods', socket: '/run/myelin/cni.sock' },
  });
});

test('the spec’s code for every kind of bad request', () => {
  const cases: [number, RegExp, Partial<RawRequest>][] = [
    [1, /incompatible/, { config: { ...config, cniVersion: '9.9.9' } }],
    [1, /incompatible/, { config: { ...config, cniVersion: '0.2.0' } }],
    [1, /incompatible/, { config: { ...config, cniVersion: 'garbage' } }],
    [1, /incompatible/, { config: { name: 'pods' } }],
    [1, /does not allow CHECK/, { command: 'CHECK', config: { ...config, cniVersion: '0.3.1' } }],
    [1, /does not allow GC/, { ...gc, config: { ...gc.config, cniVersion: '1.0.0' } }],
    [1, /does not allow STATUS/, { command: 'STATUS', config: { ...config, cniVersion: '1.0.0' } }],
    [2, /ipam: \{"type":"host-local"\}/, { config: { ...config, ipam: { type: 'host-local' } } }],
    [2, /mtu: 9000/, { config: { ...config, mtu: 9000 } }],
    [2, /portMappings/, { config: { ...config, runtimeConfig: { portMappings: [{ hostPort: 80 }] } } }],
    [4, /CNI_COMMAND/, { command: '' }],
    [4, /CNI_COMMAND/, { command: 'add' }],
    [4, /CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS/, { containerId: '', netns: '', ifName: '' }],
    [4, /CNI_NETNS/, { netns: '' }],
    [4, /CNI_NETNS/, { netns: 'relative' }],
    [4, /CNI_CONTAINERID/, { containerId: '../x' }],
    [4, /CNI_IFNAME/, { ifName: 'sixteen-letters-' }],
    [4, /CNI_IFNAME/, { ifName: 'a/b' }],
    [4, /CNI_IFNAME/, { ifName: 'a b' }],
    [4, /CNI_IFNAME/, { ifName: '..' }],
    [4, /CNI_ARGS/, { args: 'nonsense' }],
    [4, /CNI_ARGS/, { args: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart' }],
    [4, /CNI_ARGS/, { args: 'K8S_POD_NAMESPACE=../etc;K8S_POD_NAME=cart;K8S_POD_UID=1' }],
    [6, /decode/, { config: undefined }],
    [6, /decode/, { config: [] }],
    [6, /decode cniVersion/, { config: { ...config, cniVersion: 1 } }],
    [7, /missing network name/, { config: { cniVersion: '1.1.0' } }],
    [7, /network name/, { config: { ...config, name: 'a/b' } }],
    [7, /socket/, { config: { ...config, socket: `/${'x'.repeat(108)}` } }],
    [7, /socket/, { config: { ...config, socket: 'cni.sock' } }],
    [7, /prevResult/, { config: { ...config, prevResult: 'x' } }],
    [7, /valid-attachments/, { ...gc, config }],
    [7, /valid-attachments/, { ...gc, config: { ...config, 'cni.dev/valid-attachments': [{ containerID: 'x' }] } }],
  ];
  for (const [code, message, change] of cases) {
    const error = refusal(change);
    assert.equal(error.body.code, code, `${JSON.stringify(change)}: ${JSON.stringify(error.body)}`);
    assert.match(`${error.body.msg} ${error.body.details ?? ''}`, message);
  }
});

test('DEL and GC tolerate what does not stop them', () => {
  const odd = { ...config, ipam: { type: 'host-local' }, prevResult: 'x', dns: 3 };
  assert.equal(parseRequest({ ...add, command: 'DEL', netns: '', args: 'nonsense', config: odd }).netns, '');
  const collected = parseRequest({ ...add, ...gc, config: { ...odd, 'cni.dev/valid-attachments': null } });
  assert.deepEqual(collected.config.validAttachments, []);
});

test('what a runtime adds of its own is taken, and so is a field that asks for nothing', () => {
  parseRequest({
    ...add,
    config: { ...config, ipam: {}, runtimeConfig: { portMappings: [] }, args: { cni: {} }, ipMasq: false, dns: {} },
  });
});

test('garbage is refused with a code of the spec, never with anything else', () => {
  const text = fc.oneof(fc.string(), fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'eth0', 'abc', '/x', ''));
  const json = fc.oneof(
    fc.jsonValue(),
    fc.record({ cniVersion: fc.oneof(fc.constantFrom(...cniVersions), fc.jsonValue()), name: text, x: fc.jsonValue() }),
  );
  const raw = fc.record({
    command: text,
    containerId: text,
    netns: text,
    ifName: text,
    args: text,
    path: text,
    config: json,
  });
  const numbers = new Set<number>(Object.values(cniErrorNumbers));
  fc.assert(
    fc.property(raw, (request) => {
      try {
        parseRequest(request);
      } catch (error) {
        assert.ok(error instanceof CniError, String(error));
        assert.ok(numbers.has(error.body.code) && error.body.code < 100);
        assert.ok(error.body.msg.length > 0);
      }
    }),
    { numRuns: 3000 },
  );
});

const endpoint: Endpoint = {
  containerId: 'c0ffee',
  ifName: 'eth0',
  network: 'pods',
  netns: '/run/netns/x',
  addresses: ['10.244.1.2' as IpAddress, 'fd00::2' as IpAddress],
  mac: macOf('c0ffee', 'pod'),
  hostMac: macOf('c0ffee', 'host'),
  hostInterface: hostInterfaceOf('c0ffee'),
  hostIndex: 7,
  mtu: 1404,
  createdAt: 0,
};
const resultIn = (cniVersion: CniVersion, more = {}) =>
  addResult(endpoint, { cniVersion, name: 'pods', socket: '/x', ...more });

test('a result has the form of its version', () => {
  assert.deepEqual(resultIn('0.4.0'), {
    cniVersion: '0.4.0',
    interfaces: [
      { name: 'myfb028887203', mac: endpoint.hostMac },
      { name: 'eth0', mac: endpoint.mac, sandbox: '/run/netns/x' },
    ],
    ips: [
      { version: '4', interface: 1, address: '10.244.1.2/32', gateway: '169.254.1.1' },
      { version: '6', interface: 1, address: 'fd00::2/128', gateway: 'fe80::1' },
    ],
    routes: [{ dst: '169.254.1.1/32' }, { dst: '0.0.0.0/0', gw: '169.254.1.1' }, { dst: '::/0', gw: 'fe80::1' }],
  });
  assert.deepEqual(resultIn('1.0.0').ips, [
    { interface: 1, address: '10.244.1.2/32', gateway: '169.254.1.1' },
    { interface: 1, address: 'fd00::2/128', gateway: 'fe80::1' },
  ]);
  assert.deepEqual(resultIn('1.1.0').interfaces, [
    { name: 'myfb028887203', mac: endpoint.hostMac, mtu: 1404 },
    { name: 'eth0', mac: endpoint.mac, mtu: 1404, sandbox: '/run/netns/x' },
  ]);
  for (const version of cniVersions) assert.equal(resultIn(version).cniVersion, version);
});

test('what earlier plugins of a chain made stays, and indexes point behind it', () => {
  const prevResult = { interfaces: [{ name: 'dummy0' }], ips: [{ address: '192.0.2.1/24', interface: 0 }] };
  const dns = { nameservers: ['10.96.0.10'] };
  const result = resultIn('1.0.0', { prevResult, dns });
  const read = readPrevResult(result);
  assert.deepEqual(
    read.interfaces.map(({ name }) => name),
    ['dummy0', 'myfb028887203', 'eth0'],
  );
  assert.deepEqual(result.ips, [
    { address: '192.0.2.1/24', interface: 0 },
    { interface: 2, address: '10.244.1.2/32', gateway: '169.254.1.1' },
    { interface: 2, address: 'fd00::2/128', gateway: 'fe80::1' },
  ]);
  assert.deepEqual(result.dns, dns);
});

test('names and MACs follow from the container’s ID', () => {
  fc.assert(
    fc.property(fc.string(), (id) => {
      assert.ok(isHostInterface(hostInterfaceOf(id)));
      assert.equal(hostInterfaceOf(id).length, 13);
      const first = Number.parseInt(macOf(id, 'pod').slice(0, 2), 16);
      assert.equal(first & 0b11, 0b10, 'locally administered, not a group');
      assert.notEqual(macOf(id, 'pod'), macOf(id, 'host'));
    }),
  );
});
