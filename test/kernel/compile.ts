import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Directories of compiled test objects, to be removed when the process ends. */
const directories: string[] = [];
process.on('exit', () => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

const preamble = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char license_text[] SEC("license") = "Dual BSD/GPL";
`;

/** Compiles BPF C as the project's own objects are compiled. @returns The path of the object file. */
export function compileBpf(source: string, ...options: string[]): string {
  const directory = scratch();
  const file = join(directory, 'test.bpf.c');
  const object = join(directory, 'test.bpf.o');
  writeFileSync(file, preamble + source);
  const include = `-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
  execFileSync('clang-14', [
    '-O2',
    '-g',
    '-target',
    'bpf',
    '-mcpu=v3',
    include,
    ...options,
    '-Wall',
    '-Werror',
    '-c',
    file,
    '-o',
    object,
  ]);
  return object;
}

/** Compiles and runs a C program. @returns What it printed. */
export function runC(source: string): string {
  const directory = scratch();
  const file = join(directory, 'test.c');
  writeFileSync(file, source);
  execFileSync('clang-14', ['-Wall', '-Werror', '-o', join(directory, 'test'), file]);
  return execFileSync(join(directory, 'test'), { encoding: 'utf8' });
}

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-compile-'));
  directories.push(directory);
  return directory;
}
