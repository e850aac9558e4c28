import { everyPort, type PortRange } from '../../model/port.ts';
import { tablesFor } from '../http/readable.ts';
import { stages } from '../image.ts';
import type { Rule } from '../rule.ts';
import { withoutRequests } from '../rule.ts';
import type { AskedRule, StageRules, SubjectSide } from './asked.ts';

/**
 * Leaves to the proxy what the datapath has no room for: where the rules of a stage ask more of requests than its tables
 * hold, all of them. And a connection is read by one reader, who must understand all that is asked of it: whatever is
 * asked at a port at which something is left to the proxy, is left to it too.
 */
export function withProxy(side: SubjectSide): SubjectSide {
  const all = stages.flatMap((stage) => side[stage]?.rules ?? []);
  if (all.every(({ http, proxied }) => http === undefined && proxied === undefined)) return side;
  const left = new Set<AskedRule>(all.filter(({ proxied }) => proxied));
  for (const stage of stages) {
    const read = (side[stage]?.rules ?? []).filter(({ http }) => http !== undefined);
    if (read.length > 0 && !tablesFor(read.flatMap(({ http = [] }) => http)).ok)
      for (const rule of read) if (!rule.never) left.add(rule);
  }
  if (left.size === 0) return side;
  let ports = [...left].flatMap(({ rule }) => tcpPortsOf(rule));
  for (let more = true; more; ) {
    const met = all.filter(
      (asked) =>
        asked.http !== undefined && !left.has(asked) && tcpPortsOf(asked.rule).some((own) => meets(own, ports)),
    );
    for (const asked of met) left.add(asked);
    ports = [...ports, ...met.flatMap(({ rule }) => tcpPortsOf(rule))];
    more = met.length > 0;
  }
  const made = (stage: StageRules): StageRules => ({
    ...stage,
    rules: stage.rules.flatMap((r) => leftToProxy(r, left)),
  });
  return {
    ...(side.admin === undefined ? {} : { admin: made(side.admin) }),
    network: made(side.network),
    ...(side.mesh === undefined ? {} : { mesh: made(side.mesh) }),
  };
}

function leftToProxy(asked: AskedRule, left: ReadonlySet<AskedRule>): AskedRule[] {
  if (asked.http === undefined || !left.has(asked)) return [asked];
  const { http: _, ...rest } = asked;
  if (!asked.never) return [{ ...rest, proxied: true }];
  // Its policy forbids the proxy, and the kernel does not read the connection.
  const rule = withoutRequests(asked.rule);
  return rule === undefined ? [] : [{ ...rest, rule }];
}

/** The ports of TCP that a rule is about; a named port may be any. */
function tcpPortsOf({ ports }: Rule): PortRange[] {
  if (ports === 'any') return [everyPort];
  return ports.flatMap((match) => {
    if (!('port' in match) || match.protocol !== 'TCP') return [];
    return 'from' in match.port ? [match.port] : [everyPort];
  });
}

function meets(own: PortRange, others: readonly PortRange[]): boolean {
  return others.some(({ from, to }) => own.from <= to && from <= own.to);
}
