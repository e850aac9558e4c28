import { closeSync, openSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { mapTypes } from './bpf/map.ts';
import { notInstalled, run } from './command.ts';
import { errnoName, KernelError } from './error.ts';
import { libbpf } from './ffi/libbpf.ts';

/** What Myelin needs of a machine, or (`xfrm`) takes advantage of. */
export type CapabilityName = 'privileges' | 'kernel' | 'bpf' | 'clsact' | 'nftables' | 'tun' | 'xfrm';

export interface Capability {
  readonly name: CapabilityName;
  readonly present: boolean;
  /** Without it Myelin does not run here. */
  readonly required: boolean;
  /** One line: what is missing and what to do; empty where nothing is. */
  readonly message: string;
}

const BPF_PROG_TYPE_SCHED_CLS = 3;
const BPF_FUNC_redirect = 23;
const oldestKernel = [6, 1] as const;

// Linux capability numbers (include/uapi/linux/capability.h).
const neededPrivileges = { CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21, CAP_BPF: 39 } as const;

/**
 * Looks at what this machine can do, by trying it in namespaces of its own where trying leaves traces. Takes about 15 ms.
 * @returns One entry per capability, in the order in which they matter. Without privileges nothing else can be tried, and
 *   nothing else is said.
 */
export async function probe(): Promise<readonly Capability[]> {
  const kernel = capability('kernel', oldKernel(release()));
  const privileges = capability('privileges', missingPrivileges());
  if (!privileges.present) return [privileges, kernel];
  const [clsact, nftables, xfrm] = await Promise.all([
    tryInNamespace(
      ['tc', 'qdisc', 'add', 'dev', 'lo', 'clsact'],
      'the kernel has no clsact qdisc: it needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF',
    ),
    tryInNamespace(['nft', 'add', 'table', 'inet', 'probe'], 'the kernel has no nftables: load the module nf_tables'),
    probeXfrm(),
  ]);
  return [
    privileges,
    kernel,
    capability('bpf', missingBpf()),
    capability('clsact', clsact),
    capability('nftables', nftables),
    capability('tun', missingTun()),
    capability('xfrm', xfrm, false),
  ];
}

/** @returns What keeps the kernel from carrying tunnels, in one line; nothing where it can. */
export function probeXfrm(): Promise<string> {
  return tryInNamespace(xfrmCommand, 'the kernel has no ESP with AES-GCM, or no xfrm devices: use the engine');
}

/**
 * @throws {KernelError} `Missing` with every required capability that is not there, one line each.
 */
export async function requireCapabilities(): Promise<readonly Capability[]> {
  const all = await probe();
  const missing = all.filter(({ required, present }) => required && !present);
  if (missing.length === 0) return all;
  throw new KernelError('Missing', missing.map(({ message }) => message).join('\n'), {
    operation: 'probe',
    object: 'this machine',
    missing: missing.map(({ name }) => name),
  });
}

/** @param version As uname prints it: `6.1.0-38-amd64`. @returns What is wrong with it, or nothing. */
export function oldKernel(version: string): string {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  const [wantMajor, wantMinor] = oldestKernel;
  if (major > wantMajor || (major === wantMajor && minor >= wantMinor)) return '';
  return `Linux ${version} is too old: ${wantMajor}.${wantMinor} is the oldest that Myelin runs on`;
}

/** @param status Text of /proc/self/status. @returns The names of the needed privileges that are not effective. */
export function privilegesMissingFrom(status: string): string[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return Object.entries(neededPrivileges)
    .filter(([, bit]) => ((effective >> BigInt(bit)) & 1n) === 0n)
    .map(([name]) => name);
}

function missingPrivileges(): string {
  const missing = privilegesMissingFrom(readFileSync('/proc/self/status', 'utf8'));
  return missing.length === 0 ? '' : `missing privileges (${missing.join(', ')}): run as root, such as with sudo`;
}

function missingBpf(): string {
  const answers: readonly (readonly [string, number])[] = [
    ['tc programs', libbpf.probe_program_type(BPF_PROG_TYPE_SCHED_CLS, null)],
    ['LRU hash maps', libbpf.probe_map_type(mapTypes.lruHash, null)],
    ['longest-prefix maps', libbpf.probe_map_type(mapTypes.lpmTrie, null)],
    ['ring buffers', libbpf.probe_map_type(mapTypes.ringbuf, null)],
    ['the helper bpf_redirect', libbpf.probe_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_redirect, null)],
  ];
  const bad = answers.find(([, answer]) => answer !== 1);
  if (bad === undefined) return '';
  const [what, answer] = bad;
  if (answer === 0) return `the kernel’s BPF has no ${what}: Linux 6.1 or newer with CONFIG_BPF_SYSCALL is needed`;
  return `BPF cannot be used (${errnoName(-answer)}): run as root; in a container, grant CAP_BPF and CAP_NET_ADMIN`;
}

function missingTun(): string {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return '';
  } catch {
    return '/dev/net/tun cannot be opened: run as root with the kernel module tun (in a container, pass the device in)';
  }
}

const xfrmCommand = [
  'sh',
  '-ec',
  `ip link add x type xfrm dev lo if_id 1
   ip xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 0x100 mode tunnel if_id 1 \
     aead 'rfc4106(gcm(aes))' 0x${'00'.repeat(36)} 128`,
];

/** @returns Nothing where the command works in a network namespace of its own; else what to say. */
async function tryInNamespace(command: readonly string[], failure: string): Promise<string> {
  try {
    await run('unshare', ['--net', '--', ...command]);
    return '';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (error.code === 'Missing') return error.message;
    const stderr = String(error.data.stderr);
    if (/failed to execute/.test(stderr)) return notInstalled(command[0] ?? '');
    // unshare(1) itself, rather than what it was to run.
    if (/^unshare:/.test(stderr)) return `network namespaces cannot be made here (${stderr.trim()}): run as root`;
    return failure;
  }
}

function capability(name: CapabilityName, message: string, required = true): Capability {
  return { name, present: message === '', required, message };
}
