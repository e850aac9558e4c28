import type { PodRef } from '../model/endpoint.ts';
import type { SpiffeId } from '../model/identity.ts';
import type { InstalledSa } from './driver.ts';
import type { BreachRadius } from './handshake/exchange.ts';
import { saKey } from './sa-ledger.ts';
import type { Tunnel } from './tunnel.ts';

/** One tunnel as people and `myelin tunnels` see it. Times are Unix milliseconds. */
export interface TunnelStatus {
  readonly local: PodRef;
  readonly remote: PodRef;
  readonly localSpiffeId: SpiffeId;
  /** Proven while the tunnel is up, else as believed. */
  readonly remoteSpiffeId: SpiffeId;
  readonly remoteNode: string;
  readonly remoteAddress: string;
  /** `up`, and `rekeying` while it is being renewed; `opening` for the first time; `waiting` after a failure; `down`. */
  readonly state: 'up' | 'rekeying' | 'opening' | 'waiting' | 'down';
  readonly driver: string;
  /** Of ESP. */
  readonly cipher: string;
  /** TLS cipher suite and key-exchange group that the keys came out of; empty while there is no key. */
  readonly handshakeCipher: string;
  readonly group: string;
  /** Of the keys that are up, else of those that it would get: see docs/TUNNELS.md. */
  readonly radius: BreachRadius;
  /** Of the certificate that the other pod proved itself by. */
  readonly remoteSerial?: string;
  readonly spiIn?: number;
  readonly spiOut?: number;
  readonly establishedAt?: number;
  readonly expiresAt?: number;
  /** Of the SAs that the driver holds now. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly rekeys: number;
  /** Why it is down, or could not be renewed, in words. */
  readonly lastError?: string;
  readonly lastErrorCode?: string;
}

/** What every SA here is sealed with (handshake/messages.ts). */
const espCipher = 'AES-256-GCM';

export function tunnelStatus(
  tunnel: Tunnel,
  driver: string,
  installed: ReadonlyMap<string, InstalledSa>,
): TunnelStatus {
  const { state, local, remote, proven } = tunnel;
  const sum = (direction: 'in' | 'out', what: 'packets' | 'bytes') =>
    tunnel.sas
      .filter((sa) => sa.direction === direction)
      .reduce((total, sa) => total + (installed.get(saKey(sa))?.statistics[what] ?? 0), 0);
  const { up, lastError } = state;
  return {
    local: local.pod,
    remote: remote.pod,
    localSpiffeId: local.spiffeId,
    remoteSpiffeId: up === undefined ? remote.spiffeId : (proven?.remoteSpiffeId ?? remote.spiffeId),
    remoteNode: remote.node.name,
    remoteAddress: remote.node.address,
    state: stateName(tunnel),
    driver,
    cipher: espCipher,
    handshakeCipher: up === undefined ? '' : (proven?.cipher ?? ''),
    group: up === undefined ? '' : (proven?.group ?? ''),
    radius: up === undefined ? tunnel.radius : (proven?.radius ?? tunnel.radius),
    ...(up === undefined || proven === undefined ? {} : { remoteSerial: proven.remoteSerial }),
    ...(up === undefined ? {} : { spiIn: up.spiIn, spiOut: up.spiOut, establishedAt: up.establishedAt }),
    ...(up === undefined ? {} : { expiresAt: up.expiresAt }),
    bytesIn: sum('in', 'bytes'),
    bytesOut: sum('out', 'bytes'),
    packetsIn: sum('in', 'packets'),
    packetsOut: sum('out', 'packets'),
    rekeys: state.rekeys,
    ...(lastError === undefined ? {} : { lastError: lastError.text, lastErrorCode: lastError.code }),
  };
}

function stateName({ state }: Tunnel): TunnelStatus['state'] {
  const { kind } = state.phase;
  const busy = kind === 'opening' || kind === 'answering' || kind === 'yielding';
  if (state.up !== undefined) return busy ? 'rekeying' : 'up';
  if (busy) return 'opening';
  return kind === 'waiting' ? 'waiting' : 'down';
}
