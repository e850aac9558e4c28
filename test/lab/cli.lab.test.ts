import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { flowSchema, statusSchema, tunnelSchema, whyAnswerSchema } from '../../src/agent/wire.ts';
import { kinds } from '../../src/api/kinds.ts';
import type { FlowEvent } from '../../src/model/flow.ts';
import { type Agents, agentsOf, endName } from '../support/agents.ts';
import { myelin, observe } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/*
 * The questions that people ask of a cluster, by the commands that they type, about traffic that really was: a client of node-1
 * that the policy of `web` on node-2 lets in at TCP 80, and one that it does not.
 */

describe('the commands that ask agents', () => {
  let lab: TestLab;
  let agents: Agents;
  let friend: TestPod;
  let stranger: TestPod;
  let web: TestPod;
  let serviceAddresses: string[];

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    await lab.namespace('shop');
    await lab.lab.applyObjects([deployment]);
    const client = (name: string) => lab.pod(name, 'shop').on('node-1').create();
    [friend, stranger] = await Promise.all([client('friend'), client('stranger')]);
    const pods = await agents.pods('shop');
    web = await lab.running(pods.find(({ metadata }) => metadata.labels?.app === 'web')?.metadata.name ?? '', 'shop');
    serviceAddresses = await lab.service(
      'web',
      { selector: { app: 'web' }, ports: [{ port: 8080, targetPort: 80 }] },
      'shop',
    );
    const ingress = [{ from: [{ podSelector: { matchLabels: { app: 'friend' } } }], ports: [{ port: 80 }] }];
    await lab.policy(
      'web',
      { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'], ingress },
      'shop',
    );
    const question = { source: 'shop/stranger', destination: 'shop/web', protocol: 'TCP', port: 80 } as const;
    assert.equal(await agents.settled(question, 'deny'), undefined);
    await talk();
  });
  after(() => lab?.down());

  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'shop' },
    spec: {
      selector: { matchLabels: { app: 'web' } },
      template: {
        metadata: { labels: { app: 'web' } },
        spec: {
          nodeName: 'node-2',
          terminationGracePeriodSeconds: 0,
          containers: [
            {
              name: 'main',
              image: 'agnhost',
              ports: [{ containerPort: 80 }, { containerPort: 81, protocol: 'UDP' }],
            },
          ],
        },
      },
    },
  };

  /** One flow of each kind that the filters are to tell apart. */
  async function talk(): Promise<void> {
    const deniedMs = { timeoutMs: 700 };
    await lab.eventually(async () => assert.ok(await lab.reaches(friend, web, { port: 80 })));
    const reached = await Promise.all([
      lab.reaches(friend, web, { port: 80, family: 6 }),
      lab.reaches(friend, web, { port: 81, protocol: 'udp', ...deniedMs }),
      lab.reaches(stranger, web, { port: 80, ...deniedMs }),
      lab.reaches(stranger, web, { port: 80, family: 6, ...deniedMs }),
    ]);
    assert.deepEqual(reached, [true, false, false, false]);
    const ping = ['ping', '-c', '1', '-W', '3', friend.addresses[0]];
    assert.equal((await lab.exec(stranger, ping, { privileged: true })).code, 0);
  }

  const fails = async (pattern: RegExp, ...args: string[]) => {
    const { code, stdout, stderr } = await myelin(...args);
    assert.equal(code, 1, stdout);
    assert.match(stderr, pattern);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
  };

  describe('observe', () => {
    const pairs = (flows: readonly FlowEvent[]) =>
      new Set(flows.map(({ source, destination }) => `${endName(source)} → ${endName(destination)}`));
    const name = () => `shop/${web.name}`;

    test('by pod: either end, its source, its destination; by name, namespace, and a Deployment’s name', async () => {
      for (const pod of ['shop/web', 'web', name()]) {
        const flows = await observe(lab.name, '--pod', pod);
        assert.ok(flows.length > 0, pod);
        for (const pair of pairs(flows)) assert.ok(pair.includes(name()), pair);
      }
      assert.deepEqual(
        pairs(await observe(lab.name, '--from', 'shop/stranger', '--to', 'shop/web')),
        new Set([`shop/stranger → ${name()}`]),
      );
      assert.deepEqual(pairs(await observe(lab.name, '--to', 'friend')), new Set(['shop/stranger → shop/friend']));
      assert.deepEqual(await observe(lab.name, '--from', 'shop/web'), []);
      assert.deepEqual(await observe(lab.name, '-n', 'nowhere'), []);
      assert.ok((await observe(lab.name, '-n', 'shop')).length > 0);
    });

    test('by verdict, port, protocol and address; filters add up', async () => {
      const denied = await observe(lab.name, '--verdict', 'deny', '--port', '80');
      assert.deepEqual(pairs(denied), new Set([`shop/stranger → ${name()}`]));
      for (const { rule, reason, direction, protocol, destination } of denied) {
        assert.deepEqual([reason, direction, protocol, destination.port], ['POLICY_DENIED', 'ingress', 'TCP', 80]);
        assert.deepEqual(rule, {
          kind: 'NetworkPolicy',
          namespace: 'shop',
          name: 'web',
          direction: 'ingress',
          index: -1,
        });
      }
      // Each end has its say: what the stranger's node lets out, the other does not let in.
      const allowed = await observe(lab.name, '--verdict', 'allow', '--port', '80', '--to', 'shop/web');
      const atWeb = allowed.filter(({ direction }) => direction === 'ingress');
      assert.deepEqual(pairs(atWeb), new Set([`shop/friend → ${name()}`]));
      const ingress = atWeb.find(({ kind }) => kind === 'new');
      assert.equal(ingress?.node, 'node-2');
      assert.deepEqual(ingress?.rule, {
        kind: 'NetworkPolicy',
        namespace: 'shop',
        name: 'web',
        direction: 'ingress',
        index: 0,
      });
      assert.deepEqual(pairs(await observe(lab.name, '--protocol', 'icmp')), new Set(['shop/stranger → shop/friend']));
      assert.deepEqual(
        pairs(await observe(lab.name, '--protocol', 'UDP', '--port', '81')),
        new Set([`shop/friend → ${name()}`]),
      );
      const bySixth = await observe(lab.name, '--address', friend.addresses[1], '--port', '80');
      assert.deepEqual(pairs(bySixth), new Set([`shop/friend → ${name()}`]));
    });

    test('a flow of a Service names both the Service and the pod behind it', async () => {
      const { spec } = await lab.api.get(kinds.Service, { namespace: 'shop', name: 'web' });
      const [host] = spec?.clusterIPs ?? [];
      await lab.eventually(async () => assert.ok(await lab.reaches(friend, host ?? '', { port: 8080 })));
      await lab.eventually(async () => {
        const flows = await observe(lab.name, '--from', 'shop/friend', '--to', 'shop/web', '--verdict', 'allow');
        assert.ok(flows.some(({ service, destination }) => service === 'shop/web:8080' && destination.port === 80));
      });
    });

    test('as text, a line each, with who, what and why; --last bounds them; --node asks one', async () => {
      const { code, stdout } = await myelin(
        'observe',
        '--lab',
        lab.name,
        '--verdict',
        'deny',
        '--to',
        'shop/web',
        '--last',
        '1',
      );
      assert.equal(code, 0);
      assert.match(
        stdout,
        /^\d\d:\d\d:\d\d\.\d{3} deny {2}deny {5}(TCP|UDP) {4}shop\/(stranger|friend):\d+ → shop\/web-\S+:8[01] {2}ingress: POLICY_DENIED \(.*NetworkPolicy shop\/web ingress\)\n$/,
      );
      const elsewhere = await observe(lab.name, '--node', 'node-1', '--verdict', 'deny', '--to', 'shop/web');
      assert.deepEqual(elsewhere, [], 'the denial is node-2’s to tell');
    });

    test('--follow goes on as flows happen, and ends with Ctrl-C', async () => {
      const args = [
        'observe',
        '--lab',
        lab.name,
        '-o',
        'json',
        '--last',
        '0',
        '--follow',
        '--from',
        'shop/stranger',
        '--protocol',
        'icmpv6',
      ];
      const child = spawn(resolve(import.meta.dirname, '../../bin/myelin'), args, {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      try {
        const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
        const next = lines.next();
        let seen = false;
        next.then(() => {
          seen = true;
        });
        const ping = ['ping', '-c', '1', '-W', '3', friend.addresses[1]];
        await lab.eventually(async () => {
          await lab.exec(stranger, ping, { privileged: true });
          assert.ok(seen, 'nothing was followed');
        });
        const flow = flowSchema.parse(JSON.parse(String((await next).value)));
        assert.deepEqual([flow.kind, endName(flow.source)], ['new', 'shop/stranger']);
      } finally {
        child.kill('SIGINT');
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      }
      assert.equal(child.exitCode, 0);
    });

    test('what is no filter is refused in one line', async () => {
      await fails(/port is a number up to 65535, not "http"/, 'observe', '--lab', lab.name, '--port', 'http');
      await fails(/address is an IP address, not "web"/, 'observe', '--lab', lab.name, '--address', 'web');
    });
  });

  describe('why', () => {
    const why = (...args: string[]) => myelin('why', '--lab', lab.name, ...args);

    test('exits with 0 for allowed and 3 for denied, and names the rule', async () => {
      const allowed = await why('shop/friend', 'shop/web', '--port', '80');
      assert.equal(allowed.code, 0, allowed.stderr);
      assert.match(
        allowed.stdout,
        /^shop\/friend → shop\/web TCP 80: allowed\n {2}egress {3}allow no policy selects the pod {2}\(the datapath agrees\)\n {2}ingress {2}allow NetworkPolicy shop\/web ingress\[0\] {2}\(the datapath agrees\)\n/,
      );
      const denied = await why('shop/stranger', 'shop/web', '--port', '80');
      assert.equal(denied.code, 3, denied.stderr);
      assert.match(denied.stdout, /^shop\/stranger → shop\/web TCP 80: denied\n/);
      assert.match(
        denied.stdout,
        /ingress {2}deny {2}no rule allows it, and it is selected by NetworkPolicy shop\/web ingress {2}\(the datapath agrees\)/,
      );
    });

    test('agrees with what packets do, in every direction, protocol and port', async () => {
      const ends = { friend, stranger, web };
      for (const [from, source] of Object.entries(ends))
        for (const [to, destination] of Object.entries(ends)) {
          if (from === to) continue;
          for (const [protocol, port] of [
            ['TCP', 80],
            ['TCP', 81],
            ['UDP', 81],
          ] as const) {
            const { code, stdout } = await why(
              `shop/${from}`,
              `shop/${to}`,
              '--port',
              String(port),
              '--protocol',
              protocol,
              '-o',
              'json',
            );
            const answer = whyAnswerSchema.parse(JSON.parse(stdout));
            assert.deepEqual(
              answer.sides.map(({ datapath }) => datapath),
              ['agrees', 'agrees'],
            );
            assert.equal(code, answer.verdict === 'allow' ? 0 : 3);
            const way = { port, protocol: protocol === 'TCP' ? 'tcp' : 'udp' } as const;
            const { error } = await lab.probe(source, destination, { ...way, timeoutMs: 500 });
            // Without a listener an allowed connection is refused, and an allowed datagram is not answered.
            if (protocol === 'TCP')
              assert.equal(error === 'timeout', answer.verdict === 'deny', `${from} → ${to} ${port}`);
            else if (answer.verdict === 'deny') assert.equal(error, 'timeout');
          }
        }
    });

    test('about the world, the host and addresses', async () => {
      for (const [source, destination, code] of [
        ['world', 'shop/web', 3],
        ['203.0.113.77', 'shop/web', 3],
        ['shop/web', 'world', 0],
        [friend.addresses[1], web.addresses[1], 0],
        ['host', 'shop/friend', 0],
      ] as const) {
        const answer = await why(source, destination, '--port', '80');
        assert.equal(answer.code, code, `${source} → ${destination}: ${answer.stdout}${answer.stderr}`);
      }
    });

    test('about a Service’s address, as packets to it fare', async () => {
      for (const address of serviceAddresses)
        for (const [source, port] of [
          ['friend', 8080],
          ['stranger', 8080],
          ['friend', 8081],
        ] as const) {
          const answer = await why(`shop/${source}`, address, '--port', String(port));
          const pod = source === 'friend' ? friend : stranger;
          const { ok } = await lab.probe(pod, address, { port, timeoutMs: 1000 });
          assert.equal(answer.code, ok ? 0 : 3, `${source} → ${address} ${port}: ${answer.stdout}`);
        }
    });

    test('what it cannot answer is said in one line, with exit code 1', async () => {
      await fails(/there is no pod shop\/nobody with a network/, 'why', '--lab', lab.name, 'shop/nobody', 'shop/web');
      const port = await why('shop/friend', 'shop/web', '--port', '70000');
      assert.equal(port.code, 1);
      assert.match(port.stderr, /expected a port, 0 to 65535/);
      assert.equal((await why('shop/friend')).code, 1);
    });
  });

  describe('tunnels', () => {
    test('as JSON: who is at both ends, by what proof, under which keys, how much', async () => {
      const { code, stdout } = await myelin('tunnels', '--lab', lab.name, '-o', 'json');
      assert.equal(code, 0);
      const all = tunnelSchema.array().parse(JSON.parse(stdout));
      const [out] = all.filter(
        ({ localPod, remotePod }) => localPod === 'shop/friend' && remotePod === `shop/${web.name}`,
      );
      const [into] = all.filter(
        ({ localPod, remotePod }) => remotePod === 'shop/friend' && localPod === `shop/${web.name}`,
      );
      assert.ok(out !== undefined && into !== undefined, stdout);
      assert.deepEqual(
        [out.node, out.remoteNode, into.node, into.remoteNode],
        ['node-1', 'node-2', 'node-2', 'node-1'],
      );
      for (const tunnel of [out, into]) {
        assert.equal(tunnel.state, 'up');
        assert.equal(tunnel.localSpiffeId, 'spiffe://cluster.local/ns/shop/sa/default');
        assert.equal(tunnel.remoteSpiffeId, 'spiffe://cluster.local/ns/shop/sa/default');
        assert.equal(tunnel.group, 'X25519MLKEM768');
        assert.match(tunnel.cipher, /AES-256-GCM/i);
        assert.ok(tunnel.packetsIn > 0 && tunnel.packetsOut > 0 && tunnel.bytesIn > 0 && tunnel.bytesOut > 0);
        assert.ok((tunnel.expiresAt ?? 0) > (tunnel.establishedAt ?? Number.POSITIVE_INFINITY));
      }
      assert.deepEqual([out.spiOut, out.spiIn], [into.spiIn, into.spiOut]);
      const { stdout: text } = await myelin('tunnels', '--lab', lab.name);
      assert.match(text, /X25519MLKEM768/);
      assert.ok(text.includes(`0x${(out.spiIn ?? 0).toString(16).padStart(8, '0')}`), text);
    });

    test('of one node', async () => {
      const { stdout } = await myelin('tunnels', '--lab', lab.name, '--node', 'node-2', '-o', 'json');
      const nodes = z.array(z.object({ node: z.string() })).parse(JSON.parse(stdout));
      assert.deepEqual(new Set(nodes.map(({ node }) => node)), new Set(['node-2']));
    });
  });

  describe('status', () => {
    test('exits with 0 where all is well, and says of each node how it is', async () => {
      const { code, stdout } = await myelin('status', '--lab', lab.name);
      assert.equal(code, 0, stdout);
      for (const node of ['node-1', 'node-2']) assert.match(stdout, new RegExp(`^${node} {2}engine driver, up `, 'm'));
      assert.match(stdout, /POLICY_DENIED +\d+/);
      const json = await myelin('status', '--lab', lab.name, '-o', 'json');
      const reports = statusSchema.array().parse(JSON.parse(json.stdout));
      assert.deepEqual(
        reports.map(({ node }) => node),
        ['node-1', 'node-2'],
      );
      for (const { conditions } of reports)
        assert.deepEqual(
          conditions.filter(({ ok }) => !ok),
          [],
        );
      assert.ok((reports[1]?.drops.datapath.POLICY_DENIED ?? 0) > 0);
    });

    test('a lab is named by --lab or by --name, in every command', async () => {
      for (const option of ['--lab', '--name'])
        for (const command of [
          ['status'],
          ['tunnels'],
          ['lab', 'status'],
          ['lab', 'kubeconfig'],
          ['policy', 'check', '-f', 'test/vm/guest/pods.yaml'],
        ]) {
          const { code, stderr } = await myelin(...command, option, lab.name);
          assert.equal(code, 0, `${command.join(' ')} ${option}: ${stderr}`);
        }
    });

    test('exits with 1 where something is not, and says what; and with 0 again when it is mended', async () => {
      await lab.lab.stopService('api');
      try {
        await lab.eventually(async () => {
          const { code, stdout } = await myelin('status', '--lab', lab.name);
          assert.equal(code, 1);
          assert.match(stdout, /✗ api {10}.*cannot be reached/);
        });
        assert.ok(await lab.reaches(friend, web, { port: 80 }), 'what is known stays in force');
      } finally {
        lab.lab.startService('api');
      }
      await lab.eventually(
        async () => {
          const { code, stdout } = await myelin('status', '--lab', lab.name);
          assert.equal(code, 0, stdout);
        },
        { timeoutMs: 40_000 },
      );
    });

    test('an agent that is down is said to be, in one line, and the others answer', async () => {
      await lab.lab.stopAgent('node-2', 'SIGKILL');
      try {
        for (const question of [
          ['status'],
          ['tunnels'],
          ['observe'],
          ['why', 'shop/friend', 'shop/web', '--port', '80'],
        ])
          await fails(/the agent of node-2 does not answer/, ...question, '--lab', lab.name);
        assert.match((await myelin('status', '--lab', lab.name)).stdout, /^node-1 {2}engine driver/m);
      } finally {
        lab.lab.startAgent('node-2');
      }
      await lab.eventually(async () => assert.equal((await myelin('status', '--lab', lab.name)).code, 0), {
        timeoutMs: 30_000,
      });
      await fails(/there is no lab nosuch: start it with 'myelin lab up/, 'status', '--lab', 'nosuch');
      await fails(/there is no node nobody; there are node-1, node-2/, 'status', '--lab', lab.name, '--node', 'nobody');
    });
  });
});
