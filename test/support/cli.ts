import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { flowSchema } from '../../src/agent/wire.ts';
import type { FlowEvent } from '../../src/model/flow.ts';

const program = resolve(import.meta.dirname, '../../bin/myelin');

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `bin/myelin` as a person does, without colours, to its end. */
export function myelin(...args: readonly string[]): Promise<CliResult> {
  return new Promise((done, fail) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1' },
      timeout: 60_000,
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text;
      });
    child.once('error', fail);
    child.once('close', (code) => done({ ...output, code: code ?? -1 }));
  });
}

/** What `myelin observe -o json` prints of a lab, oldest first. @throws {Error} where it fails */
export async function observe(lab: string, ...args: readonly string[]): Promise<FlowEvent[]> {
  const { code, stdout, stderr } = await myelin('observe', '--lab', lab, '-o', 'json', '--last', '50000', ...args);
  if (code !== 0) throw new Error(`myelin observe ${args.join(' ')} ended with ${code}: ${stderr}`);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => flowSchema.parse(JSON.parse(line)));
}
