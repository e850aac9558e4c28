import { z } from 'zod';
import {
  condition,
  freeForm,
  int32,
  intOrString,
  ipFamily,
  kindSchema,
  labelSelector,
  listMap,
  objectReference,
  protocol,
  text,
  textMap,
} from './meta.ts';

const servicePort = z.object({
  name: text.optional(),
  protocol: protocol.optional(),
  port: int32,
  targetPort: intOrString.optional(),
  nodePort: int32.optional(),
  appProtocol: text.optional(),
});
export type ServicePort = z.infer<typeof servicePort>;

export const serviceSchema = kindSchema('v1', 'Service', {
  spec: z
    .object({
      type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']).optional(),
      selector: textMap.optional(),
      ports: listMap(servicePort, 'port', 'protocol').optional(),
      clusterIP: text.optional(),
      clusterIPs: z.array(text).optional(),
      ipFamilies: z.array(ipFamily).optional(),
      ipFamilyPolicy: z.enum(['SingleStack', 'PreferDualStack', 'RequireDualStack']).optional(),
      externalIPs: z.array(text).optional(),
      externalName: text.optional(),
      externalTrafficPolicy: z.enum(['Cluster', 'Local']).optional(),
      internalTrafficPolicy: z.enum(['Cluster', 'Local']).optional(),
      trafficDistribution: text.optional(),
      sessionAffinity: z.enum(['None', 'ClientIP']).optional(),
      sessionAffinityConfig: freeForm.optional(),
      publishNotReadyAddresses: z.boolean().optional(),
      healthCheckNodePort: int32.optional(),
      loadBalancerIP: text.optional(),
      loadBalancerClass: text.optional(),
      loadBalancerSourceRanges: z.array(text).optional(),
      allocateLoadBalancerNodePorts: z.boolean().optional(),
    })
    .optional(),
  status: z
    .object({
      loadBalancer: z.object({ ingress: z.array(freeForm).optional() }).optional(),
      conditions: listMap(condition, 'type').optional(),
    })
    .optional(),
});
export type Service = z.infer<typeof serviceSchema>;

const endpointAddress = z.object({
  ip: text,
  hostname: text.optional(),
  nodeName: text.optional(),
  targetRef: objectReference.optional(),
});
const endpointPort = z.object({
  name: text.optional(),
  port: int32.optional(),
  protocol: protocol.optional(),
  appProtocol: text.optional(),
});

export const endpointsSchema = kindSchema('v1', 'Endpoints', {
  subsets: z
    .array(
      z.object({
        addresses: z.array(endpointAddress).optional(),
        notReadyAddresses: z.array(endpointAddress).optional(),
        ports: z.array(endpointPort).optional(),
      }),
    )
    .optional(),
});
export type Endpoints = z.infer<typeof endpointsSchema>;

const endpoint = z.object({
  addresses: z.array(text),
  conditions: z
    .object({
      ready: z.boolean().optional(),
      serving: z.boolean().optional(),
      terminating: z.boolean().optional(),
    })
    .optional(),
  hostname: text.optional(),
  targetRef: objectReference.optional(),
  nodeName: text.optional(),
  zone: text.optional(),
  hints: freeForm.optional(),
  deprecatedTopology: textMap.optional(),
});

export const endpointSliceSchema = kindSchema('discovery.k8s.io/v1', 'EndpointSlice', {
  addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
  endpoints: z.array(endpoint).optional(),
  ports: z.array(endpointPort).optional(),
});
export type EndpointSlice = z.infer<typeof endpointSliceSchema>;

const policyPort = z.object({
  protocol: protocol.optional(),
  port: intOrString.optional(),
  endPort: int32.optional(),
});
const policyPeer = z.object({
  podSelector: labelSelector.optional(),
  namespaceSelector: labelSelector.optional(),
  ipBlock: z.object({ cidr: text, except: z.array(text).optional() }).optional(),
});

export const networkPolicySchema = kindSchema('networking.k8s.io/v1', 'NetworkPolicy', {
  spec: z
    .object({
      podSelector: labelSelector.optional(),
      policyTypes: z.array(z.enum(['Ingress', 'Egress'])).optional(),
      ingress: z
        .array(z.object({ from: z.array(policyPeer).optional(), ports: z.array(policyPort).optional() }))
        .optional(),
      egress: z
        .array(z.object({ to: z.array(policyPeer).optional(), ports: z.array(policyPort).optional() }))
        .optional(),
    })
    .optional(),
  // Served by Kubernetes 1.24 to 1.27; Myelin's own server keeps it, so that a policy can say that it was not understood.
  status: z.object({ conditions: listMap(condition, 'type').optional() }).optional(),
});
export type NetworkPolicy = z.infer<typeof networkPolicySchema>;
