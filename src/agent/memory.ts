import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';

/** How often to look whether there is time, and reason, to collect. */
const everyMs = 1000;
/** So many looks in a row found the agent idle: whoever is in a burst has something better to do. */
const quietLooks = 3;
/** Of the time since the last look. */
const idleBelow = 0.1;
/** Bytes of garbage that are worth a pause of a hundred milliseconds and compiling again what the collection forgets. */
const worthwhile = 12 << 20;

/**
 * Bytes from which on a heap is a large cluster's. A collection costs by what lives: where that is much, to collect after
 * every tenth of it, as bin/myelin-agent has it for the many small ones, takes longer than the changes that made the garbage.
 */
const large = 96 << 20;
const growLarge = '--heap-growing-percent=50';

/** What gives pages back to the system too: a usual collection keeps them for what comes next. */
const thoroughly = { type: 'major', execution: 'sync', flavor: 'last-resort' } as const;

/**
 * Collects the garbage of a burst (hundreds of policies, pods, flows) once the burst is over. V8 would keep it until the
 * next one: an agent that does nothing allocates nothing, and without allocation nothing is collected.
 * @param collect `gc` of a Node that was started with `--expose-gc`; without it nothing is done.
 * @param setFlags Of V8; called once, when the heap is found to be a large cluster's.
 * @returns Ends it.
 */
export function collectWhenIdle(collect: typeof globalThis.gc, setFlags = setFlagsFromString): () => void {
  if (collect === undefined) return () => undefined;
  let seen = performance.eventLoopUtilization();
  let alive = process.memoryUsage().heapUsed;
  let quiet = 0;
  let relaxed = false;
  const timer = setInterval(() => {
    const before = seen;
    seen = performance.eventLoopUtilization();
    quiet = performance.eventLoopUtilization(seen, before).utilization < idleBelow ? quiet + 1 : 0;
    const { heapUsed } = process.memoryUsage();
    if (!relaxed && heapUsed > large) {
      setFlags(growLarge);
      relaxed = true;
    }
    if (quiet < quietLooks || heapUsed < alive + worthwhile) return;
    collect(thoroughly);
    alive = process.memoryUsage().heapUsed;
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}
