import { type RunOptions, run } from './command.ts';
import { KernelError } from './error.ts';

export type NetnsOptions = Pick<RunOptions, 'netns' | 'signal'>;

/**
 * Runs `ip -json` in this process's network namespace or another.
 * @param args Such as `['-d', 'link', 'show', 'dev', 'eth0']`.
 * @returns The parsed output, which is unknown to the type system; an empty list where ip prints nothing.
 * @throws {KernelError} `Command` (with `errno` where the kernel's answer is known), `Missing`
 */
export async function ip(args: readonly string[], options: NetnsOptions = {}): Promise<unknown> {
  return parse((await run('ip', ['-json', ...args], options)).stdout);
}

/** The same for `bridge`. */
export async function bridge(args: readonly string[], options: NetnsOptions = {}): Promise<unknown> {
  return parse((await run('bridge', ['-json', ...args], options)).stdout);
}

/**
 * Runs many `ip` commands in one process; the first that fails ends it.
 * @param lines Each without the leading `ip`.
 * @param options.family What lines are about that do not say so by an address, such as `rule`.
 * @throws {KernelError} `Command` whose `data.line` is the line that failed
 */
export async function ipBatch(
  lines: readonly string[],
  { family, ...options }: NetnsOptions & { readonly family?: 4 | 6 } = {},
): Promise<void> {
  if (lines.length === 0) return;
  try {
    await run('ip', [...(family === undefined ? [] : [`-${family}`]), '-batch', '-'], {
      ...options,
      input: `${lines.join('\n')}\n`,
    });
  } catch (error) {
    if (!(error instanceof KernelError) || error.code !== 'Command') throw error;
    const stderr = String(error.data.stderr);
    const number = /Command failed -:(\d+)/.exec(stderr)?.[1];
    const line = number === undefined ? undefined : lines[Number(number) - 1];
    if (line === undefined) throw error;
    const why = stderr.replace(/Command failed -:\d+\s*/, '').trim();
    throw new KernelError('Command', `ip ${line}: ${why}`, { ...error.data, object: line, line }, error);
  }
}

function parse(stdout: string): unknown {
  return stdout.trim() === '' ? [] : JSON.parse(stdout);
}

export interface LinkInfo {
  readonly ifindex: number;
  readonly name: string;
  readonly mtu: number;
  /** Empty for devices without one, such as TUN. */
  readonly mac: string;
  readonly up: boolean;
  /** Of a veth: the peer's index in the peer's namespace. */
  readonly peerIndex?: number;
}

/** @returns The device, or undefined where the namespace has none of that name. */
export async function findLink(name: string, options: NetnsOptions = {}): Promise<LinkInfo | undefined> {
  return (await listLinks(options)).find((link) => link.name === name);
}

/** @returns All devices of a namespace. */
export async function listLinks(options: NetnsOptions = {}): Promise<LinkInfo[]> {
  const links = await ip(['link', 'show'], options);
  if (!Array.isArray(links)) return [];
  return links.map((link: Record<string, unknown>) => ({
    ifindex: Number(link.ifindex),
    name: String(link.ifname),
    mtu: Number(link.mtu),
    mac: link.link_type === 'ether' ? String(link.address) : '',
    up: Array.isArray(link.flags) && link.flags.includes('UP'),
    ...(typeof link.link_index === 'number' ? { peerIndex: link.link_index } : {}),
  }));
}
