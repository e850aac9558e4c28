import type { IpAddress } from '../model/address.ts';
import { type IdentityNumber, reservedIdentity } from '../model/identity.ts';
import type { Direction } from '../model/verdict.ts';
import { noSet, type PolicyImage, type RuleSet, ruleSetFlags, type Stage, setIdOf } from './image.ts';
import { findPeer } from './lookup.ts';

/** What a rule set can say of some flow with a peer, over all protocols and ports. */
interface Outcomes {
  readonly allows: boolean;
  /** Leaves it to whatever is asked next. */
  readonly leaves: boolean;
}

const anything: Outcomes = { allows: true, leaves: true };

/**
 * Whether this node's policy could allow any flow at all between a pod of this node and a peer, in either direction.
 * Only the pod's own side is known here; the peer's node answers for its own. Where it cannot be told the answer is yes:
 * what is asked for every packet is `lookup`, this only spares what could come to nothing.
 * @param peers The peer's addresses.
 */
export function couldTalk(image: PolicyImage, podUid: string, peers: readonly IpAddress[]): boolean {
  const endpoint = image.endpoints.get(podUid);
  if (endpoint === undefined || peers.length === 0) return true;
  return peers.some((address) => {
    const { kind, identity } = findPeer(image, address);
    // Nodes and the world have exemptions of their own, and so has a pod at its own address.
    if ((kind !== 'remote-pod' && kind !== 'local-pod') || endpoint.addresses.includes(address)) return true;
    const says = (direction: Direction, stage: Stage): Outcomes => {
      const id = setIdOf(endpoint, direction, stage);
      if (id === noSet) return stage === 'network' ? anything : { allows: false, leaves: true };
      const set = image.ruleSets.get(id);
      return set === undefined ? anything : outcomesOf(set, identity);
    };
    return (['egress', 'ingress'] as const).some((direction) => {
      const [admin, network, mesh] = [says(direction, 'admin'), says(direction, 'network'), says(direction, 'mesh')];
      const byNetwork = admin.allows || (admin.leaves && (network.allows || network.leaves));
      return byNetwork && (mesh.allows || mesh.leaves);
    });
  });
}

const known = new WeakMap<RuleSet, Map<IdentityNumber, Outcomes>>();

function outcomesOf(set: RuleSet, identity: IdentityNumber): Outcomes {
  const answers = known.get(set) ?? new Map<IdentityNumber, Outcomes>();
  known.set(set, answers);
  const answer = answers.get(identity) ?? workOut(set, identity);
  answers.set(identity, answer);
  return answer;
}

function workOut(set: RuleSet, identity: IdentityNumber): Outcomes {
  const entries = set.entries.filter((entry) => entry.identity === identity || entry.identity === reservedIdentity.any);
  // An entry for every protocol is the last word on whatever no higher entry is about.
  const last = entries.filter(({ protocol, verdict }) => protocol === 0 && verdict !== 'none');
  const floor = Math.max(-1, ...last.map(({ precedence }) => precedence));
  const alternatives = entries.flatMap(({ requests = [] }) =>
    requests.flatMap((n) => set.matcher?.alternatives[n] ?? []),
  );
  const heard = [...entries, ...alternatives].filter(({ precedence }) => precedence >= floor);
  const fallsThrough = floor < 0 && (set.flags & ruleSetFlags.isolated) === 0;
  return {
    allows: heard.some(({ verdict }) => verdict === 'allow' || verdict === 'proxy'),
    leaves: fallsThrough || heard.some(({ verdict }) => verdict === 'pass'),
  };
}
