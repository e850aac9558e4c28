import { z } from 'zod';
import type { FlowEvent } from '../model/flow.ts';

/** What the agent answers on agent.sock, as its readers parse it. Fields are added, never given a second meaning. */

/** Of `GET /flows?follow=1&last=N`: how many of the first lines are from before the question. */
export const pastHeader = 'x-myelin-past';

/** One thing that is well or not, in words a person can act on. */
const conditionSchema = z.object({
  name: z.string(),
  ok: z.boolean(),
  message: z.string(),
});

const gauge = z.object({
  used: z.number(),
  capacity: z.number(),
  /** Of the kernel's memory. */
  bytes: z.number().optional(),
  /** How many entries the map may come to have; absent of one that does not grow. */
  most: z.number().optional(),
  /** What its capacity was in the beginning; absent where it has not grown. */
  grownFrom: z.number().optional(),
});

export const statusSchema = z.object({
  node: z.string(),
  version: z.string(),
  startedAt: z.string(),
  driver: z.string(),
  conditions: z.array(conditionSchema),
  endpoints: z.number(),
  policy: z.object({
    revision: z.number(),
    policies: z.number(),
    identities: z.number(),
    ruleSets: z.number(),
    /** Map name to how full it is. */
    maps: z.record(z.string(), gauge),
    /** Policies that could not be read and therefore close what they select. */
    broken: z.array(z.object({ policy: z.string(), message: z.string() })),
    /** Why the newest revision was refused; absent when it is in force. */
    refused: z.string().optional(),
  }),
  tunnels: z.object({
    up: z.number(),
    opening: z.number(),
    failed: z.number(),
    /** Handshakes refused since the start, by reason. */
    refusals: z.record(z.string(), z.number()),
  }),
  /** Packets dropped by the datapath and by the tunnel driver, by reason. */
  drops: z.object({ datapath: z.record(z.string(), z.number()), tunnel: z.record(z.string(), z.number()) }),
  /** Telemetry that was lost, by cause. */
  losses: z.object({
    ring: z.number(),
    overwritten: z.number(),
    slowFollower: z.number(),
    proxy: z.number().default(0),
  }),
});
export type StatusReport = z.infer<typeof statusSchema>;

export const tunnelSchema = z.object({
  node: z.string(),
  localPod: z.string(),
  remotePod: z.string(),
  localSpiffeId: z.string(),
  remoteSpiffeId: z.string(),
  remoteNode: z.string(),
  remoteAddress: z.string(),
  state: z.string(),
  driver: z.string(),
  cipher: z.string(),
  group: z.string(),
  /** `pod`: a handshake of the pair's own; `node`: derived from one of the two nodes'. */
  radius: z.enum(['pod', 'node']).default('pod'),
  /** Serial number of the certificate that the other pod proved itself by. */
  remoteSerial: z.string().optional(),
  spiIn: z.number().optional(),
  spiOut: z.number().optional(),
  /** Unix time, milliseconds. */
  establishedAt: z.number().optional(),
  expiresAt: z.number().optional(),
  bytesIn: z.number(),
  bytesOut: z.number(),
  packetsIn: z.number(),
  packetsOut: z.number(),
  rekeys: z.number(),
  /** Why it is down, in words. */
  lastError: z.string().optional(),
});
export type TunnelReport = z.infer<typeof tunnelSchema>;

/** An address that a pod was told by DNS. */
export const nameSchema = z.object({
  node: z.string(),
  /** `namespace/name`; empty where it is gone. */
  pod: z.string(),
  address: z.string(),
  /** That it asked for last. */
  name: z.string(),
  /** The patterns of its egress policy that the address counts for, and until when (Unix time, milliseconds). */
  patterns: z.array(z.object({ pattern: z.string(), expiresAt: z.number() })),
  learntAt: z.number(),
});
export type NameReport = z.infer<typeof nameSchema>;

/** Two pods, `namespace/name` each. */
export const traceQuestionSchema = z.strictObject({ source: z.string().min(1), destination: z.string().min(1) });
export type TraceQuestion = z.infer<typeof traceQuestionSchema>;

export const traceAnswerSchema = z.object({
  source: z.string(),
  destination: z.string(),
  node: z.string(),
  peerNode: z.string(),
  /** Why there is nothing to see, or not all. */
  note: z.string().optional(),
  trace: z
    .object({
      role: z.enum(['initiator', 'responder']),
      outcome: z.string(),
      problem: z.string(),
      steps: z.array(z.object({ step: z.string(), ms: z.number(), detail: z.string() })),
      checks: z.array(
        z.object({ check: z.string(), result: z.enum(['passed', 'failed', 'not reached']), detail: z.string() }),
      ),
    })
    .optional(),
  /** The tunnel as it is after it. */
  tunnel: tunnelSchema.optional(),
  /** When a packet had left under the new key, since the handshake was done. */
  firstPacketMs: z.number().optional(),
});
export type TraceAnswer = z.infer<typeof traceAnswerSchema>;

/** The key of one direction of one tunnel. */
export const keySchema = z.object({
  direction: z.enum(['in', 'out']),
  spi: z.number(),
  /** On the underlay. */
  source: z.string(),
  destination: z.string(),
  /** Inner addresses, `local remote`. */
  selectors: z.array(z.string()),
  /** Key and salt, hexadecimal. */
  secret: z.string(),
});
export type KeyReport = z.infer<typeof keySchema>;

export const endpointSchema = z.object({
  namespace: z.string(),
  pod: z.string(),
  uid: z.string(),
  addresses: z.array(z.string()),
  interface: z.string(),
  identity: z.number(),
  ready: z.boolean(),
});
export type EndpointReport = z.infer<typeof endpointSchema>;

/** `namespace/name`, an IP address, `host` or `world`. */
const whyEnd = z.string().min(1);
const lineText = z
  .string()
  .max(8192)
  .regex(/^[^\r\n\0]*$/);
export const whyQuestionSchema = z.strictObject({
  source: whyEnd,
  destination: whyEnd,
  protocol: z.enum(['TCP', 'UDP', 'SCTP', 'ICMP', 'ICMPv6']).default('TCP'),
  port: z.number().int().min(0).max(65_535).default(0),
  /** A request as it would be made on the connection. Without a host it has none, as in HTTP/1.0. */
  http: z
    .strictObject({
      method: lineText.min(1),
      target: lineText.min(1),
      host: lineText.optional(),
      headers: z.array(z.tuple([lineText.min(1), lineText])).default([]),
    })
    .optional(),
  /** TLS on the connection, by the server that its ClientHello names. */
  tls: z.strictObject({ serverName: lineText.min(1).optional() }).optional(),
});
export type WhyQuestion = z.infer<typeof whyQuestionSchema>;

const whySideSchema = z.object({
  direction: z.enum(['egress', 'ingress']),
  verdict: z.enum(['allow', 'deny']),
  /** What decides, in one phrase. */
  by: z.string(),
  /** Whether the entries in this node's datapath say the same; absent where the pod is not on this node. */
  datapath: z.enum(['agrees', 'differs']).optional(),
});
export const whyAnswerSchema = z.object({
  source: z.string(),
  destination: z.string(),
  verdict: z.enum(['allow', 'deny']),
  sides: z.array(whySideSchema),
  /** The explanation, a line each. */
  explanation: z.array(z.string()),
});
export type WhyAnswer = z.infer<typeof whyAnswerSchema>;

/** The shape is the model's and both ends are of one version: what is checked is that it is a flow at all. */
export const flowSchema = z.custom<FlowEvent>(
  (value) =>
    typeof value === 'object' && value !== null && 'verdict' in value && 'source' in value && 'destination' in value,
  'not a flow',
);
