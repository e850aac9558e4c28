import type { IpAddress } from '../model/address.ts';
import type { PodView } from '../model/endpoint.ts';

/** Who claims which address. Pods in their node's network claim none. */
export class AddressIndex {
  readonly #claims = new Map<IpAddress, readonly PodView[]>();

  /** One pod's claims in place of what it claimed before. */
  replace(before: PodView | undefined, now: PodView | undefined): void {
    for (const address of claimsOf(before)) {
      const left = (this.#claims.get(address) ?? []).filter((pod) => pod !== before);
      if (left.length === 0) this.#claims.delete(address);
      else this.#claims.set(address, left);
    }
    if (now !== undefined)
      for (const address of claimsOf(now)) this.#claims.set(address, [...(this.#claims.get(address) ?? []), now]);
  }

  /** @returns Undefined also where several claim the address. */
  at(address: IpAddress): PodView | undefined {
    const [pod, ...others] = this.#claims.get(address) ?? [];
    return others.length === 0 ? pod : undefined;
  }
}

function claimsOf(pod: PodView | undefined): readonly IpAddress[] {
  return pod === undefined || pod.hostNetwork ? [] : pod.addresses;
}
