import type { HandshakeCounters } from './handshake/counters.ts';
import type { WireLifetime } from './handshake/messages.ts';
import type { PeerVerifier } from './handshake/peer.ts';
import type { TlsWork } from './handshake/work.ts';
import type { Inventory } from './inventory.ts';
import type { TunnelManagerDeps, TunnelManagerOptions } from './manager-options.ts';
import type { NodeSessions } from './node-sessions.ts';
import { defaultTiming } from './pair-state.ts';
import { isNobody, whyPairRevoked } from './revocation.ts';
import type { SaHolders } from './sa-ledger.ts';
import type { TunnelServices } from './services.ts';
import { Slots } from './slots.ts';
import type { RandomSpis } from './spi-pool.ts';
import type { TunnelTable } from './table.ts';
import type { Tunnel } from './tunnel.ts';

/** How long keys may be used that are agreed on from now on. */
export interface KeyLimits {
  lifetime: WireLifetime;
}

/** What the manager itself has of what tunnels share. */
export interface ManagerParts {
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly counters: HandshakeCounters;
  readonly nodes: NodeSessions;
  readonly spis: RandomSpis;
  readonly holders: SaHolders<Tunnel>;
  readonly table: TunnelTable;
  readonly inventory: Inventory;
  /** Looked at each time. */
  readonly limits: KeyLimits;
  readonly onHandshake: TunnelServices['onHandshake'];
}

/** Puts together what every tunnel of a node shares: what the manager was given, what it has, and what goes without saying. */
export function makeServices(
  options: TunnelManagerOptions,
  deps: TunnelManagerDeps,
  { limits, table, inventory, ...parts }: ManagerParts,
): TunnelServices {
  const { trustDomain, timeoutMs = 5000, handshakePort = 4747 } = options;
  const { driver, hooks, logger, svid, nodeIdentity, onKeys } = deps;
  return {
    ...parts,
    ...{ trustDomain, driver, hooks, svid, logger },
    timing: { ...defaultTiming, ...options.timing },
    dials: new Slots(options.mostDials ?? 32),
    radius: deps.radius ?? (() => 'pod'),
    nodeNotAfter: () => Math.min(...(nodeIdentity()?.chain.map(({ notAfter }) => notAfter) ?? [0])),
    claim: (tunnel, cancel) => table.claim(tunnel, cancel),
    whyNot: deps.whyNot ?? (() => undefined),
    whyRevoked: whyRevokedBy(deps, trustDomain),
    ...(onKeys === undefined ? {} : { onKeys }),
    isUsed: (sas) => inventory.isUsed(sas),
    now: deps.now ?? Date.now,
    random: deps.random ?? Math.random,
    settings: {
      espPort: options.espPort ?? 4500,
      handshakePort,
      get lifetime() {
        return limits.lifetime;
      },
      replayWindow: options.replayWindow,
      timeoutMs,
    },
  };
}

/** By the newest trust bundle and this node's certificates of now. */
function whyRevokedBy(
  { bundles, svid, nodeIdentity }: Pick<TunnelManagerDeps, 'bundles' | 'svid' | 'nodeIdentity'>,
  trustDomain: string,
): TunnelServices['whyRevoked'] {
  return (pair, peerSerials) => {
    const { revocations } = bundles.current;
    if (isNobody(revocations)) return undefined;
    const [node] = nodeIdentity()?.chain ?? [];
    const [own] = svid(pair.local.pod.uid)?.chain ?? [];
    const serials = [own?.serialNumber, node?.serialNumber].flatMap((serial) => serial ?? []);
    return whyPairRevoked(pair, { serials, nodeUri: node?.uris[0] }, peerSerials, revocations, trustDomain);
  };
}
