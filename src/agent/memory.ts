import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';

/** How often to look whether there is time, and reason, to collect. */
const everyMs = 250;
/** So many looks in a row found the agent idle: whoever is in a burst has something better to do. */
const quietLooks = 12;
/** Of the time since the last look. */
const idleBelow = 0.1;
const busyAbove = 0.5;
/** Bytes of garbage that are worth a pause of a hundred milliseconds and compiling again what the collection forgets. */
const worthwhile = 12 << 20;

/**
 * Bytes from which on a heap is a large cluster's. A collection costs by what lives: where that is much, to collect after
 * every tenth of it, as for the many small ones, takes longer than the changes that made the garbage.
 */
const large = 96 << 20;

/**
 * How much a heap may grow until it is collected. As bin/myelin-agent begins: tight, for what is there lives for months. In a
 * burst as V8 finds best: what thousands of handshakes leave behind costs half of their processor time to collect tightly
 * (`make bench ONLY=handshake`), and is collected once the burst is over.
 */
const growth = {
  small: '--heap-growing-percent=10',
  bursting: '--heap-growing-percent=0',
  large: '--heap-growing-percent=50',
} as const;

/** What gives pages back to the system too: a usual collection keeps them for what comes next. */
const thoroughly = { type: 'major', execution: 'sync', flavor: 'last-resort' } as const;

/**
 * Lets the heap grow in a burst (hundreds of policies, pods, flows, tunnels), and collects its garbage once the burst is over. V8
 * would keep it until the next one: an agent that does nothing allocates nothing, and without allocation nothing is collected.
 * @param collect `gc` of a Node that was started with `--expose-gc`; without it nothing is done.
 * @param setFlags Of V8; called when another growth is due.
 * @returns Ends it.
 */
export function tendHeap(collect: typeof globalThis.gc, setFlags = setFlagsFromString): () => void {
  if (collect === undefined) return () => undefined;
  let seen = performance.eventLoopUtilization();
  let alive = process.memoryUsage().heapUsed;
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
    const { heapUsed } = process.memoryUsage();
    // A large cluster stays one.
    if (size === 'large' || heapUsed > large) grow('large');
    else if (utilization > busyAbove) grow('bursting');
    else if (quiet >= quietLooks) grow('small');
    if (quiet < quietLooks || heapUsed < alive + worthwhile) return;
    collect(thoroughly);
    alive = process.memoryUsage().heapUsed;
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}
