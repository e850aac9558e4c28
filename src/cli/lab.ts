import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { AgentSettings } from '../lab/services.ts';
import type { LabStatus } from '../lab/status.ts';
import type { UpPlan } from '../lab/up.ts';
import { MyelinError } from '../model/error.ts';
import { labFlag } from './flags.ts';
import { formatDuration, paint, table } from './output.ts';

/*
 * `myelin lab`: commands over src/lab, which is loaded only when one of them runs.
 */

interface UpFlags extends Pick<AgentSettings, 'driver' | 'clusterDefault'> {
  readonly lab?: string;
  readonly nodes: number;
  readonly mtu: number;
  readonly file?: string[];
  readonly wait: boolean;
  readonly timeout: number;
}

interface LabFlag {
  readonly lab?: string;
}

interface PodFlags extends LabFlag {
  readonly namespace: string;
  readonly container?: string;
}

/** Adds `lab` and what is under it. */
export function registerLab(program: Command): void {
  const lab = program.command('lab').description('a cluster on this machine, to try Myelin and to test it');
  const command = (usage: string, description: string) => labFlag(lab.command(usage).description(description));

  command('up', 'bring up a lab: nodes are network namespaces, pods are processes')
    .option('--nodes <n>', 'how many nodes', number, 3)
    .option('--mtu <bytes>', 'of the underlay', number, 1500)
    .option('-f, --file <path...>', 'manifests to apply, files or directories')
    .addOption(new Option('--driver <name>', 'who does ESP').choices(['auto', 'engine', 'xfrm']))
    .addOption(new Option('--cluster-default <verdict>', 'for pods that no policy selects').choices(['allow', 'deny']))
    .option('--no-wait', 'do not wait for the pods')
    .option('--timeout <seconds>', 'how long to wait for the pods', number, 120)
    .action(up);
  command('apply', 'apply manifests: all of them, or none where one is wrong')
    .requiredOption('-f, --file <path...>', 'files or directories; - is standard input')
    .option('-n, --namespace <name>', 'for objects that name none', 'default')
    .action(apply);
  command('delete', 'delete what manifests name')
    .requiredOption('-f, --file <path...>', 'files or directories; - is standard input')
    .option('-n, --namespace <name>', 'for objects that name none', 'default')
    .action(remove);
  command('exec', 'run a command in a pod; POD may also be deploy/NAME')
    .argument('<pod>')
    .argument('<command...>', 'after --')
    .option('-n, --namespace <name>', 'the pod’s', 'default')
    .option('-c, --container <name>', 'default: the pod’s first')
    .option('--privileged', 'as root with every privilege, whatever the manifest says')
    .action(exec);
  command('logs', 'what a pod has printed')
    .argument('<pod>')
    .option('-n, --namespace <name>', 'the pod’s', 'default')
    .option('-c, --container <name>', 'default: the pod’s first')
    .option('--follow', 'go on as it prints more')
    .action(logs);
  command('node', 'run a command in the network namespace of a node, of `control` or of `world`')
    .argument('<node>')
    .argument('<command...>', 'after --')
    .action(node);
  command('status', 'nodes, pods, and how they are')
    .addOption(new Option('-o, --output <form>').choices(['text', 'json']).default('text'))
    .action(status);
  command(
    'restart',
    'start a node’s agent (with its engine, where that died) or api, controller, labd anew; pods go on',
  )
    .argument('[name...]', 'nodes or services; default: whatever has died')
    .action(restart);
  command('kubectl', 'run kubectl against the lab').argument('<arguments...>', 'after --').action(kubectl);
  command('kubeconfig', 'print the path of the lab’s kubeconfig').action(kubeconfig);
  command('down', 'remove a lab with everything in it, also what a crash left')
    .option('--all', 'every lab of this machine')
    .action(down);
  lab.addHelpText(
    'after',
    `
Try:
  sudo myelin lab up -f examples/boutique
  sudo myelin lab exec -n boutique deploy/loadgenerator -- curl -s frontend
  sudo myelin lab kubectl -- get pods -A -o wide`,
  );
}

function number(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('expected a whole number');
  return value;
}

async function up(flags: UpFlags): Promise<void> {
  const { prepareUp } = await import('../lab/up.ts');
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupted.abort(new Error(`interrupted by ${signal}`)));
  const name = flags.lab ?? process.env.MYELIN_LAB ?? '';
  const prepared = prepareUp({
    ...(name === '' ? {} : { name }),
    nodes: flags.nodes,
    mtu: flags.mtu,
    files: flags.file ?? [],
    readyTimeoutMs: flags.wait ? flags.timeout * 1000 : 0,
    ...(flags.driver === undefined ? {} : { driver: flags.driver }),
    ...(flags.clusterDefault === undefined ? {} : { clusterDefault: flags.clusterDefault }),
    signal: interrupted.signal,
  });
  const from = Date.now();
  try {
    await runSteps(prepared);
  } catch (error) {
    if (error instanceof MyelinError && error.code === 'NotReady' && !interrupted.signal.aborted) {
      const hint = `the lab ${prepared.plan.name} stays up: see what they say with 'myelin lab status' and 'myelin lab logs'`;
      throw new MyelinError('NotReady', `${error.message}\n${hint}`, { cause: error });
    }
    const { down: takeDown } = await import('../lab/down.ts');
    await takeDown(prepared.plan.name);
    if (!interrupted.signal.aborted) throw error;
    console.error(`${paint('yellow', 'interrupted')}: the lab ${prepared.plan.name} is gone again`);
    process.exitCode = 130;
    return;
  }
  const option = prepared.plan.name === 'lab' ? '' : ` --lab ${prepared.plan.name}`;
  console.log(`The lab ${paint('bold', prepared.plan.name)} is up after ${formatDuration(Date.now() - from)}. Try:`);
  console.log(`  myelin lab status${option}\n  myelin observe --follow${option}\n  myelin lab down${option}`);
}

/** A list that ticks itself off on a terminal, a line for each step that is done anywhere else. */
async function runSteps({ steps }: UpPlan): Promise<void> {
  if (process.stdout.isTTY !== true) {
    for (const step of steps) {
      const from = Date.now();
      await step.run(() => {});
      console.log(`${step.title} (${formatDuration(Date.now() - from)})`);
    }
    return;
  }
  const { Listr } = await import('listr2');
  const tasks = steps.map((step) => ({
    title: step.title,
    task: async (_: unknown, task: { title: string; output: string }) => {
      const from = Date.now();
      await step.run((text) => {
        task.output = text;
      });
      task.title = `${step.title} ${paint('dim', formatDuration(Date.now() - from))}`;
    },
  }));
  await new Listr(tasks, { registerSignalListeners: false, rendererOptions: { collapseErrors: false } }).run();
}

async function open(flags: LabFlag) {
  const { Lab } = await import('../lab/lab.ts');
  return Lab.open(flags.lab);
}

async function apply(flags: LabFlag & { file: string[]; namespace: string }): Promise<void> {
  const lab = await open(flags);
  for (const { text } of await lab.apply(flags.file, { namespace: flags.namespace })) console.log(text);
}

async function remove(flags: LabFlag & { file: string[]; namespace: string }): Promise<void> {
  const lab = await open(flags);
  for (const { text } of await lab.delete(flags.file, { namespace: flags.namespace })) console.log(text);
}

async function exec(pod: string, command: string[], flags: PodFlags & { privileged?: boolean }): Promise<void> {
  const lab = await open(flags);
  const { namespace, container, privileged = false } = flags;
  const target = { namespace, pod, ...(container === undefined ? {} : { container }) };
  await become(await lab.podCommand(target, command, { privileged }));
}

async function logs(pod: string, flags: PodFlags & { follow?: boolean }): Promise<void> {
  const lab = await open(flags);
  const { namespace, container } = flags;
  const file = await lab.logFile({ namespace, pod, ...(container === undefined ? {} : { container }) });
  await become(flags.follow === true ? ['tail', '-n', '+1', '-F', file] : ['cat', file]);
}

async function node(name: string, command: string[], flags: LabFlag): Promise<void> {
  const lab = await open(flags);
  await become(lab.hostCommand(name, command));
}

async function restart(names: string[], flags: LabFlag): Promise<void> {
  const lab = await open(flags);
  const { deadOf, restart: restartOne } = await import('../lab/restart.ts');
  const wanted = names.length > 0 ? names : deadOf(lab);
  if (wanted.length === 0) console.log('nothing has died: say what to restart');
  for (const name of wanted) {
    await restartOne(lab, name);
    console.log(`${name} is up again`);
  }
}

async function kubectl(args: string[], flags: LabFlag): Promise<void> {
  const lab = await open(flags);
  await become(lab.hostCommand('control', ['kubectl', '--kubeconfig', lab.kubeconfig, ...args]));
}

async function kubeconfig(flags: LabFlag): Promise<void> {
  const lab = await open(flags);
  console.log(lab.kubeconfig);
  if (process.stdout.isTTY !== true) return;
  console.error(
    paint('dim', `its server is reachable from within the lab: nsenter --net=${lab.plan.control.netns} kubectl …`),
  );
}

async function down(flags: LabFlag & { all?: boolean }): Promise<void> {
  const { down: takeDown } = await import('../lab/down.ts');
  const { listLabs, soleLab } = await import('../lab/state.ts');
  const names = flags.all === true ? listLabs() : [flags.lab ?? soleLab()];
  for (const name of names) {
    const { processes, namespaces } = await takeDown(name);
    console.log(namespaces + processes === 0 ? `there is no lab ${name}` : `the lab ${name} is gone`);
  }
}

async function status(flags: LabFlag & { output: 'text' | 'json' }): Promise<void> {
  const lab = await open(flags);
  const report = await lab.status();
  console.log(flags.output === 'json' ? JSON.stringify(report, null, 2) : formatLabStatus(report, Date.now()));
  const well =
    report.complete &&
    report.unreachable === undefined &&
    report.processes.every(({ running }) => running) &&
    report.pods.every(isWell);
  if (!well) process.exitCode = 1;
}

function isWell(pod: LabStatus['pods'][number]): boolean {
  return pod.ready || pod.state === 'Succeeded';
}

/** @param now Unix milliseconds. */
export function formatLabStatus(report: LabStatus, now: number): string {
  const { lab, createdAt, complete, unreachable, nodes, pods, processes } = report;
  const mark = (ok: boolean) => (ok ? paint('green', '✓') : paint('red', '✗'));
  const age = formatDuration(now - Date.parse(createdAt));
  const ready = pods.filter(isWell).length;
  const count = unreachable === undefined ? `${nodes.length} nodes, ${ready} of ${pods.length} pods ready` : 'no API';
  const head = `${paint('bold', lab)}  ${complete ? `up ${age}` : paint('yellow', 'not complete')}, ${count}`;
  const dead = processes.filter(({ running }) => !running);
  const nodeTable = table(
    [
      { title: 'NODE', value: (node: LabStatus['nodes'][number]) => `${mark(node.agentRunning)} ${node.name}` },
      { title: 'PODS', value: (node) => String(node.pods), align: 'right' },
      { title: 'ADDRESSES', value: (node) => node.addresses.join(' ') },
      { title: 'POD PREFIXES', value: (node) => node.podCidrs.join(' ') },
    ],
    nodes,
  );
  const podTable = table(
    [
      { title: 'NAMESPACE', value: (pod: LabStatus['pods'][number]) => pod.namespace },
      { title: 'POD', value: (pod) => `${mark(isWell(pod))} ${pod.name}` },
      { title: 'READY', value: (pod) => pod.containers.join('/') },
      { title: 'STATE', value: (pod) => (isWell(pod) ? pod.state : paint('yellow', pod.state)) },
      { title: 'RESTARTS', value: (pod) => String(pod.restarts), align: 'right' },
      { title: 'AGE', value: (pod) => formatDuration(now - pod.since) },
      { title: 'NODE', value: (pod) => pod.node },
      { title: 'ADDRESSES', value: (pod) => pod.addresses.join(' ') },
    ],
    pods,
  );
  const notes = [
    ...(unreachable === undefined ? [] : [unreachable]),
    ...dead.map(({ name, log }) => `${paint('red', name)} is not running; it left its last words in ${log}`),
    ...(dead.length > 0 ? ["what runs goes on; to have the rest again: 'myelin lab restart'"] : []),
    ...pods.flatMap(({ namespace, name, message }) =>
      message === undefined ? [] : [`${namespace}/${name}: ${message}`],
    ),
  ];
  return [
    head,
    ...(nodes.length > 0 ? [nodeTable] : []),
    ...(pods.length > 0 ? [podTable] : []),
    ...(notes.length > 0 ? [notes.join('\n')] : []),
  ].join('\n\n');
}

/** Runs a command in place of this one: its input and terminal, its exit code. */
function become([file = '', ...args]: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: 'inherit' });
    // The terminal sends Ctrl-C to both; what it means is the command's to say.
    const ignore = () => {};
    for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, ignore);
    const pass = () => child.kill('SIGTERM');
    process.on('SIGTERM', pass);
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      for (const each of ['SIGINT', 'SIGQUIT'] as const) process.off(each, ignore);
      process.off('SIGTERM', pass);
      process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      resolve();
    });
  });
}
