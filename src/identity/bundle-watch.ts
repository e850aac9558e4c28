import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { BundleStore, TrustBundle } from './bundle.ts';
import { messageOf } from './certificate.ts';
import { retryDelayMs } from './svid-store.ts';

export interface BundleSource {
  /** Answers when there is a bundle newer than `after`, or with the same one after `waitSeconds`. */
  bundle(
    signal: AbortSignal,
    after?: { readonly sequence: number; readonly waitSeconds: number },
  ): Promise<TrustBundle>;
}

/**
 * Keeps the store at the source's newest bundle until the signal aborts: new roots and revocations arrive within a
 * round trip. While the source cannot be reached the last bundle stays in force.
 * @param deps.onState Told how the last question went: with why not, where it failed.
 */
export async function watchBundle(
  source: BundleSource,
  store: BundleStore,
  deps: { readonly logger: Logger; readonly waitSeconds?: number; readonly onState?: (error?: string) => void },
  signal: AbortSignal,
): Promise<void> {
  const { logger, waitSeconds = 30, onState = () => {} } = deps;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const bundle = await source.bundle(signal, {
        sequence: store.current.sequence,
        // After a failure the first thing to know is whether it is over.
        waitSeconds: failures === 0 ? waitSeconds : 0,
      });
      if (store.offer(bundle))
        logger.info({ sequence: bundle.sequence, roots: bundle.roots.length }, 'the trust bundle has changed');
      failures = 0;
      onState();
    } catch (cause) {
      if (signal.aborted) return;
      failures++;
      onState(messageOf(cause));
      if (failures === 1) logger.warn({ error: messageOf(cause) }, 'the trust bundle cannot be asked for');
      // Revocations come this way: a controller that is back is to be heard within moments.
      const pause = retryDelayMs(failures, 250, 2000, Math.random());
      await wait(pause, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }
}
