import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { UpPlan } from '../lab/up.ts';
import { MyelinError } from '../model/error.ts';
import type { Outcome } from './demo/attacks.ts';
import { formatDuration, paint } from './output.ts';

interface DemoFlags {
  readonly keep?: boolean;
  readonly lab?: string;
  readonly output?: string;
}

const labName = 'demo';
const customers = 200;
const manifests = resolve(import.meta.dirname, '../../examples/boutique');

export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description('bring up three nodes and a shop, attack them, and report what held')
    .option('--keep', 'leave the lab up and say what to try next')
    .option('--lab <name>', 'the lab to make; one that is left of that name is replaced', labName)
    .option('--output <file>', 'also write what was measured, as JSON')
    .action(demo);
}

async function demo(flags: DemoFlags): Promise<void> {
  // The lab, the tunnels and their libraries are loaded only when they are wanted.
  const [{ prepareUp }, { down }, { readState }] = await Promise.all([
    import('../lab/up.ts'),
    import('../lab/down.ts'),
    import('../lab/state.ts'),
  ]);
  const name = flags.lab ?? labName;
  await refuseIfAtWork(name);
  const stop = new AbortController();
  let endedBy: NodeJS.Signals | undefined;
  // Not only once: who presses Ctrl-C again while the lab is taken down would leave half of it.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (endedBy === undefined) console.error(`\nmyelin: ended by ${signal}; taking the lab down`);
      endedBy ??= signal;
      stop.abort(new Error(`ended by ${signal}`));
    });
  await down(name);
  const upPlan = prepareUp({ name, nodes: 3, files: [manifests], signal: stop.signal });
  try {
    const succeeded = await play(upPlan, stop.signal, flags);
    process.exitCode = succeeded ? 0 : 1;
  } catch (error) {
    if (endedBy === undefined) throw error;
  } finally {
    // 128 and the signal's number, as shells have it.
    if (endedBy !== undefined) process.exitCode = 128 + constants.signals[endedBy];
    if (flags.keep === true && endedBy === undefined && readState(name)?.complete === true)
      console.log(await whatNext(name));
    else await down(name);
  }
}

/** Two demos of one name would take each other's lab down. @throws {MyelinError} `LabExists` */
async function refuseIfAtWork(name: string): Promise<void> {
  const [{ readState }, { isRunning }] = await Promise.all([import('../lab/state.ts'), import('../lab/process.ts')]);
  const starter = readState(name)?.starter;
  if (starter === undefined || !isRunning(starter)) return;
  throw new MyelinError(
    'LabExists',
    `process ${starter.pid} is at work in the lab ${name}: wait for it, or give this demo another lab with --lab`,
  );
}

async function play(upPlan: UpPlan, signal: AbortSignal, flags: DemoFlags): Promise<boolean> {
  const { attacks } = await import('./demo/attacks.ts');
  const { staleCache } = await import('./demo/stale-cache.ts');
  const { Stage, captured } = await import('./demo/stage.ts');
  const { summarizeCapture } = await import('./demo/wire.ts');
  const { callGraph, parseAnswers } = await import('./demo/call-graph.ts');
  const { askCatalogue } = await import('./demo/requests.ts');
  const { expectations, formatReport } = await import('./demo/report.ts');
  const { readTunnels } = await import('./tunnels.ts');

  const times: { step: string; ms: number }[] = [];
  const step = async <T>(title: string, task: () => Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    process.stdout.write(`${paint('dim', '…')} ${title}`);
    const from = performance.now();
    const result = await task();
    const ms = performance.now() - from;
    times.push({ step: title, ms });
    process.stdout.write(
      `${process.stdout.isTTY === true ? '\r' : ' '}${paint('green', '✓')} ${process.stdout.isTTY === true ? title : ''} ${paint('dim', formatDuration(ms))}\n`,
    );
    return result;
  };

  for (const { title, run } of upPlan.steps) await step(title, () => run(() => {}));
  const lab = upPlan.lab();
  const stage = new Stage(lab);
  const { podCidrs } = lab.plan;
  const ports = { esp: 4500, handshake: 4747, api: 6443, controller: 7443 };
  const canary = `canary-${randomBytes(12).toString('hex')}`;
  const shopper = [
    process.execPath,
    join(import.meta.dirname, 'demo/shopper.ts'),
    `http://frontend/${canary}`,
    String(customers),
    '5000',
  ];

  const { result: answers, capture } = await step(`send ${customers} customers through the front end`, () =>
    captured(stage, async () => {
      const generator = await stage.podOf('boutique', 'loadgenerator');
      const { stdout, stderr } = await stage.inPod('boutique', generator.metadata.name, shopper);
      const parsed = parseAnswers(stdout);
      if (parsed.length === 0) throw new Error(`no customer came back: ${stderr}`);
      return parsed;
    }),
  );
  const { edges, tunnels, wire } = await step('read what agents and wire saw', async () => ({
    edges: callGraph('loadgenerator', answers, await stage.flows(), (pod) =>
      pod.replace(/(-[a-z0-9]{5,10})?-[a-z0-9]{5}$/, ''),
    ),
    tunnels: await readTunnels(stage.agents),
    wire: summarizeCapture(capture.file, { pods: podCidrs, ports, canary }),
  }));

  const requests = await step('ask the catalogue what it allows and what not, with and without', () =>
    askCatalogue(stage),
  );

  const outcomes: Outcome[] = [];
  let control = { injected: 0, seen: 0 };
  for (const attack of attacks) {
    await step(`attack: ${attack.name}`, async () => {
      const attempt = () =>
        attack
          .run(stage, capture.file)
          .catch((error: unknown) => ({ stopped: false, by: `the attack itself failed: ${String(error)}` }));
      if (!attack.name.startsWith('plaintext')) {
        outcomes.push({ attack: attack.name, ...(await attempt()) });
        return;
      }
      const seen = await captured(stage, attempt);
      outcomes.push({ attack: attack.name, ...seen.result });
      const { kinds } = summarizeCapture(seen.capture.file, { pods: podCidrs, ports, canary });
      control = { injected: 5, seen: kinds.get('plaintext')?.frames ?? 0 };
    });
  }
  const stale = 'a reused address, while a peer’s cache is stale';
  await step(`attack: ${stale}`, async () => {
    const outcome = await staleCache(stage).catch((error: unknown) => ({
      stopped: false,
      by: `the attack itself failed: ${String(error)}`,
    }));
    outcomes.push({ attack: stale, ...outcome });
  });

  const result = { edges, requests, tunnels, wire, framesLost: capture.lost, control, attacks: outcomes, times };
  const expected = expectations(result);
  console.log(`\n${formatReport(result, expected)}`);
  if (flags.output !== undefined) {
    const { writeFileSync } = await import('node:fs');
    writeFileSync(
      flags.output,
      `${JSON.stringify({ ...result, wire: { ...wire, kinds: Object.fromEntries(wire.kinds) }, expectations: expected }, null, 2)}\n`,
    );
  }
  return expected.every(({ met }) => met);
}

/** @param name Of the lab; said only where it is not the only one. */
async function whatNext(name: string): Promise<string> {
  const { listLabs } = await import('../lab/state.ts');
  const lab = listLabs().length > 1 ? ` --lab ${name}` : '';
  const commands = [
    [`bin/myelin lab status${lab}`, 'nodes and pods'],
    [`bin/myelin observe --follow${lab}`, 'who talks to whom, and which rule decided'],
    [`bin/myelin tunnels${lab}`, 'which pods, proved as whom'],
    [`bin/myelin why boutique/frontend boutique/redis --port 6379${lab}`, 'why this is denied'],
    [`bin/myelin observe --http${lab}`, 'which requests pods got, and which of them they never saw'],
    [`bin/myelin lab exec${lab} -n boutique deploy/frontend -- sh`, 'a shell in a pod'],
    [`bin/myelin lab down${lab}`, 'take it all away'],
  ];
  const width = Math.max(...commands.map(([command = '']) => command.length));
  const lines = commands.map(([command = '', what = '']) => `  ${command.padEnd(width)}  ${paint('dim', what)}`);
  return `\nThe lab is still up. Try:\n${lines.join('\n')}`;
}
