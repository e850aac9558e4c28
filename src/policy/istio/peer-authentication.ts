import { everyPort } from '../../model/port.ts';
import { type BrokenPolicy, type FieldIssue, formatIssues, type ParseResult, toIssues } from '../issues.ts';
import type { Authentication, AuthenticationMode, Limit, PeerMatch, Policy, PortMatch, Rule } from '../rule.ts';
import { type PeerAuthenticationSpec, peerAuthenticationSchema } from './schema.ts';
import { type IstioContext, type Scope, scopeOf, scopeOutline, selectorOutline, subjectOf } from './scope.ts';
import { otherPorts, type PortSet, portSet } from './values.ts';

const kind = 'PeerAuthentication';
const modeOf = { UNSET: 'inherit', DISABLE: 'optional', PERMISSIVE: 'optional', STRICT: 'required' } as const;

/**
 * Validates a PeerAuthentication and turns it into the rule form: where proof is required, the mesh gate denies whoever is
 * not authenticated, over every protocol. The rules are those of the object alone; `settle` weighs objects against each
 * other.
 * @param object As JSON or YAML gives it.
 */
export function parsePeerAuthentication(object: unknown, context: IstioContext = {}): ParseResult {
  const parsed = peerAuthenticationSchema.safeParse(object);
  if (parsed.success) {
    const { metadata, spec = {} } = parsed.data;
    return { ok: true, policy: toPolicy(scopeOf(metadata, context), spec, metadata.creationTimestamp) };
  }
  const issues = parsed.error.issues.flatMap(toIssues);
  const broken = brokenPolicy(object, context, issues);
  return broken === undefined ? { ok: false, issues } : { ok: false, issues, broken };
}

function toPolicy(scope: Scope, spec: PeerAuthenticationSpec, created: string | undefined): Policy {
  const { namespace, name, isRoot } = scope;
  const selects = (spec.selector?.matchLabels?.size ?? 0) > 0;
  const authentication: Authentication = {
    scope: selects ? 'workload' : isRoot ? 'mesh' : 'namespace',
    ...(created === undefined ? {} : { created }),
    mode: modeOf[spec.mtls?.mode ?? 'UNSET'],
    ports: [...(spec.portLevelMtls ?? [])].map(([port, { mode = 'UNSET' }]) => ({
      port: Number(port),
      mode: modeOf[mode],
    })),
  };
  const limits = limitsOf(spec, selects && isRoot);
  const ignored = selects && isRoot;
  return {
    kind,
    namespace,
    name,
    gate: 'mesh',
    subject: subjectOf(scope, spec.selector),
    isolates: [],
    rules: ignored ? [] : rulesOf({ namespace, name }, authentication, 'optional'),
    ...(limits.length === 0 ? {} : { limits }),
    ...(ignored ? {} : { authentication }),
  };
}

function limitsOf(spec: PeerAuthenticationSpec, ignored: boolean): Limit[] {
  const always = 'DISABLE is taken as PERMISSIVE: between pods there is always a tunnel';
  return [
    ...(ignored
      ? [{ field: 'spec.selector', reason: 'as in Istio, the root namespace’s policies with a selector are ignored' }]
      : []),
    ...(spec.mtls?.mode === 'DISABLE' ? [{ field: 'spec.mtls.mode', reason: always }] : []),
    ...[...(spec.portLevelMtls ?? [])].flatMap(([port, { mode }]) =>
      mode === 'DISABLE' ? [{ field: `spec.portLevelMtls.${port}.mode`, reason: always }] : [],
    ),
  ];
}

/**
 * The rules of an object for pods about which it decides.
 * @param inherited What the scopes around it come to.
 */
export function rulesOf(
  { namespace, name }: Pick<Policy, 'namespace' | 'name'>,
  { mode, ports }: Authentication,
  inherited: Exclude<AuthenticationMode, 'inherit'>,
): Rule[] {
  const own = mode === 'inherit' ? inherited : mode;
  const others = ports.filter((port) => port.mode !== 'inherit' && port.mode !== own).map(({ port }) => String(port));
  const asked = own === 'required' ? allBut(portSet(others)) : transportPorts(portSet(others));
  if (asked !== 'any' && asked.length === 0) return [];
  return [
    {
      ref: { kind, namespace, name, direction: 'ingress', index: -1 },
      peers: [{ kind: 'not', peer: { kind: 'authenticated' } }],
      ports: asked,
      verdict: 'deny',
      level: 'deny',
      priority: 0,
    },
  ];
}

/** An exception is TCP's, as all of Istio is; required is whatever else there is. */
function allBut(exceptions: PortSet): readonly PortMatch[] | 'any' {
  if (exceptions.length === 0) return 'any';
  return [
    ...otherPorts(exceptions).map((port): PortMatch => ({ protocol: 'TCP', port })),
    { protocol: 'UDP', port: everyPort },
    { protocol: 'SCTP', port: everyPort },
    { protocol: 'ICMP' },
    { protocol: 'ICMPv6' },
  ];
}

function transportPorts(ports: PortSet): readonly PortMatch[] {
  return (['TCP', 'UDP', 'SCTP'] as const).flatMap((protocol) => ports.map((port): PortMatch => ({ protocol, port })));
}

function brokenPolicy(object: unknown, context: IstioContext, issues: readonly FieldIssue[]): BrokenPolicy | undefined {
  const readable = scopeOutline.safeParse(object);
  if (!readable.success) return undefined;
  const scope = scopeOf(readable.data.metadata, context);
  const { namespace, name } = scope;
  const selector = selectorOutline.safeParse(object).data?.spec?.selector;
  const whom =
    selector !== undefined
      ? 'the pods that it selects'
      : scope.isRoot
        ? 'every pod of the cluster'
        : 'every pod of its namespace';
  const subject: PeerMatch = subjectOf(scope, selector);
  return {
    kind,
    namespace,
    name,
    gate: 'mesh',
    subject,
    isolates: [],
    rules: rulesOf({ namespace, name }, { scope: 'workload', mode: 'required', ports: [] }, 'required'),
    broken: `not understood, so it denies whoever is not authenticated to ${whom}: ${formatIssues(issues)}`,
  };
}
