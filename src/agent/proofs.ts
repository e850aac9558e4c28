import type { IpAddress } from '../model/address.ts';
import type { IdentityNumber } from '../model/identity.ts';

/** An inbound security association that a handshake proved: who may send what to whom through it. */
export interface Proof {
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly remoteUid: string;
  readonly spi: number;
}

/** What the datapath's table of proven tunnels needs to be told. */
export interface ProofTable {
  proveTunnel(local: IpAddress, remote: IpAddress, proof: { identity: IdentityNumber; spi: number }): void;
  forgetTunnel(local: IpAddress, remote: IpAddress): void;
}

/** The number that stands for a pod at one of its addresses; undefined for a pod that is not known. */
export type IdentityOf = (uid: string, address: IpAddress) => IdentityNumber | undefined;

/**
 * Keeps the datapath's proven tunnels in step with identities: a proof names a pod by its UID, the datapath wants that
 * pod's identity number, and the number changes when its labels do. A pod that is no longer known proves nothing.
 */
export class Proofs {
  readonly #table: ProofTable;
  readonly #identityOf: IdentityOf;
  readonly #held = new Map<string, { proof: Proof; identity: IdentityNumber | undefined }>();

  /** @param identityOf In the policy that is in force. */
  constructor(table: ProofTable, identityOf: IdentityOf) {
    this.#table = table;
    this.#identityOf = identityOf;
  }

  /**
   * A pod that no policy in force knows is not admitted, but what an earlier agent admitted stays until the first revision
   * of this one, which knows pods by their UIDs: a restart must not interrupt what was proven.
   */
  hold(proof: Proof): void {
    const before = this.#held.get(key(proof.local, proof.remote));
    const identity = this.#identityOf(proof.remoteUid, proof.remote);
    this.#held.set(key(proof.local, proof.remote), { proof, identity });
    if (identity !== undefined || before !== undefined) this.#write(proof, identity);
  }

  forget(local: IpAddress, remote: IpAddress, spi: number): void {
    const held = this.#held.get(key(local, remote));
    // A rekey has put a newer association in this one's place already.
    if (held === undefined || held.proof.spi !== spi) return;
    this.#held.delete(key(local, remote));
    this.#table.forgetTunnel(local, remote);
  }

  /** Who the pod at the other end of a proven pair is, by another policy than the one in force. */
  identityBy(identityOf: IdentityOf, local: IpAddress, remote: IpAddress): IdentityNumber | undefined {
    const held = this.#held.get(key(local, remote));
    return held === undefined ? undefined : identityOf(held.proof.remoteUid, remote);
  }

  /** To be called after every revision of the policy: a pod that was not known may be now. */
  refresh(): void {
    for (const held of this.#held.values()) {
      const identity = this.#identityOf(held.proof.remoteUid, held.proof.remote);
      if (identity === held.identity) continue;
      held.identity = identity;
      this.#write(held.proof, identity);
    }
  }

  #write(proof: Proof, identity: IdentityNumber | undefined): void {
    if (identity === undefined) this.#table.forgetTunnel(proof.local, proof.remote);
    else this.#table.proveTunnel(proof.local, proof.remote, { identity, spi: proof.spi });
  }
}

function key(local: IpAddress, remote: IpAddress): string {
  return `${local} ${remote}`;
}
