import { CniError, type CniErrorBody, toCniError } from '../cni/error.ts';
import { parseRequest, type RawRequest } from '../cni/request.ts';
import { isCniVersion, newestVersion, versionOf } from '../cni/version.ts';
import { AgentAway } from './agent.ts';

/** The spec's "error" structure in the configuration's version, or in the newest where that is not spoken. */
export function withVersion(body: CniErrorBody, config: unknown): unknown {
  const asked = versionOf(config);
  return { cniVersion: isCniVersion(asked) ? asked : newestVersion, ...body };
}

/**
 * Ends a request before an agent that is away is waited for: one that no agent would take, and STATUS.
 * @throws {CniError} where it is no good. @throws {AgentAway}
 */
export function refuseEarly(raw: RawRequest): void {
  const { command, config } = parseRequest(raw);
  if (command === 'STATUS') throw new AgentAway('the Myelin agent of this node is not running', config.socket);
}

/**
 * Without its agent a node keeps its pods' traffic going and admits no new peers; so ADD, DEL, CHECK and GC are to be
 * tried again (a DEL that lied would leave the address in the agent's books), and STATUS says both halves: 51.
 */
export function explain(error: unknown, raw: RawRequest): unknown {
  return withVersion(translate(error, raw).body, raw.config);
}

function translate(error: unknown, raw: RawRequest): CniError {
  if (error instanceof AgentAway) {
    const code = raw.command === 'STATUS' ? 'LimitedConnectivity' : 'TryAgainLater';
    return new CniError(code, error.message, error.details, error);
  }
  if (error instanceof CniError) return error;
  // The environment comes first: it may be that somebody just called the program.
  const environment = raw.command === 'VERSION' ? undefined : problemOf(raw);
  if (environment?.code === 'InvalidEnvironment') return environment;
  if (error instanceof SyntaxError)
    return toCniError(error, 'DecodingFailure', 'failed to decode the network configuration');
  return toCniError(error, 'IoFailure', 'failed to read the network configuration');
}

function problemOf(raw: RawRequest): CniError | undefined {
  try {
    parseRequest(raw);
    return undefined;
  } catch (error) {
    return toCniError(error, 'Internal', 'the plugin failed');
  }
}
