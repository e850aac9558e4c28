import { z } from 'zod';
import { policyKinds } from '../../policy/kinds.ts';
import { condition, freeForm, kindSchema, listMap } from './meta.ts';

/** A policy of any kind as the API sees it: what its spec says only the kind's front end reads (policy/kinds.ts). */
export function policySchema(apiVersion: string, kind: string) {
  return kindSchema(apiVersion, kind, {
    spec: freeForm.optional(),
    /** Of Cilium's kinds: several rules in one object. */
    specs: z.array(freeForm).optional(),
    status: z.looseObject({ conditions: listMap(condition, 'type').optional() }).optional(),
  });
}
export type PolicyObject = z.infer<ReturnType<typeof policySchema>>;

/** The kinds that only front ends know; NetworkPolicy is Kubernetes' own and has a schema of its own (network.ts). */
export const foreignPolicyKinds = policyKinds.filter(({ kind }) => kind !== 'NetworkPolicy');
