import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { kinds } from '../../src/api/kinds.ts';
import { type Agents, agentsOf, endName } from '../support/agents.ts';
import { observe } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';
import { casePath } from '../support/shared.ts';

/*
 * The published shop of eleven services and a Redis, with its published policies: manifests that were not written for this
 * lab, unchanged.
 */

/** Who each service lets in, and at which of its pod's ports, read off the published policies by a person. */
const callersOf: Readonly<Record<string, { readonly port: number; readonly from: readonly string[] | 'anybody' }>> = {
  adservice: { port: 9555, from: ['frontend'] },
  cartservice: { port: 7070, from: ['frontend', 'checkoutservice'] },
  checkoutservice: { port: 5050, from: ['frontend'] },
  currencyservice: { port: 7000, from: ['frontend', 'checkoutservice'] },
  emailservice: { port: 8080, from: ['checkoutservice'] },
  frontend: { port: 8080, from: 'anybody' },
  paymentservice: { port: 50051, from: ['checkoutservice'] },
  productcatalogservice: { port: 3550, from: ['frontend', 'checkoutservice', 'recommendationservice'] },
  recommendationservice: { port: 8080, from: ['frontend'] },
  'redis-cart': { port: 6379, from: ['cartservice'] },
  shippingservice: { port: 50051, from: ['frontend', 'checkoutservice'] },
};
/** Each call that a page of the front end leads to: the stand-ins call whatever their manifests name. */
const callsOf: Readonly<Record<string, readonly string[]>> = {
  frontend: [
    'adservice',
    'cartservice',
    'checkoutservice',
    'currencyservice',
    'productcatalogservice',
    'recommendationservice',
    'shippingservice',
    'shoppingassistantservice',
  ],
  cartservice: ['redis-cart'],
  checkoutservice: [
    'cartservice',
    'currencyservice',
    'emailservice',
    'paymentservice',
    'productcatalogservice',
    'shippingservice',
  ],
  recommendationservice: ['productcatalogservice'],
};
/** The manifests name it and have no such Service; the real front end does not call it unless it is told to. */
const notDeployed = 'shoppingassistantservice';
const allowedMs = 4000;
const deniedMs = 1000;

const call = z.looseObject({ name: z.string(), ok: z.boolean(), calls: z.array(z.unknown()).optional() });
const page = z.looseObject({ service: z.string(), calls: z.array(z.unknown()) });

describe('the published Online Boutique', () => {
  let lab: TestLab;
  let agents: Agents;
  let outsider: TestPod;
  const apps = new Map<string, TestPod>();

  before(async () => {
    lab = await TestLab.up({
      nodes: 2,
      dns: true,
      files: [casePath('online-boutique', 'kubernetes-manifests.yaml')],
      readyTimeoutMs: 90_000,
    });
    agents = agentsOf(lab);
  });
  after(() => lab?.down());

  const edges = () =>
    [...apps.keys(), 'outsider'].flatMap((from) =>
      Object.entries(callersOf)
        .filter(([to]) => to !== from)
        .map(([to, { port, from: callers }]) => ({
          from,
          to,
          port,
          allowed: callers === 'anybody' || callers.includes(from),
        })),
    );
  const podOf = (app: string): TestPod => {
    const pod = app === 'outsider' ? outsider : apps.get(app);
    assert.ok(pod !== undefined, `there is no pod of ${app}`);
    return pod;
  };
  const nameOf = (app: string) => `${podOf(app).namespace}/${podOf(app).name}`;

  /** A page, asked for as a customer; what became of each call, as `caller → callee`. */
  async function visit(): Promise<{ fine: Set<string>; failed: Set<string> }> {
    const { stdout, stderr, code } = await lab.exec(podOf('loadgenerator'), [
      'curl',
      '-sS',
      '-m',
      '10',
      'http://frontend/',
    ]);
    assert.equal(code, 0, stderr);
    const [fine, failed] = [new Set<string>(), new Set<string>()];
    const walk = (caller: string, calls: readonly unknown[]) => {
      for (const { name, ok, calls: further = [] } of calls.map((value) => call.parse(value))) {
        (ok ? fine : failed).add(`${caller} → ${name}`);
        walk(name, further);
      }
    };
    const { service, calls } = page.parse(JSON.parse(stdout));
    walk(service, calls);
    return { fine, failed };
  }

  async function expectFinePage(): Promise<void> {
    const all = Object.entries(callsOf).flatMap(([from, to]) => to.map((name) => `${from} → ${name}`));
    await lab.eventually(async () => {
      const { fine, failed } = await visit();
      assert.deepEqual([...failed], [`frontend → ${notDeployed}`]);
      assert.deepEqual([...fine].sort(), all.filter((edge) => !edge.endsWith(notDeployed)).sort());
    });
  }

  test('comes up ready as it is', async () => {
    const { entries } = await lab.api.list(kinds.Pod, { namespace: 'default' });
    for (const { object } of entries) {
      const app = object?.metadata.labels?.app ?? '';
      apps.set(app, await lab.running(object?.metadata.name ?? '', 'default'));
    }
    assert.deepEqual([...apps.keys()].sort(), [...Object.keys(callersOf), 'loadgenerator'].sort());
    assert.equal(new Set([...apps.values()].map(({ node }) => node)).size, 2, 'all pods are on one node');
    await lab.namespace('elsewhere');
    outsider = await lab.pod('outsider', 'elsewhere').create();
  });

  test('serves a page, and every call behind it is fine', expectFinePage);

  test('without policies everybody reaches everybody', async () => {
    const wrong = await Promise.all(
      edges().map(async ({ from, to, port }) => {
        const answer = await lab.probe(podOf(from), podOf(to), { port, timeoutMs: allowedMs });
        return answer.ok ? [] : [`${from} → ${to}: ${answer.error}`];
      }),
    );
    assert.deepEqual(wrong.flat(), []);
  });

  test('with its policies it still serves, every call is fine, and all pods stay ready', async () => {
    await lab.apply(casePath('online-boutique', 'network-policies'));
    const [source, destination] = [nameOf('frontend'), nameOf('redis-cart')];
    const problem = await agents.settled({ source, destination, protocol: 'TCP', port: 6379 }, 'deny');
    assert.equal(problem, undefined);
    await expectFinePage();
    await lab.lab.waitReady({ timeoutMs: 5000 });
  });

  for (const way of ['the Service', 'the pod over IPv4', 'the pod over IPv6'] as const)
    test(`whoever a policy lets in gets in, and nobody else: at ${way}`, async () => {
      const services = await lab.api.list(kinds.Service, { namespace: 'default' });
      const wrong = await Promise.all(
        edges().map(async ({ from, to, port, allowed }) => {
          const service = services.entries.find(({ key }) => key === `default/${to}`)?.object?.spec;
          const timeoutMs = allowed ? allowedMs : deniedMs;
          const front = { port: service?.ports?.[0]?.port ?? 0, timeoutMs };
          const { ok } =
            way === 'the Service'
              ? await lab.probe(podOf(from), service?.clusterIP ?? '', front)
              : await lab.probe(podOf(from), podOf(to), { port, timeoutMs, family: way.endsWith('6') ? 6 : 4 });
          return ok === allowed ? [] : [`${from} → ${to}: ${ok ? 'got in' : 'did not get in'}`];
        }),
      );
      assert.deepEqual(wrong.flat(), []);
    });

  test('only the port and the protocol that a policy names', async () => {
    const [frontend, cart, redis] = ['frontend', 'cartservice', 'redis-cart'].map(podOf);
    assert.ok(frontend !== undefined && cart !== undefined && redis !== undefined);
    assert.equal(await lab.reaches(cart, redis, { port: 6379 }), true);
    // Nobody listens there: a packet that arrives is refused, one that is dropped is not answered at all.
    for (const [from, to, port] of [
      [cart, redis, 6380],
      [frontend, cart, 7071],
    ] as const) {
      const { error } = await lab.probe(from, to, { port, timeoutMs: deniedMs });
      assert.equal(error, 'timeout', `${from.name} → ${to.name}:${port}`);
    }
    const udp = await lab.probe(cart, redis, { port: 6379, protocol: 'udp', timeoutMs: deniedMs });
    assert.equal(udp.error, 'timeout');
    const ping = ['ping', '-c', '1', '-W', '1', redis.addresses[0]];
    assert.equal((await lab.exec(cart, ping, { privileged: true })).code, 1);
  });

  test('every edge that was denied shows in observe, with the policy that isolates', async () => {
    const denials = await observe(lab.name, '--verdict', 'deny');
    const missing = edges()
      .filter(({ allowed }) => !allowed)
      .filter(
        ({ from, to, port }) =>
          !denials.some(
            ({ source, destination, rule, reason }) =>
              endName(source) === nameOf(from) &&
              endName(destination) === nameOf(to) &&
              destination.port === port &&
              reason === 'POLICY_DENIED' &&
              rule?.namespace === 'default' &&
              // Both select the pod; neither lets the caller in.
              [to, 'deny-all'].includes(rule.name),
          ),
      );
    assert.deepEqual(missing, []);
  });

  test('every edge that was allowed shows too, with the rule that lets it in', async () => {
    const flows = await observe(lab.name, '--verdict', 'allow', '-n', 'default');
    const missing = edges()
      .filter(({ allowed }) => allowed)
      .filter(
        ({ from, to, port }) =>
          !flows.some(
            ({ source, destination, rule, direction }) =>
              endName(source) === nameOf(from) &&
              endName(destination) === nameOf(to) &&
              destination.port === port &&
              direction === 'ingress' &&
              rule?.namespace === 'default' &&
              rule.name === to &&
              rule.index === 0,
          ),
      );
    assert.deepEqual(missing, []);
    // Nobody who is to be kept out was ever let in while the policies held.
    const wrong = flows.filter(
      ({ source, destination, rule, direction }) =>
        direction === 'ingress' &&
        rule !== undefined &&
        edges().some(
          ({ from, to, port, allowed }) =>
            !allowed &&
            endName(source) === nameOf(from) &&
            endName(destination) === nameOf(to) &&
            destination.port === port,
        ),
    );
    assert.deepEqual(wrong, []);
  });

  test('why says of every edge what packets did, and the datapaths agree', async () => {
    const wrong = await Promise.all(
      edges().map(async ({ from, to, port, allowed }) => {
        const question = { source: nameOf(from), destination: nameOf(to), protocol: 'TCP', port } as const;
        const problem = await agents.settled(question, allowed ? 'allow' : 'deny', 0);
        return problem === undefined ? [] : [`${from} → ${to}: ${problem}`];
      }),
    );
    assert.deepEqual(wrong.flat(), []);
  });

  test('without the policies again everybody reaches everybody', async () => {
    await lab.remove(casePath('online-boutique', 'network-policies'));
    const question = {
      source: nameOf('outsider'),
      destination: nameOf('redis-cart'),
      protocol: 'TCP',
      port: 6379,
    } as const;
    assert.equal(await agents.settled(question, 'allow'), undefined);
    assert.equal(await lab.reaches(outsider, podOf('redis-cart'), { port: 6379, timeoutMs: allowedMs }), true);
    await expectFinePage();
  });
});
