import { run } from './command.ts';
import { KernelError } from './error.ts';
import type { NetnsOptions } from './ip.ts';

/**
 * Loads an nftables script as one transaction: all of it or nothing.
 * @throws {KernelError} `Command`, `Missing`
 */
export async function nft(script: string, options: NetnsOptions = {}): Promise<void> {
  await run('nft', ['-f', '-'], { ...options, input: script });
}

/**
 * @param what Such as `['table', 'inet', 'myelin']`; the whole rule set by default.
 * @returns nft's JSON objects, or undefined where there is no such table or chain.
 */
export async function nftList(
  what: readonly string[] = ['ruleset'],
  options: NetnsOptions = {},
): Promise<readonly unknown[] | undefined> {
  try {
    const { stdout } = await run('nft', ['-j', 'list', ...what], options);
    const parsed: unknown = JSON.parse(stdout);
    return isListing(parsed) ? parsed.nftables : [];
  } catch (error) {
    if (error instanceof KernelError && error.errno === 'ENOENT' && error.code === 'Command') return undefined;
    throw error;
  }
}

function isListing(value: unknown): value is { nftables: readonly unknown[] } {
  return typeof value === 'object' && value !== null && 'nftables' in value && Array.isArray(value.nftables);
}
