import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { FlowEvent } from '../../src/model/flow.ts';
import { myelin } from '../support/cli.ts';
import type { TestPod } from '../support/lab.ts';
import { Ping } from '../support/ping.ts';
import { PolicyLab } from '../support/policy-lab.ts';
import { Talker } from '../support/talk.ts';

/*
 * What real sockets are told of what policy denies: one pod beside the server, one on another node. IPv4 beside, IPv6
 * across, and the other way round.
 */

const port = 7000;

/** Keeps everybody from `web`, or `near` from everybody. */
const policy = (whom: 'web' | 'near', annotations: string) => `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default, annotations: {${annotations}}}
spec: {podSelector: {matchLabels: {app: ${whom}}}, policyTypes: [${whom === 'web' ? 'Ingress' : 'Egress'}]}
`;

describe('what policy denies', { timeout: 120_000 }, () => {
  let lab: PolicyLab;
  const pods = new Map<string, TestPod>();
  const talkers = new Map<string, Talker>();
  const pod = (name: string): TestPod => pods.get(name) ?? assert.fail(`there is no pod ${name}`);
  const ask = (name: string, command: string): Promise<string> =>
    talkers.get(name)?.ask(command) ?? assert.fail(`nobody talks in ${name}`);
  const address = (name: string, family: 4 | 6): string => pod(name).addresses[family === 4 ? 0 : 1];
  /** From whom over which family: each way of the two once. */
  const ways = [
    ['near', 4],
    ['far', 6],
    ['near', 6],
    ['far', 4],
  ] as const;

  before(async () => {
    lab = await PolicyLab.up({ nodes: 2 });
    const made = [
      lab.lab.pod('web').on('node-1').create(),
      lab.lab.pod('near').on('node-1').create(),
      lab.lab.pod('far').on('node-2').create(),
    ];
    for (const one of await Promise.all(made)) pods.set(one.name, one);
    talkers.set('web', await Talker.start(lab.lab, pod('web'), 'serve', String(port)));
    for (const name of ['near', 'far']) talkers.set(name, await Talker.start(lab.lab, pod(name)));
  });
  after(async () => {
    for (const talker of talkers.values()) talker.close();
    await lab?.down();
  });

  const settled = async (verdict: 'allow' | 'deny'): Promise<void> => {
    for (const source of ['default/near', 'default/far'])
      assert.equal(
        await lab.agents.settled({ source, destination: 'default/web', protocol: 'TCP', port }, verdict, 20_000),
        undefined,
      );
  };
  const close = async (text: string, sources: readonly string[] = ['near', 'far']): Promise<void> => {
    await lab.apply(text);
    for (const source of sources)
      assert.equal(
        await lab.agents.settled(
          { source: `default/${source}`, destination: 'default/web', protocol: 'TCP', port },
          'deny',
          20_000,
        ),
        undefined,
      );
  };
  const open = async (): Promise<void> => {
    await lab.kubectl('delete', 'networkpolicy', 'closed');
    await settled('allow');
  };
  /** Opens what there is to be cut later, of both protocols, from everywhere; fails if any is not answered. */
  const connected = async (): Promise<void> => {
    await Promise.all(
      ways.map(async ([from, family]) => {
        assert.equal(await ask(from, `tcp t${family} ${address('web', family)} ${port}`), 'open', `${from} ${family}`);
        assert.equal(await ask(from, `say t${family}`), 'echo');
        assert.equal(await ask(from, `udp u${family} ${address('web', family)} ${port}`), 'echo');
      }),
    );
    await ask('web', 'ends');
  };
  /** `near 4 tcp: open` and so on, of every way. */
  const outcomes = async (command: (family: 4 | 6) => readonly string[]): Promise<string[]> => {
    const found = await Promise.all(
      ways.map(async ([from, family]) => {
        const lines: string[] = [];
        for (const one of command(family)) lines.push(`${from} ${family} ${one.slice(0, 3)}: ${await ask(from, one)}`);
        return lines;
      }),
    );
    return found.flat().sort();
  };
  const news = (family: 4 | 6): readonly string[] => [
    `tcp new${family} ${address('web', family)} ${port}`,
    `udp new${family} ${address('web', family)} ${port}`,
  ];
  const expected = (by: (family: 4 | 6) => Readonly<Record<string, string>>): string[] =>
    ways
      .flatMap(([from, family]) =>
        Object.entries(by(family)).map(([what, outcome]) => `${from} ${family} ${what}: ${outcome}`),
      )
      .sort();
  const prohibited = (family: 4 | 6): string => (family === 4 ? 'EHOSTUNREACH' : 'EACCES');

  test('at the receiver, with reject: senders of both nodes are told at once', async () => {
    await connected();
    await close(policy('web', 'myelin.dev/denied: reject'));
    assert.deepEqual(
      await outcomes(news),
      expected((family) => ({ tcp: 'ECONNREFUSED', udp: prohibited(family) })),
    );
    for (const [from, family] of ways) {
      const { stdout } = await lab.lab.exec(pod(from), ['ping', '-c1', '-W2', address('web', family)]);
      assert.match(stdout, /filtered|prohibited/i, `${from} ${family}`);
    }
    await open();
  });

  test('at the receiver, with reject: the world is told, out of the pod’s own address', async () => {
    await lab.lab.routeWorld();
    const world = await Talker.start(lab.lab, 'world');
    talkers.set('world', world);
    for (const family of [4, 6] as const) {
      assert.equal(await ask('world', `tcp before${family} ${address('web', family)} ${port}`), 'open');
      assert.equal(await ask('world', `say before${family}`), 'echo');
    }
    await close(policy('web', 'myelin.dev/denied: reject'));
    for (const family of [4, 6] as const) {
      assert.equal(await ask('world', `tcp new${family} ${address('web', family)} ${port}`), 'ECONNREFUSED');
      assert.equal(await ask('world', `udp new${family} ${address('web', family)} ${port}`), prohibited(family));
    }
    await close(policy('web', ''));
    assert.equal(await ask('world', `tcp late ${address('web', 4)} ${port}`), 'silence');
    await open();
  });

  test('at the sender, with reject: it is told whoever it wanted, also the world', async () => {
    await close(policy('near', 'myelin.dev/denied: reject'), ['near']);
    for (const family of [4, 6] as const) {
      assert.equal(await ask('near', `tcp a ${address('far', family)} 9`), 'ECONNREFUSED');
      assert.equal(await ask('near', `udp b ${address('web', family)} ${port}`), prohibited(family));
      assert.equal(await ask('near', `tcp c ${family === 4 ? '203.0.113.10' : '2001:db8::10'} 80`), 'ECONNREFUSED');
      const { stdout } = await lab.lab.exec(pod('near'), ['ping', '-c1', '-W2', address('far', family)]);
      assert.match(stdout, /filtered|prohibited/i);
    }
    await open();
  });

  test('reset: what was admitted is told at both ends, and a new connection nothing', async () => {
    await connected();
    await close(policy('web', 'myelin.dev/established: reset'));
    assert.deepEqual(
      await outcomes((family) => [`say t${family}`, `say u${family}`].slice(0, 1)),
      expected(() => ({ say: 'ECONNRESET' })),
    );
    const ends: string[] = [];
    await lab.lab.eventually(async () => {
      ends.push(...(JSON.parse(await ask('web', 'ends')) as string[]));
      assert.deepEqual(ends, Array(4).fill('ECONNRESET'));
    });
    assert.deepEqual(
      await outcomes((family) => [`say u${family}`]),
      expected((family) => ({ say: prohibited(family) })),
    );
    assert.equal(await ask('far', `tcp late ${address('web', 4)} ${port}`), 'silence');
    await open();
  });

  test('reset where the sender may not send any more: both ends again', async () => {
    assert.equal(await ask('near', `tcp one ${address('web', 4)} ${port}`), 'open');
    assert.equal(await ask('near', 'say one'), 'echo');
    assert.equal(await ask('far', `tcp two ${address('near', 6)} ${port}`), 'ECONNREFUSED', 'nobody listens there');
    await ask('web', 'ends');
    await close(policy('near', 'myelin.dev/established: reset'), ['near']);
    assert.equal(await ask('near', 'say one'), 'ECONNRESET');
    await lab.lab.eventually(async () => {
      const ends: unknown = JSON.parse(await ask('web', 'ends'));
      assert.deepEqual(ends, ['ECONNRESET']);
    });
    await open();
  });

  test('keep: what was admitted goes on, and nothing new begins', async () => {
    await connected();
    await close(policy('web', 'myelin.dev/established: keep'));
    for (const talk of ['t', 'u'])
      assert.deepEqual(
        await outcomes((family) => [`say ${talk}${family}`]),
        expected(() => ({ say: 'echo' })),
      );
    assert.equal(await ask('near', `tcp late ${address('web', 6)} ${port}`), 'silence');
    assert.equal(await ask('far', `udp late ${address('web', 4)} ${port}`), 'silence');
    await open();
  });

  for (const [established, outcome] of [
    ['keep', 'answer'],
    ['reset', 'prohibited'],
    ['re-evaluate', 'silence'],
  ] as const)
    test(`${established}, of echo requests that go on: ${outcome}`, async () => {
      const pings = await Promise.all(
        ways.map(([from, family]) => Ping.start(lab.lab, pod(from), address('web', family))),
      );
      try {
        assert.deepEqual(await Promise.all(pings.map((ping) => ping.settled(3))), Array(4).fill('answer'));
        await close(policy('web', `myelin.dev/established: ${established}`));
        assert.deepEqual(await Promise.all(pings.map((ping) => ping.settled(5))), Array(4).fill(outcome));
        const { stdout } = await lab.lab.exec(pod('far'), ['ping', '-c1', '-W1', address('web', 4)]);
        assert.match(stdout, / 0 received/, 'a new one begins');
      } finally {
        for (const ping of pings) ping.close();
      }
      await open();
    });

  test('audit: it passes, and observe, why and diff say what would deny it; the log says what the rule has said', async () => {
    const since = Date.now() - 1000;
    await lab.apply(
      policy('web', "myelin.dev/mode: audit, myelin.dev/denied: reject, myelin.dev/log: 'not from here'"),
    );
    await lab.lab.eventually(async () => {
      assert.match(
        await lab.why(pod('far'), pod('web'), port),
        /audited were enforced, ingress would be denied.*closed/,
      );
    });
    await lab.lab.eventually(async () => {
      assert.equal(await ask('far', `tcp told ${address('web', 6)} ${port}`), 'open');
      assert.equal(await ask('near', `udp told ${address('web', 4)} ${port}`), 'echo');
      const { stdout } = await myelin('observe', '--lab', lab.lab.name, '--verdict', 'audit', '-o', 'json');
      const told = stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as FlowEvent)
        .filter(({ time, rule }) => time > since && rule?.name === 'closed');
      assert.deepEqual([...new Set(told.map(({ protocol }) => protocol))].sort(), ['TCP', 'UDP']);
      for (const { verdict, reason } of told) assert.deepEqual([verdict, reason], ['allow', 'POLICY_DENIED']);
    });
    const diff = await myelin('policy', 'diff', '--audited', '--lab', lab.lab.name);
    assert.equal(diff.code, 2, diff.stderr);
    assert.match(diff.stdout, /default\/far +default\/web +TCP 7000 .*deny/);
    assert.match(diff.stderr, /the datapath has said \d+ times/);
    await lab.kubectl('delete', 'networkpolicy', 'closed');
    await close(policy('web', "myelin.dev/log: 'not from here'"));
    assert.equal(await ask('near', `tcp late ${address('web', 6)} ${port}`), 'silence');
    await lab.lab.eventually(async () => {
      const log = readFileSync(join(lab.lab.lab.plan.directory, 'log/agent-node-1.log'), 'utf8');
      const said = log.split('\n').find((line) => line.includes('not from here')) ?? '';
      assert.match(said, /"rule":"NetworkPolicy default\/closed ingress".*"source":"default\/near/);
    });
    await open();
  });

  test('neither: what was admitted is judged again, and nobody is told', async () => {
    await connected();
    await close(policy('web', ''));
    assert.deepEqual(
      await outcomes((family) => [`say ${family === 4 ? 't' : 'u'}${family}`]),
      expected(() => ({ say: 'silence' })),
    );
    await open();
  });
});
