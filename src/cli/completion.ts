import { Argument, type Command } from 'commander';

const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Adds `completion`. To be called last: it knows the commands that are there by then. */
export function registerCompletion(program: Command): void {
  program
    .command('completion')
    .description('a script that completes this program’s commands and options in a shell')
    .addArgument(new Argument('<shell>').choices(shells))
    .addHelpText(
      'after',
      `
Examples:
  source <(myelin completion bash)                                       # or into /etc/bash_completion.d/myelin
  source <(myelin completion zsh)
  myelin completion fish > ~/.config/fish/completions/myelin.fish`,
    )
    .action((shell: Shell) => console.log(completionScript(shell, program)));
}

/** What may follow one command. */
interface Place {
  /** The commands up to it, ` lab up`; empty for the program itself. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly about: string }[];
  readonly options: readonly {
    readonly flags: readonly string[];
    readonly about: string;
    readonly choices: readonly string[];
  }[];
}

function placesOf(command: Command, path = ''): Place[] {
  const visible = command.commands.filter((sub) => sub.name() !== 'help');
  const place: Place = {
    path,
    commands: visible.map((sub) => ({ name: sub.name(), about: sub.description() })),
    options: [
      ...command.options.map(({ long, short, description, argChoices = [] }) => ({
        flags: [long, short].flatMap((flag) => flag ?? []),
        about: description,
        choices: argChoices,
      })),
      { flags: ['--help'], about: 'what there is to say', choices: [] },
    ],
  };
  return [place, ...visible.flatMap((sub) => placesOf(sub, `${path} ${sub.name()}`))];
}

/** The script for a shell. Names are the program's own; descriptions are quoted. */
export function completionScript(shell: Shell, program: Command): string {
  const places = placesOf(program);
  const name = program.name();
  if (shell === 'fish') return fish(name, places);
  const script = bash(name, places);
  return shell === 'bash' ? script : `autoload -U +X bashcompinit && bashcompinit\n${script}`;
}

function bash(name: string, places: readonly Place[]): string {
  const paths = places.flatMap(({ path }) => (path === '' ? [] : [`"${path}"`]));
  const choices = places.flatMap(({ path, options }) =>
    options.flatMap(({ flags, choices: values }) =>
      values.length === 0
        ? []
        : [`    ${flags.map((flag) => `"${path}:${flag}"`).join('|')}) words="${values.join(' ')}" ;;`],
    ),
  );
  const words = places.map(({ path, commands, options }) => {
    const all = [...commands.map((sub) => sub.name), ...options.flatMap(({ flags }) => flags)];
    return `    "${path}") words="${all.join(' ')}" ;;`;
  });
  return [
    `_${name}() {`,
    // biome-ignore lint/suspicious/noTemplateCurlyInString: bash's own.
    '  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" path="" words="" word',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: bash's own.
    '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
    '    case "$path $word" in',
    `      ${paths.join('|')}) path="$path $word" ;;`,
    '    esac',
    '  done',
    '  case "$path:$before" in',
    ...choices,
    '  esac',
    '  [ -n "$words" ] || case "$path" in',
    ...words,
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    '}',
    `complete -o default -F _${name} ${name}`,
  ].join('\n');
}

function fish(name: string, places: readonly Place[]): string {
  const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const lines = places.flatMap(({ path, commands, options }) => {
    const here = `-n ${quoted(`test "$(__${name}_path)" = "${path}"`)}`;
    return [
      ...commands.map((sub) => `complete -c ${name} -f ${here} -a ${sub.name} -d ${quoted(sub.about)}`),
      ...options.map(({ flags, about, choices }) => {
        const spelled = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
        const values = choices.length === 0 ? '' : ` -x -a ${quoted(choices.join(' '))}`;
        return `complete -c ${name} ${here} ${spelled.join(' ')} -d ${quoted(about)}${values}`;
      }),
    ];
  });
  const paths = places.flatMap(({ path }) => (path === '' ? [] : [quoted(path)]));
  return [
    `function __${name}_path`,
    '  set -l path ""',
    '  for word in (commandline -opc)[2..]',
    `    contains -- "$path $word" ${paths.join(' ')}; and set path "$path $word"`,
    '  end',
    '  echo "$path"',
    'end',
    ...lines,
  ].join('\n');
}
