import type { Logger } from 'pino';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Change, ReflectorHealth } from '../api/client/types.ts';
import {
  type EndpointSlice,
  type KubeObject,
  kinds,
  type Live,
  type Namespace,
  type NetworkPolicy,
  type Node,
  type Pod,
  type Service,
} from '../api/kinds.ts';
import { formatIssues, parseNetworkPolicy } from '../policy/network-policy/parse.ts';
import type { ClusterState } from './cluster-state.ts';

/** A policy that was not understood, and what it does meanwhile. */
export interface BrokenPolicy {
  /** `namespace/name`. */
  readonly policy: string;
  readonly message: string;
}

interface Watching {
  start(): unknown;
  close(): Promise<void>;
  readonly synced: Promise<void>;
  readonly health: ReflectorHealth;
}

/** Feeds the agent's view of the cluster from the API, by list and watch. While the API is away the view stays. */
export class ApiFeed {
  readonly #state: ClusterState;
  readonly #logger: Logger;
  readonly #namespaces: Reflector<Namespace>;
  readonly #nodes: Reflector<Node>;
  readonly #pods: Reflector<Pod>;
  readonly #policies: Reflector<NetworkPolicy>;
  readonly #services: Reflector<Service>;
  readonly #slices: Reflector<EndpointSlice>;
  readonly #broken = new Map<string, string>();

  /** @param onServices Called when Services or their endpoints change. */
  constructor(state: ClusterState, deps: { api: Api; logger: Logger; onServices: () => void }) {
    this.#state = state;
    this.#logger = deps.logger;
    this.#namespaces = new Reflector<Namespace>({ resource: kinds.Namespace }, deps);
    this.#nodes = new Reflector<Node>({ resource: kinds.Node }, deps);
    this.#pods = new Reflector<Pod>({ resource: kinds.Pod }, deps);
    this.#policies = new Reflector<NetworkPolicy>({ resource: kinds.NetworkPolicy }, deps);
    this.#services = new Reflector<Service>({ resource: kinds.Service }, deps);
    this.#slices = new Reflector<EndpointSlice>({ resource: kinds.EndpointSlice }, deps);
    this.#namespaces.onChange((change) =>
      each(
        change,
        (namespace) => state.setNamespace(namespace),
        ({ metadata }) => state.removeNamespace(metadata.name ?? ''),
      ),
    );
    this.#nodes.onChange((change) =>
      each(
        change,
        (node) => state.setNode(node),
        ({ metadata }) => state.removeNode(metadata.name ?? ''),
      ),
    );
    this.#pods.onChange((change) => this.#podChanged(change));
    this.#policies.onChange((change) => this.#policyChanged(change));
    this.#services.onChange(deps.onServices);
    this.#slices.onChange(deps.onServices);
  }

  /** Starts watching. Resolves when the first list of every kind is in. */
  async start(): Promise<void> {
    for (const reflector of this.#all) reflector.start();
    await Promise.all(this.#all.map(({ synced }) => synced));
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((reflector) => reflector.close()));
  }

  get services(): Service[] {
    return this.#services.objects();
  }

  get slices(): EndpointSlice[] {
    return this.#slices.objects();
  }

  get broken(): BrokenPolicy[] {
    return [...this.#broken].map(([policy, message]) => ({ policy, message }));
  }

  /** The one that is worst off speaks for all: a view is as old as its oldest part. */
  get health(): ReflectorHealth {
    const [first, ...rest] = this.#all.map(({ health }) => health);
    if (first === undefined) throw new TypeError('there are reflectors');
    return rest.reduce(
      (worst, next) => ({
        synced: worst.synced && next.synced,
        lastContact: Math.min(worst.lastContact, next.lastContact),
        error: worst.error ?? next.error,
        relists: worst.relists + next.relists,
      }),
      first,
    );
  }

  get #all(): readonly Watching[] {
    return [this.#namespaces, this.#nodes, this.#pods, this.#policies, this.#services, this.#slices];
  }

  #podChanged({ kind, entry, previous }: Change<Pod>): void {
    const uid = entry.raw.metadata.uid ?? '';
    // A name that came back is another pod: the watch may have missed the deletion of the one before.
    const before = previous?.raw.metadata.uid;
    if (before !== undefined && before !== uid) this.#state.removePod(before);
    if (kind === 'delete' || entry.object === undefined) this.#state.removePod(uid);
    else this.#state.setPod(entry.object);
    if (kind !== 'delete' && entry.object === undefined)
      this.#logger.warn({ pod: entry.key, issues: entry.issues }, 'a pod is not understood: it is nobody');
  }

  #policyChanged({ kind, entry }: Change<NetworkPolicy>): void {
    this.#broken.delete(entry.key);
    if (kind === 'delete') {
      this.#state.removePolicy(entry.key);
      return;
    }
    // What the policy says is read from what came, strictly: the API's own reading forgives unknown fields, this must not.
    const parsed = parseNetworkPolicy(entry.raw);
    if (parsed.ok) {
      this.#state.setPolicy(entry.key, parsed.policy);
      return;
    }
    const message = formatIssues(parsed.issues);
    this.#broken.set(entry.key, message);
    this.#logger.error({ policy: entry.key, message }, 'a policy is not understood: it denies all to what it selects');
    if (parsed.broken !== undefined) this.#state.setPolicy(entry.key, parsed.broken);
  }
}

function each<T extends KubeObject>(
  { kind, entry }: Change<T>,
  set: (object: Live<T>) => void,
  remove: (raw: KubeObject) => void,
): void {
  if (kind === 'delete') remove(entry.raw);
  else if (entry.object !== undefined) set(entry.object);
}
