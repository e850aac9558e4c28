import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Change, ReflectorHealth } from '../api/client/types.ts';
import {
  apiVersionOf,
  type EndpointSlice,
  type KubeObject,
  kinds,
  type Live,
  type Namespace,
  type Node,
  type Pod,
  policyResources,
  type Resource,
  type Service,
} from '../api/kinds.ts';
import type { ServiceLookup } from '../policy/cilium/services.ts';
import { formatIssues } from '../policy/issues.ts';
import { type PolicyContext, type PolicyKind, policyKindOf } from '../policy/kinds.ts';
import { serviceLookup } from '../service/lookup.ts';
import type { ClusterState } from './cluster-state.ts';

/** A policy that was not understood, and what it does meanwhile. */
export interface BrokenPolicy {
  /** `kind namespace/name`. */
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
  readonly #policies: readonly Watching[];
  readonly #services: Reflector<Service>;
  readonly #slices: Reflector<EndpointSlice>;
  readonly #broken = new Map<string, string>();
  #context: PolicyContext;
  /** Each reads all policies of a kind again. */
  readonly #readers: (() => void)[] = [];
  /** Reads again a policy that is about services, by the policy. */
  readonly #followers = new Map<string, () => void>();
  #lookup: ServiceLookup | undefined;
  #following: NodeJS.Immediate | undefined;

  /** @param onServices Called when Services or their endpoints change. */
  constructor(
    state: ClusterState,
    deps: { api: Api; logger: Logger; onServices: () => void; policies?: PolicyContext },
  ) {
    this.#state = state;
    this.#logger = deps.logger;
    this.#context = deps.policies ?? {};
    this.#namespaces = new Reflector<Namespace>({ resource: kinds.Namespace }, deps);
    this.#nodes = new Reflector<Node>({ resource: kinds.Node }, deps);
    this.#pods = new Reflector<Pod>({ resource: kinds.Pod }, deps);
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
    const watchPolicies = <T extends KubeObject>(resource: Resource<T>, optional: boolean): Watching => {
      const kind = policyKindOf({ apiVersion: apiVersionOf(resource), kind: resource.kind });
      if (kind === undefined) throw new TypeError(`${resource.kind} is no kind of policies`);
      const reflector = new Reflector<T>({ resource, optional }, deps);
      reflector.onChange((change) => this.#policyChanged(kind, change));
      this.#readers.push(() => {
        for (const entry of reflector.entries()) this.#policyChanged(kind, { kind: 'update', entry, previous: entry });
      });
      return reflector;
    };
    this.#policies = [
      watchPolicies(kinds.NetworkPolicy, false),
      // Whoever does not use a kind need not have defined it.
      ...policyResources.map((resource) => watchPolicies(resource, true)),
    ];
    const servicesChanged = (): void => {
      deps.onServices();
      this.#servicesChanged();
    };
    this.#services.onChange(servicesChanged);
    this.#slices.onChange(servicesChanged);
  }

  /** Starts watching. Resolves when the first list of every kind is in. */
  async start(): Promise<void> {
    for (const reflector of this.#all) reflector.start();
    await Promise.all(this.#all.map(({ synced }) => synced));
    // Whatever was read before the services were there.
    this.#follow();
  }

  async close(): Promise<void> {
    clearImmediate(this.#following);
    await Promise.all(this.#all.map((reflector) => reflector.close()));
  }

  /** What policies leave to where they are read is another now: they are read again. */
  setPolicyContext(context: PolicyContext): void {
    if (isDeepStrictEqual(context, this.#context)) return;
    this.#context = context;
    for (const read of this.#readers) read();
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

  /** Changes of services come in bursts: policies about them are read again once for each. */
  #servicesChanged(): void {
    this.#lookup = undefined;
    if (this.#followers.size > 0) this.#following ??= setImmediate(() => this.#follow());
  }

  #follow(): void {
    clearImmediate(this.#following);
    this.#following = undefined;
    for (const read of [...this.#followers.values()]) read();
  }

  get #all(): readonly Watching[] {
    return [this.#namespaces, this.#nodes, this.#pods, ...this.#policies, this.#services, this.#slices];
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

  #policyChanged<T extends KubeObject>(policyKind: PolicyKind, { kind, entry }: Change<T>): void {
    const policy = `${policyKind.kind} ${entry.key}`;
    this.#broken.delete(policy);
    this.#followers.delete(policy);
    if (kind === 'delete') {
      this.#state.removePolicies(policy);
      return;
    }
    // What the policy says is read from what came, strictly: the API's own reading forgives unknown fields, this must not.
    const services = (): ServiceLookup => {
      this.#followers.set(policy, () => this.#policyChanged(policyKind, { kind: 'update', entry, previous: entry }));
      this.#lookup ??= serviceLookup(this.#services.objects(), this.#slices.objects());
      return this.#lookup;
    };
    const parsed = policyKind.parse(entry.raw, { ...this.#context, services });
    if (parsed.ok) {
      this.#state.setPolicies(policy, parsed.policies);
      return;
    }
    const message = formatIssues(parsed.issues);
    this.#broken.set(policy, message);
    this.#logger.error({ policy, message }, 'a policy is not understood: it denies all to what it selects');
    if (parsed.broken !== undefined) this.#state.setPolicies(policy, [parsed.broken]);
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
