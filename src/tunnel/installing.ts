import { inboundSa, noteOf, outboundSa, schedule } from './agreement.ts';
import type { InboundSa, OutboundSa, UnderlayAddress } from './driver.ts';
import { HandshakeError } from './handshake/error.ts';
import type { Agreement, BreachRadius, Installer } from './handshake/exchange.ts';
import type { DirectionKeys } from './handshake/keys.ts';
import type { Established } from './pair.ts';
import type { Role, TunnelServices } from './services.ts';
import type { Tracer } from './trace.ts';
import type { Tunnel } from './tunnel.ts';

/** One handshake of a pair, whichever side began it. */
export interface Attempt {
  readonly number: number;
  readonly role: Role;
  readonly abort: AbortController;
  readonly startedAt: number;
  /** Where somebody waits for its end. */
  done: PromiseWithResolvers<void> | undefined;
  /** What the namespaces asked for when it began. */
  readonly radius: BreachRadius;
  /** Reserved for it. */
  spi: number | undefined;
  established: Established | undefined;
  /** Beside both its SAs. */
  note: string | undefined;
}

/** What keys are installed for. */
export interface Installing {
  readonly tunnel: Tunnel;
  readonly path: () => UnderlayAddress | undefined;
  readonly tracer: () => Tracer | undefined;
  /** @throws {HandshakeError} `aborted` where the attempt is no longer the one that counts. */
  readonly current: () => Attempt;
  readonly install: (sa: InboundSa | OutboundSa) => Promise<void>;
}

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
export function installerOf(
  { tunnel, path, tracer, current, install }: Installing,
  { claim, settings, whyRevoked, onKeys, ...services }: Services,
): Installer {
  const installation = (attempt: Attempt, established: Established, agreement: Agreement, keys: DirectionKeys) => {
    const { local, remote } = tunnel;
    const whole = { agreement, established, local, remote, path: path(), keys };
    attempt.note ??= noteOf(whole);
    return { ...whole, note: attempt.note };
  };
  const put = async (sa: InboundSa | OutboundSa) => {
    onKeys?.(sa);
    await install(sa);
    // Somebody may have taken the pair down while the driver was busy.
    current();
  };
  return {
    installInbound: async (agreement, keys) => {
      const attempt = current();
      const claimed = claim(tunnel, attempt.abort.signal);
      if (claimed !== undefined) await claimed;
      current();
      // What was verified when the handshake began may have been revoked since, and a node is revoked by its name.
      const { peer, nodeSerial } = agreement;
      // Of a peer that began, this is the first that is heard of it here.
      if (attempt.role === 'responder') tracer()?.verified(peer);
      tracer()?.step('terms are agreed on, keys are derived', agreedOn(agreement));
      const why = whyRevoked(tunnel, nodeSerial === undefined ? [peer.serialNumber] : [peer.serialNumber, nodeSerial]);
      if (why !== undefined) throw new HandshakeError('revoked', why);
      attempt.established = scheduled(tunnel, agreement, services);
      await put(inboundSa(installation(attempt, attempt.established, agreement, keys), settings.replayWindow));
      tracer()?.step('the receiving key is in place', spiText(agreement.spiIn));
    },
    installOutbound: async (agreement, keys) => {
      const attempt = current();
      const established = attempt.established ?? scheduled(tunnel, agreement, services);
      tracer()?.step('the peer can receive');
      await put(outboundSa(installation(attempt, established, agreement, keys)));
      tracer()?.step('the sending key is in place', spiText(agreement.spiOut));
    },
  };
}

function scheduled(
  { local }: Tunnel,
  agreement: Agreement,
  { now, random, svid, timing, nodeNotAfter }: Pick<Services, 'now' | 'random' | 'svid' | 'timing' | 'nodeNotAfter'>,
): Established {
  const certified = svid(local.pod.uid)?.notAfter ?? 0;
  const ownNotAfter = agreement.radius === 'node' ? Math.min(certified, nodeNotAfter()) : certified;
  return schedule(agreement, ownNotAfter, { now: now(), random: random(), graceMs: timing.graceMs });
}
