import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterState } from '../../src/agent/cluster-state.ts';
import type { Live, Namespace, Pod } from '../../src/api/kinds.ts';
import { parseIp } from '../../src/model/address.ts';
import { policyKinds } from '../../src/policy/kinds.ts';

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

function namespace(name: string): Live<Namespace> {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, uid: name, resourceVersion: '1' } };
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
  state.setNamespace(namespace('shop'));
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

test('policy knows no pod whose namespace it does not know: who is about it cannot be said yet', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  assert.equal(state.view.pods.size, 0);
  state.setNamespace(namespace('shop'));
  assert.equal(state.view.pods.size, 1);
});

test('a node’s labels are known', () => {
  const { state, changes } = fixture();
  const node = { apiVersion: 'v1', kind: 'Node' } as const;
  const metadata = { name: 'n', uid: 'n', resourceVersion: '1' };
  state.setNode({ ...node, metadata: { ...metadata, labels: { role: 'gate' } } });
  assert.deepEqual(state.view.nodes.get('n')?.labels, { role: 'gate' });
  state.setNode({ ...node, metadata: { ...metadata, labels: { role: 'other' } } });
  assert.deepEqual([state.view.nodes.get('n')?.labels, changes()], [{ role: 'other' }, 2]);
});

test('policies that overrule each other are settled in the view', () => {
  const { state } = fixture();
  const kind = policyKinds.find((own) => own.kind === 'PeerAuthentication');
  const put = (name: string, mode: string, creationTimestamp: string) => {
    const metadata = { namespace: 'shop', name, creationTimestamp };
    const parsed = kind?.parse({ metadata, spec: { mtls: { mode } } });
    assert.ok(parsed?.ok);
    state.setPolicies(`PeerAuthentication shop/${name}`, parsed.policies);
  };
  put('young', 'PERMISSIVE', '2026-01-02T00:00:00Z');
  put('old', 'STRICT', '2026-01-01T00:00:00Z');
  const rules = () => state.view.policies.map(({ name, rules: own }) => `${name} ${own.length}`);
  assert.deepEqual(rules(), ['young 0', 'old 1']);
  state.removePolicies('PeerAuthentication shop/young');
  put('young', 'STRICT', '2025-01-01T00:00:00Z');
  assert.deepEqual(rules(), ['old 0', 'young 1']);
});

test('a namespace may have a default verdict of its own; what is not understood denies; the cluster’s may change', () => {
  const { state, changes } = fixture();
  const namespace = (name: string, verdict?: string) =>
    state.setNamespace({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name,
        uid: name,
        resourceVersion: '1',
        ...(verdict === undefined ? {} : { annotations: { 'myelin.dev/default-verdict': verdict } }),
      },
    });
  const own = () => Object.fromEntries(state.view.settings.namespaceDefaultDeny ?? []);
  namespace('a', 'allow');
  namespace('b', 'deny');
  namespace('c', 'perhaps');
  namespace('d');
  assert.deepEqual(own(), { a: false, b: true, c: true });
  const before = changes();
  namespace('a', 'allow');
  assert.equal(changes(), before);
  namespace('b');
  state.removeNamespace('c');
  assert.deepEqual(own(), { a: false });
  state.setDefaultDeny(true);
  assert.equal(state.view.settings.defaultDeny, true);
  const after = changes();
  state.setDefaultDeny(true);
  assert.equal(changes(), after);
});

test('views hold the pods of known namespaces, whichever comes first, and what did not change stays the same object', () => {
  const { state } = fixture();
  state.setPod(pod('a', { ip: '10.244.1.2' }));
  const early = state.view;
  assert.deepEqual([...early.pods.keys()], []);
  state.setNamespace(namespace('shop'));
  const known = state.view;
  assert.deepEqual([...known.pods.keys()], ['a']);
  state.setPod(pod('b', { ip: '10.244.1.3' }));
  assert.deepEqual([...state.view.pods.keys()], ['a', 'b']);
  assert.equal(state.view.pods.get('a'), known.pods.get('a'));
  assert.equal(state.view.policies, known.policies, 'no policy changed: the very list');
  assert.equal(state.view.nodes, known.nodes);
  state.removePod('a');
  state.removeNamespace('shop');
  assert.deepEqual([...state.view.pods.keys()], []);
  assert.deepEqual([...known.pods.keys()], ['a'], 'a view stays what it was');
  state.setNamespace(namespace('shop'));
  assert.deepEqual([...state.view.pods.keys()], ['b']);
});

for (const [what, annotation, runtimeClassName, proxy] of [
  ['nothing', undefined, undefined, undefined],
  ['auto', 'auto', undefined, undefined],
  ['required', 'required', undefined, 'required'],
  ['never', 'never', undefined, 'never'],
  ['a word that is none', 'Never!', undefined, 'never'],
  ['nothing, of a sandboxed guest', undefined, 'gvisor', 'required'],
  ['never, of a sandboxed guest', 'never', 'gvisor', 'never'],
] as const)
  test(`what a pod says of the proxy: ${what}`, () => {
    const { state } = fixture();
    const own = pod('1');
    const annotations = annotation === undefined ? {} : { 'myelin.dev/proxy': annotation };
    state.setPod({
      ...own,
      metadata: { ...own.metadata, annotations },
      spec: { ...own.spec, ...(runtimeClassName === undefined ? {} : { runtimeClassName }) },
    });
    assert.equal(state.pod('1')?.proxy, proxy);
  });
