import { join } from 'node:path';
import * as layouts from '../../src/datapath/layouts.ts';
import { type DatapathMaps, loadObjects } from '../../src/datapath/objects.ts';
import { TypedMap } from '../../src/datapath/typed-map.ts';
import type { BatchResult, BpfMap } from '../../src/kernel/bpf/map.ts';
import type { Codec } from '../../src/kernel/bpf/struct.ts';

export const objectDir = join(import.meta.dirname, '../../build/bpf');

/** Room for what rules may ask of requests at most, in maps that nobody makes larger. */
export const roomForRequests = {
  http_cells: 8192,
  http_matchers: 512,
  http_alternatives: 16_384,
  http_rows: 49_152,
  http_accepts: 16_384,
};

/** Large maps take time to make and to read. */
export const smallMaps = {
  ...roomForRequests,
  ct: 1024,
  service_flows: 1024,
  fragments: 64,
  denials: 64,
  policy: 8192,
  http_rows: 12_000,
  rule_sets: 256,
  peers: 256,
  prefixes: 256,
  endpoints: 64,
  local: 64,
  services: 64,
  backends: 256,
  service_fronts: 64,
  tunnel_in: 256,
};

/** Called after each write to a map, with the map's name. */
export type WriteHook = (map: string) => void;

/** A map of the kernel's that tells of each write. */
class WatchedMap<K, V> extends TypedMap<K, V> {
  readonly #onWrite: WriteHook;

  constructor(raw: BpfMap, key: Codec<K>, value: Codec<V>, onWrite: WriteHook) {
    super(raw, key, value);
    this.#onWrite = onWrite;
  }

  override set(key: K, value: V): void {
    super.set(key, value);
    this.#onWrite(this.name);
  }

  override delete(key: K): boolean {
    const there = super.delete(key);
    this.#onWrite(this.name);
    return there;
  }

  override setMany(entries: readonly (readonly [K, V])[]): BatchResult {
    const result = super.setMany(entries);
    this.#onWrite(this.name);
    return result;
  }
}

/** Maps of their own for one test file, which the caller empties and closes. */
export class TestMaps {
  readonly maps: DatapathMaps;
  readonly #objects: ReturnType<typeof loadObjects>;
  /** Called after each write to the maps of policy. */
  onWrite: WriteHook = () => {};

  constructor(maxEntries: Readonly<Record<string, number>> = smallMaps) {
    this.#objects = loadObjects({ objectDir, maxEntries });
    const { maps } = this.#objects;
    const hook: WriteHook = (map) => this.onWrite(map);
    this.maps = {
      ...maps,
      endpoints: new WatchedMap(maps.endpoints.raw, layouts.number32, layouts.endpoint, hook),
      peers: new WatchedMap(maps.peers.raw, layouts.address, layouts.peer, hook),
      prefixes: new WatchedMap(maps.prefixes.raw, layouts.prefixKey, layouts.peer, hook),
      ruleSets: new WatchedMap(maps.ruleSets.raw, layouts.number32, layouts.ruleSet, hook),
      policy: new WatchedMap(maps.policy.raw, layouts.policyKey, layouts.policyEntry, hook),
      tunnels: new WatchedMap(maps.tunnels.raw, layouts.tunnelKey, layouts.tunnel, hook),
      services: new WatchedMap(maps.services.raw, layouts.serviceKey, layouts.service, hook),
      backends: new WatchedMap(maps.backends.raw, layouts.backendKey, layouts.serviceEnd, hook),
      serviceFronts: new WatchedMap(maps.serviceFronts.raw, layouts.number32, layouts.serviceEnd, hook),
    };
  }

  /** All entries, by map, in an order of their own. */
  dump(): Readonly<Record<string, readonly string[]>> {
    return Object.fromEntries(
      this.#all().map((raw) => [
        raw.name,
        [...raw.entries()].map(([key, value]) => `${hex(key)} ${hex(value)}`).sort(),
      ]),
    );
  }

  clear(): void {
    this.onWrite = () => {};
    for (const raw of this.#all()) for (const [key] of [...raw.entries()]) raw.delete(key);
    const { config } = this.maps;
    const settings = config.get(0);
    if (settings !== undefined) config.set(0, { ...settings, revision: 0, flags: 0 });
  }

  close(): void {
    this.#objects.close();
  }

  #all(): BpfMap[] {
    const { endpoints, local, peers, prefixes, ruleSets, policy, tunnels, connections } = this.maps;
    const { services, backends, serviceFronts, serviceFlows } = this.maps;
    return [
      endpoints.raw,
      local.raw,
      peers.raw,
      prefixes.raw,
      ruleSets.raw,
      policy.raw,
      tunnels.raw,
      connections.raw,
      services.raw,
      backends.raw,
      serviceFronts.raw,
      serviceFlows.raw,
    ];
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
