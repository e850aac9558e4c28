import type { Entry } from './client/types.ts';
import { objectOr } from './json.ts';
import type { ClusterSettings } from './kinds.ts';
import { formatIssue } from './validate.ts';

/** What a ClusterSettings object comes to. What is absent is as the agents' options say. */
export interface ReadClusterSettings {
  readonly defaultVerdict?: 'allow' | 'deny';
  readonly breachRadius?: 'pod' | 'node';
  readonly svidLifetimeSeconds?: number;
  readonly rekeySeconds?: number;
  readonly rekeyBytes?: number;
  readonly istioRootNamespace?: string;
  /** What the controller says of its certificates; nobody's to set. */
  readonly trustDomain?: string;
  /** What of it is not understood. */
  readonly problems: readonly string[];
}

const noSettings: ReadClusterSettings = { problems: [] };

/**
 * Reads the object of a server that may be newer. Where anything of it is not understood the strictest is meant: pods that
 * no policy selects are denied, every pair has keys of its own; what can be read of the rest holds. Pure.
 */
export function readClusterSettings(entry: Entry<ClusterSettings> | undefined): ReadClusterSettings {
  if (entry === undefined) return noSettings;
  const problems = entry.issues.filter(({ field }) => !field.startsWith('status')).map(formatIssue);
  if (problems.length === 0 && entry.object !== undefined) {
    const { defaultVerdict, breachRadius, svidLifetimeSeconds, rekeySeconds, rekeyBytes, istioRootNamespace } =
      entry.object.spec;
    const trustDomain = entry.object.status?.trustDomain;
    return {
      problems,
      ...(istioRootNamespace === undefined ? {} : { istioRootNamespace }),
      ...(trustDomain === undefined ? {} : { trustDomain }),
      ...(defaultVerdict === undefined ? {} : { defaultVerdict }),
      ...(breachRadius === undefined ? {} : { breachRadius }),
      ...(svidLifetimeSeconds === undefined ? {} : { svidLifetimeSeconds }),
      ...(rekeySeconds === undefined ? {} : { rekeySeconds }),
      ...(rekeyBytes === undefined ? {} : { rekeyBytes }),
    };
  }
  const spec = objectOr(objectOr(entry.raw).spec);
  const within = (value: unknown, least: number, most: number) =>
    typeof value === 'number' && Number.isInteger(value) ? Math.min(Math.max(value, least), most) : undefined;
  const { trustDomain } = objectOr(objectOr(entry.raw).status);
  const texts = { istioRootNamespace: spec.istioRootNamespace, trustDomain };
  const numbers = {
    svidLifetimeSeconds: within(spec.svidLifetimeSeconds, 60, 86_400),
    rekeySeconds: within(spec.rekeySeconds, 10, 86_400),
    rekeyBytes: within(spec.rekeyBytes, 65_536, 2 ** 36),
  };
  return {
    defaultVerdict: 'deny',
    breachRadius: 'pod',
    ...Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== undefined)),
    ...Object.fromEntries(Object.entries(texts).filter(([, value]) => typeof value === 'string' && value !== '')),
    problems: [...new Set(problems)],
  };
}
