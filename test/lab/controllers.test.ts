import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Live, Pod } from '../../src/api/kinds.ts';
import { chooseNode } from '../../src/lab/controllers/placement.ts';
import { nextStep, templateHash, templateHashLabel } from '../../src/lab/controllers/rollout.ts';
import { slicesFor } from '../../src/lab/controllers/slices.ts';
import { isReady } from '../../src/lab/pod-phase.ts';
import { deployment, node, pod, service } from './objects.ts';

const now = new Date('2026-01-01T00:02:00Z');

describe('placement', () => {
  const nodes = [node('node-1'), node('node-2'), node('node-10')];

  test('replicas go to different nodes', () => {
    const placed: Pod[] = [];
    for (let i = 0; i < 6; i++) {
      const next = pod(`p${i}`, { owner: 'web' });
      const choice = chooseNode(next, nodes, placed);
      assert.ok('node' in choice);
      placed.push(pod(`p${i}`, { owner: 'web', nodeName: choice.node }));
    }
    assert.deepEqual(
      placed.map((each) => each.spec.nodeName),
      ['node-1', 'node-2', 'node-10', 'node-1', 'node-2', 'node-10'],
    );
  });

  test('a pod on its way out takes no place', () => {
    const leaving = pod('old', { nodeName: 'node-1', deleted: true });
    assert.deepEqual(chooseNode(pod('new'), nodes, [leaving]), { node: 'node-1' });
  });

  test('selectors, taints and cordons keep it away', () => {
    const odd = [
      node('a', { taints: [{ key: 'k', value: 'v', effect: 'NoSchedule' }] }, { disk: 'ssd' }),
      node('b', { unschedulable: true }, { disk: 'ssd' }),
      node('c', {}, { disk: 'hdd' }),
    ];
    const picky = (extra: Partial<Pod['spec']>) =>
      chooseNode(pod('p', { nodeSelector: { disk: 'ssd' }, ...extra }), odd, []);
    assert.ok('reason' in picky({}));
    assert.ok('reason' in picky({ tolerations: [{ key: 'k', value: 'other', effect: 'NoSchedule' }] }));
    assert.deepEqual(picky({ tolerations: [{ key: 'k', value: 'v' }] }), { node: 'a' });
    assert.deepEqual(picky({ tolerations: [{ operator: 'Exists' }] }), { node: 'a' });
    assert.deepEqual(chooseNode(pod('p', { nodeSelector: { 'kubernetes.io/hostname': 'c' } }), odd, []), { node: 'c' });
  });
});

describe('rollout', () => {
  const hash = templateHash(deployment(1).spec.template);
  const owned = (name: string, ofHash: string, ready: boolean, deleted = false) =>
    pod(name, { labels: { app: 'web', [templateHashLabel]: ofHash }, ready, deleted });

  test('equal templates have equal hashes, whatever the order of their fields', () => {
    const { metadata, spec } = deployment(1).spec.template;
    assert.equal(templateHash({ spec, ...(metadata === undefined ? {} : { metadata }) }), hash);
    assert.notEqual(templateHash({ metadata, spec: { ...spec, hostNetwork: true } }), hash);
  });

  test('every rollout ends with the wanted number of new pods, and is never without enough ready ones', () => {
    fc.assert(
      fc.property(
        fc.record({
          replicas: fc.integer({ min: 0, max: 8 }),
          old: fc.integer({ min: 0, max: 8 }),
          recreate: fc.boolean(),
          maxSurge: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom('0%', '25%', '100%')),
          maxUnavailable: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom('0%', '25%', '100%')),
        }),
        ({ replicas, old, recreate, maxSurge, maxUnavailable }) => {
          const wanted = deployment(replicas, {
            strategy: recreate ? { type: 'Recreate' } : { rollingUpdate: { maxSurge, maxUnavailable } },
          });
          let pods: Live<Pod>[] = Array.from({ length: old }, (_, i) => owned(`old-${i}`, 'old', true));
          const share = (value: number | string) =>
            typeof value === 'number' ? value : Math.floor((Number.parseInt(value, 10) / 100) * replicas);
          const least = Math.min(old, replicas - Math.max(1, share(maxUnavailable)));
          for (let turn = 0; turn < 100; turn++) {
            const step = nextStep(wanted, pods, now);
            if (step.create === 0 && step.remove.length === 0 && pods.every(isReady)) break;
            const gone = new Set(step.remove.map((each) => each.metadata.name));
            pods = pods.filter((each) => !gone.has(each.metadata.name));
            if (!recreate)
              assert.ok(pods.filter(isReady).length >= least, `${pods.filter(isReady).length} of ${least} left`);
            // New pods become ready a turn later.
            pods = pods.map((each) => owned(each.metadata.name, each.metadata.labels?.[templateHashLabel] ?? '', true));
            for (let i = 0; i < step.create; i++) pods.push(owned(`new-${turn}-${i}`, hash, false));
          }
          assert.equal(pods.length, replicas);
          assert.ok(pods.every((each) => each.metadata.labels?.[templateHashLabel] === hash));
          const { status } = nextStep(wanted, pods, now);
          assert.equal(status.updatedReplicas, replicas);
          assert.equal(status.conditions?.[1]?.reason, 'NewReplicaSetAvailable');
        },
      ),
    );
  });

  test('a paused deployment stays as it is', () => {
    const step = nextStep(deployment(3, { paused: true }), [owned('a', 'old', true)], now);
    assert.deepEqual([step.create, step.remove], [0, []]);
  });

  test('the pod that is not ready goes first when there are too many', () => {
    const step = nextStep(deployment(1), [owned('bad', hash, false), owned('good', hash, true)], now);
    assert.deepEqual(
      step.remove.map((each) => each.metadata.name),
      ['bad'],
    );
  });
});

describe('endpoint slices', () => {
  const ports = [{ name: 'web', port: 80, targetPort: 'http' }];
  const listening = (containerPort: number) => ({
    containers: [{ name: 'c', image: 'x', ports: [{ name: 'http', containerPort, protocol: 'TCP' as const }] }],
    labels: { app: 'web' },
  });

  test('one slice per family and set of ports, ready only where the pod is', () => {
    const slices = slicesFor(service('web', { selector: { app: 'web' }, ports, ipFamilies: ['IPv4', 'IPv6'] }), [
      pod('a', { ...listening(8080), ips: ['10.0.0.1', 'fd00::1'] }),
      pod('b', { ...listening(8080), ips: ['10.0.0.2', 'fd00::2'], ready: false }),
      pod('c', { ...listening(9090), ips: ['10.0.0.3'] }),
      pod('gone', { ...listening(8080), ips: ['10.0.0.4'], deleted: true }),
      pod('other', { ...listening(8080), ips: ['10.0.0.5'], labels: { app: 'db' } }),
      pod('early', { ...listening(8080) }),
    ]);
    const seen = slices.map(({ addressType, metadata, ports: resolved, endpoints }) => [
      metadata.name,
      addressType,
      resolved?.map(({ port }) => port),
      endpoints?.map(({ addresses, conditions }) => [addresses[0], conditions?.ready, conditions?.terminating]),
    ]);
    assert.deepEqual(seen, [
      [
        'web-ipv4',
        'IPv4',
        [8080],
        [
          ['10.0.0.1', true, false],
          ['10.0.0.2', false, false],
          ['10.0.0.4', false, true],
        ],
      ],
      ['web-ipv4-1', 'IPv4', [9090], [['10.0.0.3', true, false]]],
      [
        'web-ipv6',
        'IPv6',
        [8080],
        [
          ['fd00::1', true, false],
          ['fd00::2', false, false],
        ],
      ],
    ]);
  });

  test('a target port may be absent; a name that no container has is no port', () => {
    const one = pod('a', { ...listening(8080), ips: ['10.0.0.1'] });
    const [absent] = slicesFor(service('web', { selector: { app: 'web' }, ports: [{ port: 81 }] }), [one]);
    assert.equal(absent?.ports?.[0]?.port, 81);
    const [unknown] = slicesFor(service('web', { selector: { app: 'web' }, ports: [{ port: 81, targetPort: 'no' }] }), [
      one,
    ]);
    assert.deepEqual(unknown?.ports, []);
  });

  test('services without a selector keep what somebody else gave them', () => {
    assert.deepEqual(slicesFor(service('web', { ports }), [pod('a', { ips: ['10.0.0.1'] })]), []);
  });
});
