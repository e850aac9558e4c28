import { MyelinError } from '../../../model/error.ts';
import type { AnyObject } from '../../json.ts';
import { type FieldRequirement, matcher, parseFieldSelector, parseLabelSelector } from '../../selector.ts';
import { badRequest } from '../status.ts';
import type { Exchange } from './exchange.ts';
import type { Route } from './route.ts';

/** The fields that field selectors may name, beside metadata.name and metadata.namespace. */
const fields: Readonly<Record<string, readonly string[]>> = {
  '/pods': [
    'spec.nodeName',
    'spec.restartPolicy',
    'spec.schedulerName',
    'spec.serviceAccountName',
    'spec.hostNetwork',
    'status.phase',
    'status.podIP',
    'status.nominatedNodeName',
  ],
  '/nodes': ['spec.unschedulable'],
  '/namespaces': ['status.phase'],
  '/secrets': ['type'],
  '/services': ['spec.clusterIP', 'spec.type'],
  '/events': [
    'involvedObject.kind',
    'involvedObject.namespace',
    'involvedObject.name',
    'involvedObject.uid',
    'involvedObject.apiVersion',
    'involvedObject.resourceVersion',
    'involvedObject.fieldPath',
    'reason',
    'reportingComponent',
    'source',
    'type',
  ],
};

export interface Selection {
  matches(object: AnyObject): boolean;
  /** Nothing is left out, so that counts need no matching. */
  readonly all: boolean;
}

/** Reads the selectors of a list or watch. @throws {StatusError} `BadRequest` for those that cannot be read or are not supported. */
export function selectionOf(exchange: Exchange, route: Route): Selection {
  const labelText = exchange.parameter('labelSelector');
  const fieldText = exchange.parameter('fieldSelector');
  try {
    const labels = labelText === undefined ? undefined : parseLabelSelector(labelText);
    const own: FieldRequirement[] = fieldText === undefined ? [] : parseFieldSelector(fieldText);
    if (route.name !== undefined) own.push({ field: 'metadata.name', equal: true, value: route.name });
    const supported = ['metadata.name', 'metadata.namespace', ...(fields[route.kind.id] ?? [])];
    for (const { field } of own)
      if (!supported.includes(field))
        throw badRequest(`field label not supported: ${field}; supported are ${supported.join(', ')}`);
    const { namespace } = route;
    return {
      matches: matcher({ labels, fields: own, namespace }),
      all: namespace === undefined && labels === undefined && own.length === 0,
    };
  } catch (error) {
    if (error instanceof MyelinError && error.code === 'InvalidSelector') throw badRequest(error.message, error);
    throw error;
  }
}
