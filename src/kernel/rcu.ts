import { setTimeout as sleep } from 'node:timers/promises';
import { raw } from './ffi/libc.ts';

// include/uapi/linux/membarrier.h; the system call's number by architecture.
const MEMBARRIER_CMD_GLOBAL = 1;
const membarrier = process.arch === 'arm64' ? 283 : 324;
/** Where the call is refused (a kernel with nohz_full CPUs): longer than any packet stays inside a program. */
const fallback = 100;

/**
 * Waits until every BPF program that was running when this was called has ended: a packet that read a map entry before it
 * was replaced is then done with it. MEMBARRIER_CMD_GLOBAL is synchronize_rcu() (kernel/sched/membarrier.c), and tc
 * programs run inside RCU read-side sections. Takes some ten milliseconds, on a worker thread.
 */
export async function waitForPackets(): Promise<void> {
  const result = await new Promise<number>((resolve, reject) => {
    raw.syscall.async(membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0, (error: unknown, value: number) =>
      error === null || error === undefined ? resolve(value) : reject(error),
    );
  });
  if (result < 0) await sleep(fallback);
}
