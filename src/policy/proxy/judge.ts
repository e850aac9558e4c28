import { familyOf, type IpAddress } from '../../model/address.ts';
import { firstFreeIdentity, type IdentityNumber, reservedIdentity } from '../../model/identity.ts';
import type { Direction, DropReason } from '../../model/verdict.ts';
import { reservedRules, stages } from '../image.ts';
import { matchesAnyRequest, type Request } from '../request.ts';
import { mayBeWithin } from '../rule.ts';
import type { NumberRange, ProxyEndpoint, ProxyImage, ProxyRule, ProxySide, ProxyStage } from './image.ts';
import { type Hello, type TlsAsked, tlsAsked } from './tls.ts';

/** A connection as the proxy has it. */
export interface ProxiedConnection {
  readonly client: IpAddress;
  /** After service translation. */
  readonly server: IpAddress;
  /** The server's. */
  readonly port: number;
  /** Of the end that is not on this node, as the datapath has proved or found it; of two that are, what is said is not looked at. */
  readonly identity: IdentityNumber;
  /** The pattern of DNS names that the datapath's decision was by; 0: by none. */
  readonly pattern: IdentityNumber;
  /**
   * At whose interface the datapath found that the proxy is to judge. At the server's: the client's policy has allowed the
   * connection whatever is said on it, perhaps by a name that the proxy is not told. Default: the client's.
   */
  readonly seenFrom?: 'client' | 'server';
}

/** What is said of one request. */
export interface Judgement {
  readonly verdict: 'allow' | 'deny';
  /** Set where the verdict is deny. */
  readonly reason?: DropReason;
  /** Whose policy decided: the client's (egress) or the server's. */
  readonly direction: Direction;
  /** `reservedRules.none` where no rule decided. */
  readonly rule: number;
  /** The rule in words; absent where there is none. */
  readonly text?: string;
  /** `optionFlags` of the rule, or of the isolation that denied. */
  readonly flags: number;
}

/** What one image says of one connection's requests. */
export interface Judge {
  /**
   * Whether the image knows the connection for one whose requests are judged. If not, when it opens, the image is older
   * than what the datapath decided by: a newer one is to be waited for, shortly, and the connection else to be reset. For
   * a connection that was opened under an older image it means nothing.
   */
  readonly known: boolean;
  /** @param request In canonical form. Undefined: whatever is said on the connection, now and later; the worst is assumed. */
  judge(request: Request | undefined): Judgement;
  /** What is to be done with the connection's TLS before there are requests to judge. */
  tls(hello: Hello): TlsAsked;
}

/**
 * Finds the rules that count for a connection. To be asked once for each connection and image.
 * Both ends' policies count, as far as they are on this node: egress at the client, ingress at the server.
 */
export function candidates(image: ProxyImage, connection: ProxiedConnection): Judge {
  const { client, server } = connection;
  const at = indexOf(image);
  const [source, destination] = [at.byAddress.get(client), at.byAddress.get(server)];
  const ownOf = (endpoint: ProxyEndpoint, address: IpAddress): IdentityNumber =>
    familyOf(address) === 4 ? endpoint.identity4 : endpoint.identity6;
  const clientIdentity = source === undefined ? connection.identity : ownOf(source, client);
  const serverIdentity = destination === undefined ? connection.identity : ownOf(destination, server);
  const somebody = [clientIdentity, serverIdentity].every((identity) => isKnown(at, identity));
  const self = source !== undefined && source === destination;
  const sides: Side[] = [];
  if (!self && source?.egress !== undefined && connection.seenFrom !== 'server') {
    const patterns =
      connection.pattern === 0 || destination !== undefined
        ? []
        : [connection.pattern, ...(at.implied.get(connection.pattern) ?? [])];
    const side = sideFor(image.sides[source.egress], [serverIdentity, ...patterns], connection.port, 'egress');
    if (side !== undefined) sides.push(side);
  }
  // The pod's own node reaches it always.
  if (!self && destination?.ingress !== undefined && clientIdentity !== reservedIdentity.host) {
    const side = sideFor(image.sides[destination.ingress], [clientIdentity], connection.port, 'ingress');
    if (side !== undefined) sides.push(side);
  }
  const known = somebody && sides.some(({ asks }) => asks);
  return {
    known,
    tls: (hello) =>
      tlsAsked(
        sides.flatMap((side) => side.stages.flatMap(({ stage }) => stage.rules)),
        hello,
      ),
    judge: (request) => {
      const told = (said: Omit<Judgement, 'text'>): Judgement => {
        const text = at.rules.get(said.rule);
        return text === undefined ? said : { ...said, text };
      };
      if (!somebody)
        return { verdict: 'deny', reason: 'UNKNOWN_PEER', direction: 'ingress', rule: reservedRules.none, flags: 0 };
      let last: Omit<Judgement, 'text'> | undefined;
      for (const side of sides) {
        last = askSide(side, request);
        if (last.verdict === 'deny') return told(last);
      }
      return told(last ?? { verdict: 'allow', direction: 'ingress', rule: reservedRules.none, flags: 0 });
    },
  };
}

/** The rules of one side that are about the connection, by stage. */
interface Side {
  readonly direction: Direction;
  readonly stages: readonly { readonly name: (typeof stages)[number]; readonly stage: ProxyStage }[];
  /** Whether any of them asks for requests. */
  readonly asks: boolean;
}

function sideFor(
  side: ProxySide | undefined,
  peers: readonly IdentityNumber[],
  port: number,
  direction: Direction,
): Side | undefined {
  if (side === undefined) return undefined;
  const reaches = ({ reach }: ProxyRule): boolean =>
    reach.some(
      ({ peers: whom, ports }) =>
        ports.some(({ from, to }) => from <= port && port <= to) &&
        (holds(whom, reservedIdentity.any) || peers.some((peer) => holds(whom, peer))),
    );
  const kept = stages.flatMap((name) => {
    const stage = side[name];
    return stage === undefined ? [] : [{ name, stage: { ...stage, rules: stage.rules.filter(reaches) } }];
  });
  return {
    direction,
    stages: kept,
    asks: kept.some(({ stage }) => stage.rules.some(({ requests }) => requests !== undefined)),
  };
}

/** As `askSet` and what follows it in ../lookup.ts, over rules in the place of entries. */
function askSide({ direction, stages: asked }: Side, request: Request | undefined): Omit<Judgement, 'text'> {
  const answers = new Map<string, Omit<Judgement, 'text'>>();
  for (const { name, stage } of asked) {
    if (name === 'network' && answers.has('admin')) continue;
    const answer = askStage(stage, direction, request);
    if (answer?.verdict === 'deny') return answer;
    if (answer !== undefined) answers.set(name, answer);
  }
  // Where both gates allow, the first one that has a rule for it is named.
  const [first] = answers.values();
  return first ?? { verdict: 'allow', direction, rule: reservedRules.none, flags: 0 };
}

/** @returns Undefined where the stage leaves it to whatever comes after it. */
function askStage(
  { rules, isolated }: ProxyStage,
  direction: Direction,
  request: Request | undefined,
): Omit<Judgement, 'text'> | undefined {
  for (const rule of rules) {
    const verdict = verdictFor(rule, request);
    if (verdict === undefined) continue;
    if (verdict === 'pass') break;
    const said = { direction, rule: rule.number, flags: rule.flags };
    return verdict === 'allow' ? { verdict, ...said } : { verdict, reason: reasonFor(request, true), ...said };
  }
  if (isolated === undefined) return undefined;
  return { verdict: 'deny', reason: reasonFor(request, false), direction, ...isolated };
}

/** What a rule that is about the connection says of the request; undefined: nothing. */
function verdictFor({ verdict, requests }: ProxyRule, request: Request | undefined): ProxyRule['verdict'] | undefined {
  if (requests === undefined || verdict === 'pass') return verdict;
  if (request === undefined) return verdict === 'allow' ? undefined : 'deny';
  if (verdict === 'deny' && mayBeWithin(request, requests)) return 'deny';
  return matchesAnyRequest(request, requests) ? verdict : undefined;
}

function reasonFor(request: Request | undefined, byRule: boolean): DropReason {
  if (request?.kind === 'http') return 'HTTP_DENIED';
  if (request?.kind === 'tls') return 'TLS_DENIED';
  return byRule ? 'POLICY_DENIED_EXPLICIT' : 'POLICY_DENIED';
}

/** Who is not a class of the image's is one of the few that have none. */
function isKnown({ identities }: Index, identity: IdentityNumber): boolean {
  if (identity === reservedIdentity.any) return false;
  return identity < firstFreeIdentity || identities.has(identity);
}

function holds(ranges: readonly NumberRange[], number: number): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range === undefined) return false;
    if (number < range[0]) high = middle;
    else if (number > range[1]) low = middle + 1;
    else return true;
  }
  return false;
}

interface Index {
  readonly byAddress: ReadonlyMap<IpAddress, ProxyEndpoint>;
  readonly identities: ReadonlyMap<IdentityNumber, string>;
  readonly implied: ReadonlyMap<IdentityNumber, readonly IdentityNumber[]>;
  readonly rules: ReadonlyMap<number, string>;
}

const indexes = new WeakMap<ProxyImage, Index>();

function indexOf(image: ProxyImage): Index {
  const known = indexes.get(image);
  if (known !== undefined) return known;
  const index: Index = {
    byAddress: new Map(image.endpoints.flatMap((one) => one.addresses.map((address) => [address, one] as const))),
    identities: new Map(image.identities),
    implied: new Map(image.implied),
    rules: new Map(image.rules),
  };
  indexes.set(image, index);
  return index;
}
