import { resolve } from 'node:path';

/** The root of the source tree that this program runs from. */
export const repository = resolve(import.meta.dirname, '../..');

/** How every Node process of a lab is started: the pinned Node, no talk of experiments. */
export const nodeCommand: readonly string[] = [process.execPath, '--disable-warning=ExperimentalWarning'];

/** Types stripped and code compiled once for all processes of all labs. */
export const compileCache = { NODE_COMPILE_CACHE: `${repository}/build/compile-cache` } as const;

/**
 * An agent's heap is small and lives for months: V8 is to keep it tight rather than let garbage double it
 * (make bench ONLY=scale measures what that saves).
 */
export const agentCommand: readonly string[] = [...nodeCommand, '--max-semi-space-size=1', '--heap-growing-percent=20'];
