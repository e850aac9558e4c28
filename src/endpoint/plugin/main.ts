/**
 * The CNI plugin: what a container runtime executes for every pod. It passes its environment and standard input to the
 * node's agent, which checks them, and prints the answer; it keeps nothing. Exec to result is on the path of every pod's
 * start and most of it is Node's own, so what only a failure needs is loaded only then (failure.ts).
 */
import { isUtf8 } from 'node:buffer';
import { readSync, writeSync } from 'node:fs';
import type { RawRequest } from '../cni/request.ts';
import { defaultSocket, maxInputBytes } from '../wire.ts';
import { askAgent } from './agent.ts';

/** @throws {RangeError} where there is too much; the system's error where it cannot be read. */
function readInput(): Buffer {
  const chunks: Buffer[] = [];
  for (let size = 0; size <= maxInputBytes; ) {
    const chunk = Buffer.allocUnsafe(65_536);
    const length = readSome(chunk);
    if (length === 0) return Buffer.concat(chunks);
    chunks.push(chunk.subarray(0, length));
    size += length;
  }
  throw new RangeError(`longer than ${maxInputBytes} bytes`);
}

function readSome(chunk: Buffer): number {
  for (;;) {
    try {
      return readSync(0, chunk);
    } catch (error) {
      // A runtime may hand over the non-blocking end of a pipe.
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

/** @throws {SyntaxError} */
function decode(input: Buffer): unknown {
  if (!isUtf8(input)) throw new SyntaxError('it is not UTF-8');
  return JSON.parse(input.toString('utf8'));
}

function socketOf(config: unknown): string {
  const socket = typeof config === 'object' && config !== null && 'socket' in config ? config.socket : undefined;
  return typeof socket === 'string' ? socket : defaultSocket;
}

function requestFrom(env: NodeJS.ProcessEnv): RawRequest {
  const { CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH } = env;
  return {
    command: CNI_COMMAND ?? '',
    containerId: CNI_CONTAINERID ?? '',
    netns: CNI_NETNS ?? '',
    ifName: CNI_IFNAME ?? '',
    args: CNI_ARGS ?? '',
    path: CNI_PATH ?? '',
    config: undefined,
  };
}

function print(value: unknown): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

/** Prints the spec's error and ends the process with 1. */
function fail(error: unknown): void {
  print(error);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  let request = requestFrom(process.env);
  try {
    const input = readInput();
    if (request.command === 'VERSION') {
      const { versionAnswer } = await import('./version.ts');
      print(versionAnswer(input.length === 0 ? {} : decode(input)));
      return;
    }
    request = { ...request, config: decode(input) };
    const { config, command } = request;
    const reply = await askAgent(socketOf(config), request, async () => {
      // What is wrong with the request itself is said at once, and STATUS asks about now.
      const { refuseEarly } = await import('./failure.ts');
      refuseEarly(request);
    });
    if ('result' in reply) {
      if (command === 'ADD') print(reply.result);
      return;
    }
    const { withVersion } = await import('./failure.ts');
    fail(withVersion(reply.error, config));
  } catch (error) {
    const { explain } = await import('./failure.ts');
    fail(explain(error, request));
  }
}

await main();
