/**
 * The CNI half of an agent as a process of its own, for tests and measurements: real server, real manager, and hooks
 * that write down when they were called and how the interface stood. Runs in the namespace it is started in.
 *
 *   node agent.ts JSON     (an AgentSettings); prints one line of JSON once it serves
 */
import { appendFileSync } from 'node:fs';
import pino from 'pino';
import type { Endpoint } from '../../src/endpoint/endpoint.ts';
import type { NotReady, Step } from '../../src/endpoint/hooks.ts';
import { EndpointManager } from '../../src/endpoint/manager.ts';
import { CniServer } from '../../src/endpoint/server.ts';
import { findLink } from '../../src/kernel/ip.ts';
import { parseIp } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';

export interface AgentSettings {
  readonly socket: string;
  readonly stateFile: string;
  readonly cidrs: readonly string[];
  readonly nodeAddresses?: readonly string[];
  readonly coolDownMs?: number;
  /** Where hooks' calls are written, one line each. */
  readonly journal?: string;
  /** Die by SIGKILL when this step has just been taken. */
  readonly killAt?: Step;
  /** The hook that throws. */
  readonly failing?: 'prepare' | 'onAdded' | 'onRemoved';
  readonly notReady?: NotReady;
  readonly wrong?: string;
}

const settings: AgentSettings = JSON.parse(process.argv[2] ?? '');
const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' }, pino.destination({ fd: 2, sync: true }));

async function hook(name: NonNullable<AgentSettings['failing']>, endpoint: Endpoint): Promise<void> {
  if (settings.journal !== undefined) {
    const link = await findLink(endpoint.hostInterface);
    const stands = link === undefined ? 'absent' : link.up ? 'up' : 'down';
    appendFileSync(settings.journal, `${name} ${endpoint.containerId} ${stands}\n`);
  }
  if (settings.failing === name) throw new Error(`${name} was told to fail`);
}

const manager = await EndpointManager.open(
  {
    stateFile: settings.stateFile,
    cidrs: settings.cidrs.map(parsePrefix),
    mtu: 1404,
    ...(settings.nodeAddresses !== undefined && { nodeAddresses: settings.nodeAddresses.map(parseIp) }),
    ...(settings.coolDownMs !== undefined && { coolDownMs: settings.coolDownMs }),
  },
  {
    log,
    hooks: {
      prepare: (endpoint) => hook('prepare', endpoint),
      onAdded: (endpoint) => hook('onAdded', endpoint),
      onRemoved: (endpoint) => hook('onRemoved', endpoint),
      check: async () => settings.wrong,
      status: async () => settings.notReady,
    },
    trace: (step) => {
      if (step === settings.killAt) process.kill(process.pid, 'SIGKILL');
    },
  },
);
const reconciled = await manager.reconcile();
const server = new CniServer({ path: settings.socket }, { log, handler: manager });
await server.start();
process.once('SIGTERM', () => void server.close().then(() => process.exit(0)));
console.log(JSON.stringify({ reconciled, endpoints: manager.list(), usage: manager.usage() }));
