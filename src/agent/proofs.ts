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

/**
 * Keeps the datapath's proven tunnels in step with identities: a proof names a pod by its UID, the datapath wants that
 * pod's identity number, and the number changes when its labels do. A pod that is no longer known proves nothing.
 */
export class Proofs {
  readonly #table: ProofTable;
  readonly #identityOf: (uid: string) => IdentityNumber | undefined;
  readonly #held = new Map<string, { proof: Proof; identity: IdentityNumber | undefined }>();

  constructor(table: ProofTable, identityOf: (uid: string) => IdentityNumber | undefined) {
    this.#table = table;
    this.#identityOf = identityOf;
  }

  hold(proof: Proof): void {
    const identity = this.#identityOf(proof.remoteUid);
    this.#held.set(key(proof), { proof, identity });
    this.#write(proof, identity);
  }

  forget(pair: Pick<Proof, 'local' | 'remote'>, spi: number): void {
    const held = this.#held.get(key(pair));
    // A rekey has put a newer association in this one's place already.
    if (held === undefined || held.proof.spi !== spi) return;
    this.#held.delete(key(pair));
    this.#table.forgetTunnel(pair.local, pair.remote);
  }

  /** To be called after every revision of the policy: numbers may have changed. */
  refresh(): void {
    for (const held of this.#held.values()) {
      const identity = this.#identityOf(held.proof.remoteUid);
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

function key(pair: Pick<Proof, 'local' | 'remote'>): string {
  return `${pair.local} ${pair.remote}`;
}
