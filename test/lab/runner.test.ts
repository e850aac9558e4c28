import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Container } from '../../src/api/kinds.ts';
import { planLab } from '../../src/lab/plan.ts';
import { parseTarget, targetsOf } from '../../src/lab/programs/targets.ts';
import { environmentOf, expand } from '../../src/lab/runner/environment.ts';
import { kindOfImage, programFor } from '../../src/lab/runner/images.ts';
import { podFiles } from '../../src/lab/runner/pod-files.ts';
import { type ContainerView, podStatus, waitingView } from '../../src/lab/runner/pod-status.ts';
import { privilegeArguments, privilegesOf } from '../../src/lab/runner/privileges.ts';
import { Threshold } from '../../src/lab/runner/probe-loop.ts';
import { parseIp } from '../../src/model/address.ts';
import { pod } from './objects.ts';

const paths = { node: '/n/node', programs: '/p', repository: '/r' };

describe('images', () => {
  const table: [string, string][] = [
    ['redis:alpine', 'redis'],
    ['docker.io/library/redis', 'redis'],
    ['localhost:5000/redis@sha256:0123', 'redis'],
    ['nginx:1.27', 'nginx'],
    ['busybox:1.38.0@sha256:fd8d', 'shell'],
    ['registry.k8s.io/e2e-test-images/agnhost:2.53', 'agnhost'],
    ['online-boutique/loadgenerator:v0.10.6', 'load'],
    ['online-boutique/frontend:v0.10.6', 'standin'],
    ['redis-exporter', 'standin'],
    ['', 'standin'],
  ];
  for (const [image, kind] of table)
    test(`${image || '(none)'} is ${kind}`, () => assert.equal(kindOfImage(image), kind));

  const command = (container: Partial<Container>) => programFor({ name: 'c', ...container }, paths).command;
  test('a stand-in listens on the ports of its container, whatever its command', () => {
    const ports = [{ containerPort: 8080 }, { containerPort: 53, protocol: 'UDP' as const }];
    const line = command({ image: 'shop', ports, command: ['/app'] });
    assert.deepEqual(line.slice(-3), ['/p/standin.mjs', '8080/TCP', '53/UDP']);
  });
  test('programs of the machine get the command and the arguments of the manifest', () => {
    assert.deepEqual(command({ image: 'busybox', command: ['sh', '-c'], args: ['ls'] }), ['sh', '-c', 'ls']);
    assert.deepEqual(command({ image: 'redis', command: ['sleep', '1'] }), ['sleep', '1']);
    assert.deepEqual(command({ image: 'redis', args: ['--maxmemory', '1mb'] }).slice(-2), ['--maxmemory', '1mb']);
    assert.equal(command({ image: 'redis', ports: [{ containerPort: 7000 }] })[2], '7000');
  });
  test('agnhost knows its sub-commands by either way of calling it', () => {
    for (const container of [
      { args: ['netexec', '--http-port=80'] },
      { command: ['/agnhost', 'netexec', '--http-port=80'] },
    ])
      assert.deepEqual(command({ image: 'agnhost', ...container }).slice(-3), [
        '/p/agnhost.mjs',
        'netexec',
        '--http-port=80',
      ]);
    assert.deepEqual(command({ image: 'agnhost', command: ['sh', '-c', 'x'] }), ['sh', '-c', 'x']);
    assert.deepEqual(command({ image: 'agnhost', ports: [{ containerPort: 80 }] }).slice(-1), ['80/TCP']);
  });
});

describe('environment', () => {
  const sources = {
    configMap: (name: string) => (name === 'cm' ? { a: '1', b: '2' } : undefined),
    secret: () => undefined,
  };
  const read = (container: Partial<Container>) =>
    environmentOf(
      { ...pod('web-1', { labels: { app: 'web' }, nodeName: 'node-1' }), status: { podIP: '10.0.0.1' } },
      { name: 'c', ...container },
      sources,
    );

  test('values refer to earlier ones, fields and maps', () => {
    const result = read({
      envFrom: [{ prefix: 'P_', configMapRef: { name: 'cm' } }],
      env: [
        { name: 'A', value: 'x' },
        { name: 'B', value: '$(A)-$$(A)-$(C)' },
        { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
        { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
        { name: 'MAP', valueFrom: { configMapKeyRef: { name: 'cm', key: 'b' } } },
        { name: 'NONE', valueFrom: { secretKeyRef: { name: 's', key: 'k', optional: true } } },
      ],
    });
    assert.ok('env' in result);
    const { PATH: _, HOME: _home, ...env } = result.env;
    assert.deepEqual(env, {
      HOSTNAME: 'web-1',
      P_a: '1',
      P_b: '2',
      A: 'x',
      B: 'x-$(A)-$(C)',
      IP: '10.0.0.1',
      APP: 'web',
      MAP: '2',
    });
  });
  test('what is missing is said', () => {
    assert.deepEqual(read({ envFrom: [{ secretRef: { name: 's' } }] }), { missing: 'secret s not found' });
    const env = [{ name: 'X', valueFrom: { configMapKeyRef: { name: 'cm', key: 'z' } } }];
    assert.deepEqual(read({ env }), { missing: 'configMap cm has no z' });
  });
  test('text without references stays as it is', () => {
    fc.assert(
      fc.property(
        fc.string().filter((text) => !text.includes('$')),
        (text) => assert.equal(expand(text, {}), text),
      ),
    );
  });
});

describe('files', () => {
  const facts = {
    namespace: 'shop',
    hostname: 'web-1',
    addresses: [parseIp('10.0.0.1')],
    dnsAddress: parseIp('10.96.0.10'),
    clusterDomain: 'cluster.local',
    machineResolvConf: 'nameserver 192.0.2.53\n',
  };
  const resolv = (spec: Parameters<typeof podFiles>[0]) =>
    podFiles(spec, facts)['/etc/resolv.conf']?.trim().split('\n');
  const containers: Container[] = [];
  test('a pod asks the cluster for names', () =>
    assert.deepEqual(resolv({ containers }), [
      'nameserver 10.96.0.10',
      'search shop.svc.cluster.local svc.cluster.local cluster.local',
      'options ndots:5 timeout:1 attempts:2',
    ]));
  test('unless it says otherwise', () => {
    const dnsConfig = { nameservers: ['9.9.9.9'], searches: ['x'], options: [{ name: 'ndots', value: '1' }] };
    assert.deepEqual(resolv({ containers, dnsPolicy: 'None', dnsConfig }), [
      'nameserver 9.9.9.9',
      'search x',
      'options ndots:1',
    ]);
    assert.deepEqual(resolv({ containers, hostNetwork: true }), ['nameserver 192.0.2.53']);
    assert.deepEqual(resolv({ containers, dnsPolicy: 'Default' }), ['nameserver 192.0.2.53']);
    const both = resolv({ containers, hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' });
    assert.equal(both?.[0], 'nameserver 10.96.0.10');
  });
  test('it knows its own name', () =>
    assert.match(podFiles({ containers }, facts)['/etc/hosts'] ?? '', /^10\.0\.0\.1\tweb-1$/m));
});

test('privileges: the container’s own security context wins, dropped capabilities are gone', () => {
  const got = privilegesOf(
    { containers: [], securityContext: { runAsUser: 1, runAsGroup: 2, fsGroup: 3 } },
    {
      name: 'c',
      securityContext: {
        runAsUser: 9,
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'], add: ['NET_RAW'] },
      },
    },
  );
  assert.deepEqual(got, { user: 9, group: 2, groups: [3], capabilities: ['net_raw'], noNewPrivileges: true });
  assert.ok(privilegeArguments(got).includes('--bounding-set=-all,+net_raw'));
  const root = privilegesOf(
    { containers: [] },
    { name: 'c', securityContext: { capabilities: { drop: ['NET_RAW'] } } },
  );
  assert.ok(root.capabilities?.includes('chown') && !root.capabilities.includes('net_raw'));
  assert.equal(
    privilegesOf({ containers: [] }, { name: 'c', securityContext: { privileged: true } }).capabilities,
    undefined,
  );
});

test('a probe concludes only after enough equal answers in a row', () => {
  const threshold = new Threshold({ successThreshold: 2, failureThreshold: 3 }, false);
  const answers = [true, false, true, true, false, false, true, false, false, false, false];
  const seen = answers.map((ok) => threshold.observe(ok));
  const none = undefined;
  assert.deepEqual(seen, [none, none, none, true, none, none, none, none, none, false, none]);
});

describe('pod status', () => {
  const at = new Date('2026-01-01T00:00:00.5Z');
  const running: ContainerView = {
    ...waitingView,
    state: { kind: 'running', startedAt: at },
    started: true,
    ready: true,
  };
  const ended = (exitCode: number, finished: boolean): ContainerView => ({
    ...waitingView,
    state: { kind: 'terminated', exitCode, startedAt: at, finishedAt: at },
    finished,
  });
  const statusOf = (main: ContainerView | undefined, init: Record<string, ContainerView> = {}) =>
    podStatus({
      pod: pod('p', { initContainers: Object.keys(init).map((name) => ({ name })) }),
      hostAddresses: [parseIp('172.30.0.11')],
      addresses: [parseIp('10.0.0.1'), parseIp('fd00::1')],
      hasSandbox: true,
      init: new Map(Object.entries(init)),
      main: new Map(main === undefined ? [] : [['c', main]]),
      startTime: at,
      now: at,
    });
  const ready = (status: ReturnType<typeof statusOf>) =>
    status.conditions?.find(({ type }) => type === 'Ready')?.status;

  test('running and ready', () => {
    const status = statusOf(running);
    assert.deepEqual([status.phase, ready(status), status.podIP], ['Running', 'True', '10.0.0.1']);
    assert.deepEqual(status.podIPs, [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }]);
    assert.deepEqual(status.containerStatuses?.[0]?.state, { running: { startedAt: '2026-01-01T00:00:00Z' } });
  });
  const cases: [string, ContainerView | undefined, Record<string, ContainerView>, string][] = [
    ['there is no network yet', undefined, {}, 'Pending'],
    ['nothing has started', waitingView, {}, 'Pending'],
    ['an init container runs', waitingView, { i: running }, 'Pending'],
    ['an init container will be tried again', waitingView, { i: ended(1, false) }, 'Pending'],
    ['an init container failed for good', waitingView, { i: ended(1, true) }, 'Failed'],
    ['the init container is done', running, { i: ended(0, true) }, 'Running'],
    ['between two lives', ended(1, false), {}, 'Running'],
    ['done', ended(0, true), {}, 'Succeeded'],
    ['failed', ended(3, true), {}, 'Failed'],
  ];
  for (const [name, main, init, phase] of cases) test(name, () => assert.equal(statusOf(main, init).phase, phase));
  test('not ready while an init container runs, or before there is any container', () => {
    assert.equal(ready(statusOf(running, { i: { ...running, finished: false } })), 'False');
    assert.equal(ready(statusOf(undefined)), 'False');
  });
});

describe('targets', () => {
  test('addresses, URLs and hosts of the environment are called; addresses to listen on are not', () => {
    const found = targetsOf({
      CART_SERVICE_ADDR: 'cartservice:7070',
      CART_AGAIN_ADDR: 'cartservice:7070',
      REDIS_ADDR: 'redis-cart:6379',
      API_URL: 'https://api.shop.svc/v1',
      DB_HOST: 'db',
      DB_PORT: '5432',
      CACHE_HOST: 'cache',
      CACHE_PORT: 'tcp://10.96.0.1:6379',
      LISTEN_ADDR: '0.0.0.0:80',
      BIND_ADDR: ':80',
      SELF_URL: 'http://localhost:8080',
      PORT: '80',
      EMPTY_URL: '',
    });
    assert.deepEqual(
      found.map(({ name, port, protocol }) => [name, port, protocol]),
      [
        ['cartservice', 7070, 'http'],
        ['redis-cart', 6379, 'redis'],
        ['api', 443, 'http'],
        ['db', 5432, 'http'],
        ['cache', 6379, 'redis'],
      ],
    );
  });
  test('whatever the environment holds, reading it does not fail', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseTarget(text)));
  });
});

describe('plan', () => {
  const cgroupRoot = '/sys/fs/cgroup';
  test('the same name gives the same plan, and nothing of it begins like another lab’s', () => {
    assert.deepEqual(planLab({ name: 'a', cgroupRoot }), planLab({ name: 'a', cgroupRoot }));
    const [a, b] = [planLab({ name: 'a', cgroupRoot }), planLab({ name: 'a-b', cgroupRoot })];
    for (const { netns } of b.nodes) assert.ok(!netns.startsWith('/run/netns/myelin.a.'));
    for (const { netns } of a.nodes) assert.ok(netns.startsWith('/run/netns/myelin.a.'));
  });
  test('every host has addresses of its own', () => {
    const plan = planLab({ nodes: 100, cgroupRoot });
    const all = [plan.control, plan.world, ...plan.nodes].flatMap(({ addresses }) => addresses);
    assert.equal(new Set(all).size, 2 * 102);
  });
  for (const options of [
    { name: 'A' },
    { name: 'a.b' },
    { name: '' },
    { name: 'x'.repeat(21) },
    { nodes: 0 },
    { nodes: 1.5 },
    { mtu: 100 },
  ])
    test(`refuses ${JSON.stringify(options)}`, () =>
      assert.throws(() => planLab({ ...options, cgroupRoot }), { code: 'BadName' }));
});
