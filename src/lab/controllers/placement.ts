import type { Node, Pod } from '../../api/kinds.ts';

/**
 * Chooses a node for a pod: of those that it tolerates and selects, the one with the fewest pods of the same kind, then
 * the fewest pods at all, then the first by name. So a service's replicas, and its callers, end up on different nodes.
 * @param pods Every pod that has a node.
 * @returns The node's name, or why there is none.
 */
export function chooseNode(
  pod: Pod,
  nodes: readonly Node[],
  pods: readonly Pod[],
): { readonly node: string } | { readonly reason: string } {
  const fit = nodes.filter((node) => fits(pod, node));
  if (fit.length === 0) return { reason: `0/${nodes.length} nodes are available for it` };
  const alive = pods.filter((other) => other.metadata.deletionTimestamp === undefined);
  const group = groupOf(pod);
  const score = (name: string): [number, number] => {
    const here = alive.filter((other) => other.spec.nodeName === name);
    return [here.filter((other) => groupOf(other) === group).length, here.length];
  };
  const ranked = fit
    .map((node) => ({ name: node.metadata.name ?? '', score: score(node.metadata.name ?? '') }))
    .sort((a, b) => a.score[0] - b.score[0] || a.score[1] - b.score[1] || byName(a.name, b.name));
  return { node: ranked[0]?.name ?? '' };
}

/** node-2 before node-10. */
function byName(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

function groupOf({ metadata }: Pod): string {
  const owner = metadata.ownerReferences?.find((each) => each.controller === true);
  return owner?.uid ?? `${metadata.namespace}/${metadata.labels?.app ?? metadata.name}`;
}

function fits({ spec }: Pod, { metadata, spec: node = {} }: Node): boolean {
  const labels: Record<string, string> = { 'kubernetes.io/hostname': metadata.name ?? '', ...metadata.labels };
  if (Object.entries(spec.nodeSelector ?? {}).some(([key, value]) => labels[key] !== value)) return false;
  if (node.unschedulable === true) return false;
  const bad = (node.taints ?? []).filter(({ effect }) => effect !== 'PreferNoSchedule');
  return bad.every((taint) =>
    (spec.tolerations ?? []).some(
      ({ key, operator = 'Equal', value = '', effect }) =>
        (effect === undefined || effect === taint.effect) &&
        (key === undefined || key === '' ? operator === 'Exists' : key === taint.key) &&
        (operator === 'Exists' || value === (taint.value ?? '')),
    ),
  );
}
