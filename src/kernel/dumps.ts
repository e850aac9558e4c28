import { errnoError } from './error.ts';
import { lastErrno, raw } from './ffi/libc.ts';

const getDumpable = 3;
const setDumpable = 4;

/**
 * From here on the kernel writes no core dump of this process, whoever a dump would be handed to (a limit of 0 alone does
 * not keep it from a program that collects dumps), and nobody but root may look into its memory. An exec begins anew.
 * @throws {KernelError} `Errno`
 */
export function forbidDumps(): void {
  if (raw.prctl(setDumpable, 0, 0, 0, 0) < 0) throw errnoError(lastErrno(), 'forbid core dumps', 'this process');
}

/** Whether a dump could be written. */
export function isDumpable(): boolean {
  return raw.prctl(getDumpable, 0, 0, 0, 0) !== 0;
}
