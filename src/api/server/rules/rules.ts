import type { FieldIssue } from '../../issue.ts';
import type { AnyObject } from '../../json.ts';
import type { KubeObject, Resource } from '../../kinds.ts';
import { apiVersionOf } from '../../kinds.ts';
import { checkAgainst } from '../../validate.ts';
import type { ServiceAddresses } from '../service-addresses.ts';
import { dnsSubdomain, type NameRule } from './names.ts';

/** What rules may ask of the cluster as it is. */
export interface World {
  /** @param resource `group/plural`; @param key `namespace/name` or `name`. */
  get(resource: string, key: string): AnyObject | undefined;
  values(resource: string): Iterable<AnyObject>;
  readonly serviceAddresses: ServiceAddresses;
  /** Now, RFC 3339 with whole seconds. */
  now(): string;
}

/** What a kind asks of its objects. All functions may change the first object they get, and nothing else. */
export interface Rules {
  /** What the object's name must look like. */
  readonly name: NameRule;
  /** Unknown fields are refused whatever the request says: an allow-list with a hole that nobody sees is worse than an error. */
  readonly strict: boolean;
  /** Writers of the whole object leave the status alone; on creation it is dropped. */
  readonly keepsStatusOnCreate: boolean;
  /** Types, required fields, enums. The other functions are called only with objects that pass. */
  check(object: AnyObject): FieldIssue[];
  prepareCreate(object: AnyObject, world: World): void;
  prepareUpdate(next: AnyObject, old: AnyObject, world: World): void;
  defaults(object: AnyObject): void;
  validate(object: AnyObject): FieldIssue[];
  validateUpdate(next: AnyObject, old: AnyObject): FieldIssue[];
  /** What its author should know of an object that is accepted. */
  warnings(object: AnyObject): string[];
  /**
   * The last word, with the whole cluster in view; allocates addresses.
   * @throws {StatusError}
   */
  admit(next: AnyObject, old: AnyObject | undefined, world: World): void;
}

/** The rules of one kind, written for its own type. All are optional. */
export interface KindRules<T> {
  readonly name?: NameRule;
  readonly strict?: boolean;
  readonly keepsStatusOnCreate?: boolean;
  /** `validate` goes with texts that no enum has, too: then all that is wrong is said at once. */
  readonly judgesOddEnums?: boolean;
  prepareCreate?(object: T, world: World): void;
  prepareUpdate?(next: T, old: T, world: World): void;
  defaults?(object: T): void;
  validate?(object: T): FieldIssue[];
  validateUpdate?(next: T, old: T): FieldIssue[];
  warnings?(object: T): string[];
  admit?(next: T, old: T | undefined, world: World): void;
}

/** Makes a kind's own rules callable with objects that are only known to have passed `check`. */
export function rulesFor<T extends KubeObject>(resource: Resource<T>, own: KindRules<T>): Rules {
  const apiVersion = apiVersionOf(resource);
  const isOurs = (object: KubeObject): object is T => object.apiVersion === apiVersion && object.kind === resource.kind;
  return {
    name: own.name ?? dnsSubdomain,
    strict: own.strict ?? false,
    keepsStatusOnCreate: own.keepsStatusOnCreate ?? false,
    check: (object) => {
      const issues = checkAgainst(resource.schema, object);
      const onlyEnums = issues.length > 0 && issues.every(({ reason }) => reason === 'FieldValueNotSupported');
      if (onlyEnums && own.judgesOddEnums === true && isOurs(object)) issues.push(...(own.validate?.(object) ?? []));
      return issues;
    },
    prepareCreate: (object, world) => {
      if (isOurs(object)) own.prepareCreate?.(object, world);
    },
    prepareUpdate: (next, old, world) => {
      if (isOurs(next) && isOurs(old)) own.prepareUpdate?.(next, old, world);
    },
    defaults: (object) => {
      if (isOurs(object)) own.defaults?.(object);
    },
    validate: (object) => (isOurs(object) ? (own.validate?.(object) ?? []) : []),
    validateUpdate: (next, old) => (isOurs(next) && isOurs(old) ? (own.validateUpdate?.(next, old) ?? []) : []),
    warnings: (object) => (isOurs(object) ? (own.warnings?.(object) ?? []) : []),
    admit: (next, old, world) => {
      if (isOurs(next) && (old === undefined || isOurs(old))) own.admit?.(next, old, world);
    },
  };
}
