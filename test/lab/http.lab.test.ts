import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { myelin } from '../support/cli.ts';
import type { Heard } from '../support/http-program.ts';
import { HttpServer, HttpTalker, statusesOf } from '../support/http-talk.ts';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * Rules about HTTP requests with real connections: what policy allows reaches the server as it came, what it denies is
 * answered by the kernel and reaches nobody, on connections that go on.
 */

const policyOf = (...http: readonly string[]) => `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {role: client}}]
    toPorts: [{ports: [{port: "8000", protocol: TCP}], rules: {http: [${http.join(', ')}]}}]
`;
const readOnly = policyOf(
  '{method: "GET|HEAD", path: "/open(/.*)?"}',
  '{method: "GET", path: "/(chunked|slow|none)"}',
  '{method: POST, path: "/open/up"}',
);
const port = 8000;
const get = (path: string, ...lines: readonly string[]) =>
  `GET ${path} HTTP/1.1\r\nHost: web.default.example\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;

describe('HTTP requests are decided in the kernel', { timeout: 120_000 }, () => {
  let policies: PolicyLab;
  let web: TestPod;
  let server: HttpServer;
  let near: HttpTalker;
  let far: HttpTalker;
  const closers: (() => void)[] = [];

  before(async () => {
    policies = await PolicyLab.up({ nodes: 2 });
    const { lab } = policies;
    const [one, client, other] = await Promise.all([
      // By the kernel alone: else the proxy would read for whom the kernel could not answer, and HTTP/2's ports.
      lab
        .pod('web')
        .on('node-1')
        .with((pod) => {
          pod.metadata.annotations = { 'myelin.dev/proxy': 'never' };
        })
        .create(),
      lab.pod('near').on('node-1').labelled({ role: 'client' }).create(),
      lab.pod('far').on('node-2').labelled({ role: 'client' }).create(),
    ]);
    web = one;
    server = await HttpServer.start(lab, web, port);
    near = await HttpTalker.start(lab, client);
    far = await HttpTalker.start(lab, other);
    closers.push(() => {
      for (const program of [server, near, far]) program.close();
    });
    await policies.apply(readOnly);
    for (const talker of [near, far])
      await lab.eventually(
        async () => assert.deepEqual(statusesOf(await say(talker, [get('/closed/a/long/path')])), [403]),
        { timeoutMs: 20_000 },
      );
    server.take();
  });
  after(async () => {
    for (const close of closers) close();
    await policies?.down();
  });

  const say = (
    talker: HttpTalker,
    parts: readonly string[],
    options: { answers?: number; family?: 4 | 6; name?: string; patience?: number } = {},
  ): Promise<Heard> => {
    const { family = 4, ...rest } = options;
    return talker.say({ host: web.addresses[family === 4 ? 0 : 1], port, parts, ...rest });
  };

  for (const family of [4, 6] as const)
    for (const where of ['near', 'far'] as const)
      test(`a denied request is answered, and the connection goes on: ${where}, IPv${family}`, async () => {
        const talker = where === 'near' ? near : far;
        const name = `goes on ${where} ${family}`;
        const ask = async (path: string) => statusesOf(await say(talker, [get(path)], { family, name }));
        assert.deepEqual(await ask('/open/a'), [200]);
        assert.deepEqual(await ask('/closed/by/policy'), [403]);
        assert.deepEqual(await ask('/closed/by/policy'), [403]);
        assert.deepEqual(await ask('/open/b?c=d'), [200]);
        assert.deepEqual(await ask('/open/../closed/again'), [403]);
        assert.deepEqual(await ask('/chunked'), [200]);
        assert.deepEqual(await ask('/closed/after/chunks'), [403]);
        assert.deepEqual(server.take(), ['GET /open/a 0', 'GET /open/b?c=d 0', 'GET /chunked 0']);
      });

  test('by a Service as to the pod itself', async () => {
    const ports = [{ port: 80, targetPort: port, protocol: 'TCP' as const }];
    const hosts = await policies.lab.service('web', { selector: { app: 'web' }, ports });
    for (const talker of [near, far])
      for (const host of hosts) {
        const ask = async (path: string) =>
          statusesOf(await talker.say({ host, port: 80, parts: [get(path)], name: `by ${host}` }));
        assert.deepEqual(await ask('/open/service'), [200]);
        assert.deepEqual(await ask('/closed/service'), [403]);
        assert.deepEqual(await ask('/open/service'), [200]);
      }
    server.take();
  });

  test('a request may come in any pieces', async () => {
    const text = get('/open/pieces', 'X-A: b');
    const heard = await say(near, [...text], { name: 'pieces' });
    assert.deepEqual(statusesOf(heard), [200]);
    const cuts = Array.from({ length: text.length - 1 }, (_, i) => [text.slice(0, i + 1), text.slice(i + 1)]).flat();
    const many = await say(far, cuts, { name: 'pieces', answers: text.length - 1, patience: 10_000 });
    assert.equal(statusesOf(many).filter((status) => status === 200).length, text.length - 1);
    const denied = get('/closed/in/pieces', `X-Long: ${'y'.repeat(60)}`);
    // The server has the beginning of it: the answer is the connection's last, or there is no room for one.
    const last = await say(near, [denied.slice(0, 9), denied.slice(9)], { name: 'pieces' });
    assert.deepEqual(statusesOf(last), [403]);
    assert.match(last.text, /connection: close/i);
    assert.equal((await say(near, [...denied])).state, 'reset');
    assert.ok(server.take().every((line) => line === 'GET /open/pieces 0'));
  });

  test('pipelined requests are answered in their order', async () => {
    const open = get('/open/x');
    assert.deepEqual(statusesOf(await say(far, [open.repeat(5)], { answers: 5 })), [200, 200, 200, 200, 200]);
    const closed = get('/closed/before/others');
    // Each in a packet of its own they are answered; the way here may join packets, and then the connection ends.
    const some = await say(far, [closed, closed, open], { answers: 3 });
    const statuses = statusesOf(some);
    assert.deepEqual(statuses, [403, 403, 200].slice(0, statuses.length), JSON.stringify(some));
    assert.ok(statuses.length === 3 || some.state === 'reset', JSON.stringify(some));
    assert.ok(!server.take().some((line) => line.includes('/closed/')));
    // An answer is outstanding, and the kernel cannot wait for it: never the wrong answer, rather none.
    const behind = await say(near, [get('/slow') + get('/closed/behind/it')], { answers: 2 });
    assert.equal(behind.state, 'reset', JSON.stringify(behind));
    assert.ok(!behind.text.includes('403'));
  });

  test('bodies go where their requests go', async () => {
    server.take();
    const post = (path: string, length: number) =>
      `POST ${path} HTTP/1.1\r\nHost: web.default.example\r\nContent-Length: ${length}\r\n\r\n${'x'.repeat(length)}`;
    const chunked = (path: string) =>
      `POST ${path} HTTP/1.1\r\nHost: web.default.example\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n10\r\n${'y'.repeat(16)}\r\n0\r\nT: z\r\n\r\n`;
    const ask = async (...parts: string[]) => statusesOf(await say(far, parts, { name: 'bodies', answers: 1 }));
    assert.deepEqual(await ask(post('/open/up', 300_000)), [200]);
    assert.deepEqual(await ask(post('/closed/up', 300_000)), [403]);
    assert.deepEqual(await ask(chunked('/open/up')), [200]);
    assert.deepEqual(await ask(...chunked('/open/up')), [200]);
    assert.deepEqual(await ask(chunked('/closed/up')), [403]);
    assert.deepEqual(await ask(get('/open/end')), [200]);
    assert.deepEqual(server.take(), [
      'POST /open/up 300000',
      'POST /open/up 20',
      'POST /open/up 20',
      'GET /open/end 0',
    ]);
  });

  test('methods without bodies, statuses without bodies, HTTP/1.0, a proxy’s form', async () => {
    const ask = async (text: string) => statusesOf(await say(near, [text], { name: 'kinds' }));
    assert.deepEqual(await ask(get('/open/h').replace('GET', 'HEAD')), [200]);
    assert.deepEqual(await ask(get('/closed/after/head')), [403]);
    assert.deepEqual(await ask(get('/none')), [204]);
    assert.deepEqual(await ask(get('/closed/after/none')), [403]);
    assert.deepEqual(await ask(get('http://web.default.example/open/abs')), [200]);
    assert.deepEqual(await ask(get('http://web.default.example/closed')), [403]);
    const old = await say(near, ['GET /open/old HTTP/1.0\r\nUser-Agent: old\r\n\r\n']);
    assert.deepEqual(statusesOf(old), [200]);
    assert.deepEqual(statusesOf(await say(near, ['GET /closed/old HTTP/1.0\r\nUser-Agent: old\r\n\r\n'])), [403]);
  });

  test('what waits for leave to send its body gets it from the server, or is denied', async () => {
    const head = (path: string) =>
      `POST ${path} HTTP/1.1\r\nHost: web.default.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`;
    const first = await say(far, [head('/open/up')], { name: 'expect' });
    assert.match(first.text, /^HTTP\/1\.1 100 /);
    assert.deepEqual(statusesOf(await say(far, ['body'], { name: 'expect' })), [200]);
    assert.deepEqual(statusesOf(await say(far, [head('/closed/up')])), [403]);
  });

  test('an upgrade is denied where what comes after it could not be read', async () => {
    const heard = await say(near, [get('/open/ws', 'Connection: Upgrade', 'Upgrade: echo')]);
    assert.deepEqual(statusesOf(heard), [403]);
  });

  test('requests are said, with their answers and who decided', async () => {
    const marked = `/open/said-${process.pid}`;
    assert.deepEqual(statusesOf(await say(near, [get(`${marked}?secret=1`)])), [200]);
    assert.deepEqual(statusesOf(await say(near, [get(`/closed${marked}`)])), [403]);
    await policies.lab.eventually(async () => {
      const flows = await policies.agents.flows({ http: 'only', last: '1000' });
      const passed = flows.find(({ http }) => http?.path === marked);
      assert.equal(passed?.http?.status, 200);
      assert.equal(passed?.http?.method, 'GET');
      assert.equal(passed?.rule?.name, 'web');
      assert.ok((passed?.durationNs ?? 0) > 0);
      const denied = flows.find(({ http }) => http?.path === `/closed${marked}`);
      assert.equal(denied?.http?.status, 403);
      assert.equal(denied?.reason, 'HTTP_DENIED');
      assert.equal(denied?.rule?.name, 'web');
      assert.ok(denied?.source.kind === 'pod' && denied.source.name === 'near');
    });
    const { stdout } = await myelin('observe', '--http', '--lab', policies.lab.name, '--last', '1000');
    assert.match(stdout, new RegExp(`GET ${marked} → 200 in .* ms`));
  });

  test('a change of policy counts from the next request on, and a restart of the agent changes nothing', async () => {
    const ask = async (path: string) => statusesOf(await say(far, [get(path)], { name: 'lives' }));
    assert.deepEqual(await ask('/open/1'), [200]);
    await policies.apply(readOnly.replace('"/open(/.*)?"', '"/opened(/.*)?"'));
    await policies.lab.eventually(async () => assert.deepEqual(await ask('/open/2'), [403]), { timeoutMs: 20_000 });
    assert.deepEqual(await ask('/opened/3'), [200]);
    await policies.apply(readOnly);
    await policies.lab.eventually(async () => assert.deepEqual(await ask('/open/4'), [200]), { timeoutMs: 20_000 });
    const all = async (where: string) => {
      assert.deepEqual(await ask(`/open/${where}`), [200]);
      assert.deepEqual(await ask(`/closed/${where}`), [403]);
      assert.deepEqual(statusesOf(await say(far, [get(`/closed/anew/${where}`)])), [403]);
      assert.deepEqual(statusesOf(await say(far, [get(`/open/anew/${where}`)])), [200]);
    };
    await policies.lab.lab.stopAgent('node-1', 'SIGKILL');
    await all('without');
    policies.lab.lab.startAgent('node-1', {});
    await policies.lab.eventually(async () => void (await policies.agents.status('node-1')), { timeoutMs: 30_000 });
    await all('after');
  });

  test('what is not canonical is refused, counted, and reaches nobody', async () => {
    server.take();
    const counted = async () => (await policies.agents.status('node-1')).drops.datapath.HTTP_MALFORMED ?? 0;
    const before = await counted();
    const bad = [
      'GET /open/a HTTP/1.1\nHost: web.default.example\n\n',
      get('/open/a', ' folded: yes'),
      get('/open/a', 'Content-Length: 1', 'Transfer-Encoding: chunked'),
      get('/open/a', 'Content-Length: 1', 'Content-Length: 1'),
      get('/open/a', 'Host: two'),
      get('/open/a%2fb'),
      get('/open/%00'),
      `\r\n${get('/open/a')}`,
      `\x16\x03\x01\x02\x00${'x'.repeat(60)}`,
    ];
    for (const text of bad) {
      const heard = await say(near, [text]);
      assert.deepEqual(statusesOf(heard), [400], JSON.stringify(text));
    }
    assert.deepEqual(statusesOf(await say(near, [get(`/open/${'a'.repeat(9000)}`)])), [431]);
    assert.equal((await counted()) - before, bad.length);
    const broken = 'POST /open/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcdX\r\n';
    assert.equal((await say(near, [broken])).state, 'reset');
    const preface = await say(near, ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n                    ']);
    assert.deepEqual(statusesOf(preface), [400]);
    assert.deepEqual(server.take(), []);
  });
});
