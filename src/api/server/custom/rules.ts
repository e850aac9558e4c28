import { isObject } from '../../json.ts';
import { objectMeta } from '../../kinds/meta.ts';
import { checkAgainst } from '../../validate.ts';
import { dnsSubdomain } from '../rules/names.ts';
import type { Rules } from '../rules/rules.ts';
import type { Version } from './definition.ts';
import { checkStructural, setStructuralDefaults } from './structural.ts';

/** The rules of custom resources: those of the definition's schema. */
export function customRules(version: Version): Rules {
  const schema = version.schema?.openAPIV3Schema ?? {};
  const hasStatus = version.subresources?.status !== undefined;
  return {
    name: dnsSubdomain,
    strict: false,
    keepsStatusOnCreate: !hasStatus,
    check: (object) => {
      // The frame is checked for all kinds alike; a schema may not narrow more of it than the name.
      const properties = isObject(schema.properties) ? { ...schema.properties } : {};
      for (const name of ['apiVersion', 'kind', 'metadata']) delete properties[name];
      // As in Kubernetes, a required field that has a default need not be given.
      setStructuralDefaults(schema, object);
      const required = Array.isArray(schema.required)
        ? schema.required.filter((name) => name !== 'apiVersion' && name !== 'kind' && name !== 'metadata')
        : [];
      const { apiVersion: _apiVersion, kind: _kind, metadata, ...own } = object;
      const frame = checkAgainst(objectMeta, metadata).map((issue) => ({ ...issue, field: `metadata.${issue.field}` }));
      return [...frame, ...checkStructural({ ...schema, properties, required }, own)];
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
