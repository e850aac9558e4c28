import type { InstalledSa, SaId } from './driver.ts';
import { decodeNote, type SaNote } from './note.ts';
import { goesFirst, type PairState, restoredPair } from './pair-state.ts';
import type { LocalPod, PeerResolver, RemotePod } from './peers.ts';
import type { HeldSa } from './sa-ledger.ts';
import type { Proven } from './services.ts';

export interface RestoredTunnel {
  readonly local: LocalPod;
  readonly remote: RemotePod;
  readonly state: PairState;
  readonly sas: readonly HeldSa[];
  readonly proven: Proven;
}

export interface RestorePlan {
  readonly tunnels: readonly RestoredTunnel[];
  /** Nobody's: of pods that are not here any more, half a handshake, or of an unknown kind. */
  readonly remove: readonly SaId[];
}

interface Noted {
  readonly sa: InstalledSa;
  readonly note: SaNote;
}

/** What remains of an earlier key of a pair is removed after this long: its packets have arrived by then. */
const lingerMs = 30_000;

/**
 * Works out from the driver's notes which tunnels there are. Pure. Of each pair the newest key that has both halves is
 * the tunnel; older inbound halves linger, everything else goes.
 */
export function planRestore(
  installed: readonly InstalledSa[],
  context: {
    readonly trustDomain: string;
    readonly locals: ReadonlyMap<string, LocalPod>;
    readonly resolver: PeerResolver;
    readonly now: number;
  },
): RestorePlan {
  const { trustDomain, locals, resolver, now } = context;
  const remove: SaId[] = [];
  const pairs = new Map<string, Noted[]>();
  for (const sa of installed) {
    const note = decodeNote(sa.note, trustDomain);
    if (note === undefined || sa.expired || !locals.has(note.localUid)) remove.push(sa);
    else {
      const key = `${note.localUid} ${note.remote.uid}`;
      pairs.set(key, [...(pairs.get(key) ?? []), { sa, note }]);
    }
  }
  const tunnels: RestoredTunnel[] = [];
  for (const noted of pairs.values()) {
    const newest = newestWhole(noted, now);
    const local = newest && locals.get(newest.note.localUid);
    if (newest === undefined || local === undefined) {
      remove.push(...noted.map(({ sa }) => sa));
      continue;
    }
    const { note, out } = newest;
    const older = noted.filter(({ sa }) => sa.direction === 'in' && sa.spi !== note.spiIn);
    const kept = noted.filter(
      ({ sa }) => sa.direction === 'in' || (sa.spi === note.spiOut && sa.peer.address === out.peer.address),
    );
    remove.push(...noted.filter((each) => !kept.includes(each)).map(({ sa }) => sa));
    const { spiIn, spiOut, establishedAt, rekeyAt, expiresAt } = note;
    // The earlier agent died in the middle of a renewal: the peer may send by the newer key already and forget this one.
    const isHalfway = older.some((each) => each.note.establishedAt > note.establishedAt);
    const isLeaving = noted.some(({ sa }) => sa.leaving === true && (sa.spi === spiOut || sa.spi === spiIn));
    const retired = older.map(({ sa }) => ({ spi: sa.spi, removeAt: now + lingerMs }));
    tunnels.push({
      local,
      remote: remoteOf(note, out, resolver),
      state: restoredPair(
        goesFirst(local.pod.uid, note.remote.uid),
        { spiIn, spiOut, establishedAt, rekeyAt: isHalfway || isLeaving ? now : rekeyAt, expiresAt },
        retired,
      ),
      // In the order of their making, the newest inbound one last: that is the one that proves.
      sas: kept.sort((a, b) => a.note.establishedAt - b.note.establishedAt).map(({ sa }) => sa),
      proven: {
        remoteSpiffeId: note.remoteSpiffeId,
        remoteSerial: note.remoteSerial,
        cipher: note.cipher,
        group: note.group,
        radius: note.radius,
        nodeSerial: note.nodeSerial,
      },
    });
  }
  const standing = onePodEach(tunnels, resolver);
  for (const tunnel of tunnels) if (!standing.includes(tunnel)) remove.push(...tunnel.sas);
  return { tunnels: standing, remove };
}

/** Of tunnels to different pods at one remote address those of the pod that is believed to be there stay, else the newest. */
function onePodEach(tunnels: readonly RestoredTunnel[], resolver: PeerResolver): RestoredTunnel[] {
  const isBelieved = ({ remote }: RestoredTunnel) =>
    remote.addresses.every((address) => resolver.podAt(address)?.pod.uid === remote.pod.uid) ? 1 : 0;
  const age = ({ state }: RestoredTunnel) => state.up?.establishedAt ?? 0;
  const podAt = new Map<string, string>();
  return [...tunnels]
    .sort((a, b) => isBelieved(b) - isBelieved(a) || age(b) - age(a))
    .filter(({ remote }) => {
      const others = remote.addresses.filter((address) => (podAt.get(address) ?? remote.pod.uid) !== remote.pod.uid);
      if (others.length > 0) return false;
      for (const address of remote.addresses) podAt.set(address, remote.pod.uid);
      return true;
    });
}

function newestWhole(noted: readonly Noted[], now: number): { note: SaNote; out: InstalledSa } | undefined {
  const whole = noted.flatMap(({ sa: out, note }) => {
    const halves = out.direction === 'out' && out.spi === note.spiOut && note.expiresAt > now;
    const inbound = noted.some(({ sa }) => sa.direction === 'in' && sa.spi === note.spiIn);
    return halves && inbound ? [{ note, out }] : [];
  });
  return whole.sort((a, b) => b.note.establishedAt - a.note.establishedAt)[0];
}

/** The pod as believed now, where that is still the pod of the note, else as the note remembers it. */
function remoteOf(note: SaNote, out: InstalledSa, resolver: PeerResolver): RemotePod {
  for (const { remote } of out.selectors) {
    const believed = resolver.podAt(remote);
    if (believed?.pod.uid === note.remote.uid && believed.spiffeId === note.remoteSpiffeId) return believed;
  }
  return {
    pod: note.remote,
    spiffeId: note.remoteSpiffeId,
    addresses: out.selectors.map(({ remote }) => remote),
    node: { name: note.node, address: out.peer.address },
  };
}
