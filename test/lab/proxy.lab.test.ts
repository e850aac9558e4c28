import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { listNamespaces, namespaceId } from '../../src/kernel/netns.ts';
import { readStartTime } from '../../src/lab/process.ts';
import { myelin } from '../support/cli.ts';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';
import { type Answer, ProxyTalker, type Question } from '../support/proxy-talk.ts';

/*
 * What the kernel does not read, by the node's proxy: gRPC, HTTP where it leaves, names of TLS servers, rules that are too
 * many. Both ends see each other and no proxy; agents and proxies come and go.
 */

const [grpcPort, httpPort, tlsPort] = [9000, 9001, 9443] as const;
const policy = (name: string, spec: string) => `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: ${name}, namespace: default}
spec: ${spec}
---
`;
const into = (app: string, ...ports: readonly string[]) =>
  `{endpointSelector: {matchLabels: {app: ${app}}}, ingress: [{fromEndpoints: [{matchLabels: {role: client}}], toPorts: [${ports.join(', ')}]}]}`;
const requests = (port: number, ...http: readonly string[]) =>
  `{ports: [{port: "${port}", protocol: TCP}], rules: {http: [${http.join(', ')}]}}`;
const names = (...all: readonly string[]) =>
  `{ports: [{port: "${tlsPort}", protocol: TCP}], serverNames: [${all.join(', ')}]}`;
const catalogue = requests(grpcPort, '{method: POST, path: "/shop.Catalogue/.*"}');
/** Expressions that look for many words anywhere multiply: more than the kernel's tables hold. */
const words = Array.from({ length: 26 }, (_, i) => `{path: ".*word${String.fromCharCode(97 + i)}.*"}`);
const shop = policy('shop', into('shop', catalogue, requests(httpPort, ...words), names('good.example')));
const out = policy(
  'out',
  `{endpointSelector: {matchLabels: {app: asker}}, egress: [{toEndpoints: [{matchLabels: {app: open}}], toPorts: [${requests(httpPort, '{method: GET, path: "/open/.*"}')}, ${names('good.example')}]}, {toCIDR: [203.0.113.10/32], toPorts: [${requests(8080, '{method: GET, path: "/open/.*"}')}]}]}`,
);

const answered: Answer = { status: 200, grpc: '0', text: 'answer' };
const denied: Answer = { status: 200, grpc: '7', text: '' };
const [fine, alert] = [{ text: 'hello' }, { error: 'ERR_SSL_TLSV1_ALERT_ACCESS_DENIED' }] as const;
type Where = 'near' | 'far';

describe('the proxy', { timeout: 180_000 }, () => {
  let policies: PolicyLab;
  let shopPod: TestPod;
  let openPod: TestPod;
  const programs: Record<string, ProxyTalker> = {};
  const pids = new Set<number>();

  const program = (name: string): ProxyTalker => programs[name] ?? assert.fail(`${name} talks`);
  const grpc = (where: Where, path: string, more: Partial<Question> = {}, family: 4 | 6 = 4) =>
    program(where).ask({ op: 'grpc', host: shopPod.addresses[family === 4 ? 0 : 1], port: grpcPort, path, ...more });
  const tls = (where: string, to: TestPod, text: string, family: 4 | 6 = 4) =>
    program(where).ask({ op: 'tls', host: to.addresses[family === 4 ? 0 : 1], port: tlsPort, text });
  const http = (where: string, to: TestPod, path: string, family: 4 | 6 = 4) =>
    program(where).ask({ op: 'http', host: to.addresses[family === 4 ? 0 : 1], port: httpPort, path });
  /** As soon as a policy, or a new process, is in force. */
  const soon = (ask: () => Promise<Answer>, expected: Answer) =>
    policies.lab.eventually(async () => assert.deepEqual(await ask(), expected), { timeoutMs: 30_000 });

  const processOf = async (node = 'node-1') => {
    const { conditions } = await policies.agents.status(node);
    const message = conditions.find(({ name }) => name === 'proxy')?.message ?? '';
    const pid = Number(/^process (\d+)/.exec(message)?.[1]);
    if (pid > 0) pids.add(pid);
    return pid;
  };

  before(async () => {
    policies = await PolicyLab.up({ nodes: 2 });
    const { lab } = policies;
    const client = { role: 'client' };
    const [one, two, near, far, asker] = await Promise.all([
      lab.pod('shop').on('node-1').create(),
      lab.pod('open').on('node-2').create(),
      lab.pod('near').on('node-1').labelled(client).create(),
      lab.pod('far').on('node-2').labelled(client).create(),
      lab.pod('asker').on('node-1').create(),
    ]);
    [shopPod, openPod] = [one, two];
    const ports = [grpcPort, httpPort, tlsPort].map(String);
    for (const [name, pod, ...args] of [
      ['shop', one, 'serve', ...ports],
      ['open', two, 'serve', ...ports],
      ['near', near],
      ['far', far],
      ['asker', asker],
    ] as const)
      programs[name] = await ProxyTalker.start(lab, pod, ...args);
    await policies.apply(shop + out);
    await soon(() => tls('near', shopPod, 'bad.example'), alert);
    programs.shop?.take();
  });
  after(async () => {
    for (const talker of Object.values(programs)) talker.close();
    await policies?.down();
    const left = listNamespaces('/run/netns').filter((path) => path.includes(`.${policies.lab.name}.`));
    assert.deepEqual(left, []);
    for (const pid of pids) assert.equal(readStartTime(pid), undefined, `proxy ${pid} is gone with the lab`);
  });

  for (const where of ['near', 'far'] as const)
    for (const family of [4, 6] as const)
      test(`TLS is judged by the server that is asked for: ${where}, IPv${family}`, async () => {
        assert.deepEqual(await tls(where, shopPod, 'good.example', family), fine);
        assert.deepEqual(await tls(where, shopPod, 'bad.example', family), alert);
        assert.deepEqual(await tls(where, shopPod, '', family), alert);
        assert.ok(
          program('shop')
            .take()
            .every((line) => line === 'tls good.example'),
        );
      });

  test('gRPC is read as soon as it has been met, and denied in its own words', async () => {
    await soon(() => grpc('near', '/shop.Catalogue/Get'), answered);
    for (const where of ['near', 'far'] as const)
      for (const family of [4, 6] as const) {
        const ask = (path: string) => grpc(where, path, { name: `${where} ${family}` }, family);
        assert.deepEqual(await ask('/shop.Catalogue/Get'), answered);
        assert.deepEqual(await ask('/shop.Admin/Get'), denied);
        assert.deepEqual(await ask('/shop.Catalogue/Get'), answered);
      }
    assert.ok(
      !program('shop')
        .take()
        .some((line) => line.includes('Admin')),
    );
  });

  test('rules that are too many for the kernel are not too many', async () => {
    assert.deepEqual(await http('far', shopPod, '/a/wordq/b'), { status: 200 });
    assert.deepEqual(await http('far', shopPod, '/a/other/b'), { status: 403 });
    assert.deepEqual(await http('near', shopPod, '/a/worda'), { status: 200 });
    const [line = ''] = program('shop').take();
    assert.match(line, /^http GET \/a\/wordq\/b from 10\.244\.1\./, `the server sees who it is: ${line}`);
  });

  test('what leaves is judged where it leaves', async () => {
    for (const family of [4, 6] as const) {
      await soon(() => http('asker', openPod, '/open/a', family), { status: 200 });
      assert.deepEqual(await http('asker', openPod, '/closed/a', family), { status: 403 });
      assert.deepEqual(await tls('asker', openPod, 'good.example', family), fine);
      assert.deepEqual(await tls('asker', openPod, 'bad.example', family), alert);
    }
    assert.deepEqual(
      program('open')
        .take()
        .filter((line) => /closed|bad/.test(line)),
      [],
    );
  });

  test('also where it leaves for the world', async () => {
    const outside = policies.lab.lab.plan.world.outside[0];
    await policies.lab.serve('world', '8080/TCP');
    const ask = (path: string) => program('asker').ask({ op: 'http', host: outside, port: 8080, path });
    await soon(() => ask('/closed/world'), { status: 403 });
    assert.deepEqual(await ask('/open/world'), { status: 200 });
    assert.equal(
      (await program('asker').ask({ op: 'tls', host: outside, port: 8080, text: 'good.example' })).text,
      undefined,
    );
  });

  test('what was judged is said, and why', async () => {
    const { agents, lab } = policies;
    await lab.eventually(async () => {
      const flows = await agents.flows({ http: 'only', last: '1000' });
      const of = (path: string) => flows.find((flow) => flow.http?.path === path);
      const [passed, refused] = [of('/shop.Catalogue/Get'), of('/shop.Admin/Get')];
      assert.deepEqual([passed?.verdict, passed?.http?.grpcStatus, passed?.rule?.name], ['allow', 0, 'shop']);
      assert.deepEqual([refused?.verdict, refused?.http?.grpcStatus], ['deny', 7]);
      assert.deepEqual([refused?.reason, refused?.rule?.name], ['HTTP_DENIED', 'shop']);
      const left = of('/closed/a');
      assert.deepEqual([left?.direction, left?.reason, left?.rule?.name], ['egress', 'HTTP_DENIED', 'out']);
      assert.ok(left?.source.kind === 'pod' && left.source.name === 'asker');
      assert.ok(left.destination.kind === 'pod' && left.destination.name === 'open');
      const named = flows.find(({ http: exchange }) => exchange?.tls?.serverName === 'bad.example');
      assert.deepEqual([named?.verdict, named?.reason], ['deny', 'TLS_DENIED']);
    });
    const { stdout } = await myelin('observe', '--http', '--lab', lab.name, '--last', '1000');
    assert.match(stdout, /POST \/shop\.Admin\/Get → 200 grpc 7/);
    assert.match(stdout, /TLS bad\.example/);
    const ask = async (request: string) =>
      (
        await myelin(
          'why',
          'default/asker',
          'default/open',
          '--port',
          String(httpPort),
          '--http',
          request,
          '--host',
          'open',
          '--lab',
          lab.name,
        )
      ).stdout;
    assert.match(await ask('GET /open/x'), /allowed[\s\S]*by egress policy[\s\S]*proxy/);
    assert.match(await ask('GET /closed/x'), /denied/);
    const { conditions } = await agents.status('node-1');
    const found = conditions.find(({ name }) => name === 'proxy');
    assert.match(found?.message ?? '', /^process \d+, \d+ connections/);
    assert.ok(found?.ok);
  });

  test('the agent comes and goes, and streams go on, judged as before', async () => {
    const echo = (text: string) => grpc('far', '/shop.Catalogue/Echo', { op: 'echo', name: 'lives', text });
    assert.deepEqual(await echo('one'), { text: 'one' });
    await policies.lab.lab.stopAgent('node-1', 'SIGKILL');
    assert.deepEqual(await echo('two'), { text: 'two' });
    assert.deepEqual(await grpc('far', '/shop.Admin/Get', { name: 'lives' }), denied);
    assert.deepEqual(await grpc('near', '/shop.Catalogue/Get'), answered);
    assert.deepEqual(await tls('far', shopPod, 'bad.example'), alert);
    policies.lab.lab.startAgent('node-1', {});
    await policies.lab.eventually(async () => void (await policies.agents.status('node-1')), { timeoutMs: 30_000 });
    assert.deepEqual(await echo('three'), { text: 'three' });
    assert.deepEqual(await grpc('far', '/shop.Catalogue/Get', { name: 'lives' }), answered);
    assert.deepEqual(await grpc('far', '/shop.Admin/Get'), denied);
  });

  test('a change of policy counts for streams that run, and from the next request on', async () => {
    const echo = (text: string) => grpc('near', '/shop.Catalogue/Echo', { op: 'echo', name: 'changes', text });
    assert.deepEqual(await echo('one'), { text: 'one' });
    await policies.apply(shop.replaceAll('Catalogue/.*', 'Catalogue/Get'));
    // The stream that runs is ended, and no other of its kind is let in.
    await soon(() => echo('two'), { grpc: '7' });
    assert.deepEqual(await grpc('near', '/shop.Catalogue/Get'), answered);
    await policies.apply(shop);
    await soon(() => grpc('near', '/shop.Catalogue/Echo', { op: 'echo', name: 'again', text: 'a' }), { text: 'a' });
  });

  test('a Service says what is spoken before anybody has', async () => {
    await policies.apply(shop + out + policy('hinted', into('open', catalogue)));
    const h2c = { port: 80, targetPort: grpcPort, protocol: 'TCP', appProtocol: 'kubernetes.io/h2c' } as const;
    await policies.lab.service('open', { selector: { app: 'open' }, ports: [h2c] });
    await policies.lab.eventually(async () => assert.ok((await processOf('node-2')) > 0), { timeoutMs: 30_000 });
    const ask = (path: string) => program('near').ask({ op: 'grpc', host: openPod.addresses[0], port: grpcPort, path });
    assert.deepEqual(await ask('/shop.Catalogue/Get'), answered);
    assert.deepEqual(await ask('/shop.Admin/Get'), denied);
  });

  test('the proxy owns nothing', async () => {
    const pid = await processOf();
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
      for (const line of [/^Uid:\t64747\t64747\t64747\t64747$/m, /^Gid:\t64747\t64747\t64747\t64747$/m])
        assert.match(status, line);
      for (const set of ['Inh', 'Prm', 'Eff', 'Amb']) assert.match(status, new RegExp(`^Cap${set}:\\t0{16}$`, 'm'));
      // What it began with (dac_read_search, setgid, setuid), and cannot come by again.
      assert.match(status, /^CapBnd:\t0{14}c4$/m);
      assert.match(status, /^NoNewPrivs:\t1$/m);
      assert.match(status, /^Groups:\s*$/m);
    }
    const { netns } = policies.lab.lab.node('node-1');
    assert.notEqual(namespaceId(`/proc/${pid}/ns/net`), namespaceId(netns));
  });

  test('a proxy that has another in its place goes on until its streams have ended', async () => {
    const echo = (text: string) => grpc('far', '/shop.Catalogue/Echo', { op: 'echo', name: 'drains', text });
    assert.deepEqual(await echo('one'), { text: 'one' });
    const before = await processOf();
    await policies.agents.replaceProxy('node-1');
    const since = await processOf();
    assert.notEqual(since, before);
    assert.deepEqual(await echo('two'), { text: 'two' });
    assert.deepEqual(await grpc('near', '/shop.Catalogue/Get'), answered);
    assert.deepEqual(await grpc('near', '/shop.Admin/Get'), denied);
    const dying = () => grpc('near', '/shop.Catalogue/Echo', { op: 'echo', name: 'dies', text: 'on it' });
    assert.deepEqual(await dying(), { text: 'on it' });
    // One that dies takes its connections with it, at once; another serves.
    process.kill(since, 'SIGKILL');
    await policies.lab.eventually(async () => assert.equal(readStartTime(since), undefined));
    const end = await dying();
    assert.ok(end.error === 'closed' || end.text === 'on it', JSON.stringify(end));
    await soon(() => grpc('near', '/shop.Catalogue/Get'), answered);
    assert.deepEqual(await grpc('near', '/shop.Admin/Get'), denied);
    assert.notEqual(await processOf(), since);
    assert.deepEqual(await echo('three'), { text: 'three' });
  });
});
