import { definitionRules } from './definition.ts';
import { deploymentRules } from './deployment.ts';
import { networkPolicyRules } from './network-policy.ts';
import {
  configMapRules,
  endpointSliceRules,
  endpointsRules,
  eventRules,
  leaseRules,
  namespaceRules,
  nodeRules,
  secretRules,
  serviceAccountRules,
} from './others.ts';
import { podRules } from './pod.ts';
import { policyRules } from './policy.ts';
import type { Rules } from './rules.ts';
import { serviceRules } from './service.ts';

/** The rules of the built-in kinds, by kind. */
export const builtinRules: Readonly<Record<string, Rules>> = {
  Namespace: namespaceRules,
  Node: nodeRules,
  Pod: podRules,
  ServiceAccount: serviceAccountRules,
  Service: serviceRules,
  Endpoints: endpointsRules,
  Event: eventRules,
  ConfigMap: configMapRules,
  Secret: secretRules,
  EndpointSlice: endpointSliceRules,
  Deployment: deploymentRules,
  NetworkPolicy: networkPolicyRules,
  ...policyRules,
  Lease: leaseRules,
  CustomResourceDefinition: definitionRules,
};
