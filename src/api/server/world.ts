import type { World } from './rules/rules.ts';
import type { ServiceAddresses } from './service-addresses.ts';
import type { Store } from './storage/store.ts';

/** @returns What the rules see of the cluster. */
export function worldOf(store: Store, serviceAddresses: ServiceAddresses): World {
  return {
    serviceAddresses,
    get: (resource, key) => store.get(resource, key)?.object,
    *values(resource) {
      for (const { object } of store.values(resource)) yield object;
    },
    now: timestamp,
  };
}

/** @returns Now, RFC 3339 in UTC with whole seconds, as metadata has it. */
export function timestamp(time = Date.now()): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}
