import { familyOf, type IpAddress, tryParseIp } from '../model/address.ts';
import { type PodView, podName } from '../model/endpoint.ts';
import { MyelinError } from '../model/error.ts';
import { firstNameIdentity, reservedIdentity } from '../model/identity.ts';
import { type Direction, dropReasons, formatRule, type SideDecision } from '../model/verdict.ts';
import {
  decideSide,
  type FlowEnd,
  type Party,
  type PolicyFlow,
  type ResolvedFlow,
  resolveFlow,
} from '../policy/decide.ts';
import { asReadAtSource } from '../policy/explain.ts';
import { type HeadAnswer, parseHead } from '../policy/http/parse.ts';
import type { ClusterView, PolicyImage } from '../policy/image.ts';
import { type LookupResult, lookup } from '../policy/lookup.ts';
import { buildProxyImage } from '../policy/proxy/build.ts';
import { candidates } from '../policy/proxy/judge.ts';
import type { Request } from '../policy/request.ts';
import type { WhyAnswer, WhyQuestion } from './wire.ts';

/** An outside address for `world` where the question names none (RFC 5737, RFC 3849). */
const anyWorldAddress = '203.0.113.1';

interface TransportAddress {
  readonly address: IpAddress;
  readonly port: number;
}

export class WhyError extends MyelinError<'NoSuchPod'> {}

/** What the answer needs to know. */
export interface WhyContext {
  readonly view: ClusterView;
  readonly node: string;
  /** What is in force in this node's datapath. */
  readonly image: PolicyImage | undefined;
  /** What the datapath translates an address and port to, where a service stands there. */
  readonly serviceAt?: (
    front: TransportAddress,
    protocol: WhyQuestion['protocol'],
  ) => { readonly name: string; readonly backends: readonly TransportAddress[] } | undefined;
  /** The DNS name under which a pod of this node was told an address, while that counts. */
  readonly nameAt?: (uid: string, address: IpAddress) => string | undefined;
  /** In words, a line each: who selects the pods, and what would have to be different. */
  readonly explain: (
    view: ClusterView,
    flow: Pick<PolicyFlow, 'source' | 'destination' | 'protocol' | 'port' | 'names' | 'request'>,
  ) => string[];
}

/**
 * Which rule decides about a flow, by the reference decision, and whether this node's datapath agrees.
 * @throws {WhyError} `NoSuchPod`
 */
export function answerWhy(context: WhyContext, question: WhyQuestion): WhyAnswer {
  const source = endOf(context, question.source, question.destination);
  const destination = endOf(context, question.destination, question.source);
  const { port } = question;
  if ('address' in destination) {
    const service = context.serviceAt?.({ address: destination.address, port }, question.protocol);
    // Without a backend it is what it looks like: an address that nobody has.
    if (service !== undefined && service.backends.length > 0)
      return answerForService(context, question, source, service);
  }
  return answerFor(context, question, source, destination, port);
}

/** Policy is about the backend that a packet is sent to: where they differ, the answer is about one that is denied. */
function answerForService(
  context: WhyContext,
  question: WhyQuestion,
  source: FlowEnd,
  { name, backends }: { readonly name: string; readonly backends: readonly TransportAddress[] },
): WhyAnswer {
  const all = backends.map(({ address, port }) => ({
    backend: `${familyOf(address) === 6 ? `[${address}]` : address}:${port}`,
    answer: answerFor(context, question, source, { address }, port),
  }));
  const denied = all.filter(({ answer }) => answer.verdict === 'deny');
  const [shown] = [...denied, ...all];
  if (shown === undefined) throw new Error('a service without backends');
  const some = denied.length > 0 && denied.length < all.length ? `, of which ${denied.length} are denied` : '';
  const which = all.length === 1 ? shown.backend : `one of ${all.length} backends${some}; this is ${shown.backend}`;
  return { ...shown.answer, explanation: [`service ${name} sends it to ${which}`, ...shown.answer.explanation] };
}

/** @param port Of the destination, after translation. */
function answerFor(
  context: WhyContext,
  question: WhyQuestion,
  source: FlowEnd,
  destination: FlowEnd,
  port: number,
): WhyAnswer {
  const { view } = context;
  const name =
    'pod' in source && 'address' in destination ? context.nameAt?.(source.pod, destination.address) : undefined;
  const head = question.http === undefined ? undefined : readRequest(question.http);
  const request = head?.kind === 'head' ? head.request : tlsOf(question);
  const flow = {
    ...{ source, destination, protocol: question.protocol, port },
    ...(name === undefined ? {} : { names: [name] }),
    ...(request === undefined ? {} : { request }),
  };
  const whole = resolveFlow(view, flow);
  const notes: string[] = [];
  const sides = (['egress', 'ingress'] as const).map((direction) => {
    const resolved = direction === 'egress' ? asReadAtSource(whole) : whole;
    const decision = decideSide(view, resolved, direction);
    const [subject, peer] =
      direction === 'egress' ? [resolved.source, resolved.destination] : [resolved.destination, resolved.source];
    const found = compiledAnswer(context, direction, subject, peer, resolved);
    const compiled = found?.verdict === 'proxy' ? proxied(context, direction, whole, found) : found?.verdict;
    if (found?.verdict === 'proxy')
      notes.push(
        request === undefined
          ? `  by ${direction} policy the connection is led through the node’s proxy, which judges what is said on it: ask with --http "GET /" or --tls NAME`
          : `  by ${direction} policy the connection is led through the node’s proxy, which judges what is said on it`,
      );
    if (found?.byRequest === true)
      notes.push('  the connection is let in, and its HTTP requests are judged one by one: ask with --http "GET /"');
    if (direction === 'ingress' && head?.kind === 'refused')
      return { direction, verdict: 'deny' as const, by: `${head.reason}: ${head.words}` };
    return {
      direction,
      verdict: decision.verdict,
      by: describeSide(decision),
      ...(compiled === undefined
        ? {}
        : { datapath: compiled === decision.verdict ? ('agrees' as const) : ('differs' as const) }),
    };
  });
  return {
    source: question.source,
    destination: question.destination,
    verdict: sides.every(({ verdict }) => verdict === 'allow') ? 'allow' : 'deny',
    sides,
    explanation: [...describeRequest(question, request), ...context.explain(view, flow), ...notes],
  };
}

/** @param other The other end: `host` is the node that it is on, whichever node is asked. */
function endOf({ view, node }: WhyContext, text: string, other: string): FlowEnd {
  if (text === 'host') return { host: findPod(view.pods.values(), other)?.node ?? node };
  const ip = tryParseIp(text === 'world' ? anyWorldAddress : text);
  if (ip !== undefined) return { address: ip };
  const pod = findPod(view.pods.values(), text);
  if (pod === undefined)
    throw new WhyError(
      'NoSuchPod',
      `there is no pod ${text} with a network: give namespace/name, an IP address, host or world`,
    );
  return { pod: pod.uid };
}

/** By `namespace/name`, or by a Deployment's `namespace/name` where it has a pod. */
function findPod(pods: Iterable<PodView>, text: string): PodView | undefined {
  let ofDeployment: PodView | undefined;
  for (const pod of pods) {
    if (podName(pod) === text) return pod;
    if (podName(pod).replace(/(-[a-z0-9]{5,10})?-[a-z0-9]{5}$/, '') === text) ofDeployment ??= pod;
  }
  return ofDeployment;
}

function compiledAnswer(
  { image, node }: WhyContext,
  direction: Direction,
  subject: Party,
  peer: Party,
  { protocol, port, names = [], request }: ResolvedFlow,
): LookupResult | undefined {
  if (image === undefined || subject.kind !== 'pod' || subject.pod.node !== node || peer.address === undefined)
    return undefined;
  const seen = { names, ...(request?.kind === 'http' ? { request } : {}) };
  return lookup(image, subject.pod.uid, direction, peer.address, protocol, port, false, seen);
}

/** What the proxy says in one direction; of a connection of which no request is known, what it says of the worst. */
function proxied(
  { image }: WhyContext,
  direction: Direction,
  { source, destination, port, request }: ResolvedFlow,
  { identity, entry }: LookupResult,
): 'allow' | 'deny' | undefined {
  if (image === undefined || source.address === undefined || destination.address === undefined) return undefined;
  const pattern = (entry?.identity ?? 0) >= firstNameIdentity ? entry?.identity : undefined;
  const judge = candidates(buildProxyImage(image).image, {
    client: source.address,
    server: destination.address,
    port,
    identity,
    pattern: pattern ?? reservedIdentity.any,
    seenFrom: direction === 'egress' ? 'client' : 'server',
  });
  const said = judge.judge(request);
  // Egress first: what ingress denies, egress has allowed.
  return said.direction === direction ? said.verdict : 'allow';
}

/** The request as the datapath would read it. */
function readRequest({ method, target, host, headers }: NonNullable<WhyQuestion['http']>): HeadAnswer {
  const lines = [...(host === undefined ? [] : [['Host', host] as const]), ...headers];
  const version = host === undefined ? '1.0' : '1.1';
  const text = `${method} ${target} HTTP/${version}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
  return parseHead(new TextEncoder().encode(text));
}

function tlsOf({ tls }: WhyQuestion): Request | undefined {
  if (tls === undefined) return undefined;
  const { serverName } = tls;
  return { kind: 'tls', ...(serverName === undefined ? {} : { serverName }) };
}

function describeRequest({ http }: WhyQuestion, request: Request | undefined): string[] {
  if (http === undefined || request?.kind !== 'http' || request.target === http.target) return [];
  return [`  ${http.target} is read as ${request.target}`];
}

export function describeSide(decision: SideDecision): string {
  switch (decision.by) {
    case 'rule':
      return formatRule(decision.rule);
    case 'isolation':
      return `no rule allows it, and it is selected by ${decision.policies.map(formatRule).join(', ')}`;
    case 'exempt':
      return decision.why;
    case 'reason':
      return `${decision.reason}: ${dropReasons[decision.reason].text}`;
    case 'default':
      return decision.verdict === 'allow'
        ? 'no policy selects the pod'
        : 'no policy selects the pod, and the default is deny';
  }
}
