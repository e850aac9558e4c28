import type { Logger } from 'pino';
import { z } from 'zod';
import { isApiError } from '../api/client/error.ts';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Entry } from '../api/client/types.ts';
import { readClusterSettings } from '../api/cluster-settings.ts';
import { clusterSettingsName } from '../api/kinds/myelin.ts';
import {
  apiVersionOf,
  type ClusterSettings,
  type Condition,
  type KubeObject,
  kinds,
  ownKinds,
  policyResources,
  type Resource,
} from '../api/kinds.ts';
import { noServices } from '../policy/cilium/services.ts';
import { formatIssues } from '../policy/issues.ts';
import { type PolicyContext, type PolicyKind, policyKindOf } from '../policy/kinds.ts';
import type { Limit } from '../policy/rule.ts';

const outline = z.looseObject({
  status: z
    .looseObject({
      conditions: z
        .array(
          z.object({
            type: z.string(),
            status: z.string(),
            reason: z.string().optional(),
            message: z.string().optional(),
            lastTransitionTime: z.string().optional(),
          }),
        )
        .optional(),
    })
    .optional(),
});

/**
 * What a policy's status should say: whether nodes understand it (`Understood`), and whether they enforce all of it
 * (`Enforced`). A policy of which neither was ever in doubt needs no status: Kubernetes' own say nothing either.
 * @param raw The policy as it came.
 * @param context As the agents read policies.
 * @returns The conditions to be written; none where what is there already says it.
 */
export function standing(
  kind: PolicyKind,
  raw: unknown,
  present: readonly Condition[],
  now: Date,
  context: PolicyContext = {},
): Condition[] {
  const parsed = kind.parse(raw, { ...context, services: () => noServices });
  const limits = parsed.ok ? parsed.policies.flatMap((policy) => policy.limits ?? []) : [];
  const wanted: readonly Claim[] = [
    parsed.ok
      ? { type: 'Understood', status: 'True', reason: 'Understood', message: 'every field is understood' }
      : {
          type: 'Understood',
          status: 'False',
          reason: 'NotUnderstood',
          message: `denies all traffic of the pods it selects: ${formatIssues(parsed.issues)}`,
        },
    ...(parsed.ok ? [enforcement(limits)] : []),
  ];
  return wanted.flatMap((claim): Condition[] => {
    const before = present.find(({ type }) => type === claim.type);
    if (claim.status === 'True' ? before?.status !== 'False' : saysSo(before, claim)) return [];
    return [{ ...claim, lastTransitionTime: `${now.toISOString().slice(0, 19)}Z` }];
  });
}

type Claim = Required<Pick<Condition, 'type' | 'status' | 'reason' | 'message'>>;

function enforcement(limits: readonly Limit[]): Claim {
  return limits.length === 0
    ? { type: 'Enforced', status: 'True', reason: 'Enforced', message: 'all that is understood is enforced' }
    : { type: 'Enforced', status: 'False', reason: 'Limited', message: describe(limits) };
}

function saysSo(before: Condition | undefined, { status, message }: Claim): boolean {
  return before?.status === status && before.message === message;
}

/** More than these are counted only: a status is for people, and has a size. */
const mostLimits = 10;

function describe(limits: readonly Limit[]): string {
  const shown = limits.slice(0, mostLimits).map(({ field, reason }) => `${field}: ${reason}`);
  return [...shown, ...(limits.length > mostLimits ? [`and ${limits.length - mostLimits} more`] : [])].join('; ');
}

/** What a policy's status says so far, however little of the policy is understood. */
export function conditionsOf(raw: KubeObject): readonly Condition[] {
  const status = outline.safeParse(raw).data?.status;
  return status?.conditions ?? [];
}

interface StatusDeps {
  readonly api: Api;
  readonly logger: Logger;
  readonly trustDomain: string;
}

/** Says in the status of policies what of them nodes do not understand or enforce, and therefore close. */
export class PolicyStatusController {
  readonly #deps: StatusDeps;
  #reflectors: readonly { close(): Promise<void> }[] = [];
  #rootNamespace: string | undefined;

  /** @param deps The trust domain is the cluster's, whose names policies may hold. */
  constructor(deps: StatusDeps) {
    this.#deps = deps;
  }

  start(): void {
    const settings = new Reflector<ClusterSettings>({ resource: ownKinds.ClusterSettings, optional: true }, this.#deps);
    const policies = [
      this.#watch(kinds.NetworkPolicy, false),
      ...policyResources.map((resource) => this.#watch(resource, true)),
    ];
    const read = (): void => {
      this.#rootNamespace = readClusterSettings(settings.get(clusterSettingsName)).istioRootNamespace;
    };
    this.#reflectors = [settings, ...policies];
    // What they are read by comes first: a status that is wrong for a moment is written all the same.
    settings.start().synced.then(
      () => {
        read();
        settings.onChange(() => {
          const before = this.#rootNamespace;
          read();
          if (this.#rootNamespace !== before) for (const policy of policies) policy.lookAgain();
        });
        for (const policy of policies) policy.start();
      },
      () => undefined,
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#reflectors.map((reflector) => reflector.close()));
    this.#reflectors = [];
  }

  #watch<T extends KubeObject>(
    resource: Resource<T>,
    optional: boolean,
  ): { start(): void; lookAgain(): void; close(): Promise<void> } {
    const kind = policyKindOf({ apiVersion: apiVersionOf(resource), kind: resource.kind });
    if (kind === undefined) throw new TypeError(`${resource.kind} is no kind of policies`);
    const reflector = new Reflector<T>({ resource, optional }, this.#deps);
    reflector.onChange((change) => {
      if (change.kind !== 'delete') void this.#look(resource, kind, change.entry);
    });
    return {
      start: () => void reflector.start(),
      lookAgain: () => {
        for (const entry of reflector.entries()) void this.#look(resource, kind, entry);
      },
      close: () => reflector.close(),
    };
  }

  async #look<T extends KubeObject>(resource: Resource<T>, policyKind: PolicyKind, entry: Entry<T>): Promise<void> {
    const present = conditionsOf(entry.raw);
    const { trustDomain } = this.#deps;
    const context = {
      trustDomain,
      ...(this.#rootNamespace === undefined ? {} : { rootNamespace: this.#rootNamespace }),
    };
    const wanted = standing(policyKind, entry.raw, present, new Date(), context);
    if (wanted.length === 0) return;
    const { namespace, name = '' } = entry.raw.metadata;
    const conditions = [...present.filter(({ type }) => !wanted.some((own) => own.type === type)), ...wanted];
    try {
      await this.#deps.api.patchStatus(resource, namespace === undefined ? { name } : { namespace, name }, {
        type: 'merge',
        patch: { status: { conditions } },
      });
    } catch (error) {
      // Written, and answered with the policy as it is: that one is not understood is what was said.
      if (isApiError(error, 'Malformed')) return;
      // Nodes fail closed whatever the status says; a server without this subresource cannot be told.
      this.#deps.logger.warn({ err: error, policy: entry.key }, 'the status of a policy cannot be written');
    }
  }
}
