import { byPlace } from '../model/place.ts';
import { withAnnotations } from './annotations.ts';
import { parseCiliumPolicy } from './cilium/parse.ts';
import type { ServiceLookup } from './cilium/services.ts';
import { parseClusterNetworkPolicy } from './cluster-network-policy/parse.ts';
import { requestLimits } from './http/limits.ts';
import type { ParseResult, PoliciesResult } from './issues.ts';
import { parseAuthorizationPolicy } from './istio/authorization.ts';
import { parsePeerAuthentication } from './istio/peer-authentication.ts';
import type { IstioContext } from './istio/scope.ts';
import { parseNetworkPolicy } from './network-policy/parse.ts';

export type { PoliciesResult } from './issues.ts';

/** What a manifest leaves to where it is read. */
export interface PolicyContext extends IstioContext {
  /**
   * The cluster's services, asked only where a policy is about them: it is then to be read again when they change. Absent:
   * nobody follows them, and what is about services is a limit.
   */
  readonly services?: () => ServiceLookup;
}

/** An API kind whose objects are policies: all that whoever serves, watches, compiles or checks them has to know of it. */
export interface PolicyKind {
  readonly group: string;
  readonly version: string;
  /** Versions with the same fields under another name. */
  readonly olderVersions?: readonly string[];
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  /**
   * Validates an object, strictly, and turns it into the rule form. Never throws.
   * @param object As JSON or YAML gives it.
   */
  parse(object: unknown, context?: PolicyContext): PoliciesResult;
}

/** Each kind's own fields; what annotations say is the same for all of them. */
const frontEnds: readonly PolicyKind[] = [
  {
    ...{ group: 'networking.k8s.io', version: 'v1', kind: 'NetworkPolicy', plural: 'networkpolicies' },
    ...{ namespaced: true, shortNames: ['netpol'] },
    parse: (object, { defaultNamespace } = {}) => one(parseNetworkPolicy(object, defaultNamespace)),
  },
  {
    ...{ group: 'policy.networking.k8s.io', version: 'v1alpha2', kind: 'ClusterNetworkPolicy' },
    // Its own short name, cnp, is Cilium's here.
    ...{ plural: 'clusternetworkpolicies', namespaced: false, shortNames: [] },
    parse: (object) => one(parseClusterNetworkPolicy(object)),
  },
  {
    ...{ group: 'cilium.io', version: 'v2', kind: 'CiliumNetworkPolicy', plural: 'ciliumnetworkpolicies' },
    ...{ namespaced: true, shortNames: ['cnp', 'ciliumnp'] },
    parse: (object, { defaultNamespace, services } = {}) =>
      parseCiliumPolicy('CiliumNetworkPolicy', object, defaultNamespace, services),
  },
  {
    ...{ group: 'cilium.io', version: 'v2', kind: 'CiliumClusterwideNetworkPolicy' },
    ...{ plural: 'ciliumclusterwidenetworkpolicies', namespaced: false, shortNames: ['ccnp'] },
    parse: (object, { services } = {}) =>
      parseCiliumPolicy('CiliumClusterwideNetworkPolicy', object, undefined, services),
  },
  {
    ...{ group: 'security.istio.io', version: 'v1', kind: 'AuthorizationPolicy', plural: 'authorizationpolicies' },
    ...{ olderVersions: ['v1beta1'], namespaced: true, shortNames: ['ap'] },
    parse: (object, context) => one(parseAuthorizationPolicy(object, context)),
  },
  {
    ...{ group: 'security.istio.io', version: 'v1', kind: 'PeerAuthentication', plural: 'peerauthentications' },
    ...{ olderVersions: ['v1beta1'], namespaced: true, shortNames: ['pa'] },
    parse: (object, context) => one(parsePeerAuthentication(object, context)),
  },
];

/** Every kind there is, in the order in which people know them. A kind that is added is served and enforced. */
export const policyKinds: readonly PolicyKind[] = frontEnds.map((kind) => ({
  ...kind,
  parse: (object, context) => inOrder(withRequestLimits(withAnnotations(kind.parse(object, context), object)), object),
}));

/** The kind of an object, by what it says itself. @returns Undefined for what is no policy, or of another version. */
export function policyKindOf(object: {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
}): PolicyKind | undefined {
  return policyKinds.find(
    ({ group, version, olderVersions = [], kind }) =>
      object.kind === kind && [version, ...olderVersions].some((own) => object.apiVersion === `${group}/${own}`),
  );
}

/** What no front end knows: what the datapath can tell of requests. */
function withRequestLimits(result: PoliciesResult): PoliciesResult {
  if (!result.ok) return result;
  const policies = result.policies.map((policy) => {
    const found = requestLimits(policy);
    return found.length === 0 ? policy : { ...policy, limits: [...(policy.limits ?? []), ...found] };
  });
  return { ...result, policies };
}

/** What is wrong in the order in which a reader comes to it, however a front end found it. */
function inOrder(result: PoliciesResult, object: unknown): PoliciesResult {
  if (result.ok) return result;
  const compare = byPlace(object);
  return { ...result, issues: [...result.issues].sort((a, b) => compare(a.path, b.path)) };
}

/** The result for a kind whose objects are one policy each. */
function one(result: ParseResult): PoliciesResult {
  return result.ok ? { ok: true, policies: [result.policy] } : result;
}
