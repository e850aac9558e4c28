import type { Logger } from 'pino';
import { isApiError } from '../api/client/error.ts';
import type { Api } from '../api/client/types.ts';
import type { KubeObject, Resource } from '../api/kinds.ts';
import { conditionList, type WantedCondition } from './revocation-list.ts';

/**
 * Writes what a controller has to say into an object's status, where it does not say so yet.
 * @param fields What the status has beside its conditions.
 * @param settled Conditions whose message may differ (it names a number that was right when it was written).
 * @param outdated Write, whatever the conditions say: a field is not what it should be.
 */
export async function writeStatus<T extends KubeObject>(
  target: { readonly resource: Resource<T>; readonly raw: KubeObject },
  wanted: readonly WantedCondition[],
  deps: { readonly api: Api; readonly logger: Logger; readonly now: Date },
  fields: Readonly<Record<string, unknown>> = {},
  settled: readonly string[] = [],
  outdated = false,
): Promise<void> {
  const { resource, raw } = target;
  const present = conditionList(raw);
  const isSaid = (condition: WantedCondition) =>
    present.some(
      ({ type, status, reason, message }) =>
        type === condition.type &&
        status === condition.status &&
        reason === condition.reason &&
        (message === condition.message || settled.includes(type)),
    );
  if (!outdated && wanted.every(isSaid)) return;
  const lastTransitionTime = `${deps.now.toISOString().slice(0, 19)}Z`;
  const conditions = wanted.map((condition) => {
    const before = present.find(({ type, status }) => type === condition.type && status === condition.status);
    return { lastTransitionTime, ...before, ...condition };
  });
  const { name = '' } = raw.metadata;
  try {
    await deps.api.patchStatus(resource, { name }, { type: 'merge', patch: { status: { ...fields, conditions } } });
  } catch (error) {
    // Written, and answered with an object that is not understood: which is what was said. Or deleted meanwhile.
    if (isApiError(error, 'Malformed', 'NotFound')) return;
    deps.logger.warn({ err: error, kind: resource.kind, name }, 'a status cannot be written');
  }
}
