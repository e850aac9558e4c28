import { connect, type SecureContext } from 'node:tls';
import { messageOf } from '../../identity/certificate.ts';
import type { IpAddress } from '../../model/address.ts';
import { abortedBy } from './channel.ts';
import { HandshakeError } from './error.ts';
import { type SecureLink, SocketLink } from './link.ts';
import type { ThreadFailure } from './threads/messages.ts';
import type { Attempt } from './threads/pool.ts';
import { applicationProtocol } from './tls-parameters.ts';

export interface Destination {
  readonly host: IpAddress;
  readonly port: number;
  /** Whom to ask for: a pod's or the node's server name. */
  readonly serverName: string;
  /** ALPN. */
  readonly protocol: string;
}

/** What a dial in progress tells of itself. */
type Progress = Pick<Attempt, 'connected' | 'secure' | 'failed'>;

/**
 * Opens a TLS connection and proves to be somebody. Who is on the other end is *not* verified here: nothing may be
 * sent before a PeerVerifier has.
 * @param by Whom to prove to be, on this thread; or what opens the connection on another.
 * @throws {HandshakeError} `unreachable`, `disconnected`, `tls`, `timeout`, `aborted`
 */
export async function dial(
  destination: Destination,
  timeoutMs: number,
  signal: AbortSignal,
  by: SecureContext | ((attempt: Attempt) => () => void),
): Promise<SecureLink> {
  if (signal.aborted) throw abortedBy(signal);
  const { host, port } = destination;
  const { promise, resolve, reject } = Promise.withResolvers<SecureLink>();
  let connected = false;
  let settled = false;
  const progress: Progress = {
    connected: () => {
      connected = true;
    },
    secure: (link) => {
      // Given up in the same turn.
      if (settled) link.destroy();
      settled = true;
      resolve(link);
    },
    failed: (failure) => reject(explain(failure, connected, destination)),
  };
  const destroy =
    typeof by === 'function'
      ? by({ ...progress, identityFor: () => undefined, closed: () => {} })
      : open(destination, by, progress);
  const fail = (error: HandshakeError) => {
    settled = true;
    reject(error);
    destroy();
  };
  const abort = () => fail(abortedBy(signal));
  const timer = setTimeout(
    () => fail(new HandshakeError('timeout', `${host}:${port} did not finish TLS within ${timeoutMs} ms`)),
    timeoutMs,
  );
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

/** @returns Gives it up. */
function open(destination: Destination, secureContext: SecureContext, progress: Progress): () => void {
  const { host, port, serverName, protocol } = destination;
  const socket = connect({
    host,
    port,
    servername: serverName,
    secureContext,
    ALPNProtocols: [protocol],
    // OpenSSL's chain verdict stays readable as `authorized`; what it means for us is PeerVerifier's to decide.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  socket.setNoDelay(true);
  socket.once('connect', () => progress.connected());
  socket.once('secureConnect', () => {
    try {
      progress.secure(new SocketLink(socket));
    } catch (cause) {
      progress.failed({ message: messageOf(cause), code: 'MALFORMED', reason: undefined });
      socket.destroy();
    }
  });
  socket.on('error', (error) => {
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    const reason = 'reason' in error && typeof error.reason === 'string' ? error.reason : undefined;
    progress.failed({ message: error.message, code, reason });
    socket.destroy();
  });
  socket.once('close', () => progress.failed(undefined));
  return () => socket.destroy();
}

function explain(failure: ThreadFailure | undefined, connected: boolean, destination: Destination): HandshakeError {
  const { host, port, serverName } = destination;
  const { code, message = '', reason } = failure ?? {};
  const data = { code };
  if (!connected)
    return new HandshakeError(
      'unreachable',
      failure === undefined
        ? `${host}:${port} closed the connection at once`
        : `${host}:${port} cannot be reached: ${message}`,
      { data },
    );
  if (failure === undefined || code === 'ECONNRESET' || code === 'EPIPE')
    return new HandshakeError('disconnected', `${host}:${port} hung up during TLS: it may not have ${serverName}`);
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL')
    return new HandshakeError('alpn', `${host}:${port} does not speak ${destination.protocol}`, { data });
  if (code === 'MALFORMED') return new HandshakeError('malformed', message);
  return new HandshakeError('tls', `TLS with ${host}:${port} failed: ${reason ?? message}`, { data });
}

/** Where the handshake of two pods is asked for. */
export function podDestination(host: IpAddress, port: number, serverName: string): Destination {
  return { host, port, serverName, protocol: applicationProtocol };
}
