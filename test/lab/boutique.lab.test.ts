import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { kinds } from '../../src/api/kinds.ts';
import { parseIp } from '../../src/model/address.ts';
import { TestLab, type TestPod } from '../support/lab.ts';
import { casePath } from '../support/shared.ts';

interface Called {
  readonly name: string;
  readonly ok: boolean;
  readonly error?: string | undefined;
  readonly calls?: Called[] | undefined;
}

const called: z.ZodType<Called> = z.object({
  name: z.string(),
  ok: z.boolean(),
  error: z.string().optional(),
  get calls() {
    return z.array(called).optional();
  },
});
const answer = z.object({ service: z.string(), calls: z.array(called) });

/** `caller → callee` for every call below an answer. */
function edges(caller: string, calls: readonly Called[]): string[] {
  return calls.flatMap(({ name, ok, calls: further = [] }) => [
    `${caller} → ${name}${ok ? '' : ' failed'}`,
    ...edges(name, further),
  ]);
}

/** Waits until a page of the shop was served without a failure (but those expected), and says who called whom for it. */
async function visit(lab: TestLab, from: TestPod, expectedFailures: readonly string[]): Promise<string[]> {
  let seen: string[] = [];
  await lab.eventually(
    async () => {
      const { stdout, stderr } = await lab.exec(from, ['curl', '-sS', '-m', '8', 'http://frontend/']);
      const page = answer.parse(JSON.parse(stdout === '' ? `"${stderr}"` : stdout));
      seen = [...new Set(edges('frontend', page.calls))].sort();
      assert.deepEqual(
        seen.filter((edge) => edge.endsWith(' failed')),
        expectedFailures,
      );
    },
    { timeoutMs: 30_000 },
  );
  return seen;
}

/** One running pod of each app of a namespace. */
async function podsOf(lab: TestLab, namespace: string): Promise<Map<string, TestPod>> {
  const { entries } = await lab.api.list(kinds.Pod, { namespace });
  const pods = new Map<string, TestPod>();
  for (const { object } of entries)
    if (object !== undefined)
      pods.set(object.metadata.labels?.app ?? '', await lab.running(object.metadata.name, namespace));
  return pods;
}

function podOf(pods: ReadonlyMap<string, TestPod>, app: string): TestPod {
  const pod = pods.get(app);
  assert.ok(pod !== undefined, `no pod of ${app}`);
  return pod;
}

/** Policies let through what the application needs; these try what it does not. */
async function assertDenied(
  lab: TestLab,
  pods: ReadonlyMap<string, TestPod>,
  flows: readonly [string, string, number][],
) {
  await Promise.all(
    flows.flatMap(([from, to, port]) =>
      ([4, 6] as const).map(async (family) => {
        const { error } = await lab.probe(podOf(pods, from), podOf(pods, to), { port, family, timeoutMs: 1000 });
        assert.equal(error, 'timeout', `${from} reaches ${to} at ${port} over IPv${family}`);
      }),
    ),
  );
}

describe('examples/boutique', () => {
  let lab: TestLab;
  before(async () => {
    lab = await TestLab.up({ nodes: 3, dns: true, files: [resolve(import.meta.dirname, '../../examples/boutique')] });
  });
  after(() => lab?.down());

  test('a page calls every service that it should, over three nodes', async () => {
    const pods = await podsOf(lab, 'boutique');
    assert.equal(pods.size, 12);
    assert.equal(new Set([...pods.values()].map(({ node }) => node)).size, 3);
    for (const { addresses } of pods.values()) addresses.forEach(parseIp);
    assert.deepEqual(await visit(lab, podOf(pods, 'loadgenerator'), []), [
      'cart → redis',
      'checkout → cart',
      'checkout → currency',
      'checkout → email',
      'checkout → payment',
      'checkout → productcatalog',
      'checkout → shipping',
      'frontend → ad',
      'frontend → cart',
      'frontend → checkout',
      'frontend → currency',
      'frontend → productcatalog',
      'frontend → recommendation',
      'frontend → shipping',
      'recommendation → productcatalog',
    ]);
  });

  test('nobody reaches what it has no business with', async () => {
    await assertDenied(lab, await podsOf(lab, 'boutique'), [
      ['ad', 'redis', 6379],
      ['frontend', 'redis', 6379],
      ['loadgenerator', 'payment', 50051],
      ['frontend', 'payment', 50051],
      ['redis', 'cart', 7070],
      ['cart', 'redis', 6380],
    ]);
  });

  test('the load generator keeps going', async () => {
    const loadgenerator = podOf(await podsOf(lab, 'boutique'), 'loadgenerator');
    const file = await lab.lab.logFile({ namespace: 'boutique', pod: loadgenerator.name });
    await lab.eventually(
      async () => {
        const { stdout } = await lab.exec('control', ['tail', '-n', '1', file]);
        const { requests, failures } = z
          .object({ requests: z.int(), failures: z.int() })
          .parse(JSON.parse(stdout || 'null'));
        assert.ok(requests > 0 && failures === 0, stdout);
      },
      { timeoutMs: 25_000 },
    );
  });
});

describe('the upstream online boutique, unchanged, with its policies', () => {
  let lab: TestLab;
  const directory = casePath('online-boutique');
  before(async () => {
    const files = [`${directory}/kubernetes-manifests.yaml`, `${directory}/network-policies`];
    lab = await TestLab.up({ nodes: 3, dns: true, files });
  });
  after(() => lab?.down());

  test('comes up, and a page calls every service that is there', async () => {
    const pods = await podsOf(lab, 'default');
    assert.equal(pods.size, 12);
    // The manifests name one service that they do not have.
    const missing = 'frontend → shoppingassistantservice failed';
    const seen = await visit(lab, podOf(pods, 'loadgenerator'), [missing]);
    for (const callee of ['adservice', 'cartservice', 'checkoutservice', 'currencyservice', 'shippingservice'])
      assert.ok(seen.includes(`frontend → ${callee}`), callee);
    assert.ok(seen.includes('cartservice → redis-cart'));
    assert.ok(seen.includes('recommendationservice → productcatalogservice'));
  });

  test('its policies hold', async () => {
    await assertDenied(lab, await podsOf(lab, 'default'), [
      ['frontend', 'redis-cart', 6379],
      ['adservice', 'redis-cart', 6379],
      ['loadgenerator', 'paymentservice', 50051],
      ['frontend', 'paymentservice', 50051],
      ['adservice', 'emailservice', 8080],
    ]);
  });
});
