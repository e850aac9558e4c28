import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { StatusReport } from '../../src/agent/wire.ts';
import { myelin } from '../support/cli.ts';
import { assertLossless, LossLab, say } from '../support/lossless.ts';

/*
 * Agents whose maps begin so small that policy has them grow again and again, under traffic that nothing may be lost of.
 */

const most = 16_384;
const sizes = {
  extra: ['--map-sizes', `policy=64..${most},rule_sets=16,peers=16,prefixes=16,services=8,backends=8,tunnel_in=2`],
};
const node = 'node-1';

/** So many policies, each about prefixes of the world that no other is about. */
function policies(count: number, blocks: number, first = 0) {
  return Array.from({ length: count }, (_, n) => {
    const number = first + n;
    const to = Array.from({ length: blocks }, (_, i) => ({
      ipBlock: { cidr: `172.${16 + (number >> 8)}.${number & 255}.${4 * i}/32` },
    }));
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: `far-${number}`, namespace: 'default' },
      spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{ to, ports: [{ port: 1000 + number }] }] },
    };
  });
}

/** Without which the pods would be cut off from each other by those. */
const near = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'near', namespace: 'default' },
  spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {} }] }] },
};

describe('what is lost when maps grow', () => {
  let lab: LossLab;
  before(async () => {
    lab = await LossLab.up(sizes);
  });
  after(() => lab?.down());

  /** Waits until the node's agent says so. */
  async function says(what: (status: StatusReport) => void): Promise<StatusReport> {
    let found: StatusReport | undefined;
    await lab.lab.eventually(
      async () => {
        found = await lab.agents.status(node);
        what(found);
      },
      { timeoutMs: 30_000 },
    );
    assert.ok(found !== undefined);
    return found;
  }
  /** So many policies are known, and a revision with all of their entries is in force. */
  const inForce = (count: number, entries: number) =>
    says(({ policy }) => {
      assert.equal(policy.policies, count + 1);
      assert.equal(policy.refused, undefined);
      assert.ok((policy.maps.policy?.used ?? 0) >= entries, JSON.stringify(policy.maps));
    });

  test('nothing, while thousands of entries come, an agent ends, and the next one goes on with larger maps', async () => {
    await lab.lab.lab.applyObjects([near]);
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      await lab.lab.lab.applyObjects(policies(100, 10));
      const { policy, conditions } = await inForce(100, 1000);
      for (const name of ['policy', 'prefixes'] as const) {
        const map = policy.maps[name];
        assert.ok(map !== undefined && map.grownFrom !== undefined && map.capacity > map.grownFrom, name);
        assert.ok((map.bytes ?? 0) > 0 && (map.most ?? 0) >= map.capacity, JSON.stringify(map));
      }
      assert.deepEqual(
        conditions.filter(({ name, ok }) => name === 'maps' && !ok),
        [],
      );
      const { stdout } = await myelin('status', '--lab', lab.lab.name, '--node', node);
      assert.match(stdout, /map entries .*policy \d+ of \d+ \(grown from 64\)/);
      assert.match(stdout, /map memory +\d+\.\d MiB/);
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        await lab.restartAgent(node, sizes, signal);
        const { policy: after } = await inForce(100, 1000);
        for (const name of ['policy', 'prefixes'] as const)
          assert.ok((after.maps[name]?.capacity ?? 0) >= (policy.maps[name]?.capacity ?? 0), name);
      }
    });
    say('maps grow, and the agent of node-1 is restarted and killed', outcome);
    assertLossless(outcome);
  });

  test('nothing, when an agent is killed while they grow', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      const before = (await lab.agents.status(node)).policy.maps.policy?.capacity ?? 0;
      const applied = lab.lab.lab.applyObjects(policies(60, 50, 100));
      await says(({ policy }) => assert.ok(policy.policies > 120));
      await lab.restartAgent(node, sizes, 'SIGKILL');
      await applied;
      const { policy } = await inForce(160, 4000);
      assert.ok((policy.maps.policy?.capacity ?? 0) > before);
    });
    say('the agent of node-1 is killed while maps grow', outcome);
    assertLossless(outcome);
  });

  test('nothing, when there is more policy than the maps may have: it is refused as a whole, until there is less', async () => {
    const pair = await lab.pair();
    const outcome = await lab.during(pair, async () => {
      const { policy: before } = await lab.agents.status(node);
      // All of those prefixes once more for each of so many ports.
      const spec = {
        podSelector: {},
        policyTypes: ['Egress'],
        egress: [{ to: [{ ipBlock: { cidr: '172.16.0.0/12' } }], ports: ports(5) }],
      };
      await lab.lab.policy('too-much', spec);
      const { policy, conditions } = await says((status) => assert.notEqual(status.policy.refused, undefined));
      assert.match(policy.refused ?? '', /entries in map policy, which has room for/);
      assert.deepEqual(policy.maps.policy, before.maps.policy);
      assert.ok(conditions.some(({ name, ok }) => name === 'policy' && !ok));
      await lab.lab.remove([{ ...near, metadata: { name: 'too-much', namespace: 'default' } }]);
      await inForce(160, 4000);
    });
    say('more policy than fits', outcome);
    assertLossless(outcome);
  });
});

/** So many single ports, no two of which are one block. */
function ports(count: number): { port: number }[] {
  return Array.from({ length: count }, (_, i) => ({ port: 5000 + 2 * i }));
}
