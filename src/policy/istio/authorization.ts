import { type BrokenPolicy, type FieldIssue, formatIssues, type ParseResult, toIssues } from '../issues.ts';
import type { Limit, PeerMatch, Policy, Rule } from '../rule.ts';
import { isRequestCondition, readPorts, readRequests, requestFields } from './operation.ts';
import {
  type AuthorizationRule,
  type AuthorizationSpec,
  authorizationPolicySchema,
  type Condition,
  type Operation,
} from './schema.ts';
import { type IstioContext, type Scope, scopeOf, scopeOutline, selectorOutline, subjectOf } from './scope.ts';
import { consequence, type RuleContext, readSource, sourceOfCondition } from './source.ts';
import { inBlocks, type Reading } from './values.ts';

const kind = 'AuthorizationPolicy';

/**
 * Validates an AuthorizationPolicy and turns it into the rule form: rules of the mesh gate, for ingress.
 *
 * An ALLOW policy isolates and allows, a DENY policy denies. CUSTOM asks somebody who cannot be asked here, so what its
 * rules match is denied; AUDIT is an audited DENY: what its rules match is said, and nothing is decided. Where only a request could tell, an ALLOW rule is read narrowly and a
 * DENY rule widely; where Envoy and ztunnel read differently, so too.
 * @param object As JSON or YAML gives it.
 */
export function parseAuthorizationPolicy(object: unknown, context: IstioContext = {}): ParseResult {
  const parsed = authorizationPolicySchema.safeParse(object);
  if (parsed.success) {
    const { metadata, spec = {} } = parsed.data;
    const scope = scopeOf(metadata, context);
    const dryRun = ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(String(metadata.annotations?.['istio.io/dry-run']));
    return { ok: true, policy: toPolicy(scope, spec, dryRun) };
  }
  const issues = parsed.error.issues.flatMap(toIssues);
  const broken = brokenPolicy(object, context, issues);
  return broken === undefined ? { ok: false, issues } : { ok: false, issues, broken };
}

function toPolicy(scope: Scope, spec: AuthorizationSpec, dryRun: boolean): Policy {
  const { action = 'ALLOW' } = spec;
  const limits: Limit[] = [];
  const subject = toSubject(scope, spec, limits);
  const refused = unsupportedActions[action];
  if (refused !== undefined) limits.push({ field: 'spec.action', reason: refused });
  const { namespace, name, trustDomain } = scope;
  const reading: Reading = action === 'ALLOW' ? 'narrow' : 'wide';
  const rules = (spec.rules ?? []).flatMap((rule, index) =>
    toRules(scope, rule, index, { reading, namespace, trustDomain, limits }),
  );
  return {
    kind,
    namespace,
    name,
    gate: 'mesh',
    subject,
    isolates: action === 'ALLOW' ? ['ingress'] : [],
    rules,
    ...(dryRun || action === 'AUDIT' ? { options: { mode: 'audit' } } : {}),
    ...(limits.length === 0 ? {} : { limits }),
  };
}

const unsupportedActions: Readonly<Record<string, string>> = {
  CUSTOM: 'CUSTOM asks an external authorizer, and none can be asked: what the rules match is denied',
};

/** What a policy is attached to beside pods is unknown here, so it is about every pod that it could be about. */
function toSubject(scope: Scope, spec: AuthorizationSpec, limits: Limit[]): PeerMatch {
  const field = spec.targetRef !== undefined ? 'targetRef' : spec.targetRefs?.length ? 'targetRefs' : undefined;
  if (field === undefined) return subjectOf(scope, spec.selector);
  const whom = scope.isRoot ? 'every pod of the cluster' : 'every pod of its namespace';
  limits.push({
    field: `spec.${field}`,
    reason: `gateways, waypoints and services are no subjects here: the policy is about ${whom}`,
  });
  return subjectOf(scope, undefined);
}

function toRules(scope: Scope, rule: AuthorizationRule, index: number, context: RuleContext): Rule[] {
  const { reading, limits } = context;
  const at = `spec.rules[${index}]`;
  const { when = [] } = rule;
  const narrow = reading === 'narrow';

  const sources = (rule.from ?? []).map(({ source }, i) => readSource(source, `${at}.from[${i}].source`, context));
  const conditions = when.flatMap((condition, i) => {
    const source = sourceOfCondition(condition);
    return source === undefined ? [] : [readSource(source, `${at}.when[${i}]`, context)];
  });
  const operations: readonly Operation[] = rule.to?.map(({ operation }) => operation) ?? [{}];
  const unreadable = unreadableConditions(when, at, context);
  const requests = when.filter(isRequestCondition);
  for (const field of unreadPlaces(rule, at))
    limits.push({ field, reason: `requests within TLS are not read, so ${consequence(reading)}` });
  // As in Istio: over TCP an ALLOW rule that asks for anything of HTTP is no rule at all, whatever its alternatives.
  const asksRequest =
    requests.length > 0 ||
    sources.some(({ unenforceable }) => unenforceable) ||
    operations.some((operation) => requestFields(operation).length > 0);
  if (narrow && (unreadable || conditions.some(({ unenforceable }) => unenforceable))) return [];

  const common = conditions.flatMap(({ parts }) => parts);
  const alternatives = sources.filter(({ unenforceable }) => !(narrow && unenforceable)).map(({ parts }) => parts);
  const peers = rule.from === undefined ? [common] : alternatives.map((parts) => [...parts, ...common]);
  const whole = {
    kind,
    namespace: scope.namespace,
    name: scope.name,
    direction: 'ingress',
    list: 'rules',
    index,
  } as const;
  return operations.flatMap((operation) => {
    const ports = readPorts(operation, when, reading);
    if (ports === undefined) return [];
    return destinations(when).map(
      ({ subject, family }): Rule => ({
        ref: whole,
        ...(subject === undefined ? {} : { subject }),
        peers: toPeers(family === undefined ? peers : peers.map((parts) => [...parts, family])),
        ports,
        verdict: narrow ? 'allow' : 'deny',
        level: narrow ? 'allow' : 'deny',
        priority: 0,
        ...(asksRequest ? { requests: readRequests(operation, requests, reading) } : {}),
      }),
    );
  });
}

/** Any of the alternatives, each all of its parts; one without parts is everybody. */
function toPeers(alternatives: readonly (readonly PeerMatch[])[]): readonly PeerMatch[] | 'any' {
  if (alternatives.some((parts) => parts.length === 0)) return 'any';
  return alternatives.map((parts): PeerMatch => {
    const [only] = parts;
    return parts.length === 1 && only !== undefined ? only : { kind: 'all', of: parts };
  });
}

/** Where a rule asks for a TLS connection's name beside something of the requests that are within it. */
function unreadPlaces(rule: AuthorizationRule, at: string): string[] {
  const asksRequest =
    (rule.when ?? []).some((condition) => isRequestCondition(condition) && condition.key !== 'connection.sni') ||
    (rule.to ?? []).some(({ operation }) => requestFields(operation).length > 0);
  if (!asksRequest) return [];
  return (rule.when ?? []).flatMap(({ key }, i) => (key === 'connection.sni' ? [`${at}.when[${i}]`] : []));
}

/** Says which conditions nothing here can look at. @returns Whether there are any. */
function unreadableConditions(when: readonly Condition[], at: string, { reading, limits }: RuleContext): boolean {
  const names = when.filter(({ key }) => key === 'connection.sni');
  let found = false;
  for (const [i, condition] of when.entries()) {
    const { key } = condition;
    const again = key === 'connection.sni' && condition !== names[0];
    const known =
      key.startsWith('destination.') || isRequestCondition(condition) || sourceOfCondition(condition) !== undefined;
    if (known && !again) continue;
    const reason = again ? 'the server’s name can be asked for once in a rule' : `${key} is not looked at`;
    limits.push({ field: `${at}.when[${i}]`, reason: `${reason}, so ${consequence(reading)}` });
    found = true;
  }
  return found;
}

interface Destination {
  /** Which of the policy's pods. */
  readonly subject?: PeerMatch;
  /** The address family of the flow, as something its other end has too. */
  readonly family?: PeerMatch;
}

/** The destination's address is the subject's own, and a flow has only the one of its family: so, a rule per family. */
function destinations(when: readonly Condition[]): readonly Destination[] {
  const asked = when.filter(({ key }) => key === 'destination.ip');
  if (asked.length === 0) return [{}];
  return (['0.0.0.0/0', '::/0'] as const).map((everything) => {
    const family = blocks([everything]);
    const parts = asked.flatMap(({ values = [], notValues = [] }): PeerMatch[] => [
      ...(values.length === 0 ? [] : [blocks(values)]),
      ...(notValues.length === 0 ? [] : [{ kind: 'not' as const, peer: blocks(notValues) }]),
    ]);
    return { subject: { kind: 'all', of: [family, ...parts] }, family };
  });
}

function blocks(texts: readonly string[]): PeerMatch {
  return { kind: 'some', of: inBlocks(texts) };
}

/** In a gate whose allows are a union, only a deny closes: of everything, to whatever the policy could have selected. */
function brokenPolicy(object: unknown, context: IstioContext, issues: readonly FieldIssue[]): BrokenPolicy | undefined {
  const readable = scopeOutline.safeParse(object);
  if (!readable.success) return undefined;
  const scope = scopeOf(readable.data.metadata, context);
  const { namespace, name } = scope;
  const selector = selectorOutline.safeParse(object);
  const known = selector.success && selector.data.spec?.selector !== undefined;
  const whom = known
    ? 'the pods that it selects'
    : scope.isRoot
      ? 'every pod of the cluster'
      : 'every pod of its namespace';
  return {
    kind,
    namespace,
    name,
    gate: 'mesh',
    subject: subjectOf(scope, known ? selector.data.spec?.selector : undefined),
    isolates: ['ingress'],
    rules: [
      {
        ref: { kind, namespace, name, direction: 'ingress', index: -1 },
        peers: 'any',
        ports: 'any',
        verdict: 'deny',
        level: 'deny',
        priority: 0,
      },
    ],
    broken: `not understood, so it denies all traffic to ${whom}: ${formatIssues(issues)}`,
  };
}
