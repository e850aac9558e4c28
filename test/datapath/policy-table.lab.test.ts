import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import fc from 'fast-check';
import { EndpointTable } from '../../src/datapath/endpoints.ts';
import { DatapathError, RevisionRefused } from '../../src/datapath/error.ts';
import { evaluateMaps, type MapQuery } from '../../src/datapath/evaluate.ts';
import { PolicyTable } from '../../src/datapath/policy-table.ts';
import { TunnelTable } from '../../src/datapath/tunnels.ts';
import { errnoError } from '../../src/kernel/error.ts';
import { macFromBytes, parseIp } from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import type { Direction } from '../../src/model/verdict.ts';
import { parseCiliumPolicy } from '../../src/policy/cilium/parse.ts';
import { compile } from '../../src/policy/compile.ts';
import { type PolicyFlow, resolveFlow } from '../../src/policy/decide.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { flowsArbitrary, flowsIn, policiesArbitrary, viewArbitrary } from '../support/arbitraries.ts';
import { clusterWith, pod, policy } from '../support/cluster.ts';
import { TestMaps } from './maps.ts';

const node = 'node-1';
const kernel = new TestMaps();
const { maps } = kernel;
afterEach(startOver);
after(() => kernel.close());

const owners: Owner[] = [];

/** Maps without a trace of the run before, nor anything of it still under way. */
async function startOver(): Promise<void> {
  kernel.onWrite = () => {};
  await Promise.all(owners.splice(0).map(({ policy }) => policy.settled));
  kernel.clear();
}

/** A process's view of the maps. */
class Owner {
  readonly endpoints = new EndpointTable(maps);
  readonly tunnels = new TunnelTable(maps);
  readonly policy = new PolicyTable(maps, this.endpoints, this.tunnels);

  constructor(view: ClusterView) {
    owners.push(this);
    for (const pod of podsOf(view))
      this.endpoints.set(
        {
          uid: pod.uid,
          ifindex: pod.ifindex,
          mac: macOf(1, pod.ifindex),
          hostMac: macOf(2, pod.ifindex),
          addresses: pod.addresses,
        },
        undefined,
      );
  }
}

function podsOf(view: ClusterView) {
  return [...view.pods.values()]
    .map((pod, i) => ({ ...pod, ifindex: 10 + i }))
    .filter((pod) => pod.node === node && !pod.hostNetwork && pod.addresses.length > 0);
}

function macOf(kind: number, n: number) {
  return macFromBytes(Uint8Array.of(2, kind, 0, 0, n >> 8, n));
}

interface Probe {
  readonly uid: string;
  readonly query: MapQuery;
}

/** What is asked at this node's endpoints about flows. */
function probesOf(view: ClusterView, flows: readonly PolicyFlow[]): Probe[] {
  const ifindexes = new Map(podsOf(view).map(({ uid, ifindex }) => [uid, ifindex]));
  return flows.flatMap((flow) => {
    const { source, destination, protocol, port, request } = resolveFlow(view, flow);
    const sides = [
      { own: source, other: destination, direction: 'egress' satisfies Direction },
      { own: destination, other: source, direction: 'ingress' satisfies Direction },
    ] as const;
    return sides.flatMap(({ own, other, direction }) => {
      const ifindex = own.kind === 'pod' ? ifindexes.get(own.pod.uid) : undefined;
      if (own.kind !== 'pod' || ifindex === undefined || other.address === undefined) return [];
      const number = typeof protocol === 'number' ? protocol : protocolNumbers[protocol];
      const asked = direction === 'ingress' && request?.kind === 'http' ? { request } : {};
      const query = { ifindex, direction, remote: other.address, protocol: number, port, ...asked };
      return [{ uid: own.pod.uid, query }];
    });
  });
}

const inMaps = (probe: Probe) => evaluateMaps(maps, probe.query);
const inImage = (image: PolicyImage, { uid, query }: Probe) =>
  lookup(image, uid, query.direction, query.remote, query.protocol, query.port, false, {
    ...(query.request === undefined ? {} : { request: query.request }),
  });

function assertAgrees(image: PolicyImage, probes: readonly Probe[]): void {
  for (const probe of probes) {
    const { verdict, rule, identity, reason } = inImage(image, probe);
    const found = inMaps(probe);
    assert.deepEqual({ ...found, reason: found.reason }, { verdict, rule, identity, reason }, JSON.stringify(probe));
  }
}

function assertNothingLeft(image: PolicyImage): void {
  const count = (entries: Iterable<unknown>) => [...entries].length;
  assert.equal(count(maps.policy.entries()), [...image.ruleSets.values()].flatMap(({ entries }) => entries).length);
  assert.equal(count(maps.ruleSets.entries()), image.ruleSets.size);
  assert.equal(count(maps.peers.entries()), image.peers.size);
  assert.equal(count(maps.prefixes.entries()), image.prefixes.size);
}

const change = fc.record({
  view: viewArbitrary({ tiered: false }),
  added: policiesArbitrary({ maxLength: 3 }),
  kept: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
});

/** The same cluster with other policies. */
function changed({ view, added, kept }: typeof change extends fc.Arbitrary<infer T> ? T : never): ClusterView {
  const renamed = added.map((own) => ({ ...own, name: `new-${own.name}` }));
  return { ...view, policies: [...view.policies.filter((_, i) => kept[i]), ...renamed] };
}

test('the maps say what the image says, and no write on the way opens what neither revision allows', async () => {
  await fc.assert(
    fc.asyncProperty(change, flowsArbitrary(12, { requests: true }), async (made, flows) => {
      await startOver();
      const after = changed(made);
      const probes = probesOf(made.view, flowsIn(made.view, flows));
      const owner = new Owner(made.view);
      const old = compile(made.view, node, owner.policy.image);
      await owner.policy.apply(old);
      assertAgrees(old, probes);
      const next = compile(after, node, owner.policy.image);
      const open = (image: PolicyImage) => probes.map((probe) => inImage(image, probe).verdict === 'allow');
      const [before, finally_] = [open(old), open(next)];
      kernel.onWrite = (map) => {
        for (const [i, probe] of probes.entries())
          assert.ok(
            before[i] || finally_[i] || inMaps(probe).verdict === 'deny',
            `${map} opens ${JSON.stringify(probe)}`,
          );
      };
      await owner.policy.apply(next);
      assertAgrees(next, probes);
      await owner.policy.settled;
      assertAgrees(next, probes);
      assertNothingLeft(next);
    }),
    { numRuns: 40 },
  );
});

test('after a restart every number is new, and no packet notices', async () => {
  await fc.assert(
    fc.asyncProperty(viewArbitrary({ tiered: true }), flowsArbitrary(12, { requests: true }), async (view, flows) => {
      await startOver();
      const probes = probesOf(view, flowsIn(view, flows));
      const first = new Owner(view);
      const old = compile(view, node, first.policy.image);
      await first.policy.apply(old);
      await first.policy.settled;
      const verdicts = probes.map((probe) => inMaps(probe).verdict);
      const { revision } = first.policy;

      const second = new Owner(view);
      const next = compile(view, node, second.policy.image);
      for (const identity of next.identities.keys()) assert.ok(!old.identities.has(identity));
      for (const id of next.ruleSets.keys()) assert.ok(!old.ruleSets.has(id));
      kernel.onWrite = (map) =>
        assert.deepEqual(
          probes.map((probe) => inMaps(probe).verdict),
          verdicts,
          `a write to ${map} changes a verdict`,
        );
      await second.policy.apply(next);
      await second.policy.settled;
      kernel.onWrite = () => {};
      assertAgrees(next, probes);
      assertNothingLeft(next);
      assert.ok(second.policy.revision > revision);
    }),
    { numRuns: 40 },
  );
});

test('with other policies after a restart, no write opens what neither revision allows', async () => {
  await fc.assert(
    fc.asyncProperty(change, flowsArbitrary(12, { requests: true }), async (made, flows) => {
      await startOver();
      const probes = probesOf(made.view, flowsIn(made.view, flows));
      const first = new Owner(made.view);
      const old = compile(made.view, node, first.policy.image);
      await first.policy.apply(old);
      await first.policy.settled;
      const second = new Owner(made.view);
      const next = compile(changed(made), node, second.policy.image);
      const open = (image: PolicyImage) => probes.map((probe) => inImage(image, probe).verdict === 'allow');
      const [before, finally_] = [open(old), open(next)];
      kernel.onWrite = (map) => {
        for (const [i, probe] of probes.entries())
          assert.ok(
            before[i] || finally_[i] || inMaps(probe).verdict === 'deny',
            `${map} opens ${JSON.stringify(probe)}`,
          );
      };
      await second.policy.apply(next);
      await second.policy.settled;
      assertAgrees(next, probes);
      assertNothingLeft(next);
    }),
    { numRuns: 40 },
  );
});

const cart = { matchLabels: { app: 'cart' } };
const ports = (n: number) =>
  policy('in', { podSelector: cart, ingress: Array.from({ length: n }, (_, i) => ({ ports: [{ port: 2 * i + 1 }] })) });

test('a revision that cannot fit is refused before anything is written', async () => {
  const view = clusterWith([ports(10)]);
  const owner = new Owner(view);
  await owner.policy.apply(compile(view, node, owner.policy.image));
  await owner.policy.settled;
  const before = { dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image };
  const huge = compile(clusterWith([ports(9000)]), node, owner.policy.image);
  await assert.rejects(owner.policy.apply(huge), (error) => {
    assert.ok(error instanceof RevisionRefused);
    assert.equal(error.code, 'RevisionRefused');
    assert.deepEqual({ ...error.data }, { map: 'policy', needed: 9010, capacity: 8192 });
    assert.match(error.message, /needs 9010 entries in map policy, which has room for 8192/);
    return true;
  });
  assert.deepEqual({ dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image }, before);
  const smaller = compile(clusterWith([ports(20)]), node, owner.policy.image);
  await owner.policy.apply(smaller);
  await owner.policy.settled;
  assertNothingLeft(smaller);
});

test('what the mesh gate or the admin level is too large for is refused whole, with what else is in the revision', async () => {
  const view = clusterWith([ports(10)]);
  const owner = new Owner(view);
  await owner.policy.apply(compile(view, node, owner.policy.image));
  await owner.policy.settled;
  const before = { dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image };
  const large = ports(9000);
  const admin = large.rules.map((rule) => ({ ...rule, level: 'admin' as const }));
  for (const other of [
    { ...large, name: 'mesh', gate: 'mesh' as const },
    { ...large, name: 'admin', isolates: [], rules: admin },
  ]) {
    const huge = compile(clusterWith([ports(20), other]), node, owner.policy.image);
    await assert.rejects(
      owner.policy.apply(huge),
      (error) => error instanceof RevisionRefused && error.map === 'policy',
    );
    assert.deepEqual({ dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image }, before);
  }
});

test('a revision that the kernel refuses half way is undone to the last entry', async () => {
  const view = clusterWith([ports(10)]);
  const owner = new Owner(view);
  await owner.policy.apply(compile(view, node, owner.policy.image));
  await owner.policy.settled;
  // Room that this process does not know is taken.
  for (let i = 0; ; i++) {
    const { error } = maps.peers.raw.updateMany([
      [Uint8Array.from({ length: 16 }, (_, at) => (at === 15 ? i : 1)), new Uint8Array(8)],
    ]);
    if (error !== undefined) break;
  }
  const before = { dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image };
  const more = new Map(view.pods);
  for (let i = 0; i < 5; i++)
    more.set(
      `more-${i}`,
      pod(`shop/more-${i}`, { app: `more-${i}` }, 'node-2', [`10.244.2.${50 + i}`], { uid: `more-${i}` }),
    );
  const next = compile(clusterWith([ports(30)], { pods: more }), node, owner.policy.image);
  await assert.rejects(
    owner.policy.apply(next),
    (error) => error instanceof RevisionRefused && error.map === 'peers' && error.needed > error.capacity,
  );
  assert.deepEqual({ dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image }, before);
});

test('where even undoing fails, the next revision starts from what is in the maps', async () => {
  const view = clusterWith([ports(10)]);
  const owner = new Owner(view);
  await owner.policy.apply(compile(view, node, owner.policy.image));
  await owner.policy.settled;
  const next = compile(clusterWith([ports(30)]), node, owner.policy.image);
  // From the first rule set on the kernel refuses everything, undoing too.
  let refusing = false;
  kernel.onWrite = (map) => {
    refusing ||= map === 'rule_sets';
    if (refusing) throw errnoError(12, 'write an entry', `map ${map}`, { map });
  };
  await assert.rejects(owner.policy.apply(next), RevisionRefused);
  kernel.onWrite = () => {};
  await owner.policy.apply(next);
  await owner.policy.settled;
  assertNothingLeft(next);
});

test('an image that was compiled in ignorance of the maps is refused after a restart', async () => {
  const view = clusterWith([ports(3)]);
  const first = new Owner(view);
  await first.policy.apply(compile(view, node, first.policy.image));
  await first.policy.settled;
  const second = new Owner(view);
  await assert.rejects(
    second.policy.apply(compile(view, node)),
    (error) => error instanceof DatapathError && error.code === 'NumberReused',
  );
});

test('a pod that policy does not know passes nothing, and a pod that it forgets passes nothing any more', async () => {
  const view = clusterWith([]);
  const owner = new Owner(view);
  const probe: Probe = {
    uid: 'shop/cart',
    query: { ifindex: 12, direction: 'egress', remote: parseIp('8.8.8.8'), protocol: 6, port: 80 },
  };
  assert.equal(inMaps(probe).reason, 'ENDPOINT_NOT_READY');
  await owner.policy.apply(compile(view, node, owner.policy.image));
  assert.equal(inMaps(probe).verdict, 'allow');
  const without = new Map([...view.pods].filter(([uid]) => uid !== 'shop/cart'));
  await owner.policy.apply(compile({ ...view, pods: without }, node, owner.policy.image));
  assert.equal(inMaps(probe).reason, 'ENDPOINT_NOT_READY');
});

test('tunnels get the new revision’s identities with it, or end', async () => {
  const view = clusterWith([]);
  const owner = new Owner(view);
  const first = compile(view, node, owner.policy.image);
  await owner.policy.apply(first);
  const [local, remote, gone] = ['10.244.1.2', '10.244.2.1', '10.244.2.99'].map(parseIp);
  assert.ok(local !== undefined && remote !== undefined && gone !== undefined);
  const identity = first.peers.get(remote)?.identity;
  assert.ok(identity !== undefined);
  owner.tunnels.prove(local, remote, { identity, spi: 1 });
  owner.tunnels.prove(local, remote, { identity, spi: 2 });
  owner.tunnels.prove(local, gone, { identity, spi: 3 });
  const relabelled = new Map(
    [...view.pods].map(([uid, pod]) => [uid, uid === 'shop/front-2' ? { ...pod, labels: { app: 'other' } } : pod]),
  );
  const next = compile({ ...view, pods: relabelled }, node, owner.policy.image);
  await owner.policy.apply(next, { tunnelIdentity: (_, address) => next.peers.get(address)?.identity });
  const now = next.peers.get(remote)?.identity;
  assert.notEqual(now, identity);
  assert.deepEqual(owner.tunnels.all(), [
    [
      { local, remote },
      { identity: now, spi: 2, previousSpi: 1 },
    ],
  ]);
});

/** Only these paths, which take some `length` rows each. */
function reads(paths: number, length: number, letter = 'a') {
  const parsed = parseCiliumPolicy('CiliumNetworkPolicy', {
    metadata: { name: 'reads', namespace: 'shop' },
    spec: {
      endpointSelector: cart,
      ingress: [
        {
          toPorts: [
            {
              ports: [{ port: '80', protocol: 'TCP' }],
              rules: { http: Array.from({ length: paths }, (_, i) => ({ path: `/${i}${letter.repeat(length)}` })) },
            },
          ],
        },
      ],
    },
  });
  return parsed.ok ? parsed.policies : assert.fail('the policy is one');
}

const request = (target: string) => ({ kind: 'http', method: 'GET', target, headers: [] }) as const;

test('tables about requests are given up when nobody can be on the way through them, and then are others’', async () => {
  const views = ['a', 'b', 'c'].map((letter) => clusterWith(reads(20, 200, letter)));
  const [first] = views;
  assert.ok(first !== undefined);
  let owner = new Owner(first);
  const pod = podsOf(first).find(({ labels }) => labels.app === 'cart');
  assert.ok(pod !== undefined);
  const asked = {
    ifindex: pod.ifindex,
    direction: 'ingress',
    remote: parseIp('203.0.113.9'),
    protocol: 6,
    port: 80,
  } as const;
  for (let turn = 0; turn < 12; turn++) {
    const view = views[turn % 3] ?? first;
    // Every third time by a process that has only what is in the maps.
    if (turn % 3 === 2) {
      await owner.policy.settled;
      owner = new Owner(view);
    }
    await owner.policy.apply(compile(view, node, owner.policy.image));
    const own = 'abc'.charAt(turn % 3);
    const other = 'bca'.charAt(turn % 3);
    const verdict = (target: string) => evaluateMaps(maps, { ...asked, request: request(target) }).verdict;
    assert.equal(verdict(`/7${own.repeat(200)}`), 'allow', `turn ${turn}`);
    assert.equal(verdict(`/7${other.repeat(200)}`), 'deny', `turn ${turn}`);
    assert.equal(evaluateMaps(maps, asked).verdict, 'deny');
  }
});

test('a revision whose tables about requests do not fit is refused before anything changes', async () => {
  const view = clusterWith(reads(10, 20));
  const owner = new Owner(view);
  await owner.policy.apply(compile(view, node, owner.policy.image));
  await owner.policy.settled;
  const before = { dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image };
  const huge = compile(clusterWith(reads(70, 200)), node, owner.policy.image);
  await assert.rejects(
    owner.policy.apply(huge),
    (error) => error instanceof RevisionRefused && error.map === 'http_rows',
  );
  assert.deepEqual({ dump: kernel.dump(), config: maps.config.get(0), image: owner.policy.image }, before);
  await owner.policy.apply(compile(clusterWith(reads(50, 200)), node, owner.policy.image));
});
