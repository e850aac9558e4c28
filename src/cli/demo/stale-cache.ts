import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { kinds, type Pod, type ServiceAccount } from '../../api/kinds.ts';
import { nodeDirectory } from '../../lab/services.ts';
import type { Outcome } from './attacks.ts';
import { addressOf, type Stage } from './stage.ts';

const namespace = 'default';
const leases = z.looseObject({ leases: z.array(z.looseObject({ releasedAt: z.number().optional() })) });

/**
 * The attack that identity by address cannot stop: a node is cut off from the API and keeps a warm tunnel to a pod; that
 * pod goes, and a pod of another identity gets its address. Whatever the cut-off node believes, the new pod must not be
 * able to send or receive a byte as the old one.
 */
export async function staleCache(stage: Stage): Promise<Omit<Outcome, 'attack'>> {
  const [nodeA, nodeB] = stage.lab.plan.nodes.map(({ name }) => name);
  if (nodeA === undefined || nodeB === undefined) return { stopped: false, by: 'there is only one node' };
  await stage.lab.applyObjects([account('trusted'), account('stranger')]);
  await stage.lab.applyObjects([shell('caller', nodeA, 'trusted'), shell('victim', nodeB, 'trusted')]);
  await stage.lab.waitReady({ namespace, timeoutMs: 20_000 });
  const victim = await pod(stage, 'victim');
  const address = addressOf(victim);
  const warm = await ping(stage, 'caller', address);
  if (!warm) return { stopped: false, by: 'there was no tunnel to begin with' };

  await cutOff(stage, nodeA, true);
  try {
    await stage.lab.api.delete(kinds.Pod, { namespace, name: 'victim' }, { gracePeriodSeconds: 0 });
    await gone(stage, nodeB, victim.metadata.uid);
    // The node forgets which addresses rest: its disk was replaced, say. Nothing but luck keeps addresses apart now.
    await forgetLeases(stage, nodeB);
    await stage.lab.applyObjects([shell('stranger', nodeB, 'stranger')]);
    await stage.lab.waitReady({ namespace, timeoutMs: 20_000 });
    const stranger = await pod(stage, 'stranger');
    if (addressOf(stranger) !== address)
      return { stopped: false, by: `the scene failed: the new pod got ${addressOf(stranger)}, not ${address}` };
    const believed = (await stage.status(nodeA)).tunnels.refusals;
    const reached = await ping(stage, 'caller', address);
    const reachedBack = await ping(stage, 'stranger', addressOf(await pod(stage, 'caller')));
    const refusals = Object.entries((await stage.status(nodeA)).tunnels.refusals).filter(
      ([reason, count]) => count > (believed[reason] ?? 0),
    );
    const reasons = refusals.map(([reason, count]) => `${reason} ${count - (believed[reason] ?? 0)}`).join(', ');
    return {
      stopped: !reached && !reachedBack,
      by:
        reached || reachedBack
          ? 'a packet got through'
          : `the old keys went with the old pod, and ${nodeA} refused the new one’s certificate (${reasons === '' ? 'no answer' : reasons})`,
    };
  } finally {
    await cutOff(stage, nodeA, false);
    for (const name of ['caller', 'victim', 'stranger'])
      await stage.lab.api.delete(kinds.Pod, { namespace, name }, { gracePeriodSeconds: 0 }).catch(() => undefined);
  }
}

function account(name: string): ServiceAccount {
  return { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } };
}

function shell(name: string, node: string, serviceAccountName: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: {
      nodeName: node,
      serviceAccountName,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'shell', image: 'busybox', command: ['sleep', '3600'] }],
    },
  };
}

async function pod(stage: Stage, name: string) {
  return stage.lab.api.get(kinds.Pod, { namespace, name });
}

async function ping(stage: Stage, from: string, address: string): Promise<boolean> {
  return (await stage.inPod(namespace, from, ['ping', '-c', '2', '-i', '0.2', '-W', '2', address])).status === 0;
}

/** Lets no packet pass between the node and the API, or all of them again. Half of that would not do: a watch needs no answers. */
async function cutOff(stage: Stage, node: string, off: boolean): Promise<void> {
  const [api] = stage.lab.plan.control.addresses;
  const rules = `add table inet cut-off; delete table inet cut-off; add table inet cut-off
    add chain inet cut-off output { type filter hook output priority 0; }
    add rule inet cut-off output ip daddr ${api} tcp dport 6443 drop
    add chain inet cut-off input { type filter hook input priority 0; }
    add rule inet cut-off input ip saddr ${api} tcp sport 6443 drop`;
  const script = off ? rules : 'delete table inet cut-off';
  const { status, stderr } = await stage.run(stage.lab.hostCommand(node, ['nft', '-f', '-']), `${script}\n`);
  if (status !== 0) throw new Error(`${node} could not be cut off: ${stderr}`);
}

/** The API forgets a pod at once; its node takes a moment to take it down. */
async function gone(stage: Stage, node: string, uid: string): Promise<void> {
  const end = Date.now() + 10_000;
  while ((await stage.endpoints(node)).some((endpoint) => endpoint.uid === uid)) {
    if (Date.now() > end) throw new Error(`the old pod does not go from ${node}`);
    await new Promise((wait) => setTimeout(wait, 100));
  }
}

async function forgetLeases(stage: Stage, node: string): Promise<void> {
  const directory = nodeDirectory(stage.lab.plan, stage.lab.node(node));
  const file = join(directory, 'state.json');
  await stage.lab.stopAgent(node);
  const state = leases.parse(JSON.parse(readFileSync(file, 'utf8')));
  writeFileSync(
    file,
    JSON.stringify({ ...state, leases: state.leases.filter(({ releasedAt }) => releasedAt === undefined) }),
  );
  stage.lab.startAgent(node);
  const end = Date.now() + 15_000;
  for (;;) {
    const up = await stage.status(node).then(
      () => true,
      () => false,
    );
    if (up) return;
    if (Date.now() > end) throw new Error(`the agent of ${node} does not come back`);
    await new Promise((wait) => setTimeout(wait, 100));
  }
}
