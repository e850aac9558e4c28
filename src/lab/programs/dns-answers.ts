import type { Answer, Packet, Question } from 'dns-packet';
import { type Family, familyOf, tryParseIp } from '../../model/address.ts';

/** A service as names need to know it. */
export interface DnsService {
  readonly namespace: string;
  readonly name: string;
  /** Empty where it is headless: then its endpoints are its addresses. */
  readonly addresses: readonly string[];
  readonly headless: boolean;
  /** Of an ExternalName. */
  readonly externalName?: string;
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly port: number }[];
  readonly endpoints: readonly DnsEndpoint[];
}

export interface DnsEndpoint {
  readonly address: string;
  /** The pod's host name, where the service is the pod's subdomain; else made from the address. */
  readonly hostname?: string;
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly port: number }[];
}

/** What the answers are made from. */
export interface DnsView {
  /** @param key `namespace/name` */
  service(key: string): DnsService | undefined;
  /** The service, and the endpoint's own name if it is headless, that has an address. */
  byAddress(address: string): { readonly service: DnsService; readonly hostname?: string } | undefined;
  hasNamespace(name: string): boolean;
  /** Whether a pod of the namespace has the address. */
  hasPod(namespace: string, address: string): boolean;
}

/** Seconds: as long as a name may be wrong after its service has changed. */
const ttl = 5;

export interface DnsReply {
  readonly rcode: 'NOERROR' | 'NXDOMAIN' | 'NOTIMP';
  readonly answers: readonly Answer[];
  readonly additionals: readonly Answer[];
}

const nothing: DnsReply = { rcode: 'NOERROR', answers: [], additionals: [] };
const unknown: DnsReply = { ...nothing, rcode: 'NXDOMAIN' };

/**
 * Answers by Kubernetes' DNS specification 1.1: services, headless services, named ports, endpoints, pods by address, and
 * addresses back to names. Every name outside the cluster's domain does not exist here: there is nobody to ask.
 */
export function answerQuestion({ name, type }: Question, view: DnsView, domain: string): DnsReply {
  const asked = name.toLowerCase().replace(/\.$/, '');
  if (asked.endsWith('.arpa')) return reverse(asked, name, type, view, domain);
  if (asked === domain) return nothing;
  if (!asked.endsWith(`.${domain}`)) return unknown;
  const labels = asked
    .slice(0, -domain.length - 1)
    .split('.')
    .reverse();
  const [kind, namespace, service, ...rest] = labels;
  if (kind === 'dns-version' && labels.length === 1)
    return type === 'TXT' ? answer([{ name, type: 'TXT', ttl, data: '1.1.0' }]) : nothing;
  if (kind !== 'svc' && kind !== 'pod') return unknown;
  if (namespace === undefined) return nothing;
  if (!view.hasNamespace(namespace)) return unknown;
  if (service === undefined) return nothing;
  if (kind === 'pod') return rest.length === 0 ? podAddress(name, type, namespace, service, view) : unknown;
  const found = view.service(`${namespace}/${service}`);
  if (found === undefined) return unknown;
  return ofService(name, type, found, rest, domain);
}

function ofService(name: string, type: string, service: DnsService, rest: readonly string[], domain: string): DnsReply {
  if (service.externalName !== undefined)
    return rest.length === 0 ? answer([{ name, type: 'CNAME', ttl, data: service.externalName }]) : unknown;
  const addresses = service.headless ? service.endpoints.map(({ address }) => address) : service.addresses;
  if (rest.length === 0) {
    if (type === 'SRV') return serviceRecords(name, service, domain);
    // A headless service of which nobody is ready has a name all the same, and no address.
    return answer(addressRecords(name, type, addresses));
  }
  const [first = '', second, third] = rest;
  if (first.startsWith('_') && second?.startsWith('_') === true && third === undefined)
    return serviceRecords(name, service, domain, { protocol: first.slice(1), port: second.slice(1) });
  if (rest.length > 1 || !service.headless) return unknown;
  const named = service.endpoints.filter((endpoint) => endpointLabel(endpoint) === first);
  if (named.length === 0) return unknown;
  return answer(
    addressRecords(
      name,
      type,
      named.map(({ address }) => address),
    ),
  );
}

function serviceRecords(
  name: string,
  service: DnsService,
  domain: string,
  only?: { readonly protocol: string; readonly port: string },
): DnsReply {
  const base = serviceDomain(service, domain);
  const wanted = (port: { name: string; protocol: string }) =>
    only === undefined || (port.name === only.port && port.protocol.toLowerCase() === only.protocol);
  const record = (target: string, port: number): Answer => ({
    name,
    type: 'SRV',
    ttl,
    data: { target, port, priority: 0, weight: 100 },
  });
  if (!service.headless) {
    const answers = service.ports.filter(wanted).map(({ port }) => record(base, port));
    if (answers.length === 0) return unknown;
    return { ...answer(answers), additionals: bothFamilies(base, service.addresses) };
  }
  const pairs = service.endpoints.flatMap((endpoint) =>
    endpoint.ports.filter(wanted).map(({ port }) => ({ target: `${endpointLabel(endpoint)}.${base}`, port, endpoint })),
  );
  if (pairs.length === 0) return unknown;
  return {
    ...answer(pairs.map(({ target, port }) => record(target, port))),
    additionals: pairs.flatMap(({ target, endpoint }) => bothFamilies(target, [endpoint.address])),
  };
}

/** `a-b-c-d.<namespace>.pod.<domain>`, of a pod that is there. */
function podAddress(name: string, type: string, namespace: string, label: string, view: DnsView): DnsReply {
  const candidates = [label.replaceAll('-', '.'), label.replaceAll('-', ':')].map(tryParseIp);
  const address = candidates.find((each) => each !== undefined);
  if (address === undefined || !view.hasPod(namespace, address)) return unknown;
  return answer(addressRecords(name, type, [address]));
}

function reverse(asked: string, name: string, type: string, view: DnsView, domain: string): DnsReply {
  const address = addressFromArpa(asked);
  const found = address === undefined ? undefined : view.byAddress(address);
  if (found === undefined) return unknown;
  const base = serviceDomain(found.service, domain);
  const data = found.hostname === undefined ? base : `${found.hostname}.${base}`;
  return type === 'PTR' ? answer([{ name, type: 'PTR', ttl, data }]) : nothing;
}

/** @returns The address that a name under in-addr.arpa or ip6.arpa is about (RFC 1035 section 3.5, RFC 3596 section 2.5). */
export function addressFromArpa(name: string): string | undefined {
  const labels = name.split('.').reverse();
  if (labels[1] === 'in-addr') return tryParseIp(labels.slice(2).join('.'));
  if (labels[1] !== 'ip6' || labels.length !== 34) return undefined;
  return tryParseIp(
    labels
      .slice(2)
      .join('')
      .replaceAll(/(.{4})(?=.)/g, '$1:'),
  );
}

/** The label of an endpoint of a headless service. */
export function endpointLabel({ address, hostname }: DnsEndpoint): string {
  return hostname ?? address.replaceAll(/[.:]+/g, '-').replace(/^-|-$/g, '');
}

function serviceDomain({ namespace, name }: DnsService, domain: string): string {
  return `${name}.${namespace}.svc.${domain}`;
}

function addressRecords(name: string, type: string, addresses: readonly string[]): Answer[] {
  const family: Family | undefined = type === 'A' ? 4 : type === 'AAAA' ? 6 : undefined;
  return bothFamilies(name, addresses).filter((record) => (record.type === 'A' ? 4 : 6) === family);
}

function bothFamilies(name: string, addresses: readonly string[]): Answer[] {
  return addresses.flatMap((text): Answer[] => {
    const address = tryParseIp(text);
    if (address === undefined) return [];
    return [{ name, type: familyOf(address) === 4 ? 'A' : 'AAAA', ttl, data: address }];
  });
}

function answer(answers: readonly Answer[]): DnsReply {
  return { ...nothing, answers };
}

/** Turns a query into its response; `undefined` where it is not a query. */
export function respond(query: Packet, view: DnsView, domain: string): Packet | undefined {
  if (query.type !== 'query') return undefined;
  const [question] = query.questions ?? [];
  const reply: DnsReply =
    question === undefined || (question.class ?? 'IN') !== 'IN'
      ? { ...nothing, rcode: 'NOTIMP' }
      : answerQuestion(question, view, domain);
  const codes = { NOERROR: 0, NXDOMAIN: 3, NOTIMP: 4 };
  const authoritative = 0x400;
  const recursionDesired = (query.flags ?? 0) & 0x100;
  return {
    id: query.id ?? 0,
    type: 'response',
    flags: authoritative | recursionDesired | codes[reply.rcode],
    questions: question === undefined ? [] : [question],
    answers: [...reply.answers],
    additionals: [...reply.additionals],
  };
}
