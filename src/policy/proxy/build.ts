import { createHash } from 'node:crypto';
import type { NamedPort } from '../../model/endpoint.ts';
import { type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import { everyPort, type PortRange } from '../../model/port.ts';
import { type Direction, formatRule } from '../../model/verdict.ts';
import { isNamed, type NumberedRule } from '../compile/entries.ts';
import { madeOf } from '../compile/sets.ts';
import {
  type IdentityClass,
  type PolicyImage,
  type RuleSet,
  ruleSetFlags,
  type Stage,
  setIdOf,
  stages,
} from '../image.ts';
import { matchesDomain } from '../request/domain.ts';
import type { PortMatch, TransportMatch } from '../rule.ts';
import type { NumberRange, ProxyEndpoint, ProxyImage, ProxyReach, ProxyRule, ProxySide, ProxyStage } from './image.ts';
import { conflictsIn, type NamedSecret, secretsOf } from './tls.ts';

/** An image for the proxy, and what is to be known of it without reading it. */
export interface BuiltProxyImage {
  /** Made when it is asked for. */
  readonly image: ProxyImage;
  /** Whether some connection is the proxy's by policy alone, whatever ports it speaks what on. */
  readonly needed: boolean;
  /** What the proxy needs beside it. */
  readonly secrets: readonly NamedSecret[];
  /** Rules that want two things of one connection's TLS, which is closed: in words. */
  readonly conflicts: readonly string[];
}

/** What the proxy of the node is to judge by, where the policy image is in force. Equal policy makes equal images. */
export function buildProxyImage(image: PolicyImage): BuiltProxyImage {
  const sides: ProxySide[] = [];
  // Most endpoints share their sets, and most sets ask nothing of requests: the rules of each are read once.
  const places = new Map<string, number | undefined>();
  let needed = false;
  const sideOf = (sets: ReadonlyMap<Stage, RuleSet>): number | undefined => {
    const key = [...sets].map(([stage, { id }]) => `${stage}=${id}`).join();
    if (places.has(key)) return places.get(key);
    const rules = [...sets.values()].flatMap((set) => madeOf(set)?.rules ?? []);
    const asks = rules.some(({ rule }) => rule.requests !== undefined);
    needed ||= rules.some(({ proxied }) => proxied);
    const place = asks ? sides.push(sideFrom(image, sets)) - 1 : undefined;
    places.set(key, place);
    return place;
  };
  const endpoints = [...image.endpoints.values()].map((endpoint): ProxyEndpoint => {
    const setsOf = (direction: Direction): Map<Stage, RuleSet> =>
      new Map(
        stages.flatMap((stage) => {
          const set = image.ruleSets.get(setIdOf(endpoint, direction, stage));
          return set === undefined ? [] : [[stage, set] as const];
        }),
      );
    const [ingress, egress] = [sideOf(setsOf('ingress')), sideOf(setsOf('egress'))];
    return {
      addresses: endpoint.addresses,
      identity4: endpoint.identity4,
      identity6: endpoint.identity6,
      ...(ingress === undefined ? {} : { ingress }),
      ...(egress === undefined ? {} : { egress }),
    };
  });
  const used = new Set(
    sides.flatMap((side) =>
      stages.flatMap((stage) => [
        ...(side[stage]?.rules ?? []).map(({ number }) => number),
        ...(side[stage]?.isolated === undefined ? [] : [side[stage].isolated.rule]),
      ]),
    ),
  );
  const words = (number: number): string => {
    const ref = image.rules.get(number);
    return ref === undefined ? `rule ${number}` : formatRule(ref);
  };
  return {
    needed,
    secrets: secretsOf(sides),
    conflicts: conflictsIn(sides).map(([a, b]) => `${words(a)} and ${words(b)}`),
    get image() {
      return {
        endpoints,
        sides,
        identities: identitiesOf(image.identities),
        implied: impliedPatterns(image.patterns),
        rules: [...used]
          .sort((a, b) => a - b)
          .flatMap((number) => {
            const ref = image.rules.get(number);
            return ref === undefined ? [] : [[number, formatRule(ref)] as const];
          }),
      };
    },
  };
}

/** They are the same object from image to image where nobody came or went. */
const identities = new WeakMap<PolicyImage['identities'], ProxyImage['identities']>();

function identitiesOf(classes: PolicyImage['identities']): ProxyImage['identities'] {
  const known = identities.get(classes);
  if (known !== undefined) return known;
  const made = [...classes].sort(([a], [b]) => a - b).map(([number, one]) => [number, shortOf(one)] as const);
  identities.set(classes, made);
  return made;
}

/** Keys are long where there are many labels; this is as good for telling them apart. */
function shortOf(one: IdentityClass): string {
  const known = shorts.get(one);
  if (known !== undefined) return known;
  const made = createHash('sha256').update(one.key).digest('base64url').slice(0, 22);
  shorts.set(one, made);
  return made;
}

/** Classes are the same objects from image to image, mostly. */
const shorts = new WeakMap<IdentityClass, string>();

function sideFrom(image: PolicyImage, sets: ReadonlyMap<Stage, RuleSet>): ProxySide {
  const made = (name: Stage): ProxyStage | undefined => {
    const set = sets.get(name);
    return set === undefined ? undefined : stageFrom(image, set);
  };
  const [admin, network, mesh] = [made('admin'), made('network'), made('mesh')];
  return {
    ...(admin === undefined ? {} : { admin }),
    // Every endpoint has one; without it nothing is known, and nothing is allowed.
    network: network ?? { rules: [], isolated: { rule: 0, flags: 0 } },
    ...(mesh === undefined ? {} : { mesh }),
  };
}

function stageFrom(image: PolicyImage, set: RuleSet): ProxyStage {
  const { flags, rule } = set;
  const made = madeOf(set);
  const rules = (made?.rules ?? []).flatMap((numbered): ProxyRule[] => {
    const reach = reachOf(image, numbered, made?.ownPorts ?? []);
    if (reach.length === 0) return [];
    const { verdict, level, requests, tls } = numbered.rule;
    const passes = verdict === 'pass' && (level === 'admin' || level === 'baseline');
    return [
      {
        number: numbered.number,
        flags: numbered.flags,
        verdict: passes ? 'pass' : verdict === 'allow' ? 'allow' : 'deny',
        reach,
        ...(requests === undefined ? {} : { requests }),
        ...(tls === undefined ? {} : { tls }),
      },
    ];
  });
  if ((flags & ruleSetFlags.isolated) === 0) return { rules };
  return { rules, isolated: { rule, flags: flags & ~ruleSetFlags.isolated } };
}

/** For TCP. As `compileEntries` has it, with ranges in the place of blocks. */
function reachOf(image: PolicyImage, numbered: NumberedRule, ownPorts: readonly NamedPort[]): ProxyReach[] {
  const { rule, identities, named } = numbered;
  const peers = rangesOf(identities);
  if (rule.ports === 'any') return peers.length === 0 ? [] : [{ peers, ports: [everyPort] }];
  const ports = rule.ports.flatMap((match) => rangesFor(match, ownPorts));
  const reach: ProxyReach[] = peers.length === 0 || ports.length === 0 ? [] : [{ peers, ports }];
  const names = rule.ports.filter(isNamed);
  if (names.length === 0) return reach;
  // Those whose names stand for the same ports share them.
  const byPorts = new Map<string, { ports: PortRange[]; of: IdentityNumber[] }>();
  for (const identity of named) {
    const made = image.identities.get(identity);
    const own = made?.kind === 'pod' ? made.namedPorts : [];
    const stood = names.flatMap((match) => rangesFor(match, own));
    if (stood.length === 0) continue;
    const key = JSON.stringify(stood);
    const known = byPorts.get(key) ?? { ports: stood, of: [] };
    byPorts.set(key, known);
    known.of.push(identity);
  }
  return [...reach, ...[...byPorts.values()].map(({ ports: those, of }) => ({ peers: rangesOf(of), ports: those }))];
}

function rangesFor(match: PortMatch, namedPorts: readonly NamedPort[]): PortRange[] {
  if (!isTcp(match)) return [];
  const { port } = match;
  if ('from' in port) return [port];
  return namedPorts
    .filter((own) => own.name === port.name && own.protocol === 'TCP')
    .map((own) => ({ from: own.port, to: own.port }));
}

function isTcp(match: PortMatch): match is TransportMatch {
  return match.protocol === 'TCP';
}

/** @param numbers Sorted, without duplicates. */
function rangesOf(numbers: readonly number[]): NumberRange[] {
  const ranges: [number, number][] = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] + 1 === number && last[0] !== reservedIdentity.any) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges;
}

/**
 * The datapath says by which pattern it decided, of all that an address was learnt under. Of a pattern that is one name the
 * others follow; of one with stars in it nobody knows.
 */
function impliedPatterns(patterns: PolicyImage['patterns']): ProxyImage['implied'] {
  return [...patterns].flatMap(([number, pattern]) => {
    if (pattern.includes('*')) return [];
    const others = [...patterns].flatMap(([other, wider]) =>
      other !== number && matchesDomain(pattern, { pattern: wider }) ? [other] : [],
    );
    return others.length === 0 ? [] : [[number, others] as const];
  });
}
