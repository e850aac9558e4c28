import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { kinds, type Pod } from '../../src/api/kinds.ts';
import { summarizeCapture } from '../../src/cli/demo/wire.ts';
import { run } from '../../src/kernel/command.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/** What the lab's kubelets, controllers and programs do, seen through the API and from inside pods. */
describe('pods of a lab', () => {
  let lab: TestLab;
  before(async () => {
    lab = await TestLab.up({ nodes: 2, dns: true });
  });
  after(() => lab?.down());

  const sh = async (pod: TestPod, script: string) => {
    const { stdout, stderr, code } = await lab.exec(pod, ['sh', '-c', script]);
    assert.equal(code, 0, `${script}: ${stdout}${stderr}`);
    return stdout.trim();
  };
  const statusOf = async (name: string) => (await lab.api.get(kinds.Pod, { namespace: 'default', name })).status ?? {};
  const shell = (command: string) => (pod: Pod) => {
    const [container] = pod.spec.containers;
    if (container !== undefined) Object.assign(container, { image: 'busybox', command: ['sh', '-c', command] });
  };

  test('a container has a root file system, processes, a name and a user of its own', async () => {
    const pod = await lab
      .pod('own')
      .with((each) => {
        each.spec.securityContext = { runAsUser: 4711, runAsGroup: 4712 };
      })
      .create();
    assert.equal(await sh(pod, 'hostname'), 'own');
    assert.equal(await sh(pod, 'id -u; id -g'), '4711\n4712');
    const commands = (await sh(pod, 'ps -e -o comm=')).split('\n').map((line) => line.trim());
    assert.match([...new Set(commands)].sort().join(' '), /^container-init\S* ps sh sleep$/);
    assert.equal(await sh(pod, 'ls /run | grep -c myelin || true'), '0');
    const { code } = await lab.exec(pod, ['sh', '-c', 'echo x > /etc/hostname']);
    assert.notEqual(code, 0, 'user 4711 may write what is root’s');
    const root = await lab.pod('root').create();
    await sh(root, 'echo gone > /etc/of-the-pod');
    assert.equal((await lab.exec('node-1', ['cat', '/etc/of-the-pod'])).code, 1, 'a pod’s file is on the machine');
  });

  test('it finds its environment, its volumes and its name server', async () => {
    await lab.lab.applyObjects([
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, ...{ data: { colour: 'blue' } } },
    ]);
    const pod = await lab
      .pod('furnished')
      .with(({ spec }) => {
        const [container] = spec.containers;
        spec.volumes = [
          { name: 'scratch', emptyDir: {} },
          { name: 'settings', configMap: { name: 'settings' } },
        ];
        if (container === undefined) return;
        container.env = [
          { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          { name: 'COLOUR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'colour' } } },
        ];
        container.volumeMounts = [
          { name: 'scratch', mountPath: '/var/run/scratch' },
          { name: 'settings', mountPath: '/etc/settings', readOnly: true },
        ];
      })
      .create();
    assert.equal(await sh(pod, 'echo $IP $COLOUR'), `${pod.addresses[0]} blue`);
    assert.equal(await sh(pod, 'cat /etc/settings/colour; echo x > /var/run/scratch/x; cat /run/scratch/x'), 'bluex');
    assert.notEqual((await lab.exec(pod, ['sh', '-c', 'echo red > /etc/settings/colour'])).code, 0);
    assert.match(
      await sh(pod, 'cat /etc/resolv.conf'),
      /^nameserver 10\.96\.0\.10\nsearch default\.svc\.cluster\.local /,
    );
    assert.equal(await sh(pod, 'getent hosts kube-dns.kube-system | cut -d" " -f1'), '10.96.0.10');
    assert.equal((await lab.exec(pod, ['getent', 'hosts', 'example.com'])).code, 2);
  });

  test('init containers run first and in order; a job ends and frees its addresses', async () => {
    await lab.api.create(kinds.Pod, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace: 'default', name: 'job' },
      spec: {
        restartPolicy: 'OnFailure',
        volumes: [{ name: 'v', emptyDir: {} }],
        initContainers: ['one', 'two'].map((name) => ({
          name,
          image: 'busybox',
          // The first fails once.
          command: ['sh', '-c', `echo ${name} >> /v/log; [ ${name} = two ] || [ "$(grep -c one /v/log)" = 2 ]`],
          volumeMounts: [{ name: 'v', mountPath: '/v' }],
        })),
        containers: [
          {
            name: 'main',
            image: 'busybox',
            command: ['sh', '-c', '[ "$(tr "\\n" " " < /v/log)" = "one one two " ]'],
            volumeMounts: [{ name: 'v', mountPath: '/v' }],
          },
        ],
      },
    });
    await lab.eventually(async () => assert.equal((await statusOf('job')).phase, 'Succeeded'), { timeoutMs: 20_000 });
    const status = await statusOf('job');
    assert.equal(status.initContainerStatuses?.[0]?.restartCount, 1);
    assert.equal(status.containerStatuses?.[0]?.ready, false);
  });

  test('a container that ends is started again, later each time; one that fails its liveness probe as well', async () => {
    await lab.pod('crashing').with(shell('sleep 0.1; exit 3')).begin();
    await lab.eventually(async () =>
      assert.ok(((await statusOf('crashing')).containerStatuses?.[0]?.restartCount ?? 0) >= 2),
    );
    const [crashing] = (await statusOf('crashing')).containerStatuses ?? [];
    assert.match(JSON.stringify(crashing?.lastState), /"exitCode":3/);
    await lab
      .pod('hanging')
      .with(shell('touch /tmp/alive; sleep 1; rm /tmp/alive; sleep 1000'))
      .with(({ spec }) => {
        const [container] = spec.containers;
        if (container !== undefined)
          container.livenessProbe = {
            exec: { command: ['test', '-e', '/tmp/alive'] },
            periodSeconds: 1,
            failureThreshold: 1,
          };
      })
      .create();
    await lab.eventually(async () =>
      assert.ok(((await statusOf('hanging')).containerStatuses?.[0]?.restartCount ?? 0) >= 1),
    );
    await lab.remove(['crashing', 'hanging'].map((name) => ({ apiVersion: 'v1', kind: 'Pod', metadata: { name } })));
  });

  test('readiness follows the probe, and endpoints follow readiness', async () => {
    const pod = await lab
      .pod('moody')
      .labelled({ app: 'moody' })
      .with(shell('touch /tmp/ok; sleep 1000'))
      .with(({ spec }) => {
        const [container] = spec.containers;
        if (container === undefined) return;
        container.ports = [{ containerPort: 80, name: 'http' }];
        container.readinessProbe = {
          exec: { command: ['test', '-e', '/tmp/ok'] },
          periodSeconds: 1,
          failureThreshold: 1,
        };
      })
      .create();
    await lab.service('moody', { selector: { app: 'moody' }, ports: [{ port: 80, targetPort: 'http' }] });
    const ready = async () => {
      const labelSelector = 'kubernetes.io/service-name=moody';
      const { entries } = await lab.api.list(kinds.EndpointSlice, { namespace: 'default', labelSelector });
      return entries.flatMap(({ object }) => object?.endpoints ?? []).map(({ conditions }) => conditions?.ready);
    };
    assert.deepEqual(await ready(), [true, true]);
    await sh(pod, 'rm /tmp/ok');
    await lab.eventually(async () => assert.deepEqual(await ready(), [false, false]));
    await sh(pod, 'touch /tmp/ok');
    await lab.eventually(async () => assert.deepEqual(await ready(), [true, true]));
  });

  test('a deletion is announced before it is done, and no longer than its grace', async () => {
    const script = 'trap "echo bye > /v/bye; exit 0" TERM; touch /tmp/ready; while :; do sleep 0.1; done';
    const volumes = ({ spec }: Pod) => {
      spec.terminationGracePeriodSeconds = 20;
      spec.volumes = [{ name: 'v', hostPath: { path: `${lab.lab.plan.directory}/log` } }];
      const [container] = spec.containers;
      if (container !== undefined) container.volumeMounts = [{ name: 'v', mountPath: '/v' }];
    };
    const pod = await lab.pod('polite').with(shell(script)).with(volumes).create();
    await sh(pod, 'until [ -e /tmp/ready ]; do sleep 0.05; done');
    await lab.remove([{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'polite', namespace: 'default' } }]);
    assert.equal((await lab.exec('node-1', ['cat', `${lab.lab.plan.directory}/log/bye`])).stdout, 'bye\n');
    const { stdout } = await lab.exec('control', ['sh', '-c', `ls /run/netns ${lab.lab.plan.directory}/pods`]);
    assert.ok(!stdout.includes(pod.uid));
    const deaf = await lab.pod('deaf').with(shell('trap "" TERM; while :; do sleep 0.1; done')).create();
    await lab.api.delete(kinds.Pod, deaf, { gracePeriodSeconds: 1 });
    await lab.eventually(async () => await assert.rejects(statusOf('deaf'), { code: 'NotFound' }));
  });

  test('a deployment replaces its pods when its template changes, and its service answers all the while', async () => {
    const web = (colour: string) => ({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'rolling' },
      spec: {
        replicas: 2,
        selector: { matchLabels: { app: 'rolling' } },
        template: {
          metadata: { labels: { app: 'rolling', colour } },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'web',
                image: 'shop/rolling',
                ports: [{ containerPort: 8080 }],
                readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 1 },
              },
            ],
          },
        },
      },
    });
    await lab.apply([web('blue')]);
    const colours = async () => {
      const { entries } = await lab.api.list(kinds.Pod, { namespace: 'default', labelSelector: 'app=rolling' });
      return entries.map(({ raw }) => raw.metadata.labels?.colour);
    };
    assert.deepEqual(await colours(), ['blue', 'blue']);
    await lab.apply([web('green')]);
    await lab.eventually(async () => assert.deepEqual(await colours(), ['green', 'green']), { timeoutMs: 30_000 });
    await lab.remove([web('green')]);
    await lab.eventually(async () => assert.deepEqual(await colours(), []));
  });

  test('pods reach each other by address and service, over both families, TCP and UDP', async () => {
    const server = await lab.pod('echo').on('node-1').serving(80, { port: 81, protocol: 'UDP' }).create();
    const client = await lab.pod('client').on('node-2').create();
    const service = await lab.service('echo', {
      selector: { app: 'echo' },
      ports: [
        { name: 'http', port: 80 },
        { name: 'udp', port: 81, protocol: 'UDP' },
      ],
    });
    for (const family of [4, 6] as const) {
      const address = service.find((each) => each.includes(':') === (family === 6)) ?? '';
      for (const to of [server, address])
        for (const [protocol, port] of [
          ['tcp', 80],
          ['udp', 81],
        ] as const) {
          const result = await lab.probe(client, to, { port, protocol, family, timeoutMs: 5000 });
          assert.ok(
            result.ok,
            `${protocol} over IPv${family} to ${typeof to === 'string' ? to : to.name}: ${result.error}`,
          );
          if (protocol === 'udp') assert.equal(result.body, 'echo');
        }
    }
    const named = await lab.probe(client, 'echo.default', { port: 80, protocol: 'http', timeoutMs: 5000 });
    assert.equal(named.body, 'echo');
    assert.equal((await lab.probe(client, server, { port: 82, timeoutMs: 2000 })).error, 'ECONNREFUSED');
  });

  test('what passes between nodes is seen by a capture, and is sealed', async () => {
    const capture = await lab.capture({ filter: 'ip or ip6' });
    const client = await lab.running('client');
    for (let i = 0; i < 5; i++) await lab.probe(client, await lab.running('echo'), { port: 80, protocol: 'http' });
    const { file, lost } = await capture.stop();
    assert.equal(lost, 0);
    const ports = { esp: 4500, handshake: 4747, api: 6443, controller: 7443 };
    const seen = summarizeCapture(file, { pods: lab.lab.plan.podCidrs, ports, canary: 'HTTP/1.1' });
    assert.ok((seen.kinds.get('ESP in UDP')?.frames ?? 0) >= 10, 'the capture saw no tunnel');
    assert.equal(seen.kinds.get('plaintext'), undefined);
    assert.equal(seen.canarySightings, 0);
  });

  test('the world is there: pods reach it under their node’s address, over both families', async () => {
    await lab.serve('world', '80/TCP', '81/UDP');
    const client = await lab.running('client');
    for (const [host, family] of [
      ['203.0.113.10', 4],
      ['2001:db8::10', 6],
    ] as const) {
      const { stdout, stderr } = await lab.exec(client, [
        'curl',
        '-sSg',
        '-m',
        '5',
        `http://${family === 6 ? `[${host}]` : host}/clientip`,
      ]);
      const address = lab.lab.node(client.node).addresses[family === 4 ? 0 : 1];
      assert.ok(stdout.includes(address), `the world sees ${stdout}${stderr} and not ${address}`);
      const { error } = await lab.probe(client, host, { port: 81, protocol: 'udp', family });
      assert.equal(error, undefined, `UDP over IPv${family}`);
    }
  });

  test('agents, API and controller can be stopped and started under running pods', async () => {
    const [client, echo] = [await lab.running('client'), await lab.running('echo')];
    await lab.lab.stopAgent(client.node, 'SIGKILL');
    for (const service of ['api', 'controller'] as const) await lab.lab.stopService(service);
    // A capture, or a command by the pod’s name, would ask the API: the prober is there already.
    assert.ok(await lab.reaches(client, echo, { port: 80 }));
    for (const service of ['api', 'controller'] as const) lab.lab.startService(service);
    lab.lab.startAgent(client.node);
    await lab.eventually(async () => assert.ok(await lab.lab.answers()));
    const late = await lab.pod('late').on(client.node).create();
    // The other node may have come to wait a while between its tries of an API that was away.
    await lab.eventually(async () => assert.ok(await lab.reaches(late, echo, { port: 80 })), { timeoutMs: 30_000 });
    const { processes } = await lab.lab.status();
    assert.ok(processes.every(({ running }) => running));
  });

  test('the lab’s daemon dies and comes back: pods run on, are its own again, and what went meanwhile is gone', async () => {
    const [echo, goner] = [await lab.running('echo'), await lab.pod('goner').create()];
    const before = await statusOf('echo');
    const job = await statusOf('job');
    const slice = () => lab.api.list(kinds.EndpointSlice, { namespace: 'default' });
    const ready = JSON.stringify((await slice()).entries.map(({ object }) => object?.endpoints));
    await lab.lab.stopService('labd', 'SIGKILL');
    lab.lab.startService('labd');
    await lab.eventually(async () => assert.ok(await lab.lab.answers()));
    // A pod that is made now is made by the new daemon, so that has seen the others.
    await lab.pod('after').create();
    const after = await statusOf('echo');
    assert.deepEqual(after.containerStatuses, before.containerStatuses);
    assert.deepEqual(after.podIPs, before.podIPs);
    assert.deepEqual(await statusOf('job'), job, 'what is over stays over');
    assert.equal(JSON.stringify((await slice()).entries.map(({ object }) => object?.endpoints)), ready);
    assert.equal((await lab.running('echo')).uid, echo.uid);

    // What it started no longer is its child: ends of it are seen all the same.
    await lab.exec(echo, ['sh', '-c', 'kill -9 -1'], { privileged: true }).catch(() => undefined);
    await lab.eventually(async () => {
      const [container] = (await statusOf('echo')).containerStatuses ?? [];
      assert.equal(container?.restartCount, (before.containerStatuses?.[0]?.restartCount ?? 0) + 1);
      assert.equal(container?.ready, true);
    });

    await lab.lab.stopService('labd', 'SIGKILL');
    // The daemon is also the way from here to the API: the lab's own namespaces reach it without.
    const { kubeconfig, plan } = lab.lab;
    const remove = ['delete', 'pod', 'goner', '--grace-period=0', '--force'];
    await run('kubectl', ['--kubeconfig', kubeconfig, ...remove], { netns: plan.control.netns });
    lab.lab.startService('labd');
    await lab.eventually(async () => assert.ok(!existsSync(`${plan.directory}/pods/${goner.uid}`)));
    const { stdout } = await run('ip', ['route'], { netns: lab.lab.node(goner.node).netns });
    assert.doesNotMatch(stdout, new RegExp(`^${goner.addresses[0]} `, 'm'), 'its interface is still there');
  });

  test('a node that loses power comes back with the same pods', async () => {
    const pod = await lab.running('echo');
    const startOf = async () => JSON.stringify((await statusOf('echo')).containerStatuses?.[0]?.state);
    const before = await startOf();
    await lab.lab.restartNode('node-1');
    await lab.eventually(async () => assert.notEqual(await startOf(), before));
    await lab.lab.waitReady({ timeoutMs: 30_000 });
    const again = await lab.running('echo');
    assert.equal(again.uid, pod.uid);
    assert.deepEqual(again.addresses, pod.addresses);
  });
});
