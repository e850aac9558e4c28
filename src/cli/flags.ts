import { type Command, Option } from 'commander';

/** Which agents a command asks; shared by every command that asks one. */
export interface AgentFlags {
  readonly runDir?: string;
  readonly lab?: string;
  readonly node?: string;
}

export function agentFlags(command: Command): Command {
  const withRunDir = command.option(
    '--run-dir <dir>',
    'the agent’s run directory (default: this machine’s agent, else every node of the lab)',
  );
  return labFlag(withRunDir).option('--node <name>', 'only this node');
}

/** `--lab`, the one word for it everywhere, with `--name` as its other name: both set `lab`. */
export function labFlag(command: Command): Command {
  return command
    .option('--lab <name>', 'which lab (default: the only one, or MYELIN_LAB)')
    .addOption(new Option('--name <lab>').hideHelp())
    .on('option:name', (name: string) => command.setOptionValue('lab', name));
}
