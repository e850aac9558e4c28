import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');
/** What Node compiled in guests so far: it starts three times as fast with it. */
const kept = join(root, 'build/vm/compiled.tar');

export interface VmResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What the kernel printed. */
  readonly console: string;
}

/**
 * Boots a stock Debian kernel in software emulation, with this machine's files under a writable layer that is thrown
 * away, runs one shell script in the source tree as root, and powers off. A boot takes about ten seconds.
 * @param script Shell text. It may load modules (`modprobe esp4`), make namespaces, start Node.
 * @param options.seconds After this long the machine is ended and the call fails with what the console said.
 */
export async function runInVm(script: string, options: { seconds: number }): Promise<VmResult> {
  await runToEnd('sh', [join(root, 'setup/vm.sh')]);
  const exchange = mkdtempSync(join(tmpdir(), 'myelin-vm-'));
  const compiled = join(exchange, 'compiled.tar');
  try {
    writeFileSync(join(exchange, 'command'), script);
    writeFileSync(join(exchange, 'source'), root);
    if (existsSync(kept)) copyFileSync(kept, compiled);
    const share = (path: string, tag: string) =>
      `local,path=${path},mount_tag=${tag},security_model=none,multidevs=remap`;
    const console = await runToEnd(
      'qemu-system-x86_64',
      [
        ...[
          '-accel',
          'tcg,thread=multi',
          '-cpu',
          // QEMU 7.2 is the first to emulate AVX, and Node died of it now and then.
          'max,avx=off,avx2=off',
          '-smp',
          '2',
          '-m',
          '3072',
          '-nographic',
          '-no-reboot',
          '-nic',
          'none',
        ],
        ...['-kernel', join(root, 'build/vm/vmlinuz'), '-initrd', join(root, 'build/vm/initramfs.gz')],
        ...['-append', 'console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on'],
        ...['-virtfs', `${share('/', 'host')},readonly=on`, '-virtfs', share(exchange, 'exchange')],
      ],
      options.seconds,
    );
    const next = `${kept}.${process.pid}`;
    if (existsSync(compiled)) {
      copyFileSync(compiled, next);
      renameSync(next, kept);
    }
    const read = (name: string) => {
      try {
        return readFileSync(join(exchange, name), 'utf8');
      } catch {
        throw new Error(`the guest left no ${name}; its console said:\n${console.slice(-4000)}`);
      }
    };
    return { status: Number(read('status')), stdout: read('stdout'), stderr: read('stderr'), console };
  } finally {
    rmSync(exchange, { recursive: true, force: true });
  }
}

function runToEnd(command: string, args: readonly string[], seconds = 300): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const collect = (chunk: Buffer) => {
      output += chunk.toString('utf8');
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
    child.on('error', fail);
    child.on('close', (code) => {
      clearTimeout(timer);
      if (code === 0) done(output);
      else fail(new Error(`${command} ended with ${code ?? 'a signal'} within ${seconds} s:\n${output.slice(-4000)}`));
    });
  });
}
