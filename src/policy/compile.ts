import { familyOf, type IpAddress } from '../model/address.ts';
import type { PodView } from '../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import { namedLabels, worldClass } from './compile/classes.ts';
import { Matchers, numberPatterns } from './compile/names.ts';
import { numberIdentities, numberRules } from './compile/numbering.ts';
import { PeerIndex } from './compile/peers.ts';
import { Population } from './compile/population.ts';
import { prefixTable, worldRegions } from './compile/prefixes.ts';
import { Regions } from './compile/regions.ts';
import { RuleSets } from './compile/sets.ts';
import { LocalPods, subjectSides } from './compile/subjects.ts';
import { type EndpointEntry, type PeerEntry, type PolicyImage, stages } from './image.ts';
import { NameDfas } from './names/matcher.ts';
import type { ClusterView } from './view.ts';

/** Caches that go from an image to the next: each says only what the view and the image before make it say. */
interface Derived {
  readonly dfas: NameDfas;
  readonly locals: LocalPods;
  readonly regions: Regions;
  readonly index: PeerIndex;
  readonly population: Population;
}

/** What compiling an image has found out, to be found out again only where it changed. */
const derived = new WeakMap<PolicyImage, Derived>();

/**
 * Turns the cluster's policies into what one node's datapath holds. Deterministic; with `previous`, whatever still means
 * the same keeps its number, so that `diff` is small.
 * @param node The node whose pods the rule sets are for.
 * @param previous The image that is in force, of the same node.
 * @throws {MyelinError} `NumbersExhausted`
 */
export function compile(view: ClusterView, node: string, previous?: PolicyImage): PolicyImage {
  const known = previous?.node === node ? derived.get(previous) : undefined;
  const locals = known?.locals ?? new LocalPods(node);
  const pods = locals.of(view);
  const sides = subjectSides(view, pods);
  const asked = [...new Set(sides.values())]
    .flatMap(({ egress, ingress, audited }) => [
      egress,
      ingress,
      ...(audited === undefined ? [] : Object.values(audited)),
    ])
    .flatMap((side) => stages.flatMap((stage) => side[stage] ?? []));
  const rules = new Set(asked.flatMap((stage) => [...stage.rules, ...(stage.questions ?? [])]).map(({ rule }) => rule));
  const isolating = asked.flatMap(({ isolation }) => (isolation?.by === 'policy' ? [isolation.ref] : []));

  const regions = Regions.of(rules, known?.regions);
  const population = known?.population ?? new Population(node);
  population.update(view, regions, namedLabels(rules));
  const { conflicts } = population;
  const world = worldRegions(regions.prefixes, view.settings).map((region) => worldClass(region));
  const { identities, byKey, next: nextIdentity } = numberIdentities(population.classes, world, previous);
  const ruleNumbers = numberRules([...[...rules].map(({ ref }) => ref), ...isolating], previous);

  population.number(byKey);
  const { peers } = population;
  const patterns = numberPatterns(
    [...sides.values()].flatMap(({ egress, audited }) => (audited === undefined ? egress : [egress, audited.egress])),
    previous,
  );
  const grounds = { identities, view, node, regions, patterns: patterns.byPattern };
  const index = known?.index ?? new PeerIndex(grounds);
  index.update(grounds);
  const sets = new RuleSets(index, identities, patterns.patterns, ruleNumbers.byRef, previous);
  const dfas = known?.dfas ?? new NameDfas();
  const matchers = new Matchers(sets, patterns, dfas, previous);
  const endpoints = new Map<string, EndpointEntry>();
  for (const [pod, own] of sides) {
    const ids = sets.idsFor(pod, own);
    endpoints.set(pod.uid, {
      ...identitiesOfPod(pod, peers),
      addresses: pod.addresses,
      ...ids,
      ...(own.audited === undefined ? {} : { audit: sets.idsFor(pod, own.audited) }),
      names: matchers.idFor(own.egress, ids, own.audited?.egress),
    });
  }
  dfas.turn();
  const worldNumbers = world.flatMap(({ region, key }) => {
    const identity = byKey.get(key);
    return identity === undefined ? [] : [[region, identity] as const];
  });
  const image: PolicyImage = {
    node,
    identities,
    peers,
    prefixes: prefixTable(
      view.settings,
      new Map(worldNumbers),
      conflicts.map(({ address }) => address),
    ),
    ruleSets: sets.all,
    endpoints,
    rules: ruleNumbers.rules,
    conflicts,
    patterns: patterns.patterns,
    matchers: matchers.all,
    counters: {
      identity: nextIdentity,
      rule: ruleNumbers.next,
      ruleSet: sets.next,
      pattern: patterns.next,
      matcher: matchers.next,
    },
  };
  derived.set(image, { dfas, locals, regions, index, population });
  return image;
}

function identitiesOfPod(
  pod: PodView,
  peers: ReadonlyMap<IpAddress, PeerEntry>,
): Pick<EndpointEntry, 'identity4' | 'identity6'> {
  const identityAt = (family: 4 | 6): IdentityNumber => {
    const address = pod.addresses.find((own) => familyOf(own) === family);
    const peer = address === undefined ? undefined : peers.get(address);
    // Its own number or none: an address that somebody else claims too is nobody's.
    return peer?.owner === pod.uid ? peer.identity : reservedIdentity.any;
  };
  return { identity4: identityAt(4), identity6: identityAt(6) };
}
