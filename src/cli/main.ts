import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { z } from 'zod';
import { MyelinError } from '../model/error.ts';
import { registerCa } from './ca.ts';
import { registerCompletion } from './completion.ts';
import { registerDebug } from './debug.ts';
import { registerDemo } from './demo.ts';
import { registerLab } from './lab.ts';
import { registerNames } from './names.ts';
import { registerObserve } from './observe.ts';
import { paint } from './output.ts';
import { registerPolicy } from './policy.ts';
import { registerRevoke } from './revoke.ts';
import { registerStatus } from './status.ts';
import { registerTunnels } from './tunnels.ts';
import { registerWhy } from './why.ts';

const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')));

const program = new Command('myelin')
  .description('a service-aware zero-trust container network')
  .version(version)
  .showSuggestionAfterError()
  .configureHelp({ sortSubcommands: true });

registerCa(program);
registerDebug(program);
registerDemo(program);
registerLab(program);
registerNames(program);
registerObserve(program);
registerPolicy(program);
registerRevoke(program);
registerStatus(program);
registerTunnels(program);
registerWhy(program);
registerCompletion(program);

// Whoever reads has seen enough (`myelin observe | head`), or the terminal is gone: no reason for a stack. A command that
// has something to tidy up does so on SIGTERM.
process.stdout.on('error', () => {
  if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
  else process.exit();
});
process.stderr.on('error', () => {});

try {
  await program.parseAsync();
} catch (error) {
  console.error(`${paint('red', 'myelin:', process.stderr)} ${describe(error)}`);
  process.exitCode = 1;
}

/** One line for what a person can act on; the whole stack for what is a bug of ours. */
function describe(error: unknown): string {
  if (error instanceof z.ZodError) return `an agent of another version answered: ${z.prettifyError(error)}`;
  if (error instanceof MyelinError) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
