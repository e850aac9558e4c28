import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestApi } from './harness.ts';

const build = join(import.meta.dirname, '../../build/kubectl');
const unpacked = join(build, 'usr/bin/kubectl');

/** The kubectl of the system, and Debian 12's where that is another: the oldest and the newest that Myelin is used with. */
export function findKubectls(): readonly string[] {
  const own = execFileSync('sh', ['-c', 'command -v kubectl || true'], { encoding: 'utf8' }).trim();
  const found = own === '' ? [] : [own];
  if (own !== '' && /v1\.20\./.test(versionOf(own))) return found;
  if (!existsSync(unpacked)) fetchDebians();
  return existsSync(unpacked) ? [...found, unpacked] : found;
}

function versionOf(binary: string): string {
  return execFileSync(binary, ['version', '--client'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Debian's package cannot be installed beside another kubectl, but it can lie unpacked in build/. */
function fetchDebians(): void {
  mkdirSync(build, { recursive: true });
  try {
    execFileSync('apt-get', ['download', '-q', 'kubernetes-client'], { cwd: build, stdio: 'ignore', timeout: 30_000 });
    const name = readdirSync(build).find((file) => file.endsWith('.deb'));
    if (name !== undefined) execFileSync('dpkg', ['-x', name, '.'], { cwd: build, stdio: 'ignore' });
  } catch {
    // Without a network there is one kubectl less; the caller says so.
  }
}

export interface KubectlResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const run = promisify(execFile);

/** Runs one kubectl against a test's server, with a home of its own, so that no cache is shared. */
export class Kubectl {
  readonly #binary: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(binary: string, api: TestApi) {
    this.#binary = binary;
    this.#env = { PATH: process.env.PATH, HOME: api.directory, KUBECONFIG: api.kubeconfig() };
  }

  /** @returns What it said, also where it failed. */
  async try(...args: string[]): Promise<KubectlResult> {
    try {
      const { stdout, stderr } = await run(this.#binary, args, { env: this.#env, timeout: 30_000 });
      return { code: 0, out: stdout, err: stderr };
    } catch (error) {
      if (!(error instanceof Error) || !('stdout' in error) || !('stderr' in error) || !('code' in error)) throw error;
      return { code: Number(error.code), out: String(error.stdout), err: String(error.stderr) };
    }
  }

  /** @returns Its standard output. @throws {Error} where it fails, or complains. */
  async run(...args: string[]): Promise<string> {
    const { code, out, err } = await this.try(...args);
    if (code !== 0 || err !== '') throw new Error(`kubectl ${args.join(' ')}: exit ${code}\n${out}${err}`);
    return out;
  }
}
