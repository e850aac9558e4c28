import type { Logger } from 'pino';
import { z } from 'zod';
import { isApiError } from '../api/client/error.ts';
import { Reflector } from '../api/client/reflector.ts';
import type { Api, Change } from '../api/client/types.ts';
import { type Condition, type KubeObject, kinds, type NetworkPolicy } from '../api/kinds.ts';
import { formatIssues, parseNetworkPolicy } from '../policy/network-policy/parse.ts';

const conditionType = 'Understood';
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
 * What a policy's status should say of whether nodes understand it.
 * @param raw The policy as it came.
 * @returns The condition to be written; undefined where what is there already says it.
 */
export function understanding(raw: unknown, present: readonly Condition[], now: Date): Condition | undefined {
  const before = present.find(({ type }) => type === conditionType);
  const parsed = parseNetworkPolicy(raw);
  if (parsed.ok) {
    // A policy that was always understood needs no status: Kubernetes' own say nothing either.
    if (before === undefined || before.status === 'True') return undefined;
    return condition('True', 'Understood', 'every field is understood', now);
  }
  const message = `denies all traffic of the pods it selects: ${formatIssues(parsed.issues)}`;
  if (before?.status === 'False' && before.message === message) return undefined;
  return condition('False', 'NotUnderstood', message, now);
}

/** What a policy's status says so far, however little of the policy is understood. */
export function conditionsOf(raw: KubeObject): readonly Condition[] {
  const status = outline.safeParse(raw).data?.status;
  return status?.conditions ?? [];
}

function condition(status: 'True' | 'False', reason: string, message: string, now: Date): Condition {
  return { type: conditionType, status, reason, message, lastTransitionTime: `${now.toISOString().slice(0, 19)}Z` };
}

/** Says in the status of a policy that nodes do not understand it, and therefore close what it selects. */
export class PolicyStatusController {
  readonly #deps: { readonly api: Api; readonly logger: Logger };
  #policies: Reflector<NetworkPolicy> | undefined;

  constructor(deps: { readonly api: Api; readonly logger: Logger }) {
    this.#deps = deps;
  }

  start(): void {
    this.#policies = new Reflector<NetworkPolicy>({ resource: kinds.NetworkPolicy }, this.#deps).start();
    this.#policies.onChange((change) => void this.#look(change));
  }

  async close(): Promise<void> {
    await this.#policies?.close();
    this.#policies = undefined;
  }

  async #look({ kind, entry }: Change<NetworkPolicy>): Promise<void> {
    if (kind === 'delete') return;
    const present = conditionsOf(entry.raw);
    const wanted = understanding(entry.raw, present, new Date());
    if (wanted === undefined) return;
    const { namespace, name = '' } = entry.raw.metadata;
    const conditions = [...present.filter(({ type }) => type !== conditionType), wanted];
    try {
      await this.#deps.api.patchStatus(
        kinds.NetworkPolicy,
        { namespace, name },
        { type: 'merge', patch: { status: { conditions } } },
      );
    } catch (error) {
      // Written, and answered with the policy as it is: that one is not understood is what was said.
      if (isApiError(error, 'Malformed')) return;
      // Nodes fail closed whatever the status says; a server without this subresource cannot be told.
      this.#deps.logger.warn({ err: error, policy: entry.key }, 'the status of a policy cannot be written');
    }
  }
}
