import { z } from 'zod';
import type { PeerMatch } from '../rule.ts';
import { defaultTrustDomain } from '../view.ts';
import { workloadSelectorSchema } from './schema.ts';

/** What Istio's own installation settings say. */
export interface IstioContext {
  /** Policies of this namespace are about the whole mesh. Default `istio-system`. */
  readonly rootNamespace?: string;
  /** Default `cluster.local`. */
  readonly trustDomain?: string;
  /** For a manifest that names none. Default `default`. */
  readonly defaultNamespace?: string;
}

export const defaultRootNamespace = 'istio-system';

/** Where a policy stands. */
export interface Scope {
  readonly namespace: string;
  readonly name: string;
  readonly isRoot: boolean;
  readonly trustDomain: string;
}

/** Just enough of a foreign object to know where it stands. */
export const scopeOutline = z.looseObject({
  metadata: z.looseObject({ name: z.string().min(1), namespace: z.string().nullish() }),
});
/** And whom it selects. */
export const selectorOutline = z.looseObject({
  spec: z.looseObject({ selector: workloadSelectorSchema.optional() }).optional(),
});

export function scopeOf(
  { namespace, name }: { readonly namespace?: string | null | undefined; readonly name: string },
  { rootNamespace = defaultRootNamespace, trustDomain = defaultTrustDomain, defaultNamespace }: IstioContext,
): Scope {
  const own = namespace ?? defaultNamespace ?? 'default';
  return { namespace: own, name, isRoot: own === rootNamespace, trustDomain };
}

/** The pods of the policy's namespace (of all, where it is the root) that have all the selector's labels. */
export function subjectOf(
  { namespace, isRoot }: Scope,
  selector: { readonly matchLabels?: ReadonlyMap<string, string> | undefined } | undefined,
): PeerMatch {
  const labels = selector?.matchLabels ?? new Map<string, string>();
  return {
    kind: 'pods',
    namespaces: isRoot ? { selector: {} } : { name: namespace },
    pods: labels.size === 0 ? {} : { matchLabels: Object.fromEntries(labels) },
  };
}
