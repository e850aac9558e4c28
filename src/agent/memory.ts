import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { giveBackMemory } from '../kernel/memory.ts';

/** How often to look whether there is time, and reason, to collect. */
const everyMs = 250;
/** So many looks in a row found the agent idle: whoever is in a burst has something better to do. */
const quietLooks = 12;
/** Of the time since the last look. */
const idleBelow = 0.1;
/** Tunnels keyed since the last look that make a crowd. */
const crowd = 25;
/** Bytes, in the heap or beside it, that are worth a pause of a hundred milliseconds and compiling again what the collection forgets. */
const worthwhile = 12 << 20;

/**
 * Bytes from which on a heap is a large cluster's. A collection costs by what lives: where that is much, to collect after
 * every tenth of it, as for the many small ones, takes longer than the changes that made the garbage.
 */
const large = 96 << 20;

/**
 * How much a heap may grow until it is collected. As bin/myelin-agent begins: tight, for what is there lives for months. While
 * thousands of tunnels are keyed, as V8 finds best: to collect tightly what they leave behind takes half of their processor time
 * (`make bench ONLY=handshake`).
 */
const growth = {
  small: '--heap-growing-percent=10',
  crowded: '--heap-growing-percent=0',
  large: '--heap-growing-percent=50',
} as const;

/** What gives the heap's pages back to the system too: a usual collection keeps them for what comes next. */
const thoroughly = { type: 'major', execution: 'sync', flavor: 'last-resort' } as const;

/**
 * Collects the garbage of a burst (hundreds of policies, pods, flows, tunnels) once the burst is over. V8 would keep it until the
 * next one: an agent that does nothing allocates nothing, and without allocation nothing is collected. And lets the heap grow as
 * its work asks for.
 * @param collect `gc` of a Node that was started with `--expose-gc`; without it nothing is done.
 * @param keyed How many tunnels have been keyed so far.
 * @param setFlags Of V8; called when another growth is due.
 * @returns Ends it.
 */
export function tendHeap(
  collect: typeof globalThis.gc,
  keyed: () => number,
  setFlags = setFlagsFromString,
): () => void {
  if (collect === undefined) return () => undefined;
  let seen = performance.eventLoopUtilization();
  let then = process.memoryUsage();
  let known = keyed();
  let quiet = 0;
  let size: keyof typeof growth = 'small';
  const grow = (next: keyof typeof growth) => {
    if (next !== size) setFlags(growth[next]);
    size = next;
  };
  const timer = setInterval(() => {
    const before = seen;
    seen = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(seen, before);
    quiet = utilization < idleBelow ? quiet + 1 : 0;
    const { heapUsed, rss } = process.memoryUsage();
    const fresh = keyed() - known;
    known += fresh;
    // A large cluster stays one.
    if (size === 'large' || heapUsed > large) grow('large');
    else if (fresh >= crowd) grow('crowded');
    else if (quiet >= quietLooks) grow('small');
    if (quiet < quietLooks || (heapUsed < then.heapUsed + worthwhile && rss < then.rss + worthwhile)) return;
    collect(thoroughly);
    giveBackMemory();
    then = process.memoryUsage();
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}
