import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { ApiClient } from '../../api/client/client.ts';
import { readKubeconfig } from '../../api/client/kubeconfig.ts';
import { pkiPaths } from '../pki.ts';
import { planOfState, readState } from '../state.ts';
import { LabDaemon } from './daemon.ts';

/*
 * The lab's daemon, in the control namespace: what schedulers, controllers and kubelets are in a real cluster.
 */

const { values } = parseArgs({
  options: { lab: { type: 'string' }, 'log-level': { type: 'string', default: 'info' } },
});
const log = pino({ name: 'labd', level: values['log-level'] }, pino.destination({ fd: 2, sync: true }));
const state = readState(values.lab ?? '');
if (state === undefined) {
  log.fatal({ lab: values.lab }, 'there is no such lab');
  process.exit(1);
}
const plan = planOfState(state);
const daemon = new LabDaemon(plan, { api: new ApiClient(readKubeconfig(pkiPaths(plan).kubeconfig('labd'))), log });
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => {
    daemon.close();
    process.exit(0);
  });
process.on('unhandledRejection', (err) => log.error({ err }, 'unhandled'));
await daemon.start();
log.info({ lab: plan.name }, 'running');
