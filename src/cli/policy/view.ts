import { ClusterState } from '../../agent/cluster-state.ts';
import { isApiError } from '../../api/client/error.ts';
import type { Api, Entry } from '../../api/client/types.ts';
import { readClusterSettings } from '../../api/cluster-settings.ts';
import { clusterSettingsName } from '../../api/kinds/myelin.ts';
import {
  apiVersionOf,
  type KubeObject,
  kinds,
  type Live,
  ownKinds,
  policyResources,
  type Resource,
} from '../../api/kinds.ts';
import { type PolicyContext, policyKindOf } from '../../policy/kinds.ts';
import type { Policy } from '../../policy/rule.ts';
import { serviceLookup } from '../../service/lookup.ts';

/**
 * The cluster as its agents see it, read once from the API. Policies are by `kind namespace/name`, so that one that is put
 * there again takes the place of the one that is.
 * @returns With how agents read policies, as far as the ClusterSettings say; the rest is as agents have it by default.
 * @throws {ApiError}
 */
export async function readClusterState(api: Api): Promise<{ state: ClusterState; context: PolicyContext }> {
  const settings = await entriesOf(api, ownKinds.ClusterSettings);
  const {
    defaultVerdict,
    trustDomain,
    istioRootNamespace: rootNamespace,
  } = readClusterSettings(settings.find(({ key }) => key === clusterSettingsName));
  const domain = trustDomain === undefined ? {} : { trustDomain };
  const services = understood(await entriesOf(api, kinds.Service));
  const lookup = serviceLookup(services, understood(await entriesOf(api, kinds.EndpointSlice)));
  const context = {
    ...domain,
    ...(rootNamespace === undefined ? {} : { rootNamespace }),
    services: () => lookup,
  };
  const state = new ClusterState({ defaultDeny: defaultVerdict === 'deny', ...domain }, () => {});
  for (const { object } of await entriesOf(api, kinds.Namespace)) if (object !== undefined) state.setNamespace(object);
  for (const { object } of await entriesOf(api, kinds.Node)) if (object !== undefined) state.setNode(object);
  for (const { object } of await entriesOf(api, kinds.Pod)) if (object !== undefined) state.setPod(object);
  for (const resource of [kinds.NetworkPolicy, ...policyResources])
    for (const { raw } of await entriesOf<KubeObject>(api, resource))
      putPolicy(state, { ...raw, apiVersion: apiVersionOf(resource), kind: resource.kind }, context);
  return { state, context };
}

/** Puts an object's policies into the state; in place of one that is not understood, what closes for it. */
export function putPolicy(state: ClusterState, object: unknown, context: PolicyContext): readonly Policy[] {
  if (typeof object !== 'object' || object === null) return [];
  const kind = policyKindOf(object);
  const parsed = kind?.parse(object, context);
  if (kind === undefined || parsed === undefined) return [];
  const policies = parsed.ok ? parsed.policies : parsed.broken === undefined ? [] : [parsed.broken];
  const [first] = policies;
  if (first === undefined) return [];
  const name = first.name.replace(/ specs\[\d+\]$/, '');
  state.setPolicies(`${kind.kind} ${first.namespace === '' ? name : `${first.namespace}/${name}`}`, policies);
  return policies;
}

function understood<T extends KubeObject>(entries: readonly Entry<T>[]): Live<T>[] {
  return entries.flatMap(({ object }) => (object === undefined ? [] : [object]));
}

/** None of a kind that the cluster does not know. */
async function entriesOf<T extends KubeObject>(api: Api, resource: Resource<T>): Promise<readonly Entry<T>[]> {
  try {
    return (await api.list(resource)).entries;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return [];
    throw error;
  }
}
