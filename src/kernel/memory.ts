import { raw } from './ffi/libc.ts';

/** Gives the pages back to the system that `malloc` keeps for what comes next: what buffers of megabytes leave behind in a burst. */
export function giveBackMemory(): void {
  raw.malloc_trim(0);
}
