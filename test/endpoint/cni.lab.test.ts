import assert from 'node:assert/strict';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { test } from 'node:test';
import { run } from '../../src/kernel/command.ts';
import { ip, ipBatch } from '../../src/kernel/ip.ts';
import { plugin, podArgs, TestNode } from './harness.ts';

test('VERSION is answered by the plugin itself, in the version that was asked', () =>
  TestNode.use(async (node) => {
    const supportedVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];
    for (const cniVersion of ['0.4.0', '1.1.0', '7.0.0'])
      assert.deepEqual(await node.ok('VERSION', { config: JSON.stringify({ cniVersion }) }), {
        cniVersion,
        supportedVersions,
      });
    assert.deepEqual(await node.ok('VERSION', { config: '' }), { cniVersion: '1.1.0', supportedVersions });
    assert.equal((await node.refused('VERSION', { config: 'garbage' })).code, 6);
  }));

test('the plugin runs by a symbolic link, as it stands in a runtime’s directory, whatever NODE_OPTIONS says', () =>
  TestNode.use(async (node) => {
    const link = `${node.directory}/myelin`;
    symlinkSync(plugin, link);
    const env = { CNI_COMMAND: 'VERSION', NODE_OPTIONS: '--require /nowhere.js' };
    const { stdout } = await run(link, [], { env, input: '{"cniVersion":"1.0.0"}' });
    assert.match(stdout, /^\{"cniVersion":"1.0.0","supportedVersions":\[/);
  }));

test('bad input gets the spec’s code, in the version that was asked, whether or not an agent runs', () =>
  TestNode.use(async (node) => {
    const netns = '/nowhere/at/all';
    assert.equal((await node.refused('ADD', { netns, config: 'garbage' })).code, 6);
    assert.equal((await node.refused('ADD', { netns, config: '' })).code, 6);
    assert.equal((await node.refused('ADD', { netns, config: '"text"' })).code, 6);
    assert.equal((await node.refused('ADD', { netns, config: `{"a":${'9'.repeat(1024 * 1024 + 1)}}` })).code, 5);
    assert.deepEqual(await node.refused('ADD', { netns, config: { cniVersion: '9.9.9' } }), {
      cniVersion: '1.1.0',
      code: 1,
      msg: 'incompatible CNI versions',
      details: 'config is "9.9.9", plugin supports ["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]',
    });
    const missing = await node.refused('ADD', { config: { cniVersion: '0.4.0' } });
    assert.deepEqual(missing, { cniVersion: '0.4.0', code: 4, msg: 'required env variables [CNI_NETNS] missing' });
    assert.equal((await node.refused('', { env: { CNI_COMMAND: undefined } })).code, 4);
    assert.equal((await node.refused('JUMP')).code, 4);
    const field = await node.refused('ADD', { netns, config: { cniVersion: '0.4.0', ipam: { type: 'host-local' } } });
    assert.equal(field.code, 2);
    assert.equal(field.cniVersion, '0.4.0');
    assert.match(field.msg, /ipam: \{"type":"host-local"\}/);
    assert.equal((await node.refused('ADD', { netns, config: { name: '' } })).code, 7);

    await node.start();
    for (const [path, why] of [
      [netns, /no such file/],
      ['/etc/hostname', /not a namespace/],
      [node.netns, /the node’s own/],
    ] as const) {
      const refusal = await node.refused('ADD', { netns: path });
      assert.equal(refusal.code, 4);
      assert.equal(refusal.msg, 'invalid CNI_NETNS');
      assert.match(refusal.details ?? '', why);
    }
    await node.assertClean();
  }));

test('without an agent: ADD, DEL, CHECK and GC are to be tried again, STATUS says that connectivity is limited', () =>
  TestNode.use(async (node) => {
    const netns = await node.pod('a');
    const call = { netns, config: { prevResult: {}, 'cni.dev/valid-attachments': [] } };
    const codes = await Promise.all(
      ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'].map((command) => node.refused(command, call)),
    );
    assert.deepEqual(
      codes.map(({ code }) => code),
      [11, 11, 11, 11, 51],
    );
    // One that comes up within the grace is waited for.
    const [result] = await Promise.all([node.add({ netns }), node.start()]);
    assert.equal(result.ips.length, 2);
  }));

test('ADD makes the interface as the contract says, denied until it is known; both families carry at once', () =>
  TestNode.use(async (node) => {
    await ipBatch(['addr add 192.0.2.10/32 dev lo', 'addr add 2001:db8::10/128 dev lo'], {
      netns: node.netns,
    });
    await node.start({ journal: node.journalFile, nodeAddresses: ['192.0.2.10', '2001:db8::10'] });
    const netns = await node.pod('a');
    const result = await node.add({ netns, containerId: 'c0ffee', args: podArgs('cart') });
    const [host, inside] = result.interfaces;
    assert.ok(host !== undefined && inside !== undefined);
    assert.deepEqual([host.name, inside.name, inside.sandbox], ['myfb028887203', 'eth0', netns]);
    assert.deepEqual(
      result.ips.map(({ address, gateway, interface: index }) => [address, gateway, index]),
      [
        ['10.244.1.2/32', '169.254.1.1', 1],
        ['fd00:10:244:1::2/128', 'fe80::1', 1],
      ],
    );
    assert.deepEqual(node.journal, ['prepare c0ffee down', 'onAdded c0ffee up']);

    const show = async (where: string, ...args: string[]) => JSON.stringify(await ip(args, { netns: where }));
    for (const [where, device, mac] of [
      [node.netns, host.name, host.mac],
      [netns, 'eth0', inside.mac],
    ] as const) {
      const link = await show(where, 'link', 'show', 'dev', device);
      assert.match(link, /"mtu":1404/);
      assert.match(link, /"UP"/);
      assert.ok(link.includes(mac));
    }
    const hostAddresses = await show(node.netns, 'addr', 'show', 'dev', host.name);
    assert.match(hostAddresses, /"local":"169.254.1.1","prefixlen":32,"scope":"link"/);
    assert.match(hostAddresses, /"local":"fe80::1","prefixlen":64,"scope":"link"/);
    assert.equal(hostAddresses.match(/"local"/g)?.length, 2);
    const podRoutes = `${await show(netns, '-4', 'route')}${await show(netns, '-6', 'route')}`;
    assert.match(podRoutes, /"dst":"default","gateway":"169.254.1.1","dev":"eth0"/);
    assert.match(podRoutes, /"dst":"169.254.1.1","dev":"eth0","scope":"link"/);
    assert.match(podRoutes, /"dst":"default","gateway":"fe80::1","dev":"eth0"/);
    const podNeighbours = await show(netns, 'neigh', 'show', 'nud', 'permanent');
    for (const gateway of ['169.254.1.1', 'fe80::1'])
      assert.ok(podNeighbours.includes(`"dst":"${gateway}","dev":"eth0","lladdr":"${host.mac}"`), podNeighbours);
    assert.doesNotMatch(await show(netns, 'addr', 'show', 'dev', 'eth0'), /tentative/);
    const settings = await run('sh', ['-c', 'cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra accept_dad autoconf'], {
      netns,
    });
    assert.equal(settings.stdout, '0\n0\n0\n');

    // Real packets, at once: the node reaches the pod from its own addresses, in both families.
    const echo = node.daemon(netns, 'socat', 'TCP6-LISTEN:80,fork,reuseaddr', 'SYSTEM:echo $SOCAT_PEERADDR');
    await listening(netns, 80);
    const ask = async (address: string) =>
      (await run('socat', ['-T5', '-', `TCP:${address}:80`], { netns: node.netns, input: '' })).stdout.trim();
    assert.match(await ask('10.244.1.2'), /ffff:(0*)?(192\.0\.2\.10|c000:020a)/);
    assert.equal(await ask('[fd00:10:244:1::2]'), '[2001:0db8:0000:0000:0000:0000:0000:0010]');
    // And the pod reaches the node.
    node.daemon(node.netns, 'socat', 'TCP6-LISTEN:81,fork,reuseaddr', 'SYSTEM:echo hello');
    await listening(node.netns, 81);
    for (const address of ['192.0.2.10', '[2001:db8::10]']) {
      const { stdout } = await run('socat', ['-T5', '-', `TCP:${address}:81`], { netns, input: '' });
      assert.equal(stdout, 'hello\n');
    }
    echo.kill();
    await once(echo, 'close');

    assert.equal(await node.ok('DEL', { netns, containerId: 'c0ffee' }), undefined);
    await ipBatch(['addr del 192.0.2.10/32 dev lo', 'addr del 2001:db8::10/128 dev lo'], { netns: node.netns });
    await node.assertClean();
    assert.doesNotMatch(await show(netns, 'link'), /eth0/);
  }));

async function listening(netns: string, port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const { stdout } = await run('ss', ['-Hltn', `sport = :${port}`], { netns });
    if (stdout !== '') return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`nobody listens on ${port}`);
}

test('every version gets its own form, and CHECK of a fresh ADD finds nothing wrong', () =>
  TestNode.use(async (node) => {
    await node.start();
    for (const cniVersion of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      const netns = await node.pod(cniVersion);
      const call = { netns, containerId: `c-${cniVersion}`, ifName: 'net1', config: { cniVersion } };
      const result = await node.add(call);
      assert.equal(result.cniVersion, cniVersion);
      assert.equal('version' in (result.ips[0] ?? {}), cniVersion < '1.0.0');
      const check = { ...call, config: { cniVersion, prevResult: result } };
      if (cniVersion >= '0.4.0') assert.equal(await node.ok('CHECK', check), undefined);
      else assert.equal((await node.refused('CHECK', check)).code, 1);
      assert.equal((await node.refused('GC', { config: { cniVersion: '1.0.0' } })).code, 1);
      await node.ok('DEL', { ...call, config: { cniVersion, prevResult: result } });
    }
    await node.assertClean();
  }));

test('CHECK names everything that is not as ADD left it', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    const prevResult = await node.add({ netns });
    const [host] = prevResult.interfaces;
    assert.ok(host !== undefined);
    const check = (config: Record<string, unknown> = { prevResult }) => node.refused('CHECK', { netns, config });
    assert.equal((await check({})).code, 7);
    assert.equal((await node.refused('CHECK', { netns, containerId: 'stranger', config: { prevResult } })).code, 3);

    await ipBatch(
      ['addr del 10.244.1.2/32 dev eth0', 'route del default via fe80::1 dev eth0', 'link set eth0 mtu 1300'],
      { netns },
    );
    await ipBatch([`route del fd00:10:244:1::2/128 dev ${host.name}`, `neigh del 10.244.1.2 dev ${host.name}`], {
      netns: node.netns,
    });
    const broken = await check();
    assert.equal(broken.code, 102);
    for (const what of [
      'the container lacks the address 10.244.1.2',
      'the container has no default route by fe80::1',
      'eth0 of the container has the MTU 1300, not 1404',
      `the node has no route to fd00:10:244:1::2 by ${host.name}`,
      'the node has no permanent neighbour 10.244.1.2',
    ])
      assert.ok(broken.details?.includes(what), `${what} is not in: ${broken.details}`);

    const { routes, ...rest } = prevResult;
    const without = await check({ prevResult: { ...rest, routes: routes.filter((route) => route.gw !== 'fe80::1') } });
    assert.doesNotMatch(without.details ?? '', /default route by fe80/, 'a later plugin may have taken the route away');
    assert.match((await check({ prevResult: {} })).details ?? '', /prevResult lacks the address 10.244.1.2/);

    await ipBatch([`link del ${host.name}`], { netns: node.netns });
    assert.match((await check()).details ?? '', /the node has no interface/);
    await node.restart({ wrong: 'the program is not attached' });
    assert.equal((await check()).code, 3, 'a restart forgets what is gone');
    const again = await node.add({ netns, containerId: 'c2' });
    const refusal = await node.refused('CHECK', { netns, containerId: 'c2', config: { prevResult: again } });
    assert.equal(refusal.details, 'the program is not attached');
  }));

test('DEL is idempotent, needs no namespace, and takes an unknown container for removed', () =>
  TestNode.use(async (node) => {
    await node.start({ journal: node.journalFile });
    const netns = await node.pod('a');
    await node.ok('DEL', { containerId: 'never-seen' });
    const prevResult = await node.add({ netns });
    node.dropPod(netns);
    for (let time = 0; time < 3; time++) await node.ok('DEL', { config: { prevResult } });
    await node.assertClean();
    const onlyCalls = node.journal.filter((line) => line.startsWith('onRemoved'));
    assert.equal(onlyCalls.length, 1);
  }));

test('a second ADD is refused and changes nothing: same container, or an interface that is there already', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    const prevResult = await node.add({ netns });
    for (const again of [{ netns }, { netns, ifName: 'net1' }, { netns, containerId: 'c2' }])
      assert.equal((await node.refused('ADD', again)).code, 101);
    await node.ok('CHECK', { netns, config: { prevResult } });
    // A DEL for the name that was refused must not take the other one's interface away.
    await node.ok('DEL', { netns, ifName: 'net1' });
    await node.ok('DEL', { netns, containerId: 'c2' });
    await node.ok('CHECK', { netns, config: { prevResult } });
    assert.deepEqual(
      node.state.endpoints.map(({ containerId }) => containerId),
      ['c1'],
    );
  }));

test('GC removes what is no longer valid, of its own network only, and never everything for want of a list', () =>
  TestNode.use(async (node) => {
    await node.start();
    for (const name of ['a', 'b', 'c']) await node.add({ netns: await node.pod(name), containerId: name });
    await node.add({ netns: await node.pod('d'), containerId: 'd', config: { name: 'others' } });
    await ipBatch(['link add my00000000000 type veth peer name orphan-peer'], { netns: node.netns });
    assert.equal((await node.refused('GC')).code, 7);
    const valid = [
      { containerID: 'b', ifname: 'eth0' },
      { containerID: 'c', ifname: 'eth1' },
    ];
    await node.ok('GC', { config: { 'cni.dev/valid-attachments': valid } });
    assert.deepEqual(
      node.state.endpoints.map(({ containerId }) => containerId),
      ['b', 'd'],
    );
    const links = JSON.stringify(await ip(['link'], { netns: node.netns }));
    assert.doesNotMatch(links, /my00000000000/);
    await node.ok('GC', { config: { 'cni.dev/valid-attachments': [] } });
    await node.ok('GC', { config: { name: 'others', 'cni.dev/valid-attachments': [] } });
    await node.assertClean();
  }));

test('STATUS: ready; told that it is not; no address left', () =>
  TestNode.use(async (node) => {
    await node.start();
    assert.equal(await node.ok('STATUS', { env: { CNI_CONTAINERID: undefined, CNI_IFNAME: undefined } }), undefined);
    await node.restart({ notReady: { message: 'no policy yet', limited: false } });
    assert.deepEqual(await node.refused('STATUS'), {
      cniVersion: '1.1.0',
      code: 50,
      msg: 'Myelin is not ready on this node',
      details: 'no policy yet',
    });
    await node.restart({ notReady: { message: 'no CA', limited: true } });
    assert.equal((await node.refused('STATUS')).code, 51);
    // Room for one.
    await node.restart({ cidrs: ['10.244.1.0/30'], coolDownMs: 30_000 });
    const first = await node.add({ netns: await node.pod('a'), containerId: 'a', args: podArgs('a') });
    assert.deepEqual(
      first.ips.map(({ address }) => address),
      ['10.244.1.2/32'],
    );
    const full = /^node CIDR 10.244.1.0\/30 has no free address: 1 in use$/;
    const exhausted = await node.refused('STATUS');
    assert.equal(exhausted.code, 50);
    assert.match(exhausted.details ?? '', full);
    const netns = await node.pod('b');
    const refusal = await node.refused('ADD', { netns, containerId: 'b', args: podArgs('b') });
    assert.equal(refusal.code, 11);
    assert.match(refusal.msg, full);
    await node.ok('DEL', { containerId: 'a' });
    assert.match(
      (await node.refused('ADD', { netns, containerId: 'b', args: podArgs('b') })).msg,
      /0 in use, 1 cooling down for another \d+ s$/,
    );
    // The pod whose address it was need not wait.
    const back = await node.add({ netns, containerId: 'a2', args: podArgs('a') });
    assert.deepEqual(back.ips, first.ips);
  }));

test('a pod gets its address back after the node restarted and its namespaces are gone', () =>
  TestNode.use(async (node) => {
    await node.start();
    const names = ['a', 'b', 'c'];
    const before = new Map<string, unknown>();
    for (const name of names) {
      const { ips } = await node.add({
        netns: await node.pod(name),
        containerId: `first-${name}`,
        args: podArgs(name),
      });
      before.set(name, ips);
    }
    // The machine goes down: no DEL, no interfaces.
    await node.stop('SIGKILL');
    for (const name of names) node.dropPod(`${node.directory}/pod-${name}`);
    const links = await waitForOnlyLoopback(node);
    assert.equal(links, true);
    const { reconciled } = await node.start();
    assert.deepEqual(reconciled, { kept: 0, dropped: 3, orphans: 0 });
    const stranger = await node.add({ netns: await node.pod('new'), containerId: 'new', args: podArgs('new') });
    assert.deepEqual(stranger.ips.map(({ address }) => address)[0], '10.244.1.5/32');
    for (const name of [...names].reverse()) {
      const { ips } = await node.add({
        netns: await node.pod(`${name}2`),
        containerId: `second-${name}`,
        args: podArgs(name),
      });
      assert.deepEqual(ips, before.get(name));
    }
  }));

async function waitForOnlyLoopback(node: TestNode): Promise<boolean> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const links = await ip(['link'], { netns: node.netns });
    if (Array.isArray(links) && links.length === 1) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

test('an agent that restarts knows its endpoints, and puts the node’s side right', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    const prevResult = await node.add({ netns, args: podArgs('a') });
    const [host] = prevResult.interfaces;
    assert.ok(host !== undefined);
    await ipBatch([`route del 10.244.1.2/32 dev ${host.name}`, `neigh del 10.244.1.2 dev ${host.name}`], {
      netns: node.netns,
    });
    const { reconciled, endpoints } = await node.restart();
    assert.deepEqual(reconciled, { kept: 1, dropped: 0, orphans: 0 });
    assert.deepEqual(endpoints[0]?.addresses, ['10.244.1.2', 'fd00:10:244:1::2']);
    await node.ok('CHECK', { netns, config: { prevResult } });
  }));

test('thirty pods at once, added and removed: each its own address, nothing left', () =>
  TestNode.use(async (node) => {
    await node.start();
    const names = Array.from({ length: 30 }, (_, n) => `p${n}`);
    const netns = await Promise.all(names.map((name) => node.pod(name)));
    const results = await Promise.all(
      names.map((name, n) => node.add({ netns: netns[n] ?? '', containerId: name, args: podArgs(name) })),
    );
    assert.equal(new Set(results.flatMap(({ ips }) => ips.map(({ address }) => address))).size, 60);
    await Promise.all(
      names.map((name, n) =>
        node.ok('CHECK', { netns: netns[n] ?? '', containerId: name, config: { prevResult: results[n] } }),
      ),
    );
    await Promise.all(names.map((name) => node.ok('DEL', { containerId: name })));
    await node.assertClean();
  }));

test('ADD and DEL of one container that overlap end as if one came after the other', () =>
  TestNode.use(async (node) => {
    await node.start();
    const netns = await node.pod('a');
    for (let round = 0; round < 5; round++) {
      const commands = ['ADD', 'DEL', 'ADD', 'DEL', 'ADD', 'DEL'];
      const answers = await Promise.all(commands.map((command) => node.cni(command, { netns })));
      for (const [n, { status, stdout }] of answers.entries()) {
        // In whatever order they came: a DEL succeeds, an ADD does or finds an earlier one's interface.
        if (status !== 0) assert.match(`${commands[n]} ${stdout}`, /^ADD .*"code":101/);
      }
      await node.ok('DEL', { netns });
      await node.assertClean();
    }
  }));
