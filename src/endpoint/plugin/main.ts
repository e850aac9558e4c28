/**
 * The CNI plugin: what a container runtime executes for every pod. It checks what it was given, passes it to the node's
 * agent, and prints the answer; it keeps nothing. Its import graph is small on purpose: exec to result is on the path of
 * every pod's start.
 */
import { readSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { CniError, type CniErrorBody, toCniError } from '../cni/error.ts';
import { maxRequestBytes, parseCommand, parseRequest, type RawRequest } from '../cni/request.ts';
import { cniVersions, isCniVersion, newestVersion } from '../cni/version.ts';
import { askAgent } from './agent.ts';

/** The version that errors are written in: the configuration's, once that is known to be spoken. */
let errorVersion: string = newestVersion;

/** @throws {CniError} `IoFailure` */
function readInput(): Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafe(65_536);
      const length = readSome(chunk);
      if (length === 0) return Buffer.concat(chunks);
      chunks.push(chunk.subarray(0, length));
      size += length;
      if (size > maxRequestBytes) break;
    }
  } catch (error) {
    throw toCniError(error, 'IoFailure', 'failed to read the network configuration from standard input');
  }
  throw new CniError('IoFailure', 'the network configuration is too long', `the limit is ${maxRequestBytes} bytes`);
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

/** @throws {CniError} `DecodingFailure` */
function decode(input: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(input));
  } catch (error) {
    throw toCniError(error, 'DecodingFailure', 'failed to decode the network configuration');
  }
}

function versionOf(config: unknown): unknown {
  return typeof config === 'object' && config !== null && 'cniVersion' in config ? config.cniVersion : undefined;
}

/** The spec echoes the version that was asked in; a person at a terminal, or a caller with nothing to say, gets the newest. */
function versionAnswer(): unknown {
  const input = isatty(0) ? Buffer.alloc(0) : readInput();
  const asked = input.length === 0 ? undefined : versionOf(decode(input));
  return { cniVersion: typeof asked === 'string' ? asked : newestVersion, supportedVersions: cniVersions };
}

/** @returns What goes to standard output; undefined for the commands that print nothing. */
async function answer(env: NodeJS.ProcessEnv): Promise<unknown> {
  const command = parseCommand(env.CNI_COMMAND ?? '');
  if (command === 'VERSION') return versionAnswer();
  const raw: RawRequest = {
    command,
    containerId: env.CNI_CONTAINERID ?? '',
    netns: env.CNI_NETNS ?? '',
    ifName: env.CNI_IFNAME ?? '',
    args: env.CNI_ARGS ?? '',
    path: env.CNI_PATH ?? '',
    config: decode(readInput()),
  };
  const version = versionOf(raw.config);
  if (isCniVersion(version)) errorVersion = version;
  const { socket } = parseRequest(raw).config;
  const reply = await ask(socket, raw);
  if ('error' in reply) throw new Refused(reply.error);
  return command === 'ADD' ? reply.result : undefined;
}

/**
 * Without its agent a node keeps its pods' traffic going and admits no new peers; so ADD, DEL, CHECK and GC are to be
 * tried again (a DEL that lied would leave the address out of the agent's books), and STATUS says both halves: 51.
 */
async function ask(socket: string, raw: RawRequest) {
  const isStatus = raw.command === 'STATUS';
  try {
    return await askAgent(socket, raw, !isStatus);
  } catch (error) {
    if (!isStatus || !(error instanceof CniError)) throw error;
    throw new CniError('LimitedConnectivity', error.message, error.details, error);
  }
}

/** An error that the agent already put into the spec's form. */
class Refused extends Error {
  readonly body: CniErrorBody;

  constructor(body: CniErrorBody) {
    super(body.msg);
    this.body = body;
  }
}

function print(value: unknown): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

try {
  const result = await answer(process.env);
  if (result !== undefined) print(result);
} catch (error) {
  const body = error instanceof Refused ? error.body : toCniError(error, 'Internal', 'the plugin failed').body;
  print({ cniVersion: errorVersion, ...body });
  process.exitCode = 1;
}
