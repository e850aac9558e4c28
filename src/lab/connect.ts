import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { CaClient } from '../controller/ca-client.ts';
import { controllerUrl, pkiPaths } from './pki.ts';
import type { LabPlan } from './plan.ts';

/** Where the lab's daemon passes connections on to the API server: a file is reachable from any network namespace. */
export function apiSocket(plan: LabPlan): string {
  return `${plan.directory}/api.sock`;
}

/** The same for the controller's CA service. */
export function controllerSocket(plan: LabPlan): string {
  return `${plan.directory}/controller.sock`;
}

/** Where the daemon takes requests that the API has no words for. */
export function daemonSocket(plan: LabPlan): string {
  return `${plan.directory}/labd.sock`;
}

/** A client of the lab's API, as its administrator, for processes outside of the lab. */
export function connectApi(plan: LabPlan): ApiClient {
  return new ApiClient({ ...readKubeconfig(pkiPaths(plan).kubeconfig('admin')), socketPath: apiSocket(plan) });
}

/** The lab's CA, as its administrator, for processes outside of the lab. */
export function connectCa(plan: LabPlan): CaClient {
  const { ca, cert = '', key = '' } = readKubeconfig(pkiPaths(plan).kubeconfig('admin'));
  return new CaClient({ url: controllerUrl(plan), ca, cert, key, socketPath: controllerSocket(plan) });
}
