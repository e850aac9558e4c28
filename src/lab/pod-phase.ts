import type { Pod } from '../api/kinds.ts';

/** Whether a pod serves: its condition says so, and nobody has asked it to go. */
export function isReady({ status, metadata }: Pod): boolean {
  if (metadata.deletionTimestamp !== undefined) return false;
  return status?.conditions?.some(({ type, status: holds }) => type === 'Ready' && holds === 'True') === true;
}

/** Whether a pod has ended for good: nobody starts it again. */
export function isOver({ status }: Pod): boolean {
  return status?.phase === 'Failed' || status?.phase === 'Succeeded';
}
