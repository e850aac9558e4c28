import { type IpAddress, ipToBytes16 } from '../../model/address.ts';
import type { PodView } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import type { Labels } from '../../model/labels.ts';
import { type Prefix, prefixParts } from '../../model/prefix.ts';
import { changed, differences } from '../../model/versions.ts';
import type { AddressConflict, IdentityClass, PeerEntry } from '../image.ts';
import type { ClusterView, NodeView } from '../view.ts';
import { classOfNode, classOfPod, keysOfRegions, type NamedLabels } from './classes.ts';
import type { Regions } from './regions.ts';

interface Owner {
  /** The pod's UID, or the node's name. */
  readonly id: string;
  /** Where it is, or itself. */
  readonly node: string;
  readonly pod?: PodView;
  readonly labels?: Labels;
}

interface Place {
  readonly address: IpAddress;
  /** The address in 32 digits, in whose order prefixes are ranges. */
  readonly digits: string;
  /** One; more while several claim the address. */
  owners: readonly Owner[];
  region: Prefix | undefined;
  class: Counted | undefined;
  entry: PeerEntry | undefined;
}

/** A class and how many places are of it. */
interface Counted {
  readonly class: IdentityClass;
  places: number;
}

/**
 * Who is at every address of the cluster, kept from one compilation to the next: only what differs between two views is
 * looked at closely. A cache: what it says depends on nothing but the last `update` and `number`.
 */
export class Population {
  readonly #node: string;
  #pods: ClusterView['pods'] = new Map();
  #nodes: ClusterView['nodes'] = new Map();
  #regions: Regions | undefined;
  #named: NamedLabels | undefined;
  readonly #places = new Map<IpAddress, Place>();
  readonly #counted = new Map<string, Counted>();
  #classes: ReadonlyMap<string, IdentityClass> = new Map();
  /** By class key, as of the last `number`. */
  #numbers: ReadonlyMap<string, IdentityNumber> = new Map();
  readonly #inhabitants = new Map<Prefix, number>();
  #regionKeys: ReadonlyMap<Prefix, string> = new Map();
  readonly #contested = new Set<Place>();
  readonly #dirty = new Set<Place>();
  #peers: ReadonlyMap<IpAddress, PeerEntry> = new Map();

  /** @param node The node that compiles. */
  constructor(node: string) {
    this.#node = node;
  }

  /** By number, as of the last `number`. The same object as long as nothing in it changes. */
  get peers(): ReadonlyMap<IpAddress, PeerEntry> {
    return this.#peers;
  }

  get conflicts(): AddressConflict[] {
    const conflicts = [...this.#contested].map(({ address, owners }) => ({
      address,
      owners: [...new Set(owners.map(({ id }) => id))].sort(),
    }));
    return conflicts.sort((a, b) => (a.address < b.address ? -1 : 1));
  }

  /** By key, as of the last `update`; made from the map before by `changed`. */
  get classes(): ReadonlyMap<string, IdentityClass> {
    return this.#classes;
  }

  update(view: Pick<ClusterView, 'pods' | 'nodes'>, regions: Regions, named: NamedLabels): void {
    if (this.#named?.key !== named.key) for (const place of this.#places.values()) this.#dirty.add(place);
    this.#named = named;
    const before = this.#regions;
    this.#regions = regions;
    if (before !== undefined && before !== regions) this.#moveRegions(before, regions);
    for (const name of differences(this.#nodes, view.nodes)) {
      const [old, now] = [this.#nodes.get(name), view.nodes.get(name)];
      if (old !== undefined) this.#leave(name, old);
      if (now !== undefined) this.#settle({ id: name, node: name, labels: now.labels ?? {} }, now);
    }
    for (const uid of differences(this.#pods, view.pods)) {
      const [old, now] = [this.#pods.get(uid), view.pods.get(uid)];
      if (old?.hostNetwork === false) this.#leave(uid, old);
      if (now?.hostNetwork === false) this.#settle({ id: uid, node: now.node, pod: now }, now);
    }
    this.#nodes = view.nodes;
    this.#pods = view.pods;
    this.#nameRegions(regions, before !== regions);
    const touched = new Set<string>();
    for (const place of this.#dirty) this.#classify(place, named, touched);
    const counts = [...touched].map((key) => [key, this.#counted.get(key)?.class] as const);
    this.#classes = changed(this.#classes, new Map(counts));
  }

  /** Gives the places their numbers: `byKey` by `IdentityClass.key`, for every class there is. */
  number(byKey: ReadonlyMap<string, IdentityNumber>): void {
    let renumbered = false;
    for (const key of differences(this.#numbers, byKey))
      renumbered ||= this.#numbers.has(key) && this.#classes.has(key) && this.#numbers.get(key) !== byKey.get(key);
    this.#numbers = byKey;
    const changes = new Map<IpAddress, PeerEntry | undefined>();
    for (const place of renumbered ? [...this.#places.values(), ...this.#dirty] : this.#dirty) {
      const identity = this.#identityOf(place);
      const entry = identity === undefined ? undefined : this.#entryOf(place, identity);
      if (sameEntry(place.entry, entry)) continue;
      place.entry = entry;
      changes.set(place.address, entry);
    }
    for (const place of this.#dirty) if (place.owners.length === 0) changes.set(place.address, undefined);
    this.#dirty.clear();
    if (changes.size === 0) return;
    this.#peers = changed(this.#peers, changes);
  }

  #leave(id: string, { addresses }: PodView | NodeView): void {
    for (const address of addresses) {
      const place = this.#places.get(address);
      if (place === undefined) continue;
      place.owners = place.owners.filter((owner) => owner.id !== id);
      this.#dirty.add(place);
    }
  }

  #settle(owner: Owner, { addresses }: PodView | NodeView): void {
    for (const address of addresses) {
      let place = this.#places.get(address);
      if (place === undefined) {
        const region = this.#regions?.holding(address);
        place = { address, digits: digitsOf(address), owners: [], region, class: undefined, entry: undefined };
        this.#places.set(address, place);
        this.#count(region, 1);
      }
      place.owners = [...place.owners.filter(({ id }) => id !== owner.id), owner];
      this.#dirty.add(place);
    }
  }

  #count(region: Prefix | undefined, by: number): void {
    if (region !== undefined) this.#inhabitants.set(region, (this.#inhabitants.get(region) ?? 0) + by);
  }

  /** Only addresses in prefixes that came or went can be in another region now. */
  #moveRegions(before: Regions, now: Regions): void {
    const [old, next] = [new Set(before.prefixes), new Set(now.prefixes)];
    const ranges = [...old, ...next].filter((prefix) => old.has(prefix) !== next.has(prefix)).map(rangeOf);
    for (const place of this.#places.values()) {
      if (!ranges.some(([first, last]) => first <= place.digits && place.digits <= last)) continue;
      this.#count(place.region, -1);
      place.region = now.holding(place.address);
      this.#count(place.region, 1);
      this.#dirty.add(place);
    }
  }

  /** A region's key says which inhabited regions are cut out of it, so that changes with any of these. */
  #nameRegions(regions: Regions, moved: boolean): void {
    for (const place of this.#dirty) {
      if (place.owners.length > 0) continue;
      this.#count(place.region, -1);
      this.#places.delete(place.address);
    }
    let same = !moved;
    for (const [region, count] of this.#inhabitants) {
      if (count === 0) this.#inhabitants.delete(region);
      same &&= count > 0 && this.#regionKeys.has(region);
    }
    if (same) return;
    const old = this.#regionKeys;
    this.#regionKeys = keysOfRegions(regions, new Set(this.#inhabitants.keys()));
    const renamed = new Set(
      [...this.#regionKeys].flatMap(([region, key]) => (old.get(region) === key ? [] : [region])),
    );
    if (renamed.size === 0) return;
    for (const place of this.#places.values())
      if (place.region !== undefined && renamed.has(place.region)) this.#dirty.add(place);
  }

  /** @param touched Gets the keys of classes that came or went. */
  #classify(place: Place, named: NamedLabels, touched: Set<string>): void {
    const [owner, ...others] = place.owners;
    if (others.length > 0) this.#contested.add(place);
    else this.#contested.delete(place);
    const made = owner === undefined || others.length > 0 ? undefined : this.#classOf(owner, place, named);
    if (place.class !== undefined && place.class.class.key === made?.key) return;
    if (place.class !== undefined && --place.class.places === 0) {
      touched.add(place.class.class.key);
      this.#counted.delete(place.class.class.key);
    }
    place.class = undefined;
    if (made === undefined) return;
    let known = this.#counted.get(made.key);
    if (known === undefined) {
      known = { class: made, places: 0 };
      this.#counted.set(made.key, known);
      touched.add(made.key);
    }
    known.places++;
    place.class = known;
  }

  #classOf({ pod, node, labels = {} }: Owner, { region }: Place, named: NamedLabels): IdentityClass | undefined {
    const where = region === undefined ? undefined : { region, key: this.#regionKeys.get(region) ?? region };
    if (pod !== undefined) return classOfPod(pod, where, named);
    return classOfNode(node === this.#node ? 'this-node' : 'other-node', labels, where, named);
  }

  #identityOf({ owners, class: own }: Place): IdentityNumber | undefined {
    const [owner, ...others] = owners;
    if (owner === undefined || others.length > 0) return undefined;
    const number = own === undefined ? undefined : this.#numbers.get(own.class.key);
    return number ?? (owner.node === this.#node ? reservedIdentity.host : reservedIdentity.remoteNode);
  }

  #entryOf({ owners: [owner] }: Place, identity: IdentityNumber): PeerEntry | undefined {
    if (owner === undefined) return undefined;
    const here = owner.node === this.#node;
    const kind = owner.pod === undefined ? (here ? 'this-node' : 'other-node') : here ? 'local-pod' : 'remote-pod';
    return { identity, kind, owner: owner.id };
  }
}

function sameEntry(a: PeerEntry | undefined, b: PeerEntry | undefined): boolean {
  return a?.identity === b?.identity && a?.kind === b?.kind && a?.owner === b?.owner;
}

function digitsOf(address: IpAddress): string {
  return Buffer.from(ipToBytes16(address)).toString('hex');
}

/** The digits of a prefix's first and last address. */
function rangeOf(prefix: Prefix): readonly [string, string] {
  const { address, length, family } = prefixParts(prefix);
  const first = ipToBytes16(address);
  const bits = family === 4 ? length + 96 : length;
  const last = first.map((byte, i) => byte | (0xff >> Math.max(0, Math.min(8, bits - 8 * i))));
  return [Buffer.from(first).toString('hex'), Buffer.from(last).toString('hex')];
}
