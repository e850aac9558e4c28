import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterState } from '../../src/agent/cluster-state.ts';
import type { Live, Pod } from '../../src/api/kinds.ts';
import { parseIp } from '../../src/model/address.ts';

function pod(
  uid: string,
  changes: {
    node?: string;
    ip?: string;
    phase?: 'Running' | 'Succeeded';
    labels?: Record<string, string>;
    hostNetwork?: boolean;
  } = {},
): Live<Pod> {
  const { node = 'node-1', ip, phase = 'Running', labels = {}, hostNetwork } = changes;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: 'shop', name: `pod-${uid}`, uid, resourceVersion: '1', labels },
    spec: {
      nodeName: node,
      containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }, { containerPort: 9090 }] }],
      ...(hostNetwork === undefined ? {} : { hostNetwork }),
    },
    status: { phase, ...(ip === undefined ? {} : { podIP: ip, podIPs: [{ ip }] }) },
  };
}

function fixture() {
  let changes = 0;
  const state = new ClusterState({}, () => changes++);
  return { state, changes: () => changes };
}

test('a pod is reduced to what decisions need', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2', labels: { app: 'web' } }));
  assert.deepEqual(state.pod('a'), {
    namespace: 'shop',
    name: 'pod-a',
    uid: 'a',
    labels: { app: 'web' },
    serviceAccount: 'default',
    node: 'node-1',
    addresses: ['10.244.1.2'],
    namedPorts: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    hostNetwork: false,
  });
});

test('an update that changes nothing that matters is no change, and keeps the object', () => {
  const { state, changes } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  const [before, view] = [state.pod('a'), state.view];
  state.setPod({ ...pod('a', { ip: '10.244.1.2' }), metadata: { ...pod('a').metadata, resourceVersion: '99' } });
  assert.equal(changes(), 1);
  assert.equal(state.pod('a'), before);
  assert.equal(state.view, view);
});

test('a view is never changed in place', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  const view = state.view;
  state.setPod(pod('b', { ip: '10.244.1.3' }));
  assert.equal(view.pods.size, 1);
  assert.equal(state.view.pods.size, 2);
});

test('a pod that ended, or is on no node yet, has no network', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  state.setPod(pod('a', { ip: '10.244.1.2', phase: 'Succeeded' }));
  assert.equal(state.pod('a'), undefined);
  assert.equal(state.podAt(parseIp('10.244.1.2')), undefined);
});

test('the node’s own word on its pods’ addresses comes before the API’s', () => {
  const { state } = fixture();
  state.setLocalAddresses('a', [parseIp('10.244.1.2')]);
  state.setPod(pod('a'));
  assert.equal(state.podAt(parseIp('10.244.1.2'))?.uid, 'a');
  state.setPod(pod('a', { ip: '10.244.9.9' }));
  assert.deepEqual(state.pod('a')?.addresses, ['10.244.1.2']);
  state.setLocalAddresses('a', []);
  assert.deepEqual(state.pod('a')?.addresses, ['10.244.9.9']);
});

test('an address that two pods claim is nobody’s; pods in their node’s network do not count', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  state.setPod(pod('h', { ip: '10.244.1.2', hostNetwork: true }));
  assert.equal(state.podAt(parseIp('10.244.1.2'))?.uid, 'a');
  state.setPod(pod('b', { ip: '10.244.1.2', node: 'node-2' }));
  assert.equal(state.podAt(parseIp('10.244.1.2')), undefined);
  state.removePod('a');
  assert.equal(state.podAt(parseIp('10.244.1.2'))?.uid, 'b');
});
