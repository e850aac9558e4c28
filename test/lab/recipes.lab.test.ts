import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadManifests } from '../../src/api/manifest.ts';
import { type Agents, agentsOf, endName } from '../support/agents.ts';
import { type Source, TestLab, type TestPod } from '../support/lab.ts';
import { casePath, listCases } from '../support/shared.ts';
import { echo, Traffic } from '../support/traffic.ts';

/*
 * The published policy recipes, applied as they are: who reaches whom before, with and after each, over TCP and UDP, IPv4 and
 * IPv6, at pods' own addresses and at Services. `world` is a host that is neither pod nor node: it reaches pods at their own
 * addresses by way of their nodes, and pods reach it under their nodes' addresses.
 */

/** The promise of each file's name: who must reach whom (+), and who must not (-); over TCP and UDP at port 80 where nothing is said. */
const promises: Readonly<Record<string, readonly string[]>> = {
  '01-deny-all-traffic-to-an-application.yaml': [
    '- default/other default/web',
    '- ops/plain default/web',
    '- world default/web',
    '+ default/web default/other',
    '+ default/other default/foo',
    '+ default/web world',
  ],
  '02-limit-traffic-to-an-application.yaml': [
    '+ default/search default/api',
    '+ default/db default/api',
    '- default/web default/api',
    '- ops/plain default/api',
    '- world default/api',
    '+ default/web default/search',
  ],
  '02a-allow-all-traffic-to-an-application.yaml': [
    '+ default/other default/web',
    '+ ops/plain default/web',
    '+ world default/web',
  ],
  '03-deny-all-non-whitelisted-traffic-in-the-namespace.yaml': [
    '- default/other default/web',
    '- ops/plain default/foo',
    '- world default/web',
    '+ default/other ops/plain',
    '+ default/other world',
  ],
  '04-deny-traffic-from-other-namespaces.yaml': [
    '+ default/other default/web',
    '- ops/plain default/web',
    '- prod/client default/foo',
    '- world default/web',
    '+ default/web ops/plain',
  ],
  '05-allow-traffic-from-all-namespaces.yaml': [
    '+ default/other default/web',
    '+ ops/plain default/web',
    '+ prod/client default/web',
    '- world default/web',
  ],
  '06-allow-traffic-from-a-namespace.yaml': [
    '+ prod/client default/web',
    '- ops/plain default/web',
    '- default/other default/web',
    '- world default/web',
  ],
  '07-allow-traffic-from-some-pods-in-another-namespace.yaml': [
    '+ ops/monitor default/web',
    '- ops/plain default/web',
    '- default/monitor default/web',
    '- default/other default/web',
  ],
  '08-allow-external-traffic.yaml': ['+ world default/web', '+ ops/plain default/web', '+ default/other default/web'],
  '09-allow-traffic-only-to-a-port.yaml': [
    '+ default/monitor default/apiserver TCP 5000',
    '- default/monitor default/apiserver TCP 80',
    '- default/monitor default/apiserver UDP 5000',
    '- default/other default/apiserver TCP 5000',
    '- ops/monitor default/apiserver TCP 5000',
  ],
  '10-allowing-traffic-with-multiple-selectors.yaml': [
    '+ default/search default/db',
    '+ default/api default/db',
    '+ default/inventory default/db',
    '- default/web default/db',
    '- ops/plain default/db',
  ],
  '11-deny-egress-traffic-from-an-application.yaml': [
    '- default/foo default/web',
    '- default/foo ops/plain',
    '- default/foo world',
    '+ default/foo kube-system/dns TCP 53',
    '- default/foo kube-system/dns TCP 80',
    '+ default/web default/foo',
    '+ default/other world',
  ],
  '12-deny-all-non-whitelisted-traffic-from-the-namespace.yaml': [
    '- default/web default/other',
    '- default/foo ops/plain',
    '- default/foo world',
    '+ ops/plain default/web',
    '+ world default/web',
  ],
  '14-deny-external-egress-traffic.yaml': [
    '- default/foo world',
    '- default/foo default/web',
    '+ default/foo kube-system/dns TCP 53',
    '+ default/web world',
  ],
};

/** Labels, and ports beside 80. */
const cast: Readonly<Record<string, { labels: Record<string, string>; ports?: readonly number[] }>> = {
  'default/web': { labels: { app: 'web' } },
  'default/other': { labels: { app: 'other' } },
  'default/foo': { labels: { app: 'foo' } },
  'default/api': { labels: { app: 'bookstore', role: 'api' } },
  'default/search': { labels: { app: 'bookstore', role: 'search' } },
  'default/db': { labels: { app: 'bookstore', role: 'db' } },
  'default/inventory': { labels: { app: 'inventory', role: 'web' } },
  'default/apiserver': { labels: { app: 'apiserver' }, ports: [5000] },
  'default/monitor': { labels: { app: 'other', role: 'monitoring' } },
  'prod/client': { labels: { app: 'client' } },
  'ops/monitor': { labels: { app: 'monitor', type: 'monitoring' } },
  'ops/plain': { labels: { app: 'plain' } },
  // Beside the lab's own name server, for what that one does not serve.
  'kube-system/dns': { labels: { 'k8s-app': 'kube-dns', role: 'test' }, ports: [53] },
};

const nodes = ['node-1', 'node-2'] as const;
const deniedMs = 1000;
const allowedMs = 4000;

interface Attempt {
  readonly from: string;
  readonly to: string;
  readonly allowed: boolean;
  readonly protocol: 'TCP' | 'UDP';
  readonly port: number;
  readonly family: 4 | 6;
  readonly at: 'address' | 'Service';
}

/** A line of a promise, spelt out. */
function attemptsOf(line: string): Attempt[] {
  const [sign, from = '', to = '', only, port = '80'] = line.split(' ');
  const protocols: readonly Attempt['protocol'][] = only === 'TCP' || only === 'UDP' ? [only] : ['TCP', 'UDP'];
  const outside = from === 'world' || to === 'world';
  const places: readonly Attempt['at'][] = outside ? ['address'] : ['address', 'Service'];
  return protocols.flatMap((protocol) =>
    ([4, 6] as const).flatMap((family) =>
      places.map((at) => ({ from, to, allowed: sign === '+', protocol, port: Number(port), family, at })),
    ),
  );
}

function nameOf({ from, to, protocol, port, family, at }: Attempt): string {
  return `${from} → ${to} ${protocol} ${port} over IPv${family} at its ${at}`;
}

describe('the published policy recipes', () => {
  let lab: TestLab;
  let agents: Agents;
  const pods = new Map<string, TestPod>();
  const services = new Map<string, readonly string[]>();

  before(async () => {
    lab = await TestLab.up({ nodes: nodes.length, dns: true });
    agents = agentsOf(lab);
    await lab.namespace('prod', { purpose: 'production' });
    await lab.namespace('ops', { team: 'operations' });
    await Promise.all([
      lab.serve('world', '80/TCP', '80/UDP'),
      ...Object.entries(cast).map(([key, { labels, ports = [] }], i) =>
        create(key, labels, [80, ...ports], nodes[i % nodes.length] ?? 'node-1'),
      ),
    ]);
    await lab.routeWorld();
  });
  after(() => lab?.down());

  async function create(key: string, labels: Record<string, string>, ports: readonly number[], node: string) {
    const [namespace = '', name = ''] = key.split('/');
    const listening = ports.flatMap((port) => (['TCP', 'UDP'] as const).map((protocol) => ({ port, protocol })));
    const made = lab
      .pod(name, namespace)
      .on(node)
      .serving(...listening)
      .labelled({ ...labels, name });
    pods.set(key, await made.create());
    const front = listening.map(({ port, protocol }) => ({
      name: `${protocol}-${port}`.toLowerCase(),
      port,
      protocol,
    }));
    services.set(key, await lab.service(name, { selector: { name }, ports: front }, namespace));
  }

  function hostOf({ to, family, at }: Attempt): string {
    const index = family === 4 ? 0 : 1;
    if (to === 'world') return lab.lab.plan.world.outside[index];
    return (at === 'Service' ? services.get(to) : pods.get(to)?.addresses)?.[index] ?? '';
  }

  /** @returns What did not come out as it should, each in words. */
  async function probe(attempts: readonly Attempt[]): Promise<string[]> {
    const wrong = await Promise.all(
      attempts.map(async (attempt) => {
        const { from, port, protocol, allowed } = attempt;
        const source: Source | undefined = from === 'world' ? 'world' : pods.get(from);
        assert.ok(source !== undefined, from);
        const { ok, error = '' } = await lab.probe(source, hostOf(attempt), {
          port,
          protocol: protocol === 'TCP' ? 'tcp' : 'udp',
          timeoutMs: allowed ? allowedMs : deniedMs,
        });
        // A refusal is an answer: the packet came through.
        const came = ok || error !== 'timeout';
        return came === allowed ? [] : [`${nameOf(attempt)}: ${ok ? 'got through' : error}`];
      }),
    );
    return wrong.flat();
  }

  async function settle(attempts: readonly Attempt[], verdict?: 'allow'): Promise<void> {
    const problems = await Promise.all(
      attempts.map(async ({ from, to, protocol, port, allowed }) => {
        const want = verdict ?? (allowed ? 'allow' : 'deny');
        const problem = await agents.settled({ source: from, destination: to, protocol, port }, want);
        return problem === undefined ? [] : [`${from} → ${to} ${protocol} ${port}: ${problem}`];
      }),
    );
    assert.deepEqual([...new Set(problems.flat())], []);
  }

  /** @returns Pairs that were denied, and no node says that it was by one of these policies. */
  async function unexplained(attempts: readonly Attempt[], policies: readonly string[], since: number) {
    const denials = await agents.denials({}, since);
    const pairs = new Set(
      attempts.filter(({ allowed }) => !allowed).map(({ from, to, port }) => `${from} ${to} ${port}`),
    );
    return [...pairs].filter(
      (pair) =>
        !denials.some(
          ({ source, destination, rule }) =>
            `${endName(source)} ${endName(destination)} ${destination.port}` === pair &&
            rule !== undefined &&
            policies.includes(`${rule.namespace}/${rule.name}`),
        ),
    );
  }

  /** Names come from the lab's own name server. */
  async function resolves(from: string): Promise<boolean> {
    const pod = pods.get(from);
    assert.ok(pod !== undefined);
    return (await lab.exec(pod, ['getent', 'hosts', 'web.default.svc.cluster.local'])).code === 0;
  }

  test('there is a promise for every recipe', () => {
    assert.deepEqual(listCases('recipes'), Object.keys(promises));
  });

  for (const [file, lines] of Object.entries(promises))
    test(file, async () => {
      const attempts = lines.flatMap(attemptsOf);
      const open = attempts.map((attempt) => ({ ...attempt, allowed: true }));
      assert.deepEqual(await probe(open), [], 'before');
      const path = casePath('recipes', file);
      const policies = loadManifests([path]).map(
        ({ object: { metadata } }) => `${metadata.namespace}/${metadata.name}`,
      );
      const since = Date.now();
      await lab.apply(path);
      try {
        await settle(attempts);
        assert.deepEqual(await probe(attempts), [], 'with the policy');
        // A pair's denials are reported once a second: one that the recipe before denied too is tried again.
        await lab.eventually(async () => {
          const silent = await unexplained(attempts, policies, since);
          if (silent.length > 0) await probe(attempts.filter(({ allowed }) => !allowed));
          assert.deepEqual(silent, [], 'not explained');
        });
        if (/^1[14]/.test(file)) assert.ok(await resolves('default/foo'), 'the exception for DNS');
        if (/^12/.test(file)) assert.equal(await resolves('default/foo'), false, 'there is no exception for DNS');
      } finally {
        await lab.remove(path);
      }
      await settle(attempts, 'allow');
      assert.deepEqual(await probe(open), [], 'after');
    });

  test('a connection that a new policy forbids stops where it is, and goes on when the policy goes', async () => {
    const [from, to] = [pods.get('default/other'), pods.get('default/web')];
    assert.ok(from !== undefined && to !== undefined);
    await echo(lab, to, 9000);
    const traffic = await Traffic.start(lab, from, { host: to.addresses[0], port: 9000 }, 'recipe');
    const path = casePath('recipes', '01-deny-all-traffic-to-an-application.yaml');
    const question = { source: 'default/other', destination: 'default/web', protocol: 'TCP', port: 9000 } as const;
    try {
      await lab.apply(path);
      assert.equal(await agents.settled(question, 'deny'), undefined);
      const stopped = await traffic.report();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const later = await traffic.report();
      // What was on its way when the policy came may still arrive.
      assert.ok(later.udp.echoed - stopped.udp.echoed <= 2 && later.udp.sent - stopped.udp.sent > 10);
      assert.ok(later.tcp.echoed - stopped.tcp.echoed <= 2);
      await lab.remove(path);
      await lab.eventually(async () => {
        const { tcp, udp } = await traffic.report();
        assert.equal(tcp.failure, '');
        assert.ok(tcp.echoed > later.tcp.echoed + 20 && udp.echoed > later.udp.echoed + 20);
      });
      const { tcp } = await traffic.stop();
      assert.deepEqual({ failure: tcp.failure, open: tcp.sent - tcp.echoed }, { failure: '', open: 0 });
    } finally {
      traffic.kill();
      await lab.remove(path);
    }
  });
});
