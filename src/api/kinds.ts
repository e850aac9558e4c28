import type { z } from 'zod';
import {
  configMapSchema,
  eventSchema,
  leaseSchema,
  namespaceSchema,
  nodeSchema,
  secretSchema,
  serviceAccountSchema,
} from './kinds/cluster.ts';
import { customResourceDefinitionSchema } from './kinds/extension.ts';
import type { KubeObject } from './kinds/meta.ts';
import { clusterSettingsSchema, myelinVersion, revocationSchema } from './kinds/myelin.ts';
import { endpointSliceSchema, endpointsSchema, networkPolicySchema, serviceSchema } from './kinds/network.ts';
import { deploymentSchema, podSchema } from './kinds/pod.ts';
import { foreignPolicyKinds, type PolicyObject, policySchema } from './kinds/policy.ts';

export type {
  ConfigMap,
  Event,
  Lease,
  Namespace,
  Node,
  Secret,
  ServiceAccount,
} from './kinds/cluster.ts';
export type { Container, ContainerPort, EnvVar, Probe } from './kinds/container.ts';
export type { CustomResourceDefinition, PrinterColumn } from './kinds/extension.ts';
export type { Condition, KubeObject, LabelSelector, Live, LiveMeta, ObjectMeta, OwnerReference } from './kinds/meta.ts';
export { frameDescriptions, kindSchema } from './kinds/meta.ts';
export type { ClusterSettings, Revocation } from './kinds/myelin.ts';
export type { EndpointSlice, Endpoints, NetworkPolicy, Service, ServicePort } from './kinds/network.ts';
export type { ContainerStatus, Deployment, Pod, PodSpec, PodStatus } from './kinds/pod.ts';
export type { PolicyObject } from './kinds/policy.ts';

/** What the API and its clients must know of a kind. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly singular: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** Has a /status subresource, so that whoever writes the spec and whoever writes the status need not be the same. */
  readonly status: boolean;
  readonly schema: z.ZodType<T>;
}

/** How a kind differs from one with a namespace and no status. */
export interface Traits {
  readonly namespaced?: boolean;
  readonly shortNames?: readonly string[];
  readonly categories?: readonly string[];
  readonly status?: boolean;
}

/**
 * Describes a kind, so that the client can be used with it.
 * @param schema What its objects look like; make it by `kindSchema`.
 */
export function defineResource<T extends KubeObject>(
  apiVersion: string,
  kind: string,
  plural: string,
  schema: z.ZodType<T>,
  traits: Traits,
): Resource<T> {
  const slash = apiVersion.indexOf('/');
  return {
    group: slash < 0 ? '' : apiVersion.slice(0, slash),
    version: apiVersion.slice(slash + 1),
    kind,
    plural,
    singular: kind.toLowerCase(),
    namespaced: traits.namespaced ?? true,
    shortNames: traits.shortNames ?? [],
    categories: traits.categories ?? [],
    status: traits.status ?? false,
    schema,
  };
}

const cluster = { namespaced: false, status: true } as const;

/** The built-in kinds. `kinds.Pod` is what every client call takes to say "pods". */
export const kinds = {
  Namespace: defineResource('v1', 'Namespace', 'namespaces', namespaceSchema, { ...cluster, shortNames: ['ns'] }),
  Node: defineResource('v1', 'Node', 'nodes', nodeSchema, { ...cluster, shortNames: ['no'] }),
  Pod: defineResource('v1', 'Pod', 'pods', podSchema, { shortNames: ['po'], categories: ['all'], status: true }),
  ServiceAccount: defineResource('v1', 'ServiceAccount', 'serviceaccounts', serviceAccountSchema, {
    shortNames: ['sa'],
  }),
  Service: defineResource('v1', 'Service', 'services', serviceSchema, {
    shortNames: ['svc'],
    categories: ['all'],
    status: true,
  }),
  Endpoints: defineResource('v1', 'Endpoints', 'endpoints', endpointsSchema, { shortNames: ['ep'] }),
  Event: defineResource('v1', 'Event', 'events', eventSchema, { shortNames: ['ev'] }),
  ConfigMap: defineResource('v1', 'ConfigMap', 'configmaps', configMapSchema, { shortNames: ['cm'] }),
  Secret: defineResource('v1', 'Secret', 'secrets', secretSchema, {}),
  EndpointSlice: defineResource('discovery.k8s.io/v1', 'EndpointSlice', 'endpointslices', endpointSliceSchema, {}),
  Deployment: defineResource('apps/v1', 'Deployment', 'deployments', deploymentSchema, {
    shortNames: ['deploy'],
    categories: ['all'],
    status: true,
  }),
  NetworkPolicy: defineResource('networking.k8s.io/v1', 'NetworkPolicy', 'networkpolicies', networkPolicySchema, {
    shortNames: ['netpol'],
    status: true,
  }),
  Lease: defineResource('coordination.k8s.io/v1', 'Lease', 'leases', leaseSchema, {}),
  CustomResourceDefinition: defineResource(
    'apiextensions.k8s.io/v1',
    'CustomResourceDefinition',
    'customresourcedefinitions',
    customResourceDefinitionSchema,
    { ...cluster, shortNames: ['crd', 'crds'] },
  ),
} as const;

/** Myelin's own kinds, which an API server learns by CustomResourceDefinitions (definitions.ts). */
export const ownKinds = {
  Revocation: defineResource(myelinVersion, 'Revocation', 'revocations', revocationSchema, {
    ...cluster,
    shortNames: ['revoke'],
    categories: ['myelin'],
  }),
  ClusterSettings: defineResource(myelinVersion, 'ClusterSettings', 'clustersettings', clusterSettingsSchema, {
    ...cluster,
    shortNames: ['mset'],
    categories: ['myelin'],
  }),
} as const;

/** The kinds of policies beside NetworkPolicy: built in here, and in a cluster only where somebody has defined them. */
export const policyResources: readonly Resource<PolicyObject>[] = foreignPolicyKinds.map(
  ({ group, version, kind, plural, namespaced, shortNames }) => {
    const apiVersion = `${group}/${version}`;
    const traits = { namespaced, shortNames, categories: ['policies'], status: true };
    return defineResource(apiVersion, kind, plural, policySchema(apiVersion, kind), traits);
  },
);

/** All built-in kinds, in the order in which a manifest's objects are best applied. */
export const builtinResources: readonly Resource[] = [
  kinds.Namespace,
  kinds.CustomResourceDefinition,
  kinds.Node,
  kinds.ServiceAccount,
  kinds.Secret,
  kinds.ConfigMap,
  kinds.Lease,
  kinds.NetworkPolicy,
  ...policyResources,
  kinds.Service,
  kinds.Endpoints,
  kinds.EndpointSlice,
  kinds.Pod,
  kinds.Deployment,
  kinds.Event,
];

/** All kinds that a manifest may have: the built-in ones and Myelin's own. */
export const knownResources: readonly Resource[] = [...builtinResources, ...Object.values(ownKinds)];

/** @returns `v1` or `group/version`. */
export function apiVersionOf(resource: { readonly group: string; readonly version: string }): string {
  return resource.group === '' ? resource.version : `${resource.group}/${resource.version}`;
}

/** @returns `namespace/name`, or `name` for objects without a namespace: a key that is unique within one kind. */
export function objectKey(object: {
  readonly metadata: { namespace?: string | undefined; name?: string | undefined };
}): string {
  const { namespace, name = '' } = object.metadata;
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`;
}
