import { performance } from 'node:perf_hooks';

/** How often to look whether there is time, and reason, to collect. */
const everyMs = 2000;
/** Of the time since the last look: an agent that was busier than this has something better to do. */
const idleBelow = 0.3;
/** Of what was alive after the last collection: less garbage than this is not worth the pause (tens of milliseconds). */
const worthwhile = 1.15;

/** What gives pages back to the system too: a usual collection keeps them for what comes next. */
const thoroughly = { type: 'major', execution: 'sync', flavor: 'last-resort' } as const;

/**
 * Collects the garbage of a burst (hundreds of policies, pods, flows) once the burst is over. V8 would keep it until the
 * next one: an agent that does nothing allocates nothing, and without allocation nothing is collected.
 * @param collect `gc` of a Node that was started with `--expose-gc`; without it nothing is done.
 * @returns Ends it.
 */
export function collectWhenIdle(collect: typeof globalThis.gc): () => void {
  if (collect === undefined) return () => undefined;
  let utilization = performance.eventLoopUtilization();
  let alive = 0;
  const timer = setInterval(() => {
    const before = utilization;
    utilization = performance.eventLoopUtilization();
    if (performance.eventLoopUtilization(utilization, before).utilization > idleBelow) return;
    if (process.memoryUsage().heapUsed < alive * worthwhile) return;
    collect(thoroughly);
    alive = process.memoryUsage().heapUsed;
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}
