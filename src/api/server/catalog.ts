import { policyKinds } from '../../policy/kinds.ts';
import { strictFields } from '../definitions.ts';
import type { AnyObject } from '../json.ts';
import { type Shape, shapeOf } from '../kinds/shape.ts';
import { apiVersionOf, builtinResources, type CustomResourceDefinition, kinds, type Resource } from '../kinds.ts';
import { checkAgainst } from '../validate.ts';
import type { Column } from './column.ts';
import { builtinColumns } from './columns.ts';
import { customColumns } from './custom/columns.ts';
import { customShape } from './custom/definition.ts';
import { customRules } from './custom/rules.ts';
import { builtinRules } from './rules/builtin.ts';
import type { Rules } from './rules/rules.ts';
import type { Store } from './storage/store.ts';

/** One version of one kind that the server serves. */
export interface ServedKind {
  /** `group/plural`: what its objects are stored under, whatever the version. */
  readonly id: string;
  readonly group: string;
  readonly version: string;
  readonly apiVersion: string;
  /** The apiVersion that stored objects have. */
  readonly storageApiVersion: string;
  readonly kind: string;
  readonly listKind: string;
  readonly plural: string;
  readonly singular: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly status: boolean;
  /** Defined by a CustomResourceDefinition. */
  readonly custom: boolean;
  readonly shape: Shape;
  readonly rules: Rules;
  readonly columns: readonly Column[];
}

/** Versions that only old clients ask for (kubectl 1.20 describes slices by this one); what they get are today's fields. */
const olderVersions: Readonly<Record<string, readonly string[]>> = {
  'discovery.k8s.io/endpointslices': ['v1beta1'],
  ...Object.fromEntries(policyKinds.map((kind) => [`${kind.group}/${kind.plural}`, kind.olderVersions ?? []])),
};

/** The kinds that are served: the built-in ones and those that CustomResourceDefinitions in the store define. */
export class Catalog {
  readonly #builtin: readonly ServedKind[] = builtinResources.flatMap((resource) => {
    const rules = builtinRules[resource.kind];
    if (rules === undefined) return [];
    const kind = serveBuiltin(resource, rules);
    const older = olderVersions[kind.id] ?? [];
    return [kind, ...older.map((version) => ({ ...kind, version, apiVersion: `${kind.group}/${version}` }))];
  });
  readonly #custom = new Map<string, readonly ServedKind[]>();
  /** Counts the changes, for whoever keeps something that is made from the catalog. */
  generation = 0;

  /** Follows the definitions in `store`, from what is in it now. */
  constructor(store: Store) {
    const id = 'apiextensions.k8s.io/customresourcedefinitions';
    for (const { key, object } of store.values(id)) this.#define(key, object);
    store.subscribe(id, ({ type, key, object }) => {
      if (type === 'DELETED') this.#custom.delete(key);
      else this.#define(key, object);
      this.generation++;
    });
  }

  all(): ServedKind[] {
    return [...this.#builtin, ...[...this.#custom.values()].flat()];
  }

  find(group: string, version: string, plural: string): ServedKind | undefined {
    return this.all().find((kind) => kind.plural === plural && kind.version === version && kind.group === group);
  }

  /** @param id `group/plural`. @returns One of its versions. */
  byId(id: string): ServedKind | undefined {
    return this.all().find((kind) => kind.id === id);
  }

  /** The kinds of one definition. @param name `plural.group`. */
  ofDefinition(name: string): readonly ServedKind[] {
    return this.#custom.get(name) ?? [];
  }

  #define(key: string, object: AnyObject): void {
    if (isDefinition(object)) this.#custom.set(key, serveCustom(object));
  }
}

function isDefinition(object: AnyObject): object is AnyObject & CustomResourceDefinition {
  return checkAgainst(kinds.CustomResourceDefinition.schema, object).length === 0;
}

function serveBuiltin(resource: Resource, rules: Rules): ServedKind {
  const { group, version, kind, plural, singular, namespaced, shortNames, categories, status } = resource;
  const id = `${group}/${plural}`;
  const apiVersion = apiVersionOf(resource);
  return {
    ...{
      id,
      group,
      version,
      apiVersion,
      storageApiVersion: apiVersion,
      kind,
      listKind: `${kind}List`,
      plural,
      singular,
    },
    ...{ namespaced, shortNames, categories, status, custom: false, rules },
    shape: shapeOf(resource.schema),
    columns: builtinColumns(id),
  };
}

function serveCustom({ metadata, spec }: CustomResourceDefinition): ServedKind[] {
  const { group, names, scope, versions } = spec;
  const storage = versions.find((version) => version.storage)?.name ?? '';
  const strict = metadata.annotations?.[strictFields] === 'true';
  return versions
    .filter(({ served }) => served)
    .map((version) => ({
      id: `${group}/${names.plural}`,
      group,
      version: version.name,
      apiVersion: `${group}/${version.name}`,
      storageApiVersion: `${group}/${storage}`,
      kind: names.kind,
      listKind: names.listKind ?? `${names.kind}List`,
      plural: names.plural,
      singular: names.singular ?? names.kind.toLowerCase(),
      namespaced: scope === 'Namespaced',
      shortNames: names.shortNames ?? [],
      categories: names.categories ?? [],
      status: version.subresources?.status !== undefined,
      custom: true,
      shape: customShape(version),
      rules: customRules(version, strict),
      columns: customColumns(version.additionalPrinterColumns),
    }));
}
