import { existsSync, writeFileSync } from 'node:fs';
import { run } from '../kernel/command.ts';
import { KernelError } from '../kernel/error.ts';
import { deviceIndex } from '../kernel/ffi/libc.ts';
import { ipBatch, listLinks } from '../kernel/ip.ts';
import type { IpAddress } from '../model/address.ts';
import { type Endpoint, isHostInterface } from './endpoint.ts';
import { hostLines, pairLines, podLines, podScript } from './wiring.ts';

/**
 * What the endpoint manager does to the kernel, in this process's network namespace and in pods'. Every method fails
 * with a {@link KernelError} that names the command.
 */
export class PodNetwork {
  readonly #nodeAddresses: readonly IpAddress[];

  /** @param nodeAddresses The node's own, one of a family at most: the source of its packets to pods. */
  constructor(nodeAddresses: readonly IpAddress[]) {
    this.#nodeAddresses = nodeAddresses;
  }

  /** @param netns A path that stays valid, such as that of an open descriptor. @returns The host side's index. */
  async createPair(endpoint: Endpoint, netns: string): Promise<number> {
    await ipBatch(pairLines(endpoint, netns));
    const conf = `/proc/sys/net/ipv6/conf/${endpoint.hostInterface}`;
    if (existsSync(conf)) {
      writeFileSync(`${conf}/disable_ipv6`, '0');
      writeFileSync(`${conf}/accept_ra`, '0');
    }
    return deviceIndex(endpoint.hostInterface);
  }

  /** Brings both ends up with their addresses, routes and neighbours. */
  async bringUp(endpoint: Endpoint, netns: string): Promise<void> {
    const inside = run('sh', ['-c', podScript(endpoint), 'sh', endpoint.ifName], {
      netns,
      input: `${podLines(endpoint).join('\n')}\n`,
    });
    const outcomes = await Promise.allSettled([inside, this.repair([endpoint])]);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** Puts the host sides' addresses, routes and neighbours right; changes nothing where they are. */
  async repair(endpoints: readonly Endpoint[]): Promise<void> {
    await ipBatch(endpoints.flatMap((endpoint) => hostLines(endpoint, this.#nodeAddresses)));
  }

  /** Removes a veth pair, and with it everything that stands on either end. Nothing happens where there is none. */
  async remove(hostInterface: string): Promise<void> {
    if (this.indexOf(hostInterface) === undefined) return;
    try {
      await ipBatch([`link del dev ${hostInterface}`]);
    } catch (error) {
      // The pod's namespace may end, and take the pair with it, at any moment.
      if (this.indexOf(hostInterface) !== undefined) throw error;
    }
  }

  /** @returns A device's index, or undefined where this namespace has none of that name. */
  indexOf(device: string): number | undefined {
    try {
      return deviceIndex(device);
    } catch (error) {
      if (error instanceof KernelError && error.errno === 'ENODEV') return undefined;
      throw error;
    }
  }

  /** @returns The host sides that are there, by name, with their index: also those that nobody remembers. */
  async hostInterfaces(): Promise<Map<string, number>> {
    const links = await listLinks();
    return new Map(links.filter(({ name }) => isHostInterface(name)).map(({ name, ifindex }) => [name, ifindex]));
  }
}
