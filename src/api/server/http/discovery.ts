import type { Catalog, ServedKind } from '../catalog.ts';
import { noSuchPath } from '../status.ts';
import type { Exchange } from './exchange.ts';

/** What clients read to know which API this is: Kubernetes 1.32's, as far as it goes. */
export const versionInfo = {
  major: '1',
  minor: '32',
  gitVersion: 'v1.32.0+myelin',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: '',
  compiler: '',
  platform: 'linux/amd64',
};

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

/** Answers /api, /apis, and the lists of kinds below them. @returns false where the path is none of these. */
export function discover(exchange: Exchange, catalog: Catalog): boolean {
  const [root, group, version, ...rest] = exchange.path.split('/').filter((part) => part !== '');
  if (root === 'api' && group === undefined)
    exchange.send(200, { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] });
  else if (root === 'api' && group === 'v1' && version === undefined)
    exchange.send(200, resourceList('v1', kindsIn(catalog, '', 'v1')));
  else if (root === 'apis' && group === undefined)
    exchange.send(200, {
      kind: 'APIGroupList',
      apiVersion: 'v1',
      groups: groupNames(catalog).map((name) => groupOf(catalog, name)),
    });
  else if (root === 'apis' && group !== undefined && version === undefined) {
    if (!groupNames(catalog).includes(group)) throw noSuchPath();
    exchange.send(200, { kind: 'APIGroup', apiVersion: 'v1', ...groupOf(catalog, group) });
  } else if (root === 'apis' && group !== undefined && version !== undefined && rest.length === 0) {
    const kinds = kindsIn(catalog, group, version);
    if (kinds.length === 0) throw noSuchPath();
    exchange.send(200, resourceList(`${group}/${version}`, kinds));
  } else return false;
  return true;
}

/** The named groups, in a stable order. */
export function groupNames(catalog: Catalog): string[] {
  const names = new Set(catalog.all().map(({ group }) => group));
  names.delete('');
  return [...names].sort();
}

export function kindsIn(catalog: Catalog, group: string, version: string): ServedKind[] {
  return catalog.all().filter((kind) => kind.group === group && kind.version === version);
}

function groupOf(catalog: Catalog, name: string) {
  const served = catalog.all().filter(({ group }) => group === name);
  const versions = [...new Set(served.map(({ version }) => version))].map((version) => ({
    groupVersion: `${name}/${version}`,
    version,
  }));
  return { name, versions, preferredVersion: versions[0] };
}

function resourceList(groupVersion: string, kinds: readonly ServedKind[]) {
  // kubectl shows the kinds of `get all` in this order.
  const sorted = kinds.toSorted((a, b) => (a.plural < b.plural ? -1 : 1));
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources: sorted.flatMap(resourcesOf) };
}

function resourcesOf({ plural, singular, namespaced, kind, shortNames, categories, status, id }: ServedKind) {
  const base = { namespaced, kind };
  const names = {
    ...(shortNames.length > 0 ? { shortNames } : {}),
    ...(categories.length > 0 ? { categories } : {}),
  };
  return [
    { name: plural, singularName: singular, ...base, verbs, ...names },
    ...(status ? [{ name: `${plural}/status`, singularName: '', ...base, verbs: ['get', 'patch', 'update'] }] : []),
    ...(id === 'apps/deployments'
      ? [
          {
            name: 'deployments/scale',
            singularName: '',
            namespaced,
            group: 'autoscaling',
            version: 'v1',
            kind: 'Scale',
            verbs: ['get', 'patch', 'update'],
          },
        ]
      : []),
  ];
}
