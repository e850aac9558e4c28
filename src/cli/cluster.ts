import type { Command } from 'commander';
import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { CaClient } from '../controller/ca-client.ts';
import { MyelinError } from '../model/error.ts';
import { labFlag } from './flags.ts';

/** Which cluster a command is about; shared by every command that asks the API or the controller. */
export interface ClusterFlags {
  readonly kubeconfig?: string;
  readonly controller?: string;
  readonly lab?: string;
}

export function clusterFlags(command: Command): Command {
  return labFlag(
    command.option(
      '--kubeconfig <file>',
      'an administrator’s way to the API (default: KUBECONFIG where it is set, else the lab’s)',
    ),
  );
}

export interface Cluster {
  readonly api: ApiClient;
  /** @throws {MyelinError} `NoController` where nobody said where it is */
  readonly ca: () => CaClient;
  close(): void;
}

/** @throws {MyelinError} where there is no such cluster */
export async function openCluster(flags: ClusterFlags): Promise<Cluster> {
  const file = flags.kubeconfig ?? (flags.lab === undefined ? process.env.KUBECONFIG : undefined);
  if (file !== undefined && file !== '') {
    const endpoint = readKubeconfig(file);
    const api = new ApiClient(endpoint);
    const ca = () => {
      const { cert, key } = endpoint;
      if (flags.controller === undefined || cert === undefined || key === undefined)
        throw new MyelinError(
          'NoController',
          'say where the controller is (--controller https://…:7443); the kubeconfig needs a client certificate',
        );
      return new CaClient({ url: flags.controller, ca: endpoint.ca, cert, key });
    };
    return { api, ca, close: () => api.close() };
  }
  // Loaded only when a lab is meant.
  const { Lab } = await import('../lab/lab.ts');
  const { connectApi, connectCa } = await import('../lab/connect.ts');
  const { plan } = Lab.open(flags.lab);
  const api = connectApi(plan);
  return { api, ca: () => connectCa(plan), close: () => api.close() };
}
