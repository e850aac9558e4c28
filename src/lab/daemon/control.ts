import { request } from 'node:http';
import { daemonSocket } from '../connect.ts';
import { LabError } from '../error.ts';
import type { LabPlan } from '../plan.ts';

/** Asks the lab's daemon to start a node's pods anew. @throws {LabError} `ProcessFailed` where it refuses or is not there */
export function restartPods(plan: LabPlan, node: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) =>
      reject(new LabError('ProcessFailed', `the pods of ${node} were not restarted: ${why}`));
    request({ socketPath: daemonSocket(plan), method: 'POST', path: `/nodes/${node}/restart` }, (response) => {
      response.resume();
      response.on('end', () => (response.statusCode === 200 ? resolve() : fail(`status ${response.statusCode}`)));
    })
      .on('error', (error) => fail(error.message))
      .end();
  });
}
