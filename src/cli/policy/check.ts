import { basename } from 'node:path';
import { isApiError } from '../../api/client/error.ts';
import type { Api } from '../../api/client/types.ts';
import { apiVersionOf, type KubeObject, kinds, policyResources, type Resource } from '../../api/kinds.ts';
import {
  type ManifestDocument,
  ManifestError,
  manifestFiles,
  type Place,
  readDocuments,
} from '../../api/manifest-file.ts';
import { type CheckInput, checkPolicies, type ExistingCluster, type Finding } from '../../policy/check/check.ts';
import { readNamespace, readWorkload } from '../../policy/check/workloads.ts';
import { policyKindOf } from '../../policy/kinds.ts';
import { type ClusterFlags, openCluster } from '../cluster.ts';
import { paint, table } from '../output.ts';

export interface CheckFlags extends ClusterFlags {
  readonly file: readonly string[];
  readonly namespace: string;
  readonly filesOnly?: boolean;
  readonly output: 'table' | 'json';
}

interface Item extends CheckInput {
  readonly document: ManifestDocument;
  /** Of the object in its document. */
  readonly path: readonly PropertyKey[];
}

interface Row extends Place {
  readonly severity: Finding['severity'];
  readonly code: Finding['code'] | 'yaml';
  readonly policy: string;
  readonly field: string;
  readonly message: string;
}

/** Checks manifests and prints what is found; sets the exit code. @throws {MyelinError} where the cluster is not there */
export async function check(flags: CheckFlags): Promise<void> {
  const rows: Row[] = [];
  const documents = manifestFiles(flags.file).flatMap((file) => {
    try {
      return readDocuments(file);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      for (const { file: name, line, column, message } of error.issues)
        rows.push({ file: name, line, column, severity: 'error', code: 'yaml', policy: '', field: '', message });
      return [];
    }
  });
  const items = documents.flatMap(expand);
  const asked = !flags.filesOnly && (flags.lab !== undefined || flags.kubeconfig !== undefined);
  const existing = asked ? await readCluster(flags) : undefined;
  const report = checkPolicies(items, {
    defaultNamespace: flags.namespace,
    ...(existing === undefined ? {} : { existing }),
  });
  for (const { input, path, severity, code, policy, field, message } of report.findings) {
    const item = items[input];
    if (item === undefined) continue;
    // An unknown field is pointed at by its name, everything else by its value.
    const place = item.document.placeOf([...item.path, ...path], message === 'is not a field of this kind');
    rows.push({ ...place, severity, code, policy, field, message });
  }
  if (flags.output === 'json')
    console.log(JSON.stringify({ policies: report.policies, pods: report.pods, findings: rows }, null, 2));
  else print(rows, report, existing !== undefined);
  if (rows.length > 0) process.exitCode = rows.some(({ severity }) => severity === 'error') ? 1 : 2;
}

/** The objects of a document: `kind: List` stands for its items. */
function expand(document: ManifestDocument): Item[] {
  const name = basename(document.file).replace(/\.(ya?ml|json)$/, '');
  const { value } = document;
  const isObject = typeof value === 'object' && value !== null;
  if (!isObject || !('kind' in value) || value.kind !== 'List' || !('items' in value) || !Array.isArray(value.items))
    return [{ document, object: value, name, path: [] }];
  return value.items.map((object: unknown, index) => ({ document, object, name, path: ['items', index] }));
}

async function readCluster(flags: CheckFlags): Promise<ExistingCluster> {
  const cluster = await openCluster(flags);
  try {
    const list = <T extends KubeObject>(resource: Resource<T>) => rawObjects(cluster.api, resource);
    const pods = (await list(kinds.Pod)).filter(isAlive).flatMap((pod) => readWorkload(pod) ?? []);
    const namespaces = (await list(kinds.Namespace)).flatMap((one) => readNamespace(one) ?? []);
    const policies = [];
    for (const resource of [kinds.NetworkPolicy, ...policyResources]) {
      const kind = policyKindOf({ apiVersion: apiVersionOf(resource), kind: resource.kind });
      for (const object of await list<KubeObject>(resource)) {
        const parsed = kind?.parse(object);
        if (parsed?.ok === true) policies.push(...parsed.policies);
      }
    }
    return { pods, namespaces: new Map(namespaces.map(({ name, labels }) => [name, labels])), policies };
  } finally {
    cluster.close();
  }
}

/** As they came, with the type that lists leave out. None of a kind that the cluster does not know. */
async function rawObjects<T extends KubeObject>(api: Api, resource: Resource<T>): Promise<KubeObject[]> {
  try {
    const { entries } = await api.list(resource);
    return entries.map(({ raw }) => ({ ...raw, apiVersion: apiVersionOf(resource), kind: resource.kind }));
  } catch (error) {
    if (isApiError(error, 'NotFound')) return [];
    throw error;
  }
}

function isAlive(pod: object): boolean {
  const status = 'status' in pod && typeof pod.status === 'object' && pod.status !== null ? pod.status : {};
  return !('phase' in status && (status.phase === 'Succeeded' || status.phase === 'Failed'));
}

function print(rows: readonly Row[], { policies, pods }: { policies: number; pods: number }, asked: boolean): void {
  if (rows.length > 0)
    console.log(
      table<Row>(
        [
          { title: 'PLACE', value: ({ file, line, column }) => (line === 0 ? file : `${file}:${line}:${column}`) },
          { title: '', value: ({ severity }) => paint(severity === 'error' ? 'red' : 'yellow', severity) },
          { title: 'POLICY', value: ({ policy }) => policy },
          { title: 'FIELD', value: ({ field }) => field },
          { title: 'FOUND', value: ({ message }) => message },
        ],
        rows,
      ),
    );
  const where = asked ? 'the cluster' : 'the files';
  const against = pods === 0 ? `no pods in ${where} to hold them against` : `held against ${pods} pods of ${where}`;
  const errors = rows.filter(({ severity }) => severity === 'error').length;
  console.error(`${policies} policies, ${against}; ${errors} errors, ${rows.length - errors} warnings`);
}
