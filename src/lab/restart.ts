import { request } from 'node:http';
import { connectCa, daemonSocket } from './connect.ts';
import { LabError } from './error.ts';
import type { Lab } from './lab.ts';
import { isRunning, waitUntil } from './process.ts';
import { agentName, nodeDirectory } from './services.ts';
import type { ProcessRecord } from './state.ts';

const services = ['api', 'controller', 'labd'] as const;
type Service = (typeof services)[number];

/** How long a process may take until it answers. */
const startTimeoutMs = 30_000;

/** What has died of a lab, as `restart` takes it: the names of services and of nodes. */
export function deadOf(lab: Lab): string[] {
  const dead = lab.state.processes.filter((process) => !isRunning(process)).map(({ name }) => name);
  const nodes = lab.plan.nodes.filter((node) => dead.includes(agentName(node)));
  // The API first: all the others ask it.
  return [...services.filter((name) => dead.includes(name)), ...nodes.map(({ name }) => name)];
}

/**
 * Ends a node's agent or one of the lab's services, if it runs, and starts it anew; resolves when it answers. An agent
 * starts its engine too, where that has died; pods and what runs go on.
 * @param name A node, or `api`, `controller`, `labd`.
 * @throws {LabError} `NoSuchNode`; `Timeout`, `ProcessFailed` where it does not come up
 */
export async function restart(lab: Lab, name: string): Promise<void> {
  const service = services.find((each) => each === name);
  const known = lab.plan.nodes.map((node) => node.name);
  if (service === undefined && !known.includes(name)) {
    const names = [...known, ...services].join(', ');
    throw new LabError('NoSuchNode', `the lab ${lab.name} has no node or service ${name}; it has ${names}`);
  }
  const record = await (service === undefined ? restartAgent(lab, name) : restartService(lab, service));
  await waitUntil(() => answers(lab, service ?? name), {
    ...{ what: `${name} does not answer`, timeoutMs: startTimeoutMs, everyMs: 100, processes: [record] },
  });
}

async function restartAgent(lab: Lab, node: string): Promise<ProcessRecord> {
  await lab.stopAgent(node);
  return lab.startAgent(node);
}

async function restartService(lab: Lab, name: Service): Promise<ProcessRecord> {
  await lab.stopService(name);
  return lab.startService(name);
}

async function answers(lab: Lab, name: string): Promise<boolean> {
  const { plan } = lab;
  if (name === 'api') return await lab.answers();
  if (name === 'labd') return await responds(daemonSocket(plan), '/');
  if (name !== 'controller') return await responds(`${nodeDirectory(plan, lab.node(name))}/agent.sock`, '/status');
  return await connectCa(plan)
    .status()
    .then(
      () => true,
      () => false,
    );
}

/** Whether somebody speaks HTTP there, whatever is said. */
function responds(socketPath: string, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request({ socketPath, path, timeout: 2000 }, (response) => {
      response.resume();
      resolve(true);
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(false));
    asked.end();
  });
}
