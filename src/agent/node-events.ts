import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Api } from '../api/client/types.ts';
import { kinds } from '../api/kinds.ts';

/** Writes what somebody should see about this node into the API, as a warning event of the Node. Never throws. */
export async function warnOfNode(
  node: string,
  reason: string,
  message: string,
  deps: { readonly api: Api; readonly logger: Logger },
): Promise<void> {
  const now = `${new Date().toISOString().slice(0, 19)}Z`;
  try {
    await deps.api.create(kinds.Event, {
      apiVersion: 'v1',
      kind: 'Event',
      // Events of what has no namespace are in `default`, where kubectl describe looks for them.
      metadata: { namespace: 'default', name: `${node}.${randomBytes(8).toString('hex')}` },
      involvedObject: { apiVersion: 'v1', kind: 'Node', name: node, uid: node },
      type: 'Warning',
      reason,
      message,
      source: { component: 'myelin-agent', host: node },
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    });
  } catch (error) {
    deps.logger.warn({ err: error, reason }, 'an event cannot be written');
  }
}
