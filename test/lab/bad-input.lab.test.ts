import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isApiError } from '../../src/api/client/error.ts';
import { kinds } from '../../src/api/kinds.ts';
import { Store } from '../../src/api/server/storage/store.ts';
import { type Agents, agentsOf } from '../support/agents.ts';
import { myelin } from '../support/cli.ts';
import { TestLab, type TestPod } from '../support/lab.ts';

/* What people and newer servers get wrong: refused where it can be, with the place; closed, and said so, where it cannot. */

const good = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}\n';
const policy = (spec: string) =>
  `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n${spec}`;

/** Each file, and the line that it earns, `FILE` standing for its path. */
const wrongManifests: Readonly<Record<string, { text: string; expected: readonly string[] }>> = {
  'not YAML': {
    text: 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: [web\n',
    expected: ['FILE:5:1: Flow sequence in block collection must be sufficiently indented and end with a ]'],
  },
  'an unknown field': {
    text: policy('  podSelector: {}\n  ingress:\n    - form:\n        - podSelector: {}\n'),
    expected: [
      'FILE:7:7: NetworkPolicy web spec.ingress[0].form: unknown field "spec.ingress[0].form": expected "from", "ports"',
    ],
  },
  'an unknown enum value': {
    text: policy('  podSelector: {}\n  ingress:\n    - ports:\n        - {port: 80, protocol: HTTP}\n'),
    expected: [
      'FILE:8:32: NetworkPolicy web spec.ingress[0].ports[0].protocol: Unsupported value: "HTTP": supported values: "TCP", "UDP", "SCTP"',
    ],
  },
  'a wrong type and what Kubernetes refuses beyond types, in one go': {
    text: `${policy('  podSelector: {}\n  ingress:\n    - ports:\n        - {port: 90, endPort: 80}\n      from:\n        - ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/24]}\n')}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: many\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: web}]}\n`,
    expected: [
      'FILE:8:31: NetworkPolicy web spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`',
      'FILE:10:48: NetworkPolicy web spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/24": must be a strict subset of `cidr`',
      'FILE:16:13: Deployment web spec.replicas: Invalid value: "string": spec.replicas must be of type number',
    ],
  },
  'a kind that there is not': {
    text: 'apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: web}\n',
    expected: ['FILE:2:7: kind: there is no kind Deployment in apps/v1beta1; Deployment is in apps/v1'],
  },
};

/** Policies of a newer server, as it would store them: whom each closes, and what is said of it. */
const foreignPolicies: Readonly<
  Record<string, { namespace: string; spec: object; closes: readonly string[]; open: readonly string[]; said: RegExp }>
> = {
  'a field that is not known': {
    namespace: 'default',
    spec: {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: {} }], fromServices: [{ name: 'client' }] }],
    },
    closes: ['default/client → default/web', 'future/a → default/web', 'default/web → default/client'],
    open: ['default/client → future/a', 'future/a → future/b'],
    said: /spec\.ingress\[0\]\.fromServices: is not a field of this kind/,
  },
  'a protocol that is not known': {
    namespace: 'default',
    spec: {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Ingress'],
      ingress: [{}, { ports: [{ protocol: 'QUIC', port: 80 }] }],
    },
    closes: ['default/client → default/web', 'default/web → default/client'],
    open: ['default/client → future/a'],
    said: /spec\.ingress\[1\]\.ports\[0\]\.protocol: expected "TCP" or "UDP" or "SCTP"/,
  },
  'a selector that is not understood: nobody knows whom it is about': {
    namespace: 'future',
    spec: {
      podSelector: { matchExpressions: [{ key: 'app', operator: 'Like', values: ['a*'] }] },
      ingress: [{}],
      egress: [{}],
      policyTypes: ['Ingress', 'Egress'],
    },
    closes: ['default/client → future/a', 'future/a → future/b', 'future/b → default/web'],
    open: ['default/client → default/web', 'default/web → default/client'],
    said: /spec\.podSelector\.matchExpressions\[0\]\.operator: expected "In" or "NotIn"/,
  },
};

describe('bad input', () => {
  let lab: TestLab;
  let agents: Agents;
  const pods = new Map<string, TestPod>();
  const directory = mkdtempSync(join(tmpdir(), 'bad-input-'));
  const file = (base: string, text: string) => {
    const path = join(directory, base);
    writeFileSync(path, text);
    return path;
  };

  before(async () => {
    lab = await TestLab.up({ nodes: 2 });
    agents = agentsOf(lab);
    await lab.namespace('future');
    await Promise.all(
      ['default/web', 'default/client', 'future/a', 'future/b'].map(async (key, i) => {
        const [namespace = '', name = ''] = key.split('/');
        pods.set(
          key,
          await lab
            .pod(name, namespace)
            .on(`node-${1 + (i % 2)}`)
            .serving(80)
            .create(),
        );
      }),
    );
  });
  after(async () => {
    await lab?.down();
    rmSync(directory, { recursive: true });
  });

  const isThere = (name: string) =>
    lab.api.get(kinds.ConfigMap, { namespace: 'default', name }).then(
      () => true,
      (error: unknown) => {
        if (isApiError(error, 'NotFound')) return false;
        throw error;
      },
    );
  const policies = async () => (await lab.api.list(kinds.NetworkPolicy)).entries.map(({ key }) => key);

  for (const [what, { text, expected }] of Object.entries(wrongManifests))
    test(`a manifest with ${what}: file, line, field, what was expected; nothing of it is applied`, async () => {
      const wrong = file('wrong.yaml', text);
      for (const files of [
        [file('good.yaml', good), wrong],
        [wrong, file('good.yaml', good)],
      ]) {
        const { code, stderr } = await myelin(
          'lab',
          'apply',
          '--name',
          lab.name,
          ...files.flatMap((path) => ['-f', path]),
        );
        assert.equal(code, 1);
        assert.equal(stderr.trim(), `myelin: ${expected.join('\n').replaceAll('FILE', wrong)}`);
      }
      assert.equal(await isThere('good'), false);
      assert.deepEqual(await policies(), []);
    });

  test('a good and a wrong document in one file: nothing of it is applied', async () => {
    const mixed = file('mixed.yaml', `${good}---\n${policy('  podSelector: {}\n  ingres: []\n')}`);
    const { code, stderr } = await myelin('lab', 'apply', '--name', lab.name, '-f', mixed);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /mixed\.yaml:11:3: NetworkPolicy web spec\.ingres: unknown field "spec\.ingres": expected .*"ingress"/,
    );
    assert.equal(await isThere('good'), false);
    await lab.lab.apply([file('good.yaml', good)]);
    assert.equal(await isThere('good'), true);
  });

  test('the API refuses a policy with an unknown field or value, whatever validation its client asks for', async () => {
    const kubectl = (path: string, ...flags: string[]) =>
      myelin('lab', 'kubectl', '--name', lab.name, '--', 'create', ...flags, '-f', path);
    const field = file('field.yaml', policy('  podSelector: {}\n  ingress: [{form: []}]\n'));
    const value = file('value.yaml', policy('  podSelector: {}\n  ingress: [{ports: [{protocol: HTTP}]}]\n'));
    for (const flags of [[], ['--validate=false'], ['--validate=warn']]) {
      const unknown = await kubectl(field, ...flags);
      assert.equal(unknown.code, 1);
      assert.match(unknown.stderr, /unknown field "spec\.ingress\[0\]\.form"/);
      const unsupported = await kubectl(value, ...flags);
      assert.equal(unsupported.code, 1);
      assert.match(unsupported.stderr, /protocol: Unsupported value: "HTTP": supported values: "TCP", "UDP", "SCTP"/);
    }
    assert.deepEqual(await policies(), []);
  });

  /** Puts an object where the server finds it, past all of its checks: what a newer version of it may have left there. */
  async function smuggle(namespace: string, name: string, spec: object): Promise<void> {
    await lab.lab.stopService('api');
    const data = `${lab.lab.plan.directory}/api.sqlite`;
    const store = new Store({ file: data, historyEvents: 100_000, historyBytes: 1 << 30 });
    try {
      const uid = crypto.randomUUID();
      const creationTimestamp = `${new Date().toISOString().slice(0, 19)}Z`;
      const metadata = { namespace, name, uid, creationTimestamp, generation: 1 };
      store.put('networking.k8s.io/networkpolicies', {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata,
        spec,
      });
    } finally {
      store.close();
    }
    lab.lab.startService('api');
    await lab.eventually(async () => assert.ok(await lab.lab.answers()), { timeoutMs: 20_000 });
  }

  /** Watchers wait a while between their tries of a server that was away. */
  async function assertWell(): Promise<void> {
    await lab.eventually(
      async () => {
        const { code, stdout } = await myelin('status', '--lab', lab.name);
        assert.equal(code, 0, stdout);
      },
      { timeoutMs: 60_000 },
    );
  }

  async function assertFlows(flows: readonly string[], allowed: boolean): Promise<void> {
    await Promise.all(
      flows.flatMap((flow) =>
        ([4, 6] as const).map(async (family) => {
          const [from, to] = flow.split(' → ').map((key) => pods.get(key));
          assert.ok(from !== undefined && to !== undefined);
          const { error } = await lab.probe(from, to, { port: 80, family, timeoutMs: allowed ? 4000 : 1000 });
          assert.equal(error, allowed ? undefined : 'timeout', `${flow} over IPv${family}`);
        }),
      ),
    );
  }

  async function settled(flows: readonly string[], verdict: 'allow' | 'deny'): Promise<void> {
    for (const flow of flows) {
      const [source = '', destination = ''] = flow.split(' → ');
      const problem = await agents.settled({ source, destination, protocol: 'TCP', port: 80 }, verdict, 30_000);
      assert.equal(problem, undefined, flow);
    }
  }

  for (const [what, { namespace, spec, closes, open, said }] of Object.entries(foreignPolicies))
    test(`a policy that arrives all the same, with ${what}: closes what it selects, and says so`, async () => {
      await assertFlows([...closes, ...open], true);
      await assertWell();
      await smuggle(namespace, 'newer', spec);
      try {
        await settled(closes, 'deny');
        await assertFlows(closes, false);
        await assertFlows(open, true);

        const { code, stdout } = await myelin('status', '--lab', lab.name);
        assert.equal(code, 1);
        const lines = stdout.split('\n').filter((line) => line.includes('understood'));
        assert.equal(lines.length, 2, 'both nodes say so');
        for (const line of lines) {
          assert.ok(line.includes(`✗ understood   NetworkPolicy ${namespace}/newer denies all: `), line);
          assert.match(line, said);
        }
        for (const { name } of lab.lab.plan.nodes) {
          const { conditions, policy: own } = await agents.status(name);
          assert.equal(conditions.find((condition) => condition.name === 'understood')?.ok, false);
          assert.deepEqual(
            own.broken.map((each) => each.policy),
            [`NetworkPolicy ${namespace}/newer`],
          );
          assert.equal(own.refused, undefined, 'the revision is in force');
        }
        // Whoever looks at the policy itself reads it there; and what was not understood of it is still all there.
        await lab.eventually(
          async () => {
            const { entries } = await lab.api.list(kinds.NetworkPolicy);
            const raw = { spec: {}, status: {}, ...entries[0]?.raw };
            assert.deepEqual(raw.spec, spec);
            assert.match(JSON.stringify(raw.status), /"type":"Understood","status":"False"/);
          },
          { timeoutMs: 30_000 },
        );
        await assertFlows(closes, false);
      } finally {
        await lab.api.delete(kinds.NetworkPolicy, { namespace, name: 'newer' });
      }
      await settled([...closes, ...open], 'allow');
      await assertFlows([...closes, ...open], true);
      await assertWell();
    });
});
