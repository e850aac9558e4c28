import type { Logger } from 'pino';
import type { BundleStore } from '../identity/bundle.ts';
import type { Svid } from '../identity/svid.ts';
import type { PodRef } from '../model/endpoint.ts';
import type { LocalPod } from '../tunnel/peers.ts';
import { whyPodRevoked } from '../tunnel/revocation.ts';

export interface QuarantineDeps {
  readonly bundles: BundleStore;
  /** The pods of this node that have an interface. */
  readonly pods: () => Iterable<PodRef>;
  /** Who a pod is; undefined while the API has not said. */
  readonly identity: (uid: string) => LocalPod | undefined;
  readonly svid: (uid: string) => Svid | undefined;
  /** This node's certificate: its URI and serial number. */
  readonly node: () => { readonly uri: string | undefined; readonly serial: string | undefined };
  /** Closes exactly these pods' interfaces. @returns Those that were open before. */
  readonly close: (uids: ReadonlySet<string>) => readonly string[];
  readonly logger: Logger;
}

/** A pod of this node that is revoked, and why. */
export interface Quarantined {
  readonly pod: PodRef;
  readonly why: string;
}

/**
 * Keeps revoked pods of this node from talking to anybody, also to the pods beside them, which no tunnel stands between.
 * Until a trust bundle has come from the controller nobody is let out: who was closed before is closed still.
 */
export class Quarantine {
  readonly #deps: QuarantineDeps;
  #held: readonly Quarantined[] = [];

  constructor(deps: QuarantineDeps) {
    this.#deps = deps;
  }

  get held(): readonly Quarantined[] {
    return this.#held;
  }

  /** To be called when the bundle, the pods, or their certificates have changed. */
  refresh(): void {
    const { bundles, pods, identity, svid, node, close, logger } = this.#deps;
    const { sequence, revocations } = bundles.current;
    // The roots that a node joined with say nothing of revocations.
    if (sequence === 0) return;
    const { uri, serial } = node();
    this.#held = [...pods()].flatMap((pod) => {
      const serials = [svid(pod.uid)?.chain[0]?.serialNumber, serial].flatMap((each) => each ?? []);
      const known = identity(pod.uid);
      const why =
        known === undefined
          ? revocations.podUids.has(pod.uid)
            ? `pod ${pod.namespace}/${pod.name} is revoked`
            : undefined
          : whyPodRevoked(known, uri, serials, revocations);
      return why === undefined ? [] : [{ pod, why }];
    });
    const closed = new Set(close(new Set(this.#held.map(({ pod }) => pod.uid))));
    for (const { pod, why } of this.#held)
      if (closed.has(pod.uid)) logger.warn({ pod, why }, 'a pod is revoked: nothing of it passes any more');
  }
}
