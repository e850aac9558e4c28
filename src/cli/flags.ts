import type { Command } from 'commander';

/** Which agents a command asks; shared by every command that asks one. */
export interface AgentFlags {
  readonly runDir?: string;
  readonly lab?: string;
  readonly node?: string;
}

export function agentFlags(command: Command): Command {
  return command
    .option('--run-dir <dir>', 'the agent’s run directory (default: this machine’s agent, else every node of the lab)')
    .option('--lab <name>', 'the lab to ask, where there are several')
    .option('--node <name>', 'only this node');
}
