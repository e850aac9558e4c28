/**
 * The node's proxy: judges the requests that the kernel does not read (docs/HTTP.md, The proxy).
 *
 *   node src/proxy/main.ts --control-fd N --listen-fd N [--listen-fd N …]
 *
 * All it needs is passed in, and it wants no privilege: it is to be started in the proxy's network namespace, and gives up
 * what root may do as soon as its modules are loaded. It opens no file after them, and no socket but those to the servers of
 * the connections that it accepts, under their clients' addresses.
 *
 *   --control-fd  a listening Unix stream socket: the agent connects there (policy/proxy/wire.ts says what is said).
 *   --listen-fd   a listening TCP socket with TCP_SAVE_SYN = 2, as many as there are. It is accepted from at once; without
 *                 a policy connections wait.
 *
 * It ends with status 0 after `drain`, or SIGTERM (as `drain` with 10 s). Its log is JSON lines on stderr. Worth setting:
 * `--max-semi-space-size=4` (MiB) keeps the heap small for what it does; UV_THREADPOOL_SIZE=1, it has no use for threads.
 * Memory: docs/HTTP.md has what was measured.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { parseArgs } from 'node:util';
import packageJson from '../../package.json' with { type: 'json' };
import { forbidDumps } from '../kernel/dumps.ts';
import { MyelinError } from '../model/error.ts';
import { openTransparently, type Shared } from './connection.ts';
import { Control } from './control.ts';
import { Counts } from './counts.ts';
import { Flows } from './flows.ts';
import { Intake } from './intake.ts';
import { limits } from './limits.ts';
import { originOf } from './origin.ts';
import { PolicyInForce } from './policy.ts';
import { dropPrivileges } from './privileges.ts';
import { Secrets } from './tls/secrets.ts';

const termGraceMs = 10_000;
/** Beside two for each connection: the sockets that are passed in, and what Node has open. */
const spareDescriptors = 64;

const { values } = parseArgs({
  options: { 'control-fd': { type: 'string' }, 'listen-fd': { type: 'string', multiple: true } },
});

function descriptor(text: string | undefined, option: string): number {
  if (text === undefined || !/^[0-9]{1,9}$/.test(text))
    throw new MyelinError('BadOption', `--${option} must be the number of a descriptor, not ${text}`);
  return Number(text);
}

function log(message: string, more: Record<string, unknown> = {}): void {
  process.stderr.write(`${JSON.stringify({ time: Date.now(), pid: process.pid, msg: message, ...more })}\n`);
}

/** Node has raised the soft limit to the hard one. */
function descriptorLimit(): number {
  const [, soft = '1024'] = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return soft === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(soft);
}

// The kernel ends the connections with the process, by resets: what cannot be understood does not go on.
process.on('uncaughtException', (error) => {
  log(`the proxy ends: ${error.message}`, { stack: error.stack });
  process.exit(1);
});

dropPrivileges();
// Keys that policy names will be in its memory.
forbidDumps();
const connections = Math.min(limits.connections, Math.floor((descriptorLimit() - spareDescriptors) / 2));
const shared: Shared = {
  policy: new PolicyInForce(),
  secrets: new Secrets(),
  flows: new Flows(),
  counts: new Counts(),
  limits: { ...limits, connections },
  open: openTransparently,
};
const intake = new Intake(shared, originOf);
const controlServer = createServer();
const control = new Control(controlServer, shared, packageJson.version, drain);
controlServer.listen({ fd: descriptor(values['control-fd'], 'control-fd') });
for (const text of values['listen-fd'] ?? []) {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
  intake.listen(server);
  server.listen({ fd: descriptor(text, 'listen-fd') });
}
process.on('SIGTERM', () => drain(termGraceMs));
log('the proxy accepts', { connections, listeners: values['listen-fd']?.length ?? 0 });

let drains = false;

function drain(graceMs: number): void {
  if (drains) return;
  drains = true;
  log('the proxy drains', { graceMs, connections: shared.counts.connections });
  intake
    .drain(graceMs)
    .then(() => control.finish())
    .then(() => {
      log('the proxy has drained');
      process.exit(0);
    });
}
