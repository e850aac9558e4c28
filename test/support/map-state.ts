import assert from 'node:assert/strict';
import type { IpAddress } from '../../src/model/address.ts';
import type { Prefix } from '../../src/model/prefix.ts';
import type { PolicyOperation, RuleSetHead } from '../../src/policy/diff.ts';
import type {
  EndpointEntry,
  PeerEntry,
  PolicyEntry,
  PolicyImage,
  PrefixEntry,
  RuleSet,
} from '../../src/policy/image.ts';

/** The maps of a datapath that knows nothing but what operations told it. */
export class MapState {
  readonly peers = new Map<IpAddress, PeerEntry>();
  readonly prefixes = new Map<Prefix, PrefixEntry>();
  readonly endpoints = new Map<string, EndpointEntry>();
  readonly heads = new Map<number, RuleSetHead>();
  /** By set and key. */
  readonly entries = new Map<string, { readonly set: number; readonly entry: PolicyEntry }>();
  /** What does not come from operations. */
  readonly #image: PolicyImage;

  constructor(image: PolicyImage) {
    this.#image = image;
  }

  /** Deleting what is not there is an error, as it is in a map of the kernel's. */
  apply(operation: PolicyOperation): void {
    switch (operation.kind) {
      case 'put-entries':
        for (const entry of operation.entries)
          this.entries.set(keyOf(operation.set, entry), { set: operation.set, entry });
        return;
      case 'delete-entries':
        for (const entry of operation.entries) assert.ok(this.entries.delete(keyOf(operation.set, entry)));
        return;
      case 'put-rule-set':
        this.heads.set(operation.set.id, operation.set);
        return;
      case 'delete-rule-set':
        assert.ok(this.heads.delete(operation.set));
        return;
      case 'put-endpoint':
        this.endpoints.set(operation.uid, operation.endpoint);
        return;
      case 'delete-endpoint':
        assert.ok(this.endpoints.delete(operation.uid));
        return;
      case 'put-peer':
        this.peers.set(operation.address, operation.peer);
        return;
      case 'delete-peer':
        assert.ok(this.peers.delete(operation.address));
        return;
      case 'put-prefix':
        this.prefixes.set(operation.prefix, operation.entry);
        return;
      case 'delete-prefix':
        assert.ok(this.prefixes.delete(operation.prefix));
        return;
    }
  }

  /** The maps as an image, to be asked with `lookup`. */
  snapshot(): PolicyImage {
    const grouped = Map.groupBy(this.entries.values(), ({ set }) => set);
    const ruleSets = new Map<number, RuleSet>();
    for (const [id, head] of this.heads) {
      const entries = (grouped.get(id) ?? []).map(({ entry }) => entry);
      ruleSets.set(id, { ...head, key: '', direction: 'ingress', stage: 'network', entries });
    }
    const { peers, prefixes, endpoints } = this;
    return { ...this.#image, ruleSets, endpoints, peers, prefixes };
  }
}

function keyOf(set: number, { identity, protocol, port, portLength }: PolicyEntry): string {
  return [set, identity, protocol, port, portLength].join();
}

/** What of an image is in maps, with entries in one order. */
export function mapsOf(image: PolicyImage): unknown {
  const key = (entry: PolicyEntry) => keyOf(0, entry);
  const sets = [...image.ruleSets].map(([id, { probes, flags, rule, entries }]) => {
    const sorted = [...entries].sort((a, b) => (key(a) < key(b) ? -1 : 1));
    return [id, { probes, flags, rule, entries: sorted }] as const;
  });
  const { peers, prefixes, endpoints } = image;
  return { peers, prefixes, endpoints, sets: new Map(sets) };
}
