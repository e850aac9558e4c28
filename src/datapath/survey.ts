import type { IdentityNumber } from '../model/identity.ts';
import { ctEntry, ctKey, nameKey, nameValue } from './layouts.ts';
import type { DatapathMaps } from './objects.ts';

/** Which numbers the connection table, and what DNS taught, refer to: none of them may be given to anything new. */
export interface Survey {
  readonly lastEndpoint: number;
  readonly lastService: number;
  readonly lastRule: number;
  readonly lastPattern: number;
  readonly identities: ReadonlySet<IdentityNumber>;
}

/** Reads the connection table once, as a process starts: a full one takes some hundred milliseconds. */
export function surveyConnections(
  maps: Pick<DatapathMaps, 'connections'> & Partial<Pick<DatapathMaps, 'names'>>,
): Survey {
  let [lastEndpoint, lastService, lastRule, lastPattern] = [0, 0, 0, 0];
  const identities = new Set<IdentityNumber>();
  const key = ctKey.only('endpoint');
  const value = ctEntry.only('service', 'rule', 'remoteIdentity', 'name');
  for (const [{ endpoint }, { service, rule, remoteIdentity, name }] of maps.connections.scan(key, value)) {
    lastEndpoint = Math.max(lastEndpoint, endpoint);
    lastService = Math.max(lastService, service);
    lastRule = Math.max(lastRule, rule);
    lastPattern = Math.max(lastPattern, name);
    identities.add(remoteIdentity);
  }
  const learnt = maps.names?.scan(nameKey.only('endpoint'), nameValue.only('patterns'));
  for (const [{ endpoint }, { patterns }] of learnt ?? []) {
    lastEndpoint = Math.max(lastEndpoint, endpoint);
    lastPattern = Math.max(lastPattern, ...patterns);
  }
  return { lastEndpoint, lastService, lastRule, lastPattern, identities };
}
