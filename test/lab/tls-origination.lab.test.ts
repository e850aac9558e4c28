import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { type Pem, TestPki } from '../api/pki.ts';
import type { TestPod } from '../support/lab.ts';
import { PolicyLab } from '../support/policy-lab.ts';

/*
 * A pod's HTTPS to the world, which the node's proxy ends, judges and opens anew; and what it says in clear, which leaves in
 * TLS. The Secret with its key comes from the API by the node's agent.
 */

const program = join(import.meta.dirname, '../support/https-program.ts');
const [tlsPort, clearPort] = [9443, 9444] as const;
const worlds = { 4: '203.0.113.10', 6: '2001:db8::10' } as const;
const host = 'shop.example';

const secret = (data: Record<string, string>) => `apiVersion: v1
kind: Secret
metadata:
  name: shop
  namespace: myelin-secrets
  annotations: {myelin.dev/policy-namespaces: default}
data: ${JSON.stringify(Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')])))}
---
`;
const named = (namespace = 'myelin-secrets') => `{secret: {namespace: ${namespace}, name: shop}}`;
const rules = 'rules: {http: [{method: GET, path: "/open/.*"}]}';
const policy = (namespace?: string) => `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: asker}}
  egress:
  - toCIDR: [203.0.113.0/24, "2001:db8::/64"]
    toPorts:
    - ports: [{port: "${tlsPort}", protocol: TCP}]
      terminatingTLS: ${named(namespace)}
      originatingTLS: ${named(namespace)}
      ${rules}
    - ports: [{port: "${clearPort}", protocol: TCP}]
      originatingTLS: ${named(namespace)}
      ${rules}
---
`;

describe('TLS by policy', { timeout: 180_000 }, () => {
  let policies: PolicyLab;
  let asker: TestPod;
  let back: TestPki;
  let shown: Pem;
  let ca = '';
  const servers: ChildProcess[] = [];
  const heard: string[] = [];
  const directory = mkdtempSync(join(tmpdir(), `myelin-origination-${process.pid}-`));
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };

  before(async () => {
    const [front, behind] = await Promise.all([TestPki.create(), TestPki.create()]);
    back = behind;
    const names = [{ type: 'dns', value: host } as const];
    const [theirs, ours] = await Promise.all([
      back.issue([{ CN: [host] }], names),
      front.issue([{ CN: [host] }], names),
    ]);
    shown = ours;
    ca = front.ca;
    const [cert, key] = [file('cert.pem', theirs.cert), file('key.pem', theirs.key)];
    policies = await PolicyLab.up({ nodes: 1 });
    asker = await policies.lab.pod('asker').on('node-1').create();
    for (const port of [tlsPort, clearPort]) {
      const node = [process.execPath, '--disable-warning=ExperimentalWarning'];
      const [command = '', ...args] = await policies.lab.command('world', [...node, program, cert, key, String(port)]);
      const server = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      servers.push(server);
      await new Promise<void>((resolve) =>
        createInterface({ input: server.stdout }).on('line', (line) => {
          if (line === 'ready') resolve();
          else heard.push(line);
        }),
      );
    }
    await policies.lab.namespace('myelin-secrets');
  });
  after(async () => {
    for (const server of servers) server.kill('SIGKILL');
    await policies?.down();
    rmSync(directory, { recursive: true, force: true });
  });

  const whole = () => ({ 'tls.crt': shown.cert, 'tls.key': shown.key, 'ca.crt': back.ca });
  /** @returns The status that curl hears, or `failed CODE`. */
  const curl = async (scheme: 'http' | 'https', path: string, family: 4 | 6 = 4): Promise<string> => {
    const port = scheme === 'https' ? tlsPort : clearPort;
    const address = family === 4 ? worlds[4] : `[${worlds[6]}]`;
    const at = ['--resolve', `${host}:${port}:${address}`, '--cacert', '/tmp/ca.pem'];
    const quiet = ['--silent', '--max-time', '5', '--output', '/dev/null', '--write-out', '%{http_code}'];
    // A pod has a /tmp of its own.
    const trusting = ['sh', '-c', 'printf %s "$1" > /tmp/ca.pem && shift && exec curl "$@"', 'sh', ca];
    const url = `${scheme}://${host}:${port}${path}`;
    const { stdout, code } = await policies.lab.exec(asker, [...trusting, ...quiet, ...at, url]);
    return code === 0 ? stdout : `failed ${code}`;
  };
  const soon = (ask: () => Promise<string>, expected: string | RegExp) =>
    policies.lab.eventually(
      async () => {
        const answer = await ask();
        assert.ok(typeof expected === 'string' ? answer === expected : expected.test(answer), answer);
      },
      { timeoutMs: 30_000 },
    );
  const condition = async (): Promise<string> => {
    const { conditions } = await policies.agents.status('node-1');
    const found = conditions.find(({ name }) => name === 'secrets');
    return `${String(found?.ok)} ${found?.message ?? ''}`;
  };

  test('without the Secret nothing passes, and status says which one', async () => {
    await policies.apply(policy());
    await soon(condition, /^false .*Secret myelin-secrets\/shop is not there/);
    assert.match(await curl('https', '/open/a'), /^failed/);
    assert.match(await curl('http', '/open/a'), /^failed/);
  });

  test('requests within TLS are judged, and those in clear leave in TLS', async () => {
    await policies.apply(secret(whole()));
    await soon(() => curl('https', '/open/first'), '200');
    heard.length = 0;
    for (const family of [4, 6] as const)
      for (const scheme of ['https', 'http'] as const) {
        assert.equal(await curl(scheme, `/open/${scheme}${family}`, family), '200');
        assert.equal(await curl(scheme, '/closed', family), '403');
      }
    const expected = ['https4', 'http4', 'https6', 'http6'].map((path) => `GET /open/${path} ${host}`);
    await soon(async () => [...heard].sort().join(), [...expected].sort().join());
    assert.match(await condition(), /^true/);
    await policies.lab.eventually(async () => {
      const flows = await policies.agents.flows({ http: 'only', last: '1000' });
      const namesOf = (path: string) => flows.filter((flow) => flow.http?.path === path).map(({ http }) => http?.tls);
      assert.deepEqual(namesOf('/open/https4'), [{ serverName: host }]);
      assert.deepEqual(namesOf('/open/http4'), [undefined]);
    });
  });

  test('whom the Secret does not trust is answered 503 for, and a Secret that is another one counts at once', async () => {
    const other = await TestPki.create();
    await policies.apply(secret({ ...whole(), 'ca.crt': other.ca }));
    await soon(() => curl('https', '/open/a'), '503');
    await soon(() => curl('http', '/open/a'), '503');
    await soon(async () => {
      const flows = await policies.agents.flows({ http: 'only', verdict: 'deny', last: '1000' });
      return flows.map(({ reason }) => reason).join();
    }, /TLS_UNVERIFIED/);
    await policies.apply(secret(whole()));
    await soon(() => curl('https', '/open/a'), '200');
    await policies.apply(secret({ ...whole(), 'tls.key': 'x' }));
    await soon(condition, /^false .*no private key in tls.key/);
    await soon(() => curl('https', '/open/a'), /^failed/);
    assert.equal(await curl('http', '/open/a'), '200');
  });

  test('the key is in no log, and the proxy writes no dump and shows its memory to nobody', () => {
    const run = `/run/myelin/lab/${policies.lab.name}`;
    const middle = shown.key.split('\n')[1] ?? '';
    assert.ok(middle.length > 40);
    for (const entry of readdirSync(join(run, 'log'), { withFileTypes: true }))
      if (entry.isFile()) assert.ok(!readFileSync(join(run, 'log', entry.name), 'latin1').includes(middle), entry.name);
    const proxies = readdirSync('/proc').filter((pid) => {
      if (!/^[0-9]+$/.test(pid)) return false;
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('src/proxy/main.ts') &&
          /^Uid:\t64747/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
        );
      } catch {
        return false;
      }
    });
    assert.ok(proxies.length > 0);
    // proc(5): of a process that is not dumpable they are root's.
    for (const pid of proxies) assert.equal(statSync(`/proc/${pid}/maps`).uid, 0, pid);
  });

  test('a Secret of another namespace is a limit, and closes', async () => {
    await policies.apply(policy('default'));
    await policies.condition(
      'CiliumNetworkPolicy',
      'out',
      'Enforced',
      /only Secrets of the namespace myelin-secrets/,
      'default',
    );
    await soon(() => curl('http', '/open/a'), /^failed/);
  });
});
