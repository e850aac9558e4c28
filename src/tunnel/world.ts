import type { TrustBundle } from '../identity/bundle.ts';
import { messageOf } from '../identity/certificate.ts';
import type { SaId, TunnelDriver, TunnelDriverEvents, UnderlayAddress } from './driver.ts';
import type { Inventory } from './inventory.ts';
import type { NodeSessions } from './node-sessions.ts';
import type { LocalPod, PeerNode, PeerResolver } from './peers.ts';
import { planRestore } from './restore.ts';
import { type SaHolders, saKey } from './sa-ledger.ts';
import type { TunnelServices } from './services.ts';
import type { RandomSpis } from './spi-pool.ts';
import type { TunnelTable } from './table.ts';
import type { Tunnel } from './tunnel.ts';

/** All tunnels of a node, and what is around them. */
export interface TunnelWorld {
  readonly services: TunnelServices;
  readonly resolver: PeerResolver;
  readonly table: TunnelTable;
  readonly holders: SaHolders<Tunnel>;
  readonly inventory: Inventory;
  readonly spis: RandomSpis;
  readonly nodes: NodeSessions;
  /** A node sends with an SPI that nobody here has. */
  readonly onUnknownSpi: (node: PeerNode, spi: number) => void;
}

/** Tells tunnels what the driver says of their SAs. @returns Ends it. */
export function listenToDriver(driver: TunnelDriver, world: TunnelWorld): () => void {
  const { table, holders, nodes, resolver, onUnknownSpi } = world;
  const limit = (hard: boolean) => (expiry: { readonly sa: SaId }) => {
    const tunnel = holders.find(expiry.sa);
    if (tunnel === undefined || !table.has(tunnel)) return;
    // What carried as much as a key may is to be followed by keys of a new handshake.
    if (tunnel.proven?.radius === 'node') nodes.renew(tunnel.remote.node.name);
    tunnel.dispatch({ type: 'limit', spi: expiry.sa.spi, hard });
  };
  const [soft, hard] = [limit(false), limit(true)];
  const unknownSpi = ({ spi, from }: TunnelDriverEvents['unknownSpi'][0]) => {
    const node = resolver.nodeAt(from.address);
    if (node !== undefined) onUnknownSpi(node, spi);
  };
  const moved = ({ sa, from }: TunnelDriverEvents['moved'][0]) => follow(sa, from, world);
  const up = () => void compare(world);
  driver.on('soft', soft).on('hard', hard).on('unknownSpi', unknownSpi).on('moved', moved).on('up', up);
  return () => {
    driver.off('soft', soft).off('hard', hard).off('unknownSpi', unknownSpi).off('moved', moved).off('up', up);
  };
}

/** A NAT has put a node elsewhere. */
function follow(sa: SaId, from: UnderlayAddress, { table, holders }: TunnelWorld): void {
  const newest = (tunnel: Tunnel) => tunnel.sas.findLast(({ direction }) => direction === 'in');
  // By the newest key only: a straggler under an older one says where the peer was.
  const mover = holders.find(sa);
  if (mover === undefined || newest(mover)?.spi !== sa.spi || !table.has(mover)) return;
  // One of many that say the same: it was taken along with the first.
  if (mover.path?.address === from.address && mover.path.port === from.port) return;
  const { address, port } = sa.peer;
  // A NAT moves a node with all of its pods: those that are silent now are found there too.
  for (const tunnel of table.all) {
    const peer = newest(tunnel)?.peer;
    const isBeside =
      tunnel.remote.node.name === mover.remote.node.name && peer?.address === address && peer.port === port;
    if (tunnel === mover || isBeside) tunnel.follow(from);
  }
}

/** The driver is back: what it has is compared with what it should have. */
async function compare({ services, table, inventory }: TunnelWorld): Promise<void> {
  const { driver, logger } = services;
  try {
    const installed = await inventory.installed();
    for (const tunnel of table.all) {
      const { up } = tunnel.state;
      const lost = tunnel.sas.some(
        (sa) => (sa.spi === up?.spiIn || sa.spi === up?.spiOut) && !installed.has(saKey(sa)),
      );
      if (lost) tunnel.lostByDriver();
    }
    const ours = new Set([...table.all, ...table.leaving].flatMap(({ sas }) => sas.map(saKey)));
    for (const [key, sa] of installed) if (!ours.has(key)) await driver.remove(sa);
  } catch (error) {
    logger.warn({ error: messageOf(error) }, 'the tunnel driver cannot be compared');
  }
}

/** Takes over what an earlier agent of this node left in the driver; what is of no use any more is removed. */
export async function takeOver(world: TunnelWorld, locals: ReadonlyMap<string, LocalPod>): Promise<void> {
  const { services, resolver, table, spis } = world;
  const { driver, trustDomain, now, logger } = services;
  const installed = await driver.list();
  const plan = planRestore(installed, { trustDomain, locals, resolver, now: now() });
  for (const { local, remote, state, sas, proven } of plan.tunnels) {
    for (const sa of sas) if (sa.direction === 'in') spis.adopt(sa.spi);
    await table.of(local, remote, services).restore(state, sas, proven);
  }
  for (const sa of plan.remove) await driver.remove(sa);
  if (installed.length > 0)
    logger.info({ tunnels: plan.tunnels.length, removed: plan.remove.length }, 'tunnels taken over');
}

/** Ends what another bundle does not believe any more: sessions of nodes, and tunnels. */
export function endRevoked({ revocations }: TrustBundle, { services, table, nodes }: TunnelWorld): void {
  const { serials, spiffeIds } = revocations;
  nodes.recheck(({ peer }) => !spiffeIds.has(peer.uri) && !serials.has(peer.serialNumber));
  for (const tunnel of table.all) {
    const { local, remote, proven, state } = tunnel;
    const peerSerials = [proven?.remoteSerial, proven?.nodeSerial].flatMap((serial) => serial ?? []);
    const why = services.whyRevoked(tunnel, state.up === undefined ? [] : peerSerials);
    if (why !== undefined) {
      services.counters.revoked++;
      services.logger.warn({ local: local.pod, remote: remote.pod, why }, 'tunnel ended: it is proof no more');
      void table.end(tunnel);
    } else if (state.lastError?.code === 'revoked' && tunnel.sas.length === 0 && state.phase.kind === 'waiting') {
      // Believed again: the next packet does not wait for what a refusal is waited for.
      table.drop(tunnel);
      if (state.wanted) table.of(local, remote, services).dispatch({ type: 'acquire' });
    }
  }
}
