import { z } from 'zod';
import { condition, kindSchema, listMap, time } from './meta.ts';

/** Group and version of Myelin's own kinds. */
export const myelinVersion = 'myelin.dev/v1alpha1';

/** What a Revocation may name, in the order in which it is told: exactly one of them. */
export const revocationTargets = ['podUID', 'serviceAccount', 'node', 'serial'] as const;

const conditions = listMap(condition, 'type').optional().describe('What the controller made of it, each a sentence.');
const sentence = z.string().min(1).max(1024);
const dnsLabel = z
  .string()
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/);
const dnsName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/);

const revocationSpec = z
  .object({
    podUID: dnsLabel.optional().describe('The UID of one pod.'),
    serviceAccount: z
      .object({ namespace: dnsLabel, name: dnsName })
      .optional()
      .describe('Every pod that runs as this service account, now and later.'),
    node: dnsName.optional().describe('A node, and every pod that it hosts.'),
    serial: z
      .string()
      .max(95)
      .regex(/^[0-9a-fA-F]+(:[0-9a-fA-F]+)*$/)
      .optional()
      .describe('The serial number of one certificate, hexadecimal, with or without colons.'),
    reason: sentence.describe('Why, for whoever finds it later.'),
    expires: time.optional().describe('When it ends by itself. Absent: it holds until it is deleted.'),
  })
  .meta({ oneOf: revocationTargets.map((name) => ({ required: [name] })) })
  .refine((spec) => revocationTargets.filter((name) => spec[name] !== undefined).length === 1, {
    message: `must name exactly one of ${revocationTargets.join(', ')}`,
  })
  .describe('What is taken back, and why: exactly one of podUID, serviceAccount, node and serial.');

/** Takes back the proof of a pod, a service account, a node or a certificate before its certificates expire. */
export const revocationSchema = kindSchema(myelinVersion, 'Revocation', {
  spec: revocationSpec,
  status: z
    .object({
      target: z.string().optional().describe('What is revoked, in words.'),
      sequence: z.int().optional().describe('The trust bundle from which on nodes are told.'),
      conditions,
    })
    .optional()
    .describe('What the controller says of it.'),
}).describe(
  'Takes back the proof of a pod, a service account, a node or a certificate before its certificates expire: nobody accepts it any more, and tunnels that it made end.',
);
export type Revocation = z.infer<typeof revocationSchema>;

/** What holds for the whole cluster. What is absent is as the agents' own options say. */
export const clusterSettingsSchema = kindSchema(myelinVersion, 'ClusterSettings', {
  spec: z
    .object({
      defaultVerdict: z
        .enum(['allow', 'deny'])
        .optional()
        .describe('What happens to a pod that no policy selects; a namespace’s myelin.dev/default-verdict wins.'),
      breachRadius: z
        .enum(['pod', 'node'])
        .optional()
        .describe('Whose keys a stolen key endangers: one pair of pods, or one pair of nodes.'),
      svidLifetimeSeconds: z.int().min(60).max(86_400).optional().describe('How long a pod’s certificate lives.'),
      rekeySeconds: z.int().min(10).max(86_400).optional().describe('How long a security association lives.'),
      rekeyBytes: z.int().min(65_536).optional().describe('How much one security association carries.'),
      istioRootNamespace: dnsLabel
        .optional()
        .describe(
          'The namespace whose Istio policies are about the whole mesh; istio-system where nobody says another.',
        ),
    })
    .describe('What holds for every node. What is absent is as the agents’ own options say.'),
  status: z
    .object({
      trustDomain: z.string().optional().describe('Of the cluster’s certificates, as the controller signs them.'),
      conditions,
    })
    .optional()
    .describe('What the controller says of it.'),
}).describe(
  'What holds for the whole cluster. There is one, with the name “default”; agents take up its changes at once.',
);
export type ClusterSettings = z.infer<typeof clusterSettingsSchema>;

/** The only name that a ClusterSettings may have. */
export const clusterSettingsName = 'default';
