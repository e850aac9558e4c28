import { isDeepStrictEqual } from 'node:util';
import type { Selector, SelectorRequirement } from '../../model/labels.ts';
import { prefixWithin } from '../../model/prefix.ts';
import type { CidrMatch, NameMatch, NamespaceMatch, PeerMatch, PodMatch, PortMatch, Rule } from '../rule.ts';

/*
 * Whether one part of a rule is about all that another is about, whatever cluster they meet. Where the answer is yes it is
 * so; where it is no it may be so all the same, for reasons that only the cluster or more thought could tell.
 */

/** Whether whoever `inner` matches, `outer` matches too. */
export function coversPeer(outer: PeerMatch | NameMatch, inner: PeerMatch | NameMatch): boolean {
  if (isDeepStrictEqual(outer, inner)) return true;
  if (inner.kind === 'some') return inner.of.every((one) => coversPeer(outer, one));
  if (outer.kind === 'all') return outer.of.every((one) => coversPeer(one, inner));
  if (outer.kind === 'some' && outer.of.some((one) => coversPeer(one, inner))) return true;
  if (inner.kind === 'all') return inner.of.some((one) => coversPeer(outer, one));
  switch (outer.kind) {
    case 'pods':
      return inner.kind === 'pods' ? coversPods(outer, inner) : isEveryPod(outer) && isOfPods(inner);
    case 'authenticated':
      return isOfPods(inner);
    case 'namespace':
    case 'account':
    case 'principal':
      return outer.match.op === 'present' && isOfPods(inner);
    case 'world':
      return inner.kind === 'name' || (inner.kind === 'cidr' && inner.worldOnly === true);
    case 'cidr':
      return inner.kind === 'cidr' && coversCidr(outer, inner);
    case 'node':
      return (
        inner.kind === 'node' && (outer.which === 'any' || outer.which === inner.which) && outer.labels === undefined
      );
    default:
      return false;
  }
}

export function coversPeers(outer: Rule['peers'], inner: Rule['peers']): boolean {
  if (outer === 'any') return true;
  const everybody: PeerMatch = { kind: 'all', of: [] };
  const all = inner === 'any' ? [everybody] : inner;
  return all.every((one) => outer.some((own) => coversPeer(own, one)));
}

export function coversPorts(outer: Rule['ports'], inner: Rule['ports']): boolean {
  if (outer === 'any') return true;
  return inner !== 'any' && inner.every((one) => outer.some((own) => coversPort(own, one)));
}

function coversPort(outer: PortMatch, inner: PortMatch): boolean {
  if (outer.protocol !== inner.protocol) return false;
  if (!('port' in outer) || !('port' in inner)) {
    if ('port' in outer || 'port' in inner) return false;
    if (outer.type === undefined) return true;
    return outer.type === inner.type && (outer.code === undefined || outer.code === inner.code);
  }
  if ('name' in outer.port) return 'name' in inner.port && inner.port.name === outer.port.name;
  const { from, to } = outer.port;
  if ('name' in inner.port) return from <= 1 && to === 65535;
  return from <= inner.port.from && inner.port.to <= to;
}

function coversCidr(outer: CidrMatch, inner: CidrMatch): boolean {
  if (outer.worldOnly === true && inner.worldOnly !== true) return false;
  if (!prefixWithin(inner.cidr, outer.cidr)) return false;
  return outer.except.every((hole) => {
    const apart = !prefixWithin(hole, inner.cidr) && !prefixWithin(inner.cidr, hole);
    return apart || inner.except.some((own) => prefixWithin(hole, own));
  });
}

function isOfPods({ kind }: PeerMatch | NameMatch): boolean {
  return ['pods', 'account', 'namespace', 'principal', 'authenticated'].includes(kind);
}

function isEveryPod({ namespaces, pods }: PodMatch): boolean {
  return !('name' in namespaces) && isEmpty(namespaces.selector) && isEmpty(pods);
}

function coversPods(outer: PodMatch, inner: PodMatch): boolean {
  return coversNamespaces(outer.namespaces, inner.namespaces) && coversSelector(outer.pods, inner.pods);
}

function coversNamespaces(outer: NamespaceMatch, inner: NamespaceMatch): boolean {
  if ('name' in outer) return 'name' in inner && inner.name === outer.name;
  if (isEmpty(outer.selector)) return true;
  return !('name' in inner) && coversSelector(outer.selector, inner.selector);
}

function isEmpty(selector: Selector): boolean {
  return requirements(selector).length === 0;
}

/** Everything that the wider one requires must follow from something that the narrower one requires. */
function coversSelector(outer: Selector, inner: Selector): boolean {
  const given = requirements(inner);
  return requirements(outer).every((wanted) => given.some((one) => implies(one, wanted)));
}

function requirements({ matchLabels = {}, matchExpressions = [] }: Selector): SelectorRequirement[] {
  const labels = Object.entries(matchLabels).map(
    ([key, value]): SelectorRequirement => ({ key, operator: 'In', values: [value] }),
  );
  return [...labels, ...matchExpressions];
}

function implies(given: SelectorRequirement, wanted: SelectorRequirement): boolean {
  if (given.key !== wanted.key) return false;
  const [have, want] = [given.values ?? [], wanted.values ?? []];
  switch (wanted.operator) {
    case 'Exists':
      return given.operator === 'Exists' || given.operator === 'In';
    case 'DoesNotExist':
      return given.operator === 'DoesNotExist';
    case 'In':
      return given.operator === 'In' && have.every((value) => want.includes(value));
    case 'NotIn':
      if (given.operator === 'In') return !have.some((value) => want.includes(value));
      return (
        given.operator === 'DoesNotExist' || (given.operator === 'NotIn' && want.every((value) => have.includes(value)))
      );
  }
}
