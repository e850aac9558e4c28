import { familyOf } from '../../model/address.ts';
import { type InboundSa, type OutboundSa, TunnelError } from '../driver.ts';

const maximalNote = 1024;
const windows = { least: 64, most: 32_768, usual: 4096 } as const;

/**
 * Holds an SA to what driver.ts says of one.
 * @throws {TunnelError} `InvalidSa`
 */
export function checkSa(sa: InboundSa | OutboundSa): void {
  const problem = problemOf(sa);
  if (problem !== undefined)
    throw new TunnelError('InvalidSa', `SA ${sa.spi}: ${problem}`, { data: { spi: sa.spi, direction: sa.direction } });
}

/** @returns The replay window that an inbound SA asks for: a power of two. */
export function replayWindowOf({ replayWindow = windows.usual }: Pick<InboundSa, 'replayWindow'>): number {
  let window: number = windows.least;
  while (window < replayWindow && window < 1 << 30) window *= 2;
  return window;
}

function problemOf(sa: InboundSa | OutboundSa): string | undefined {
  const { spi, key, salt, note, selectors, peer } = sa;
  const noteBytes = Buffer.byteLength(note, 'utf8');
  if (noteBytes > maximalNote) return `the note has ${noteBytes} bytes, at most ${maximalNote} are kept`;
  if (key.length !== 32 || salt.length !== 4) return 'the key has to have 32 bytes, the salt 4';
  if (!Number.isInteger(spi) || spi < 256 || spi > 0xffff_ffff) return 'the SPI is out of range';
  if (selectors.length < 1 || selectors.length > 2) return 'one or two selectors are wanted';
  const families = selectors.map(({ local }) => familyOf(local));
  if (selectors.some(({ remote }, i) => familyOf(remote) !== families[i])) return 'a selector mixes two families';
  if (new Set(families).size < families.length) return 'two selectors are of one family';
  if (!Number.isInteger(peer.port) || peer.port < 1 || peer.port > 65_535) return 'the peer’s port is out of range';
  if (sa.direction === 'in' && replayWindowOf(sa) > windows.most) return `a replay window has at most ${windows.most}`;
  return undefined;
}
