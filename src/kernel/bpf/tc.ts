import { errnoError, errnoName } from '../error.ts';
import { libbpf, structs, type TcHook, type TcOpts } from '../ffi/libbpf.ts';
import { withLibbpfMessages } from './log.ts';
import type { BpfProgram } from './program.ts';

/** Seen from the device: `ingress` is what it receives, `egress` what it sends. */
export type TcDirection = 'ingress' | 'egress';

const attachPoints = { ingress: 1, egress: 2 } as const;
const both = 3;
const BPF_TC_F_REPLACE = 1;
/** Ours among the filters of a device: another tool's programs at the same priority are left alone. */
const slot = { handle: 0x4d59, priority: 1 } as const;

/**
 * Attaches a program to a device of this process's network namespace, making the clsact qdisc where it is missing.
 * A program of ours that is there already is replaced in one step: no packet passes without one.
 * @param ifindex Device index.
 * @throws {KernelError} `Errno` (ENODEV; ENOENT or EOPNOTSUPP where the kernel has no clsact)
 */
export function attachTc(program: BpfProgram, ifindex: number, direction: TcDirection): void {
  const hook = hookOf(ifindex, attachPoints[direction]);
  const created = withLibbpfMessages(() => libbpf.tc_hook_create(hook)).result;
  if (created < 0 && errnoName(-created) !== 'EEXIST')
    throw errnoError(-created, 'make the clsact qdisc', `device ${ifindex}`, { ifindex });
  const options = { ...emptyOpts(), prog_fd: program.fd, flags: BPF_TC_F_REPLACE, ...slot };
  const { result, messages } = withLibbpfMessages(() => libbpf.tc_attach(hook, options));
  if (result < 0)
    throw errnoError(-result, `attach program ${program.name}`, `${direction} of device ${ifindex}`, {
      ifindex,
      messages,
    });
}

/** @returns The id of our program there, or undefined where there is none or no such device. */
export function queryTc(ifindex: number, direction: TcDirection): number | undefined {
  const options = { ...emptyOpts(), ...slot };
  const query = () => libbpf.tc_query(hookOf(ifindex, attachPoints[direction]), options);
  const { result } = withLibbpfMessages(query);
  if (result === 0) return options.prog_id;
  if (isAbsent(result)) return undefined;
  throw errnoError(-result, 'query the program', `${direction} of device ${ifindex}`, { ifindex });
}

/** @returns Whether a program of ours was there. */
export function detachTc(ifindex: number, direction: TcDirection): boolean {
  const detach = () => libbpf.tc_detach(hookOf(ifindex, attachPoints[direction]), { ...emptyOpts(), ...slot });
  const { result } = withLibbpfMessages(detach);
  if (result === 0) return true;
  if (isAbsent(result)) return false;
  throw errnoError(-result, 'detach the program', `${direction} of device ${ifindex}`, { ifindex });
}

/** Removes the clsact qdisc with all programs of both directions, others' too. @returns Whether there was one. */
export function removeClsact(ifindex: number): boolean {
  const { result } = withLibbpfMessages(() => libbpf.tc_hook_destroy(hookOf(ifindex, both)));
  if (result === 0) return true;
  if (isAbsent(result)) return false;
  throw errnoError(-result, 'remove the clsact qdisc', `device ${ifindex}`, { ifindex });
}

/** The kernel says ENOENT for no filter, EINVAL for no qdisc, ENODEV for no device. */
function isAbsent(result: number): boolean {
  return ['ENOENT', 'EINVAL', 'ENODEV'].includes(errnoName(-result));
}

function hookOf(ifindex: number, attachPoint: number): TcHook {
  return { sz: structs.bpf_tc_hook.size, ifindex, attach_point: attachPoint, parent: 0 };
}

function emptyOpts(): TcOpts {
  return { sz: structs.bpf_tc_opts.size, prog_fd: 0, flags: 0, prog_id: 0, handle: 0, priority: 0 };
}
