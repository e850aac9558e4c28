import { percentile } from '../src/cli/percentile.ts';
import { podArgs, TestNode } from '../test/endpoint/harness.ts';
import { absoluteBar, type BenchResult } from './result.ts';

/** What a node's /24 takes, so that the last ones come to a full node. */
const runs = 240;

/**
 * CNI ADD on an idle node, as a runtime sees it: from the exec of bin/myelin-cni to the end of that process, so the
 * shell, Node's start, the agent's work, two synced writes of its state and the reply are all in it. Namespaces are made
 * before and removed after, because the kernel's own clean-up of one holds the lock that every ADD needs. The agent's
 * hooks do nothing here: what attaching the datapath costs comes on top.
 */
export async function run(): Promise<BenchResult[]> {
  const times: number[] = [];
  await TestNode.use(async (node) => {
    await node.start();
    const names = Array.from({ length: runs }, (_, n) => `p${n}`);
    const namespaces: string[] = [];
    for (const name of names) namespaces.push(await node.pod(name));
    // The first execution compiles the plugin for all that follow.
    await node.ok('STATUS');
    for (const [n, name] of names.entries()) {
      const answer = await node.cni('ADD', { netns: namespaces[n] ?? '', containerId: name, args: podArgs(name) });
      if (answer.status !== 0) throw new Error(`ADD failed: ${answer.stdout}`);
      times.push(answer.ms);
    }
  });
  return [
    absoluteBar('CNI ADD p50, exec to result', 'ms', percentile(times, 0.5), { atMost: 60 }),
    absoluteBar('CNI ADD p99, exec to result', 'ms', percentile(times, 0.99), { atMost: 200 }),
  ];
}
