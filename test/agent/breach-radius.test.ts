import assert from 'node:assert/strict';
import { test } from 'node:test';
import { breachRadiusAnnotation, ClusterState } from '../../src/agent/cluster-state.ts';
import { ClusterPeers } from '../../src/agent/peers.ts';
import type { Live, Namespace } from '../../src/api/kinds.ts';
import { formatSpiffeId } from '../../src/model/identity.ts';
import type { LocalPod } from '../../src/tunnel/peers.ts';

const trustDomain = 'cluster.local';

function namespace(name: string, radius?: string): Live<Namespace> {
  const annotations: Record<string, string> = radius === undefined ? {} : { [breachRadiusAnnotation]: radius };
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, uid: name, resourceVersion: '1', annotations } };
}

function podOf(name: string): LocalPod {
  return {
    pod: { namespace: name, name: 'p', uid: `${name}-p` },
    spiffeId: formatSpiffeId({ trustDomain, namespace: name, serviceAccount: 'default' }),
    addresses: [],
  };
}

test('a pair’s radius is node only where both namespaces take it; who says nothing takes the cluster’s', () => {
  let changes = 0;
  const state = new ClusterState({}, () => changes++);
  const peers = new ClusterPeers(state, { node: 'node-1', trustDomain, underlayFamily: 4 });
  state.setNamespace(namespace('wide', 'node'));
  state.setNamespace(namespace('narrow', 'pod'));
  state.setNamespace(namespace('silent'));
  // What is not understood is the stricter.
  state.setNamespace(namespace('odd', 'Node'));
  const all = ['wide', 'narrow', 'silent', 'odd', 'unknown'];
  for (const one of all)
    for (const other of all)
      for (const fallback of ['pod', 'node'] as const) {
        const takes = (name: string) =>
          name === 'wide' || (fallback === 'node' && ['silent', 'unknown'].includes(name));
        const expected = takes(one) && takes(other) ? 'node' : 'pod';
        assert.equal(peers.radius(podOf(one), podOf(other), fallback), expected, `${one} ${other} ${fallback}`);
      }
  // A change is one, and what changes nothing is none.
  const before = changes;
  state.setNamespace(namespace('silent', 'node'));
  assert.equal(state.radiusOf('silent'), 'node');
  assert.equal(changes, before + 1);
  state.setNamespace(namespace('silent', 'node'));
  assert.equal(changes, before + 1);
  state.setNamespace(namespace('silent'));
  assert.equal(state.radiusOf('silent'), undefined);
  state.removeNamespace('wide');
  assert.equal(state.radiusOf('wide'), undefined);
});
