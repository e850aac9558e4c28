import { resolve } from 'node:path';

/** The root of the source tree that this program runs from. */
export const repository = resolve(import.meta.dirname, '../..');

/** How every Node process of a lab is started: the pinned Node, no talk of experiments. */
export const nodeCommand: readonly string[] = [process.execPath, '--disable-warning=ExperimentalWarning'];

/** Types stripped and code compiled once for all processes of all labs. */
export const compileCache = { NODE_COMPILE_CACHE: `${repository}/build/compile-cache` } as const;

/** How an agent is started, with its flags for Node: the same way as on real nodes. */
export const agentCommand: readonly string[] = [`${repository}/bin/myelin-agent`];
