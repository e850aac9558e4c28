import { KernelError } from '../../kernel/error.ts';
import type { Xfrm } from '../../kernel/xfrm.ts';
import type { XfrmPolicyId } from '../../kernel/xfrm-layout.ts';
import type { IpAddress } from '../../model/address.ts';
import { hostPrefix, prefixParts } from '../../model/prefix.ts';
import type { SaId, TrafficSelector, UnderlayAddress } from '../driver.ts';
import { noteKey } from './notes.ts';

/** The datapath's table of pairs whose packets go to the xfrm device in place of the holder. It outlives the agent. */
export interface PathTable {
  /** @throws {KernelError} `Errno` where it is full */
  open(pair: TrafficSelector): void;
  close(pair: TrafficSelector): void;
  all(): readonly TrafficSelector[];
}

const policyPriority = 1000;

/**
 * Which outbound association a pair sends by: the newest. The pair's policy in the kernel names it by request id, which is
 * its SPI, so that a rekey is one replacement of one policy, which the kernel does atomically; and the datapath's path is
 * open as long as there is one.
 */
export class Sending {
  readonly #xfrm: Xfrm;
  readonly #paths: PathTable;
  readonly #options: { readonly source: IpAddress; readonly interfaceId: number };
  /** The newest last. */
  readonly #pairs = new Map<string, readonly SaId[]>();

  constructor(xfrm: Xfrm, paths: PathTable, options: { source: IpAddress; interfaceId: number }) {
    this.#xfrm = xfrm;
    this.#paths = paths;
    this.#options = options;
  }

  has(pair: TrafficSelector): boolean {
    return this.#pairs.has(pairKey(pair));
  }

  /** From here on the pair's packets are sealed with this association. @throws {KernelError} `Errno` */
  begin(pair: TrafficSelector, { spi, peer }: SaId): void {
    const key = pairKey(pair);
    this.#pairs.set(key, [...(this.#pairs.get(key) ?? []), { direction: 'out', spi, peer }]);
    this.#steer(pair);
    this.#paths.open(pair);
  }

  /** The pair's next newest association sends, or the pair's packets are held. @throws {KernelError} `Errno` */
  end(pair: TrafficSelector, id: SaId): void {
    const key = pairKey(pair);
    const before = this.#pairs.get(key) ?? [];
    const left = before.filter((other) => noteKey(other) !== noteKey(id));
    if (left.length === before.length) return;
    if (left.length > 0) {
      this.#pairs.set(key, left);
      this.#steer(pair);
      return;
    }
    this.#pairs.delete(key);
    this.#paths.close(pair);
    ignoreMissing(() => this.#xfrm.deletePolicy(this.#policyOf(pair)));
  }

  /** An association of the pair has another destination. @throws {KernelError} `Errno` */
  move(pair: TrafficSelector, id: SaId, peer: UnderlayAddress): void {
    const key = pairKey(pair);
    const before = this.#pairs.get(key) ?? [];
    this.#pairs.set(
      key,
      before.map((other) => (noteKey(other) === noteKey(id) ? { ...other, peer } : other)),
    );
    if (before.length > 0) this.#steer(pair);
  }

  /** Removes what an earlier agent left of pairs that have no association. */
  removeRest(): void {
    for (const pair of this.#paths.all()) if (!this.has(pair)) this.#paths.close(pair);
    for (const policy of this.#xfrm.policies()) {
      if (policy.interfaceId !== this.#options.interfaceId) continue;
      const [local, remote] = [prefixParts(policy.source).address, prefixParts(policy.destination).address];
      if (policy.direction !== 'out' || !this.has({ local, remote }))
        ignoreMissing(() => this.#xfrm.deletePolicy(policy));
    }
  }

  #steer(pair: TrafficSelector): void {
    const newest = this.#pairs.get(pairKey(pair))?.at(-1);
    if (newest === undefined) return;
    const { source } = this.#options;
    const tunnel = { source, destination: newest.peer.address, requestId: newest.spi };
    this.#xfrm.setPolicy({ ...this.#policyOf(pair), priority: policyPriority, tunnel });
  }

  #policyOf({ local, remote }: TrafficSelector): XfrmPolicyId {
    const { interfaceId } = this.#options;
    return { direction: 'out', source: hostPrefix(local), destination: hostPrefix(remote), interfaceId };
  }
}

/** For removing what may be gone already. */
export function ignoreMissing(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof KernelError && (error.errno === 'ENOENT' || error.errno === 'ESRCH'))) throw error;
  }
}

function pairKey({ local, remote }: TrafficSelector): string {
  return `${local} ${remote}`;
}
