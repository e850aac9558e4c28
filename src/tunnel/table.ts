import type { IpAddress } from '../model/address.ts';
import type { Cancel } from './handshake/cancel.ts';
import { HandshakeError } from './handshake/error.ts';
import { goesFirst } from './pair-state.ts';
import type { LocalPod, PeerNode, PeerResolver, RemotePod } from './peers.ts';
import type { TunnelServices } from './services.ts';
import { Tunnel } from './tunnel.ts';

const nobody: readonly Tunnel[] = [];

/** The tunnels of a node: one for each pod pair, and never two pods behind one remote address. */
export class TunnelTable {
  readonly #resolver: PeerResolver;
  /** By local, then by remote UID. */
  readonly #tunnels = new Map<string, Map<string, Tunnel>>();
  /** By address, then by the remote pod's UID. Those that are being taken down, too, until their keys are gone. */
  readonly #remoteAt = new Map<IpAddress, Map<string, Set<Tunnel>>>();
  readonly #leaving = new Map<Tunnel, Promise<void>>();

  constructor(resolver: PeerResolver) {
    this.#resolver = resolver;
  }

  /** Those that are there to stay. */
  get all(): readonly Tunnel[] {
    return [...this.#tunnels.values()].flatMap((tunnels) => [...tunnels.values()]);
  }

  /** Those that are being taken down. */
  get leaving(): readonly Tunnel[] {
    return [...this.#leaving.keys()];
  }

  to(addresses: readonly IpAddress[]): readonly Tunnel[] {
    const found = addresses.flatMap((address) => this.#at(address));
    return [...new Set(found)].filter((tunnel) => !this.#leaving.has(tunnel));
  }

  /** Whether the tunnel is there to stay. */
  has(tunnel: Tunnel): boolean {
    return this.find(tunnel.local, tunnel.remote) === tunnel;
  }

  /** The pair's tunnel, if it has one. */
  find(local: LocalPod, remote: RemotePod): Tunnel | undefined {
    return this.#tunnels.get(local.pod.uid)?.get(remote.pod.uid);
  }

  /** The pair's tunnel; a new one, with nothing in it, when it has none. */
  of(local: LocalPod, remote: RemotePod, services: TunnelServices): Tunnel {
    const known = this.find(local, remote);
    if (known !== undefined) {
      this.update(known, remote);
      return known;
    }
    const tunnel = new Tunnel(local, remote, goesFirst(local.pod.uid, remote.pod.uid), services);
    let tunnels = this.#tunnels.get(local.pod.uid);
    if (tunnels === undefined) {
      tunnels = new Map();
      this.#tunnels.set(local.pod.uid, tunnels);
    }
    tunnels.set(remote.pod.uid, tunnel);
    this.#occupy(tunnel);
    return tunnel;
  }

  /** Something else than who the remote pod is has changed: its node, or it has got another address. */
  update(tunnel: Tunnel, remote: RemotePod): void {
    const { node, addresses } = tunnel.remote;
    const text = (at: PeerNode) => `${at.name} ${at.address} ${at.handshakePort}`;
    if (text(node) === text(remote.node) && addresses.join() === remote.addresses.join()) return;
    this.#vacate(tunnel);
    tunnel.update(remote);
    this.#occupy(tunnel);
  }

  /** Takes a tunnel down. Resolves when none of its keys is left in the driver. */
  end(tunnel: Tunnel): Promise<void> {
    const leaving = this.#leaving.get(tunnel);
    if (leaving !== undefined) return leaving;
    this.#unlist(tunnel);
    const gone = tunnel.teardown().finally(() => {
      this.#leaving.delete(tunnel);
      this.#vacate(tunnel);
    });
    this.#leaving.set(tunnel, gone);
    return gone;
  }

  /** Forgets a tunnel that has nothing in the driver. */
  drop(tunnel: Tunnel): void {
    tunnel.close();
    this.#unlist(tunnel);
    this.#vacate(tunnel);
  }

  /**
   * To be called before an inbound SA is installed. An address has one pod: whoever else has tunnels from there is
   * taken down first, so that no packet is ever taken for another pod's.
   * @param cancel Gives up waiting together with the handshake: two that wait for each other's end would do so for ever.
   * @throws {HandshakeError} `unknown-peer` where the pod is not believed to be there any more; `aborted`
   */
  claim(claimant: Tunnel, cancel: Cancel): Promise<void> | undefined {
    let others: Set<Tunnel> | undefined;
    for (const { remote } of claimant.selectors) {
      this.#believe(claimant, remote);
      const inTheWay = this.#inTheWay(remote, claimant);
      if (inTheWay.length > 0) others = new Set([...(others ?? []), ...inTheWay]);
    }
    return others === undefined ? undefined : this.#clear(claimant, others, cancel);
  }

  async #clear(claimant: Tunnel, others: ReadonlySet<Tunnel>, cancel: Cancel): Promise<void> {
    const { signal } = cancel;
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(new HandshakeError('aborted')), { once: true });
    });
    await Promise.race([Promise.all([...others].map((other) => this.end(other))), aborted]);
    // It took a while: somebody else may be believed to be there by now, or have come.
    await this.claim(claimant, cancel);
  }

  #believe({ remote: { pod } }: Tunnel, address: IpAddress): void {
    if (this.#resolver.podAt(address)?.pod.uid !== pod.uid)
      throw new HandshakeError('unknown-peer', `pod ${pod.uid} is not known at ${address} any more`);
  }

  #at(address: IpAddress): Tunnel[] {
    return [...(this.#remoteAt.get(address)?.values() ?? [])].flatMap((tunnels) => [...tunnels]);
  }

  #inTheWay(address: IpAddress, claimant: Tunnel): readonly Tunnel[] {
    const { uid } = claimant.remote.pod;
    const at = this.#remoteAt.get(address);
    // A node may have a thousand tunnels to one pod, and claims its address for each.
    if (at?.size === 1 && at.has(uid) && this.#leaving.size === 0) return nobody;
    return this.#at(address).filter(
      (other) => other !== claimant && (other.remote.pod.uid !== uid || this.#leaving.has(other)),
    );
  }

  #unlist({ local, remote }: Tunnel): void {
    const tunnels = this.#tunnels.get(local.pod.uid);
    tunnels?.delete(remote.pod.uid);
    if (tunnels?.size === 0) this.#tunnels.delete(local.pod.uid);
  }

  #occupy(tunnel: Tunnel): void {
    const { addresses, pod } = tunnel.remote;
    for (const address of addresses) {
      let at = this.#remoteAt.get(address);
      if (at === undefined) {
        at = new Map();
        this.#remoteAt.set(address, at);
      }
      const tunnels = at.get(pod.uid);
      if (tunnels === undefined) at.set(pod.uid, new Set([tunnel]));
      else tunnels.add(tunnel);
    }
  }

  #vacate(tunnel: Tunnel): void {
    const { addresses, pod } = tunnel.remote;
    for (const address of addresses) {
      const at = this.#remoteAt.get(address);
      const tunnels = at?.get(pod.uid);
      tunnels?.delete(tunnel);
      if (tunnels?.size === 0) at?.delete(pod.uid);
      if (at?.size === 0) this.#remoteAt.delete(address);
    }
  }
}
