import { PacketTap } from '../../kernel/packet-socket.ts';
import { xfrmCounters } from '../../kernel/xfrm.ts';
import { type Family, ipFromBytes } from '../../model/address.ts';
import type { UnderlayAddress } from '../driver.ts';

export interface StrayOptions {
  readonly uplink: string;
  /** Of ESP, this node's. */
  readonly port: number;
  /** Of the underlay. */
  readonly family: Family;
  /** Between two looks at the kernel's counter. Default 1 s. */
  readonly intervalMs?: number;
}

/** How long to listen for who it was. */
const listenMs = 200;
const mostReports = 256;
const protocolUdp = 17;
const udpHeader = 8;

/**
 * Finds out about packets whose SPI nobody knows: the peer kept what this node lost. The kernel counts them and says no
 * more, so whenever the count has grown, the uplink is listened to for a moment; who still sends shows then.
 */
export class StraySpis {
  readonly #options: StrayOptions;
  readonly #onEsp: (spi: number, from: UnderlayAddress) => void;
  readonly #timer: NodeJS.Timeout;
  #count = strays();
  #tap: PacketTap | undefined;

  /** @param onEsp Told of every SPI that is seen then, also of those that are known. */
  constructor(options: StrayOptions, onEsp: (spi: number, from: UnderlayAddress) => void) {
    this.#options = options;
    this.#onEsp = onEsp;
    this.#timer = setInterval(() => this.#look(), options.intervalMs ?? 1000);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#tap?.close();
    this.#tap = undefined;
  }

  #look(): void {
    const count = strays();
    if (count === this.#count || this.#tap !== undefined) return;
    this.#count = count;
    const { uplink, family, port } = this.#options;
    const seen = new Set<number>();
    try {
      this.#tap = new PacketTap(uplink, family === 4 ? 0x0800 : 0x86dd, (bytes) => {
        const esp = espIn(bytes, port);
        if (esp === undefined || seen.has(esp.spi) || seen.size >= mostReports) return;
        seen.add(esp.spi);
        this.#onEsp(esp.spi, esp.from);
      });
    } catch {
      // The uplink is being replaced; the next look finds the new one.
      return;
    }
    setTimeout(() => {
      this.#tap?.close();
      this.#tap = undefined;
    }, listenMs).unref();
  }
}

/**
 * @param packet The beginning of an IP packet.
 * @param port The UDP port that ESP is received on.
 * @returns The SPI and the sender, where it is ESP in UDP.
 */
function espIn(packet: Buffer, port: number): { spi: number; from: UnderlayAddress } | undefined {
  const version = (packet[0] ?? 0) >> 4;
  const [l4, protocol, addressAt, addressLength] =
    version === 4 ? [((packet[0] ?? 0) & 15) * 4, packet[9], 12, 4] : [40, packet[6], 8, 16];
  const later = version === 4 && packet.length >= 8 && (packet.readUInt16BE(6) & 0x1fff) !== 0;
  if ((version !== 4 && version !== 6) || later || protocol !== protocolUdp) return undefined;
  if (packet.length < l4 + udpHeader + 4 || packet.readUInt16BE(l4 + 2) !== port) return undefined;
  const spi = packet.readUInt32BE(l4 + udpHeader);
  // 0 is the non-ESP marker (RFC 3948 section 2.2).
  if (spi === 0) return undefined;
  const address = ipFromBytes(packet.subarray(addressAt, addressAt + addressLength));
  return { spi, from: { address, port: packet.readUInt16BE(l4) } };
}

function strays(): number {
  return xfrmCounters().XfrmInNoStates ?? 0;
}
