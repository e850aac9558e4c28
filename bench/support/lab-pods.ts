import type { Lab } from '../../src/lab/lab.ts';
import { containerOf, findPod } from '../../src/lab/pods.ts';

/** @returns Path of a pod's network namespace, for loads that are started from outside it. */
export async function podNetns(lab: Lab, pod: { readonly namespace: string; readonly name: string }): Promise<string> {
  const found = await findPod(lab.api, { namespace: pod.namespace, pod: pod.name });
  return `/proc/${containerOf(lab.plan, found).pid}/ns/net`;
}
