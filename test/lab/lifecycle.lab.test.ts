import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { ip } from '../../src/kernel/ip.ts';
import { down } from '../../src/lab/down.ts';
import { Lab } from '../../src/lab/lab.ts';
import { isRunning } from '../../src/lab/process.ts';
import { readState } from '../../src/lab/state.ts';
import { lab, newName, statusSchema, succeeds } from './command.ts';
import { leftovers } from './leftovers.ts';

describe('a lab from the command line', () => {
  const name = newName();
  const directory = mkdtempSync(join(tmpdir(), 'lab-'));
  const file = (base: string, text: string) => {
    const path = join(directory, base);
    writeFileSync(path, text);
    return path;
  };
  const web = file(
    'web.yaml',
    `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: web, image: shop/web, ports: [{containerPort: 8080}], readinessProbe: {httpGet: {path: /healthz, port: 8080}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`,
  );
  after(async () => {
    await down(name);
    rmSync(directory, { recursive: true });
  });

  test('wrong manifests are refused with file, line and field before anything is started', async () => {
    const wrong = file('wrong.yaml', 'apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  prots: []\n');
    const { code, stderr } = await lab('up', '--name', name, '-f', wrong);
    assert.equal(code, 1);
    assert.match(stderr, /wrong\.yaml:5:3: .*prots/);
    assert.deepEqual(leftovers(name), []);
  });

  test('up brings nodes and pods, and says what it does', async () => {
    const stdout = await succeeds('up', '--name', name, '--nodes', '2', '-f', web);
    assert.match(stdout, /2 nodes/);
    assert.match(stdout, new RegExp(`The lab ${name} is up`));
  });

  test('up again is refused, and harms nothing', async () => {
    const { code, stderr } = await lab('up', '--name', name);
    assert.equal(code, 1);
    assert.match(stderr, /is up already/);
    assert.equal(readState(name)?.complete, true);
  });

  test('status lists nodes, pods and processes', async () => {
    const status = statusSchema.parse(JSON.parse(await succeeds('status', '--name', name, '-o', 'json')));
    assert.deepEqual(
      status.nodes.map((node) => [node.name, node.agentRunning]),
      [
        ['node-1', true],
        ['node-2', true],
      ],
    );
    const pods = status.pods.filter((pod) => pod.namespace === 'default');
    assert.equal(pods.length, 2);
    assert.ok(pods.every((pod) => pod.ready && pod.addresses.length === 2));
    assert.ok(status.processes.every(({ running }) => running));
    assert.match(await succeeds('status', '--name', name), /NAMESPACE +POD +READY/);
  });

  test('exec passes exit code, output and arguments on', async () => {
    const { code, stdout } = await lab(
      'exec',
      '--name',
      name,
      'deploy/web',
      '--',
      'sh',
      '-c',
      'echo "$1"; exit 7',
      'sh',
      'a  b',
    );
    assert.deepEqual([code, stdout], [7, 'a  b\n']);
  });

  test('exec of a pod that is not there says which are', async () => {
    const { code, stderr } = await lab('exec', '--name', name, 'nobody', '--', 'true');
    assert.equal(code, 1);
    assert.match(stderr, /no pod nobody in namespace default: it has web-/);
  });

  /** A pod reaches its Service by name, whichever backend it draws. */
  async function webAnswers(...options: readonly string[]): Promise<void> {
    const curl = ['curl', '-sS', '-m', '5', ...options, 'http://web/'];
    for (let i = 0; i < 4; i++)
      assert.match(await succeeds('exec', '--name', name, 'deploy/web', '--', ...curl), /"service":"web"/);
  }

  test('names resolve, and services answer across nodes', async () => {
    await webAnswers();
  });

  test('node runs in the namespace of a node, control and world', async () => {
    assert.match(
      await succeeds('node', '--name', name, 'node-2', '--', 'ip', '-br', 'addr'),
      /eth0@\S+ +UP +172\.30\.\d+\.12/,
    );
    assert.match(await succeeds('node', '--name', name, 'world', '--', 'ip', '-br', 'addr'), /203\.0\.113\.10/);
    assert.match((await lab('node', '--name', name, 'node-9', '--', 'true')).stderr, /it has node-1, node-2/);
  });

  test('kubectl speaks to it', async () => {
    const out = await succeeds('kubectl', '--name', name, '--', 'get', 'pods', '-o', 'name');
    assert.equal(out.trim().split('\n').length, 2);
  });

  test('apply of a set with one wrong object changes nothing', async () => {
    const good = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n';
    const bad = file(
      'bad.yaml',
      `${good}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: many}\n`,
    );
    const { code, stderr } = await lab('apply', '--name', name, '-f', bad);
    assert.equal(code, 1);
    assert.match(stderr, /bad\.yaml:\d+:\d+: .*spec\.replicas/);
    assert.match((await lab('kubectl', '--name', name, '--', 'get', 'configmap', 'good')).stderr, /not found/);
  });

  test('restart brings back what died: an agent with its engine, and a service', async () => {
    const processes = () => readState(name)?.processes ?? [];
    const kill = (pid: number | undefined) => {
      assert.ok(pid !== undefined && pid > 1);
      process.kill(pid, 'SIGKILL');
    };
    const inNode = () =>
      readFileSync(`${Lab.open(name).nodeCgroup('node-1')}/cgroup.procs`, 'utf8')
        .trim()
        .split('\n')
        .map(Number);
    const isEngine = (pid: number) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('myelin-engine');
    const engine = inNode().find(isEngine);
    kill(processes().find((one) => one.name === 'agent/node-1')?.pid);
    kill(engine);
    kill(processes().find((one) => one.name === 'controller')?.pid);
    while (processes().filter((one) => !isRunning(one)).length < 2) await sleep(10);
    const { code, stdout } = await lab('status', '--name', name);
    assert.equal(code, 1);
    assert.match(stdout, /agent\/node-1 is not running[\s\S]*myelin lab restart/);
    assert.match(
      (await lab('restart', '--name', name, 'node-9')).stderr,
      /it has node-1, node-2, api, controller, labd/,
    );
    assert.equal(await succeeds('restart', '--name', name), 'controller is up again\nnode-1 is up again\n');
    assert.match(await succeeds('restart', '--name', name), /nothing has died/);
    const pids = inNode();
    assert.ok(pids.some(isEngine) && !pids.includes(engine ?? 0), 'another engine');
    await webAnswers('--retry', '3');
    await succeeds('restart', '--name', name, 'node-2', 'api', 'labd');
    await succeeds('status', '--name', name);
  });

  test('delete waits until pods, namespaces and interfaces are gone', async () => {
    const before = readdirSync('/run/netns').filter((each) => each.startsWith(`myelin.${name}.pod-`)).length;
    assert.match(await succeeds('delete', '--name', name, '-f', web), /deployment\.apps\/web deleted/);
    for (let i = 0; i < 100; i++) {
      const left = statusSchema.parse(JSON.parse((await lab('status', '--name', name, '-o', 'json')).stdout));
      if (left.pods.every((pod) => pod.namespace !== 'default')) break;
      await sleep(50);
    }
    const left = readdirSync('/run/netns').filter((each) => each.startsWith(`myelin.${name}.pod-`)).length;
    assert.equal(left, before - 2);
    for (const node of ['node-1', 'node-2']) {
      const links = z
        .array(z.object({ ifname: z.string() }))
        .parse(await ip(['link'], { netns: `/run/netns/myelin.${name}.${node}` }));
      assert.ok(links.filter(({ ifname }) => /^my[0-9a-f]{11}$/.test(ifname)).length <= 1);
    }
  });

  test('up with a pod that does not become ready says which, fails, and leaves a lab to look at', async () => {
    const other = newName();
    const readinessProbe = '{exec: {command: ["false"]}, periodSeconds: 1}';
    const never = file(
      'never.yaml',
      `apiVersion: v1
kind: Pod
metadata: {name: never}
spec: {containers: [{name: c, image: busybox, command: [sh, -c, "echo here I am; sleep 60"], readinessProbe: ${readinessProbe}}]}
`,
    );
    try {
      const { code, stderr } = await lab('up', '--name', other, '--nodes', '1', '--timeout', '4', '-f', never);
      assert.equal(code, 1);
      assert.match(stderr, /not ready within 4 s: .*default\/never/);
      assert.equal(await succeeds('logs', '--name', other, 'never'), 'here I am\n');
      const { code: statusCode, stdout } = await lab('status', '--name', other);
      assert.equal(statusCode, 1);
      assert.match(stdout, /✗ never/);
    } finally {
      await down(other);
    }
  });

  test('down leaves nothing', async () => {
    assert.match(await succeeds('down', '--name', name), /is gone/);
    assert.deepEqual(leftovers(name), []);
    assert.match(await succeeds('down', '--name', name), /there is no lab/);
  });
});
