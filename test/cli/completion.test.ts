import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { Command, Option } from 'commander';
import { completionScript } from '../../src/cli/completion.ts';

function program(): Command {
  const made = new Command('myelin');
  made
    .command('status')
    .description('how it is')
    .addOption(new Option('-o, --output <form>').choices(['text', 'json']));
  const revoke = made.command('revoke').description('it’s a $(danger) of `quotes`');
  revoke.command('pod').option('--reason <text>', 'why');
  revoke.command('node');
  return made;
}

function complete(...words: string[]): string[] {
  const script = completionScript('bash', program());
  const list = words.map((word) => `'${word}'`).join(' ');
  const run = `${script}\nCOMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _myelin; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const out = execFileSync('bash', ['-c', run], { encoding: 'utf8' });
  return out.split('\n').filter((line) => line !== '');
}

test('bash completes commands, commands below them, options and their values', () => {
  assert.deepEqual(complete('myelin', ''), ['status', 'revoke', '--help']);
  assert.deepEqual(complete('myelin', 're'), ['revoke']);
  assert.deepEqual(complete('myelin', 'revoke', ''), ['pod', 'node', '--help']);
  assert.deepEqual(complete('myelin', 'revoke', 'pod', 'shop/cart', '--r'), ['--reason']);
  assert.deepEqual(complete('myelin', 'status', '--output', ''), ['text', 'json']);
  assert.deepEqual(complete('myelin', 'status', '-o', 'j'), ['json']);
});

test('zsh gets the same by its bash completion; fish a line for each command and option, quoted', () => {
  assert.match(completionScript('zsh', program()), /^autoload -U \+X bashcompinit/);
  const fish = completionScript('fish', program());
  assert.match(fish, /-a revoke -d 'it’s a \$\(danger\) of `quotes`'/);
  assert.match(fish, /test "\$\(__myelin_path\)" = " revoke pod"' -l reason/);
  assert.match(fish, /-l output -s o .* -x -a 'text json'/);
});
