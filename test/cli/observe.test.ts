import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { QuestionServer } from '../../src/agent/question-server.ts';
import { flowSchema, type StatusReport, statusSchema } from '../../src/agent/wire.ts';
import { parseIp } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { FlowLog } from '../../src/observe/flow-log.ts';
import { myelin } from '../support/cli.ts';

/** An agent's ear and its flow log, without the agent. */
class Ear {
  readonly directory = mkdtempSync(join(tmpdir(), 'myelin-observe-'));
  readonly log = new FlowLog({ capacity: 100_000, ringLosses: () => this.lost });
  readonly #server: QuestionServer;
  lost = 0;
  #pushed = 0;

  constructor() {
    const unasked = () => assert.fail('nobody asked for this');
    const status = async (): Promise<StatusReport> =>
      statusSchema.parse({
        node: 'node-1',
        version: '0.1.0',
        driver: 'engine',
        startedAt: new Date().toISOString(),
        endpoints: 0,
        conditions: [],
        policy: { revision: 1, policies: 0, ruleSets: 0, identities: 0, maps: {}, broken: [] },
        tunnels: { up: 0, opening: 0, failed: 0, refusals: {} },
        drops: { datapath: {}, tunnel: {} },
        losses: this.log.losses,
      });
    this.#server = new QuestionServer(
      {
        status,
        flows: this.log,
        tunnels: unasked,
        endpoints: unasked,
        names: unasked,
        why: unasked,
        metrics: unasked,
        trace: unasked,
        keys: unasked,
        replaceProxy: unasked,
      },
      pino({ level: 'silent' }),
    );
  }

  start = () => this.#server.start(join(this.directory, 'agent.sock'));
  close = () => this.#server.close();

  /** The next flow; its destination port tells how many there were before it. */
  push(): void {
    this.log.push({
      kind: 'new',
      time: Date.now(),
      node: 'node-1',
      direction: 'egress',
      protocol: 'TCP',
      source: { kind: 'world', address: parseIp('192.0.2.1'), port: 1, identity: reservedIdentity.world },
      destination: {
        kind: 'world',
        address: parseIp('192.0.2.2'),
        port: ++this.#pushed,
        identity: reservedIdentity.world,
      },
      verdict: 'allow',
      packets: 1,
      bytes: 60,
    });
  }
}

describe('myelin observe', () => {
  let ear: Ear;
  beforeEach(async () => {
    ear = new Ear();
    await ear.start();
  });
  afterEach(async () => {
    await ear.close();
    rmSync(ear.directory, { recursive: true });
  });

  const follow = (...args: string[]) => {
    const program = resolve(import.meta.dirname, '../../bin/myelin');
    const all = ['observe', '--run-dir', ear.directory, '--follow', '-o', 'json', ...args];
    const child = spawn(program, all, { stdio: ['ignore', 'pipe', 'pipe'] });
    const errors: string[] = [];
    child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
    const ports: number[] = [];
    createInterface({ input: child.stdout }).on('line', (line) =>
      ports.push(flowSchema.parse(JSON.parse(line)).destination.port),
    );
    return { child, ports, errors: () => errors.join('') };
  };
  const until = async (holds: () => boolean) => {
    while (!holds()) await sleep(10);
  };

  test('between the past and what follows no flow is missing, and none is there twice', {
    timeout: 60_000,
  }, async () => {
    const { child, ports } = follow('--last', '3');
    const pushing = setInterval(() => {
      for (let i = 0; i < 5; i++) ear.push();
    }, 1);
    await until(() => ports.length > 300);
    clearInterval(pushing);
    child.kill('SIGINT');
    const [code] = await once(child, 'exit');
    assert.equal(code, 0);
    const first = ports[0] ?? 0;
    assert.deepEqual(
      ports,
      ports.map((_, i) => first + i),
    );
  });

  test('an agent that goes away is named, in one line, and the exit code says it', { timeout: 60_000 }, async () => {
    const { child, ports, errors } = follow();
    const pushing = setInterval(() => ear.push(), 5);
    await until(() => ports.length > 3);
    clearInterval(pushing);
    await ear.close();
    const [code] = await once(child, 'exit');
    assert.equal(code, 1, errors());
    assert.match(errors(), /the agent of .* went away/);
    assert.doesNotMatch(errors(), /^ +at /m, 'a stack');
    await ear.start();
  });

  test('what was lost is said beside the flows, and does not disturb who reads them', async () => {
    ear.push();
    ear.lost = 7;
    const { code, stdout, stderr } = await myelin('observe', '--run-dir', ear.directory, '-o', 'json');
    assert.equal(code, 0);
    assert.equal(flowSchema.parse(JSON.parse(stdout)).destination.port, 1);
    assert.equal(stderr, 'flows lost on node-1: ring 7\n');
  });

  test('a number of flows is a number; none is none', async () => {
    for (let i = 0; i < 3; i++) ear.push();
    assert.equal((await myelin('observe', '--run-dir', ear.directory, '--last', '0')).stdout, '');
    assert.equal(
      (await myelin('observe', '--run-dir', ear.directory, '--last', '2')).stdout.trim().split('\n').length,
      2,
    );
    const { code, stderr } = await myelin('observe', '--run-dir', ear.directory, '--last', 'all');
    assert.equal(code, 1);
    assert.match(stderr, /last is a number of flows, not "all"/);
  });

  test('a reader that has seen enough ends it without a word', { timeout: 60_000 }, async () => {
    const { child, errors } = follow();
    child.stdout.destroy();
    const pushing = setInterval(() => ear.push(), 5);
    const [code] = await once(child, 'exit');
    clearInterval(pushing);
    assert.equal(errors(), '');
    assert.equal(code, 0);
  });
});
