import { createHash } from 'node:crypto';
import type { JsonObject } from '../../json.ts';
import type { Catalog, ServedKind } from '../catalog.ts';
import { noSuchPath } from '../status.ts';
import { groupNames, kindsIn, versionInfo } from './discovery.ts';
import type { Exchange } from './exchange.ts';
import { encodeOpenApiV2 } from './openapi-protobuf.ts';
import { definitionName, definitions, gvkOf, type PatchOperation, reference } from './openapi-schema.ts';

// Clients ask for …spec.v2@v1.0+protobuf, but an @ may not stand in a Content-Type, and Go's parser refuses it.
const protobufV2 = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

/** The description of the API, made when it is asked for and kept until the kinds change. */
export class OpenApi {
  readonly #catalog: Catalog;
  #kept = new Map<string, Buffer>();
  #generation = -1;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
  }

  /** Answers /openapi/v2 and /openapi/v3…. @throws {StatusError} `NotFound` */
  answer(exchange: Exchange): void {
    const [, version, ...group] = exchange.path.split('/').filter((part) => part !== '');
    if (version === 'v2' && group.length === 0) {
      const accept = exchange.request.headers.accept ?? '';
      if (accept.includes('protobuf'))
        exchange.sendText(
          200,
          this.#keep('v2 protobuf', () => this.#protobuf()),
          protobufV2,
        );
      else
        exchange.sendText(
          200,
          this.#keep('v2', () => Buffer.from(JSON.stringify(this.#documentV2()))),
        );
    } else if (version === 'v3' && group.length === 0)
      exchange.sendText(
        200,
        this.#keep('v3', () => Buffer.from(JSON.stringify(this.#index()))),
      );
    else if (version === 'v3') exchange.sendText(200, this.#groupDocument(group.join('/')));
    else throw noSuchPath();
  }

  #keep(name: string, make: () => Buffer): Buffer {
    if (this.#generation !== this.#catalog.generation) {
      this.#kept = new Map();
      this.#generation = this.#catalog.generation;
    }
    const kept = this.#kept.get(name) ?? make();
    this.#kept.set(name, kept);
    return kept;
  }

  #protobuf(): Buffer {
    const kinds = this.#catalog.all();
    return encodeOpenApiV2({
      version: versionInfo.gitVersion,
      definitions: definitions(kinds, 'v2'),
      patches: patchOperations(kinds),
    });
  }

  #documentV2(): JsonObject {
    const kinds = this.#catalog.all();
    return {
      swagger: '2.0',
      info: { title: 'Kubernetes', version: versionInfo.gitVersion },
      paths: pathsOf(patchOperations(kinds), 'v2'),
      definitions: definitions(kinds, 'v2'),
    };
  }

  #groupVersions(): { path: string; kinds: ServedKind[] }[] {
    const named = groupNames(this.#catalog).flatMap((group) =>
      [
        ...new Set(
          this.#catalog
            .all()
            .filter((kind) => kind.group === group)
            .map(({ version }) => version),
        ),
      ].map((version) => ({
        path: `apis/${group}/${version}`,
        kinds: kindsIn(this.#catalog, group, version),
      })),
    );
    return [{ path: 'api/v1', kinds: kindsIn(this.#catalog, '', 'v1') }, ...named];
  }

  #index(): JsonObject {
    const paths: JsonObject = {};
    for (const { path } of this.#groupVersions()) {
      const hash = createHash('sha256').update(this.#groupDocument(path)).digest('hex').toUpperCase();
      paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${hash}` };
    }
    return { paths };
  }

  #groupDocument(path: string): Buffer {
    const found = this.#groupVersions().find((group) => group.path === path);
    if (found === undefined) throw noSuchPath();
    return this.#keep(path, () =>
      Buffer.from(
        JSON.stringify({
          openapi: '3.0.0',
          info: { title: 'Kubernetes', version: versionInfo.gitVersion },
          paths: pathsOf(patchOperations(found.kinds), 'v3'),
          components: { schemas: definitions(found.kinds, 'v3') },
        }),
      ),
    );
  }
}

function patchOperations(kinds: readonly ServedKind[]): PatchOperation[] {
  return kinds.map((kind) => {
    const root = kind.group === '' ? '/api/v1' : `/apis/${kind.group}/${kind.version}`;
    const namespace = kind.namespaced ? '/namespaces/{namespace}' : '';
    return {
      path: `${root}${namespace}/${kind.plural}/{name}`,
      kind,
      parameters: [
        { name: 'dryRun', type: 'string' },
        { name: 'fieldManager', type: 'string' },
        { name: 'fieldValidation', type: 'string' },
        { name: 'force', type: 'boolean' },
      ],
    };
  });
}

function pathsOf(operations: readonly PatchOperation[], dialect: 'v2' | 'v3'): JsonObject {
  const entries = operations.map(({ path, kind, parameters }): [string, JsonObject] => {
    const schema = reference(definitionName(kind), dialect);
    const ok =
      dialect === 'v2'
        ? { description: 'OK', schema }
        : { description: 'OK', content: { 'application/json': { schema } } };
    const inQuery = parameters.map(({ name, type }) =>
      dialect === 'v2' ? { name, in: 'query', type } : { name, in: 'query', schema: { type } },
    );
    const patch = {
      operationId: `patch${kind.kind}`,
      parameters: inQuery,
      responses: { '200': ok },
      'x-kubernetes-action': 'patch',
      'x-kubernetes-group-version-kind': gvkOf(kind),
    };
    return [path, { patch }];
  });
  return Object.fromEntries(entries);
}
