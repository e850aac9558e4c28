import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { Datapath } from '../../src/datapath/datapath.ts';
import { ProxyPlumbing } from '../../src/datapath/proxy/plumbing.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { run } from '../../src/kernel/command.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, listNamespaces } from '../../src/kernel/netns.ts';
import { nft } from '../../src/kernel/nft.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import type { PodView } from '../../src/model/endpoint.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import type { Direction } from '../../src/model/verdict.ts';
import { compile } from '../../src/policy/compile.ts';
import type { PolicyImage, RuleSet } from '../../src/policy/image.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import { clusterWith, pod } from '../support/cluster.ts';
import { runInOwnNamespace } from '../support/namespace.ts';
import { Talker } from '../support/talk.ts';
import { objectDir } from './maps.ts';

/**
 * The way to the proxy and back, with real stacks: two pods of one node, and the world. The proxy is one that passes bytes on
 * (test/support/copy-proxy.ts), without any privilege.
 */
runInOwnNamespace();

const node = 'node-1';
const directory = mkdtempSync(join(tmpdir(), 'myelin-proxy-'));
const pinDir = `/sys/fs/bpf/myelin-test-proxy-${process.pid}`;
const netns = (name: string) => join(directory, name);
const where = { netns: netns('proxy'), objectDir, pinDir, mtu: 1404 };
const podNames = ['front', 'cart'] as const;
type PodName = (typeof podNames)[number];
const sizes = { ct: 4096, service_flows: 1024 };
const addressesOf = {
  front: ['10.244.1.1', 'fd00:10:244:1::1'],
  cart: ['10.244.1.2', 'fd00:10:244:1::2'],
  world: ['192.0.2.7', '2001:db8::7'],
} as const;
const port = 8000;
/** 0: IPv4. */
const families = [0, 1] as const;
const places = {
  command: async (place: unknown, command: readonly string[]) => [
    'nsenter',
    `--net=${netns(String(place))}`,
    ...command,
  ],
};
const talkers = new Map<string, Talker>();
let datapath: Datapath;
let plumbing: ProxyPlumbing;

const pods = new Map<string, PodView>(
  podNames.map((name) => [name, pod(`shop/${name}`, { app: name }, node, addressesOf[name], { uid: name })]),
);

/** Which directions' rules leave it to the proxy: the image that the compiler would make of rules about requests. */
type Proxied = readonly Direction[];

function throughProxy(image: PolicyImage, proxied: Proxied): PolicyImage {
  const ruleSets = [...image.ruleSets].map(([id, set]): [number, RuleSet] => [
    id,
    proxied.includes(set.direction)
      ? { ...set, entries: set.entries.map((entry) => ({ ...entry, verdict: 'proxy' as const })) }
      : set,
  ]);
  return { ...image, ruleSets: new Map(ruleSets) };
}

/** Lets `front` and the world reach `cart`, and `front` everybody. */
async function enforce(proxied: Proxied, change: { label?: string; http?: boolean } = {}): Promise<void> {
  const toPorts = [{ ports: [{ port: String(port), protocol: 'TCP' }] }];
  const requests = change.http === true ? [{ ...toPorts[0], rules: { http: [{ method: 'GET' }] } }] : toPorts;
  const objects = [
    { name: 'cart', spec: { endpointSelector: { matchLabels: { app: 'cart' } }, ingress: [{ toPorts: requests }] } },
    { name: 'front', spec: { endpointSelector: { matchLabels: { app: 'front' } }, egress: [{ toPorts }] } },
    // About nobody; but it tells apart who has the label.
    {
      name: 'other',
      spec: {
        endpointSelector: { matchLabels: { app: 'cart' } },
        ingress: [{ fromEndpoints: [{ matchLabels: { tier: 'none' } }], toPorts: [{ ports: [{ port: '9' }] }] }],
      },
    },
  ];
  const policies = objects.flatMap(({ name, spec }) => {
    const object = {
      apiVersion: 'cilium.io/v2',
      kind: 'CiliumNetworkPolicy',
      metadata: { name, namespace: 'shop' },
      spec,
    };
    const parsed = policyKindOf(object)?.parse(object);
    return parsed?.ok ? parsed.policies : assert.fail(JSON.stringify(parsed));
  });
  const seen = new Map(pods);
  const front = pods.get('front');
  if (front !== undefined && change.label !== undefined)
    seen.set('front', { ...front, labels: { ...front.labels, tier: change.label } });
  const image = compile(clusterWith(policies, { pods: seen }), node, datapath.policy);
  await datapath.applyPolicy(throughProxy(image, proxied));
}

interface Seen {
  readonly client: string;
  readonly clientPort: number;
  readonly server: string;
  readonly port: number;
  readonly source: string;
}

/** A process that passes bytes on. */
class CopyProxy {
  readonly #child: ChildProcess;
  readonly #seen: Seen[] = [];
  readonly #wake: (() => void)[] = [];
  #ready = 0;

  static async start(): Promise<CopyProxy> {
    const listeners = plumbing.listen();
    const program = join(import.meta.dirname, '../support/copy-proxy.ts');
    const powerless = ['--reuid=65534', '--regid=65534', '--clear-groups', '--bounding-set=-all', '--no-new-privs'];
    const child = spawn(
      'nsenter',
      [
        `--net=${where.netns}`,
        'setpriv',
        ...powerless,
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        program,
      ],
      { stdio: ['pipe', 'pipe', 'inherit', ...listeners] },
    );
    const proxy = new CopyProxy(child);
    while (proxy.#ready < 2) await proxy.#more();
    plumbing.serve(listeners);
    for (const fd of listeners) closeSync(fd);
    return proxy;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (child.stdout === null) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'ready') this.#ready++;
      else this.#seen.push(JSON.parse(line));
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  /** The first connections that were accepted since the last time, as soon as there are so many, and those behind them. */
  async take(atLeast: number): Promise<Seen[]> {
    while (this.#seen.length < atLeast) await this.#more();
    return this.#seen.splice(0);
  }

  async kill(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }
}

let proxy: CopyProxy;
let opened = 0;

/** Opens a connection and has it echo. @returns Its name. */
async function open(from: string, to: keyof typeof addressesOf, family: 0 | 1): Promise<string> {
  const name = `c${++opened}`;
  const heard = await ask(from, `tcp ${name} ${addressesOf[to][family]} ${port}`);
  // On a busy machine it is open later.
  const echoed = heard === 'open' || heard === 'silence' ? await say(from, name) : heard;
  if (echoed !== 'echo') assert.fail(`${from} → ${to}: ${echoed}, ${JSON.stringify(drops())}`);
  return name;
}

/** Says something on a connection. @returns What came of it; nothing at all only after a long time. */
async function say(from: string, name: string): Promise<string> {
  for (let patience = 15; patience > 0; patience--) {
    const heard = await ask(from, `say ${name}`);
    if (heard !== 'silence') return heard;
  }
  return 'silence';
}

async function ask(who: string, command: string): Promise<string> {
  return (await talkers.get(who)?.ask(command)) ?? assert.fail(who);
}

const macOf = (index: number) => parseMac(`02:00:00:00:01:0${index}`);

async function addPod(name: PodName, index: number): Promise<void> {
  await createNamespace(netns(name));
  const mac = macOf(index);
  const [address4, address6] = addressesOf[name];
  await ipBatch([
    `link add ${name} mtu ${where.mtu} type veth peer name eth0 mtu ${where.mtu} address ${mac} netns ${netns(name)}`,
    `link set ${name} up`,
    `addr add 169.254.1.1/32 dev ${name} scope link`,
    `addr add fe80::1/64 dev ${name} nodad`,
    `route add ${address4}/32 dev ${name}`,
    `route add ${address6}/128 dev ${name}`,
    `neigh add ${address4} dev ${name} lladdr ${mac} nud permanent`,
    `neigh add ${address6} dev ${name} lladdr ${mac} nud permanent`,
  ]);
  const link = await findLink(name);
  assert.ok(link !== undefined);
  await ipBatch(
    [
      'link set eth0 up',
      `addr add ${address4}/32 dev eth0`,
      `addr add ${address6}/128 dev eth0 nodad`,
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1',
      'route add default via fe80::1 dev eth0',
      `neigh add 169.254.1.1 dev eth0 lladdr ${link.mac} nud permanent`,
      `neigh add fe80::1 dev eth0 lladdr ${link.mac} nud permanent`,
    ],
    { netns: netns(name) },
  );
  await guard(name, index);
}

async function guard(name: PodName, index: number): Promise<void> {
  const link = await findLink(name);
  assert.ok(link !== undefined);
  datapath.setEndpoint({
    uid: name,
    ifindex: link.ifindex,
    mac: macOf(index),
    hostMac: parseMac(link.mac),
    addresses: addressesOf[name].map(parseIp),
    netns: netns(name),
  });
}

/** What is beyond the uplink; pods reach it under the node's address, as on a node. */
async function addWorld(): Promise<void> {
  await createNamespace(netns('world'));
  for (const path of ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']) writeFileSync(`/proc/sys/net/${path}`, '1');
  await ipBatch([
    `link add uplink type veth peer name eth0 netns ${netns('world')}`,
    'link set uplink up',
    'addr add 192.0.2.1/24 dev uplink',
    'addr add 2001:db8::1/64 dev uplink nodad',
  ]);
  const [address4, address6] = addressesOf.world;
  await ipBatch(
    [
      'link set eth0 up',
      `addr add ${address4}/24 dev eth0`,
      `addr add ${address6}/64 dev eth0 nodad`,
      'route add default via 192.0.2.1',
      'route add default via 2001:db8::1',
    ],
    { netns: netns('world') },
  );
  const uplink = await findLink('uplink');
  datapath.attachUplink(uplink?.ifindex ?? assert.fail('there is an uplink'));
  const masquerade = (family: string, prefix: string) =>
    `oifname "uplink" ${family} saddr ${prefix} meta mark and 0xff000000 != 0x57000000 masquerade`;
  await nft(`table inet test {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ${masquerade('ip', '10.244.0.0/16')}
    ${masquerade('ip6', 'fd00:10:244::/56')}
  }
}
`);
}

before(async () => {
  await ipBatch(['link set lo up']);
  datapath = Datapath.open({ objectDir, pinDir, maxEntries: sizes });
  datapath.setConfig({ mtu: where.mtu });
  for (const [index, name] of podNames.entries()) await addPod(name, index);
  await addWorld();
  plumbing = await ProxyPlumbing.open(where, datapath);
  proxy = await CopyProxy.start();
  for (const name of ['cart', 'world'])
    talkers.set(`${name} serves`, await Talker.start(places, name, 'serve', `${port}`));
  for (const name of ['front', 'world']) talkers.set(name, await Talker.start(places, name));
});
after(async () => {
  for (const talker of talkers.values()) talker.close();
  await proxy?.kill();
  plumbing?.close();
  await ProxyPlumbing.remove(where);
  await datapath?.close();
  for (const path of listNamespaces(directory)) deleteNamespace(path);
  rmSync(directory, { recursive: true, force: true });
  removePinDirectory(pinDir);
});

/** Why packets were dropped so far, but for what stacks say to their links by themselves, and what began in another policy. */
const drops = () => datapath.metrics().drops.filter(({ reason }) => reason !== 'NO_PROOF' && reason !== 'HTTP_UNREAD');

/** First byte of the frame's source: whose entry sent it. */
const seenFrom = (source: string): Direction => (Number.parseInt(source.slice(0, 2), 16) & 4 ? 'egress' : 'ingress');

/** The number of who is at the first of its addresses. */
const identityOf = (who: keyof typeof addressesOf): number =>
  datapath.policy.peers.get(parseIp(addressesOf[who][0]))?.identity ?? reservedIdentity.world;

/** How connections to `cart` have ended since the last time, as soon as there are so many. */
async function ends(atLeast = 0): Promise<string[]> {
  const all: string[] = [];
  do all.push(...JSON.parse(await ask('cart serves', 'ends')));
  while (all.length < atLeast);
  return all;
}

const ways: readonly (readonly ['front' | 'world', keyof typeof addressesOf, Proxied, Direction])[] = [
  ['front', 'cart', ['ingress'], 'ingress'],
  ['front', 'cart', ['egress'], 'egress'],
  ['front', 'cart', ['ingress', 'egress'], 'egress'],
  ['front', 'world', ['egress'], 'egress'],
  ['world', 'cart', ['ingress'], 'ingress'],
];
for (const [from, to, proxied, view] of ways)
  test(`${from} → ${to}, ${proxied.join(' and ')} by the proxy`, async () => {
    await enforce(proxied);
    for (const family of families) {
      const name = await open(from, to, family);
      const [seen, ...others] = await proxy.take(1);
      assert.ok(seen !== undefined);
      assert.deepEqual(others, [], 'the proxy sees each connection once');
      assert.equal(seen.server, addressesOf[to][family]);
      assert.equal(seen.client, addressesOf[from][family]);
      assert.equal(seen.port, port);
      assert.equal(seenFrom(seen.source), view);
      assert.equal(Number.parseInt(seen.source.slice(6), 16), identityOf(view === 'ingress' ? from : to));
      assert.equal(await say(from, name), 'echo');
    }
    assert.deepEqual(drops(), []);
  });

test('a stream outlives the agent, whose next one has other numbers for the same identities', async () => {
  await enforce(['ingress']);
  const names = [await open('front', 'cart', 0), await open('front', 'cart', 1)];
  await proxy.take(2);
  const before = { ifindex: plumbing.ifindex, identity: identityOf('front') };
  plumbing.close();
  await datapath.close();
  for (const name of names) assert.equal(await say('front', name), 'echo', 'without an agent');
  await open('front', 'cart', 0);
  assert.equal((await proxy.take(1)).length, 1, 'new ones too');

  datapath = Datapath.open({ objectDir, pinDir, maxEntries: sizes });
  for (const [index, name] of podNames.entries()) await guard(name, index);
  plumbing = await ProxyPlumbing.open(where, datapath);
  await enforce(['ingress']);
  assert.equal(plumbing.ifindex, before.ifindex, 'the place is found as it was');
  assert.notEqual(identityOf('front'), before.identity);
  for (const name of names) assert.equal(await say('front', name), 'echo', 'with the next one');
  await open('front', 'cart', 1);
  assert.equal((await proxy.take(1)).length, 1);
});

test('who is somebody else by now has to come again', async () => {
  await enforce(['ingress']);
  const name = await open('front', 'cart', 0);
  await enforce(['ingress']);
  assert.equal(await say('front', name), 'echo', 'another revision');
  await ends();
  await enforce(['ingress'], { label: 'none' });
  assert.equal(await say('front', name), 'ECONNRESET');
  assert.deepEqual(await ends(1), ['ECONNRESET'], 'the server is told by the proxy');
  await enforce(['ingress'], { label: 'none' });
  await open('front', 'cart', 0);
  await enforce(['ingress']);
  await proxy.take(2);
});

test('what was open before it was the proxy’s to judge ends, and what the proxy has stays with it', async () => {
  await enforce([]);
  const plain = await open('front', 'cart', 0);
  await enforce(['ingress']);
  assert.equal(await say('front', plain), 'ECONNRESET');
  const proxied = await open('front', 'cart', 0);
  assert.equal((await proxy.take(1)).length, 1);
  await enforce([]);
  assert.equal(await say('front', proxied), 'echo');
  await open('front', 'cart', 0);
  assert.deepEqual(await proxy.take(0), []);
});

test('the next proxy gets the next connections, the one before keeps its own; without any they are refused', async () => {
  await enforce(['egress']);
  const old = proxy;
  const name = await open('front', 'cart', 0);
  await old.take(1);
  proxy = await CopyProxy.start();
  const later = await open('front', 'cart', 1);
  assert.equal((await proxy.take(1)).length, 1);
  assert.equal(await say('front', name), 'echo');
  assert.deepEqual(await old.take(0), []);
  await old.kill();
  assert.ok(['ECONNRESET', 'end'].includes(await say('front', name)), 'its connections end with it');
  assert.equal(await say('front', later), 'echo');
  assert.ok(plumbing.served);
  await proxy.kill();
  assert.equal(plumbing.served, false);
  for (const family of families)
    assert.equal(await ask('front', `tcp none ${addressesOf.cart[family]} ${port}`), 'ECONNREFUSED');
  proxy = await CopyProxy.start();
  await open('front', 'cart', 0);
  await proxy.take(1);
});

test('a port that HTTP/2 comes to is noted: its next connections are the proxy’s', async () => {
  await enforce([], { http: true });
  const preface = join(directory, 'preface');
  writeFileSync(preface, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${' '.repeat(40)}`);
  const script = `exec 3<>/dev/tcp/${addressesOf.cart[0]}/${port}; cat ${preface} >&3; head -c 12 <&3`;
  const { stdout } = await run('bash', ['-c', script], { netns: netns('front') });
  assert.equal(stdout, 'HTTP/1.1 400');
  assert.deepEqual(await proxy.take(0), []);
  const endpoint = datapath.endpointByUid('cart')?.id;
  assert.deepEqual(datapath.proxyPorts(), [{ endpoint, port, mode: 'always' }]);
  for (const family of families) await open('front', 'cart', family);
  assert.equal((await proxy.take(2)).length, 2);
  datapath.setProxyPort('cart', port, undefined);
  assert.deepEqual(datapath.proxyPorts(), []);
});

test('without its place nothing is let through, and the place comes back', async () => {
  await enforce(['ingress']);
  const name = await open('front', 'cart', 0);
  datapath.closeProxy();
  assert.equal(await ask('front', `say ${name}`), 'silence');
  assert.ok(drops().some(({ reason }) => reason === 'PROXY_ABSENT'));
  await proxy.kill();
  plumbing.close();
  await ProxyPlumbing.remove(where);
  assert.equal(await findLink('myproxy0'), undefined);
  assert.equal(existsSync(where.netns), false);
  plumbing = await ProxyPlumbing.open(where, datapath);
  proxy = await CopyProxy.start();
  await open('front', 'cart', 1);
  await proxy.take(1);
});
