import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { z } from 'zod';

/** The commands as a person gives them: `bin/myelin lab …`. */
const myelin = resolve(import.meta.dirname, '../../bin/myelin');
export const newName = () => `t${process.pid.toString(36)}-${randomBytes(3).toString('hex')}`;

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function begin(args: readonly string[]): { child: ChildProcess; ran: Promise<Ran> } {
  const child = spawn(myelin, ['lab', ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text;
  });
  child.stdin.end();
  return { child, ran: once(child, 'close').then(([code]: (number | null)[]) => ({ code: code ?? null, ...output })) };
}

export const lab = (...args: string[]) => begin(args).ran;

export async function succeeds(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await lab(...args);
  assert.equal(code, 0, `myelin lab ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

export const statusSchema = z.object({
  complete: z.boolean(),
  nodes: z.array(z.object({ name: z.string(), agentRunning: z.boolean(), addresses: z.array(z.string()) })),
  pods: z.array(
    z.object({ namespace: z.string(), name: z.string(), ready: z.boolean(), addresses: z.array(z.string()) }),
  ),
  processes: z.array(z.object({ name: z.string(), running: z.boolean() })),
});
