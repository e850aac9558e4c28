import { type Decision, decide, enforced, type PolicyFlow } from './decide.ts';
import type { Policy } from './rule.ts';
import type { ClusterView } from './view.ts';

/** The view in which audited policies are enforced beside the others; the same object where there are none. */
export function asIfEnforced(view: ClusterView): ClusterView {
  const policies = enforcing(view.policies);
  return policies === view.policies ? view : { ...view, policies };
}

/**
 * What audited policies would make of a flow that passes.
 * @returns The decision as it would be; undefined where it would be allowed too, or is denied as it is.
 */
export function wouldDeny(view: ClusterView, flow: PolicyFlow): Decision | undefined {
  const wanted = asIfEnforced(view);
  if (wanted === view || decide(view, flow).verdict === 'deny') return undefined;
  const decision = decide(wanted, flow);
  return decision.verdict === 'deny' ? decision : undefined;
}

/** By the very list, which is another one whenever a policy changes. */
const made = new WeakMap<readonly Policy[], readonly Policy[]>();

function enforcing(policies: readonly Policy[]): readonly Policy[] {
  const known = made.get(policies);
  if (known !== undefined) return known;
  const wanted = policies.every(enforced)
    ? policies
    : policies.map((policy): Policy => {
        if (enforced(policy)) return policy;
        return { ...policy, options: { ...policy.options, mode: 'enforce' } };
      });
  made.set(policies, wanted);
  return wanted;
}
