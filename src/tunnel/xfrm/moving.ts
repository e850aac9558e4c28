import type { Xfrm } from '../../kernel/xfrm.ts';
import type { XfrmState, XfrmStateId } from '../../kernel/xfrm-layout.ts';
import { familyOf, type IpAddress } from '../../model/address.ts';
import { hostPrefix } from '../../model/prefix.ts';
import { type InboundSa, type OutboundSa, type SaId, TunnelError, type UnderlayAddress } from '../driver.ts';
import type { SaNote, SaNotes } from './notes.ts';
import type { Sending } from './sending.ts';

export interface MovingOptions {
  /** This node's. */
  readonly underlay: UnderlayAddress;
  readonly interfaceId: number;
}

/** Of an outbound association, whose bitmap nobody looks at; the kernel wants one with 64-bit sequence numbers. */
const unusedWindow = 32;
/** Between two words of the kernel about packets that come from elsewhere. */
const mappingInterval = 1;
/**
 * Packets times copies. A copy of an association has the same key, and IVs that are the sequence number XORed with 64 random bits
 * of its own (seqiv in Linux). Of n packets under m such series some two have one IV with a probability of about n · m / 2⁶⁴: at
 * most 2⁻³², which is what NIST SP 800-38D section 8 allows.
 */
const mostCarried = 2 ** 32;

/** How the kernel is told of an association: by addresses and SPI. */
export function stateIdOf({ direction, spi, peer }: SaId, here: IpAddress): XfrmStateId {
  const [source, destination] = direction === 'in' ? [peer.address, here] : [here, peer.address];
  return { source, destination, spi };
}

/** An association as the kernel has it, but for its key. */
export function stateOf(
  sa: Pick<InboundSa | OutboundSa, 'direction' | 'spi' | 'peer' | 'lifetimes'>,
  replayWindow: number,
  { underlay, interfaceId }: MovingOptions,
): Omit<XfrmState, 'keyAndSalt'> {
  const { direction, spi, peer, lifetimes } = sa;
  const [here, there] = [underlay.port, peer.port];
  return {
    ...stateIdOf(sa, underlay.address),
    ...lifetimes,
    ...{ requestId: spi, interfaceId, replayWindow: Math.max(replayWindow, unusedWindow) },
    ...(direction === 'in'
      ? { mappingInterval, encapsulation: { sourcePort: there, destinationPort: here } }
      : { encapsulation: { sourcePort: here, destinationPort: there } }),
  };
}

/**
 * Has the kernel's associations follow a peer that is elsewhere, with their keys, limits and sequence.
 *
 * Another port is a change in place. Another address names another association outbound: the kernel copies it. Inbound the
 * address counts for nothing but being told of others, so that the kernel is made to tell of every one.
 * @returns The note as it is now.
 * @throws {TunnelError} `InvalidSa`, `SaExists` @throws {KernelError} `Errno`
 */
export function movePeer(
  note: SaNote,
  peer: UnderlayAddress,
  { xfrm, notes, sending, options }: { xfrm: Xfrm; notes: SaNotes; sending: Sending; options: MovingOptions },
): SaNote {
  const refuse = (why: string) => new TunnelError('InvalidSa', `SPI ${note.spi} cannot be moved: ${why}`);
  if (familyOf(peer.address) !== familyOf(options.underlay.address)) throw refuse('not the underlay’s family');
  if (!Number.isInteger(peer.port) || peer.port < 1 || peer.port > 65_535) throw refuse('the port is out of range');
  const moved: SaNote = { ...note, peer };
  const state = stateOf(moved, note.replayWindow, options);
  if (note.direction === 'in' || peer.address === note.peer.address) {
    // An inbound state keeps the address that it was made with. With a port that nobody has, going back there is told of too.
    const encapsulation = { ...state.encapsulation, sourcePort: 0 };
    xfrm.updateState(note.direction === 'in' ? { ...state, encapsulation } : state);
    notes.put(moved);
    return moved;
  }
  const before = stateIdOf(note, options.underlay.address);
  const copies = (note.copies ?? 0) + 1;
  if (xfrm.usage(before).packets * copies > mostCarried)
    throw refuse('it has carried too much, and has to be replaced');
  if (notes.get(moved) !== undefined) throw new TunnelError('SaExists', `${peer.address} has an SPI ${note.spi}`);
  const [pair] = note.selectors;
  if (pair === undefined) throw refuse('it is of no pair');
  // Noted in both places until it is in one: what is noted and not there goes at the next start.
  const copied = { ...moved, copies };
  notes.put(copied);
  try {
    // Nothing is forwarded by way of the device; the policy is there for the move.
    const by = { direction: 'forward', source: hostPrefix(pair.local), destination: hostPrefix(pair.remote) } as const;
    const { interfaceId } = options;
    xfrm.moveState({ ...state, ...before, to: peer.address, by: { ...by, interfaceId } });
  } catch (error) {
    notes.delete(copied);
    throw error;
  }
  for (const selector of note.selectors) sending.move(selector, note, peer);
  notes.delete(note);
  return copied;
}
