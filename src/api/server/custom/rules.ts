import { isObject, objectOr } from '../../json.ts';
import { objectMeta } from '../../kinds/meta.ts';
import { checkAgainst } from '../../validate.ts';
import { dnsSubdomain } from '../rules/names.ts';
import type { Rules } from '../rules/rules.ts';
import type { Version } from './definition.ts';
import { checkStructural, setStructuralDefaults } from './structural.ts';

/**
 * The rules of custom resources: those of the definition's schema.
 * @param strict Fields that it does not name are refused, not dropped.
 */
export function customRules(version: Version, strict: boolean): Rules {
  const schema = version.schema?.openAPIV3Schema ?? {};
  const hasStatus = version.subresources?.status !== undefined;
  return {
    name: dnsSubdomain,
    strict,
    keepsStatusOnCreate: !hasStatus,
    check: (object) => {
      // The frame is checked for all kinds alike; a schema may not narrow more of it than the name.
      const properties = isObject(schema.properties) ? { ...schema.properties } : {};
      const { name: names } = objectOr(objectOr(properties.metadata).properties);
      for (const name of ['apiVersion', 'kind', 'metadata']) delete properties[name];
      // As in Kubernetes, a required field that has a default need not be given.
      setStructuralDefaults(schema, object);
      const required = Array.isArray(schema.required)
        ? schema.required.filter((name) => name !== 'apiVersion' && name !== 'kind' && name !== 'metadata')
        : [];
      const { apiVersion: _apiVersion, kind: _kind, metadata, ...own } = object;
      const frame = checkAgainst(objectMeta, metadata).map((issue) => ({ ...issue, field: `metadata.${issue.field}` }));
      // A name that is still to be made out of generateName is not there yet.
      const name =
        isObject(names) && metadata.name !== undefined
          ? checkStructural(names, metadata.name, ['metadata', 'name'])
          : [];
      return [...frame, ...name, ...checkStructural({ ...schema, properties, required }, own)];
    },
    prepareCreate: () => {},
    prepareUpdate: () => {},
    defaults: () => {},
    validate: () => [],
    validateUpdate: () => [],
    warnings: () => [],
    admit: () => {},
  };
}
