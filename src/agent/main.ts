import { flushCompileCache } from 'node:module';
import { pino } from 'pino';
import { forbidDumps } from '../kernel/dumps.ts';
import { MyelinError } from '../model/error.ts';
import { Agent } from './agent.ts';
import { type AgentOptions, agentCommand } from './options.ts';

async function main(options: AgentOptions): Promise<void> {
  // The pods' private keys are in this process's memory.
  forbidDumps();
  const logger = pino(
    { level: options.logLevel, base: { node: options.node } },
    pino.destination({ dest: 2, sync: true }),
  );
  const agent = await Agent.start(options, logger).catch((error: unknown) => {
    // What the operator can act on is one line; anything else is a bug of ours and wants its stack.
    if (error instanceof MyelinError) {
      console.error(`myelin-agent: ${error.message}`);
      process.exit(1);
    }
    throw error;
  });
  // Node keeps compiled code for the next start when it exits, which an agent that is killed does not.
  flushCompileCache();
  const stop = (signal: string) => {
    logger.info({ signal }, 'the agent stops; datapath and tunnels go on');
    agent.close().then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ err: error }, 'the agent did not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', () => stop('SIGTERM'));
  process.once('SIGINT', () => stop('SIGINT'));
}

await agentCommand(main).parseAsync();
