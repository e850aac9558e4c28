import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { spawnProxy } from '../../src/agent/proxy/spawn.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, inNamespace } from '../../src/kernel/netns.ts';
import { listenUnix } from '../../src/kernel/sockets.ts';
import { listenTcpIn } from '../../src/kernel/tcp-listener.ts';
import { parseIp } from '../../src/model/address.ts';
import { identityNumber } from '../../src/model/identity.ts';
import type { ProxyImage } from '../../src/policy/proxy/image.ts';
import { type AgentMessage, type ProxyMessage, parseProxyLine } from '../../src/policy/proxy/wire.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { allow, imageOf, paths, Talker, until } from './harness.ts';

/**
 * The process as it is started, without any privilege, between a client and a server who see each other: everything that
 * comes to its namespace is local, and its connections leave as their clients'. The datapath is played by the client's
 * own MAC, which says who it is.
 */
runInOwnNamespace();

const directory = mkdtempSync(join(tmpdir(), 'myelin-proxy-process-'));
/** The test's own namespace is the client's. */
const netns = { proxy: join(directory, 'proxy'), server: join(directory, 'server') } as const;
const places = ['client', 'server'] as const;
const addresses = { client: ['10.244.1.1', 'fd00::1:1'], server: ['10.244.1.2', 'fd00::1:2'] } as const;
/** Identity 300, as the server's entry has it. */
const clientMac = '02:00:00:00:01:2c';
const mac = { client: clientMac, server: '02:00:00:00:00:02', inner: '02:00:00:00:00:03' };
const port = 80;
const control = join(directory, 'proxy.sock');
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;

/** Of both families. */
const image = ((made: ProxyImage): ProxyImage => ({
  ...made,
  endpoints: [
    {
      addresses: addresses.server.map(parseIp),
      identity4: identityNumber(301),
      identity6: identityNumber(301),
      ingress: 0,
    },
  ],
}))(imageOf([allow(paths('/a'))]));

let origin: Server | undefined;
let proxy: ChildProcess | undefined;
let ended: Promise<number | null>;

function lines(family: 4 | 6): string[] {
  const at = family === 4 ? 0 : 1;
  return [
    ...places.flatMap((place) => [
      `route add ${addresses[place][at]} dev ${place}`,
      `neigh replace ${addresses[place][at]} lladdr ${mac[place]} dev ${place} nud permanent`,
      `rule add iif ${place} lookup local pref 1${places.indexOf(place)}`,
    ]),
    `route add local ${family === 4 ? '0.0.0.0/0' : '::/0'} dev lo table local`,
    'rule del lookup local pref 0',
  ];
}

/** What a place does to see the other one behind the proxy. */
function inside(place: (typeof places)[number]): string[] {
  const other = place === 'client' ? 'server' : 'client';
  return [
    'link set dev eth0 up',
    ...addresses[place].map((address) => `addr add ${address}/${address.includes(':') ? '128 nodad' : '32'} dev eth0`),
    ...addresses[other].map((address) => `route add ${address} dev eth0`),
    ...addresses[other].map((address) => `neigh replace ${address} lladdr ${mac.inner} dev eth0 nud permanent`),
  ];
}

before(async () => {
  for (const path of Object.values(netns)) await createNamespace(path);
  const link = (place: (typeof places)[number], to: string) =>
    `link add name ${place} address ${mac.inner} type veth peer name eth0 address ${mac[place]} netns ${to}`;
  const proxyAt = { netns: netns.proxy };
  await ipBatch([link('client', String(process.pid)), link('server', netns.server)], proxyAt);
  await ipBatch(['link set dev client up', 'link set dev server up'], proxyAt);
  await ipBatch(inside('client'));
  await ipBatch(inside('server'), { netns: netns.server });
  inNamespace(netns.proxy, () => {
    for (const place of ['all', ...places]) writeFileSync(`/proc/sys/net/ipv4/conf/${place}/rp_filter`, '0');
    for (const place of places) writeFileSync(`/proc/sys/net/ipv4/conf/${place}/accept_local`, '1');
    writeFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', '0');
    writeFileSync('/proc/sys/net/ipv4/tcp_tw_reuse', '1');
    writeFileSync('/proc/sys/net/ipv6/ip_nonlocal_bind', '1');
  });
  await ipBatch(lines(4), { ...proxyAt, family: 4 });
  await ipBatch(lines(6), { ...proxyAt, family: 6 });
  const made = createServer((request, response) => {
    const { remoteAddress = '', remotePort } = request.socket;
    const answer = `${request.url} from ${remoteAddress.replace('::ffff:', '')} ${remotePort};`;
    if (request.url === '/a/waits') setTimeout(() => response.end(answer), 500);
    else response.end(answer);
  });
  origin = made;
  inNamespace(netns.server, () => made.listen(port));
});

after(() => {
  proxy?.kill('SIGKILL');
  origin?.closeAllConnections();
  origin?.close();
  for (const path of Object.values(netns)) deleteNamespace(path);
  rmSync(directory, { recursive: true, force: true });
});

/** Starts a process as the agent does. */
async function start(): Promise<void> {
  const listen = (address: string) =>
    listenTcpIn({ netns: netns.proxy, address: parseIp(address), port, backlog: 1024, saveSyn: true });
  const [controlFd, ...listenFds] = [listenUnix(control), listen('0.0.0.0'), listen('::')];
  const child = await spawnProxy({ netns: netns.proxy, controlFd: controlFd ?? -1, listenFds });
  for (const fd of [controlFd ?? -1, ...listenFds]) closeSync(fd);
  proxy = child;
  ended = new Promise((resolve) => child.once('exit', resolve));
}

/** The agent's end. */
class Agent {
  readonly said: ProxyMessage[] = [];
  readonly #socket: Socket;
  gone = false;

  constructor() {
    this.#socket = connect(control);
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      this.gone = true;
    });
    createInterface({ input: this.#socket }).on('line', (line) => this.said.push(parseProxyLine(line)));
  }

  tell(message: AgentMessage | string): void {
    this.#socket.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`);
  }

  /** @returns The next message of a type, past those before. */
  async hears<T extends ProxyMessage['type']>(type: T): Promise<Extract<ProxyMessage, { type: T }>> {
    const is = (message: ProxyMessage): message is Extract<ProxyMessage, { type: T }> => message.type === type;
    await until(
      () => this.said.some(is),
      () => `${type} in ${JSON.stringify(this.said)}`,
    );
    const found = this.said.find(is) ?? assert.fail();
    this.said.splice(0, this.said.indexOf(found) + 1);
    return found;
  }

  close(): void {
    this.#socket.destroy();
  }
}

async function welcomed(): Promise<Agent> {
  for (let tries = 0; ; tries++) {
    const agent = new Agent();
    await until(() => agent.gone || agent.said.length > 0, 'the proxy answers');
    if (!agent.gone) return agent;
    if (tries > 200) assert.fail('no proxy');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function dial(family: 0 | 1, localPort?: number): Talker {
  const [host, localAddress] = [addresses.server[family], addresses.client[family]];
  const own = localPort === undefined ? {} : { localPort };
  return new Talker(connect({ host, port, localAddress, allowHalfOpen: true, ...own }));
}

let agent: Agent;

test('it says who it is, and takes a policy; what it does not understand changes nothing', async () => {
  await start();
  agent = await welcomed();
  const hello = await agent.hears('hello');
  assert.deepEqual([hello.pid, hello.revision], [proxy?.pid, 0]);
  agent.tell({ type: 'policy', revision: 5, image });
  assert.deepEqual(await agent.hears('applied'), { type: 'applied', revision: 5 });
  for (const wrong of ['{', '{"type":"policy","revision":6,"image":{}}', '{"type":"later"}']) {
    agent.tell(wrong);
    const { revision, refused } = await agent.hears('applied');
    assert.deepEqual([revision, refused !== undefined], [5, true], wrong);
  }
  agent.tell({ type: 'settings', every: 1, perSecond: 1000 });
});

for (const family of [0, 1] as const)
  test(`IPv${family === 0 ? 4 : 6}: both ends see each other, ports and all, and requests are judged and said`, async () => {
    const own = 700 + family;
    const talker = dial(family, own);
    talker.say(get('/a'));
    await talker.hears(`/a from ${addresses.client[family]} ${own};`);
    talker.say(get('/b'));
    await talker.hears('403');
    const flows: string[] = [];
    while (flows.length < 2) {
      const { flows: said } = await agent.hears('requests');
      for (const { client, clientPort, server, serverPort, identity, verdict, path, status, rule } of said)
        flows.push([client, clientPort, server, serverPort, identity, verdict, path, status, rule].join(' '));
    }
    const both = `${addresses.client[family]} ${own} ${addresses.server[family]} ${port} 300`;
    assert.deepEqual(flows, [`${both} allow /a 200 7`, `${both} deny /b 403 9`]);
    talker.socket.destroy();
  });

test('a client may use its port again at once, whoever closed first', async () => {
  for (let round = 0; round < 4; round++) {
    const talker = dial(0, 710);
    talker.say(round % 2 === 0 ? get('/a') : 'GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    await talker.hears('710;');
    if (round % 2 === 0) talker.socket.resetAndDestroy();
    else talker.socket.end();
    await talker.becomes('closed');
  }
});

test('whom the datapath has not vouched for is reset', async () => {
  await ipBatch(['link set dev eth0 address 00:11:22:33:44:55']);
  await ipBatch([`neigh replace ${addresses.client[0]} lladdr 00:11:22:33:44:55 dev client nud permanent`], {
    netns: netns.proxy,
  });
  try {
    const talker = dial(0);
    talker.say(get('/a'));
    await talker.becomes('reset');
    assert.equal(talker.text, '');
  } finally {
    await ipBatch([`link set dev eth0 address ${clientMac}`]);
    // They go with the address.
    await ipBatch(inside('client').filter((line) => line.startsWith('neigh')));
    await ipBatch([`neigh replace ${addresses.client[0]} lladdr ${clientMac} dev client nud permanent`], {
      netns: netns.proxy,
    });
  }
  await until(
    () => agent.said.some((m) => m.type === 'stats' && m.stats.refused.PROXY_UNPROVEN === 1),
    'it is counted',
  );
});

test('agents come and go: the newest counts, and without one everything stays', async () => {
  const talker = dial(0);
  talker.say(get('/a'));
  await talker.hears('/a from');
  const next = new Agent();
  assert.equal((await next.hears('hello')).revision, 5);
  await until(() => agent.gone, 'the older one is let go');
  next.close();
  talker.say(get('/b'));
  await talker.hears('403');
  agent = await welcomed();
  const { flows } = await agent.hears('requests');
  assert.ok(flows.some(({ path }) => path === '/b'));
  talker.socket.destroy();
});

test('a thousand connections at once, and what they take', async (t) => {
  // Its own memory; Node's program is shared with the agent's.
  const own = (): number => {
    const rollup = readFileSync(`/proc/${proxy?.pid}/smaps_rollup`, 'utf8');
    return Number(/^Private_Dirty:\s+(\d+) kB/m.exec(rollup)?.[1]) / 1024;
  };
  const before = own();
  const talkers = Array.from({ length: 1000 }, () => dial(0));
  for (const talker of talkers) talker.say(get('/a'));
  for (const talker of talkers) await talker.hears('/a from');
  t.diagnostic(`private: ${before.toFixed(0)} MiB, with 1,000 connections ${own().toFixed(0)} MiB`);
  assert.ok(own() - before < 150);
  for (const { socket } of talkers) socket.destroy();
});

test('without a process connections that were open are reset, and new ones refused', async () => {
  const talker = dial(0);
  talker.say(get('/a'));
  await talker.hears('/a from');
  proxy?.kill('SIGKILL');
  await ended;
  await talker.becomes('reset');
  const next = dial(0);
  await next.becomes('reset');
});

test('drained, it ends when what runs has ended, with status 0', async () => {
  await start();
  agent = await welcomed();
  agent.tell({ type: 'policy', revision: 1, image });
  await agent.hears('applied');
  const [rests, runs] = [dial(1), dial(1)];
  rests.say(get('/a'));
  await rests.hears('/a from');
  runs.say(get('/a/waits'));
  await until(() => agent.said.some((m) => m.type === 'stats' && m.stats.connections === 2), 'both are there');
  agent.tell({ type: 'drain', graceMs: 60_000 });
  await rests.becomes('ended', 'closed');
  rests.socket.end();
  await runs.hears('/a/waits from');
  await runs.becomes('ended', 'closed');
  runs.socket.end();
  assert.equal(await ended, 0);
});

test('it opens no file after its start, and its image is small', () => {
  // What its modules are: none of the API's, none of certificates'.
  const script = `import { registerHooks } from 'node:module';
    registerHooks({ load(url, context, next) { process.stdout.write(url + '\\n'); return next(url, context); } });
    process.argv.push('--control-fd', 'x'); await import('${join(import.meta.dirname, '../../src/proxy/main.ts')}').catch(() => {});`;
  const modules = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  assert.match(modules, /src\/proxy\/intake/);
  assert.doesNotMatch(modules, /src\/(api|agent|identity|datapath)\/|x509|pino/);
});
