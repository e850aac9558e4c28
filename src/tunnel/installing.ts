import { inboundSa, outboundSa, type SaTerms, saTerms, schedule } from './agreement.ts';
import type { Attempt } from './attempts.ts';
import type { InboundSa, OutboundSa, UnderlayAddress } from './driver.ts';
import { HandshakeError } from './handshake/error.ts';
import type { Agreement, Installer } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import type { Established } from './pair-state.ts';
import type { TunnelServices } from './services.ts';
import type { Tunnel } from './tunnel.ts';

type Services = Pick<
  TunnelServices,
  'claim' | 'settings' | 'whyRevoked' | 'onKeys' | 'now' | 'random' | 'svid' | 'timing' | 'nodeNotAfter'
>;

const spiText = (spi: number) => `SPI 0x${spi.toString(16).padStart(8, '0')}`;

function agreedOn({ selectors, lifetime, radius }: Agreement): string {
  const pairs = selectors.map(({ local, remote }) => `${local} – ${remote}`).join(', ');
  return `${pairs}; for ${lifetime.seconds} s at most; breach radius ${radius}`;
}

/** What an attempt installs its keys through: each time only if it still counts, and the pair may still have them. */
export class KeyInstaller implements Installer {
  readonly #tunnel: Tunnel;
  readonly #number: number;
  readonly #services: Services;

  constructor(tunnel: Tunnel, number: number, services: Services) {
    this.#tunnel = tunnel;
    this.#number = number;
    this.#services = services;
  }

  async installInbound(agreement: Agreement, keys: DirectionKeys): Promise<void> {
    const tunnel = this.#tunnel;
    const { claim, settings, whyRevoked } = this.#services;
    const attempt = tunnel.current(this.#number);
    const claimed = claim(tunnel, attempt.cancel);
    if (claimed !== undefined) await claimed;
    tunnel.current(this.#number);
    // What was verified when the handshake began may have been revoked since, and a node is revoked by its name.
    const { peer, nodeSerial } = agreement;
    const { tracer } = tunnel;
    // Of a peer that began, this is the first that is heard of it here.
    if (attempt.role === 'responder') tracer?.verified(peer);
    tracer?.step('terms are agreed on, keys are derived', agreedOn(agreement));
    const why = whyRevoked(tunnel, nodeSerial === undefined ? [peer.serialNumber] : [peer.serialNumber, nodeSerial]);
    if (why !== undefined) throw new HandshakeError('revoked', why);
    const { spiIn } = agreement;
    const terms = this.#terms(attempt, agreement);
    await this.#install(inboundSa(spiIn, terms, this.#peerOf(agreement), keys, settings.replayWindow));
    // Somebody may have taken the pair down while the driver was busy.
    tunnel.current(this.#number);
    tracer?.step('the receiving key is in place', spiText(agreement.spiIn));
  }

  async installOutbound(agreement: Agreement, keys: DirectionKeys): Promise<void> {
    const tunnel = this.#tunnel;
    const attempt = tunnel.current(this.#number);
    const { tracer } = tunnel;
    tracer?.step('the peer can receive');
    const terms = this.#terms(attempt, agreement);
    await this.#install(outboundSa(agreement.spiOut, terms, this.#peerOf(agreement), keys));
    tunnel.current(this.#number);
    tracer?.step('the sending key is in place', spiText(agreement.spiOut));
  }

  #install(sa: InboundSa | OutboundSa): Promise<void> {
    this.#services.onKeys?.(sa);
    return this.#tunnel.install(this.#number, sa);
  }

  /** One for both halves: they are renewed and end together. */
  #terms(attempt: Attempt, agreement: Agreement): SaTerms {
    const { local, remote } = this.#tunnel;
    attempt.established ??= this.#schedule(agreement);
    attempt.terms ??= saTerms(agreement, attempt.established, local, remote);
    return attempt.terms;
  }

  /** Where the peer's node is, or where a NAT has put it. */
  #peerOf({ peerPort: port }: Agreement): UnderlayAddress {
    const { remote, path } = this.#tunnel;
    return path ?? { address: remote.node.address, port };
  }

  #schedule(agreement: Agreement): Established {
    const { now, random, svid, timing, nodeNotAfter } = this.#services;
    const certified = svid(this.#tunnel.local.pod.uid)?.notAfter ?? 0;
    const ownNotAfter = agreement.radius === 'node' ? Math.min(certified, nodeNotAfter()) : certified;
    return schedule(agreement, ownNotAfter, { now: now(), random: random(), graceMs: timing.graceMs });
  }
}
