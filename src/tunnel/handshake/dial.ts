import { connect } from 'node:tls';
import { messageOf } from '../../identity/certificate.ts';
import type { IpAddress } from '../../model/address.ts';
import { abortedBy } from './channel.ts';
import { type TlsContexts, type TlsIdentity } from './credentials.ts';
import { applicationProtocol } from './tls-parameters.ts';
import { HandshakeError } from './error.ts';
import { type SecureLink, SocketLink } from './link.ts';

export interface Destination {
  readonly address: IpAddress;
  readonly port: number;
  /** Whom to ask for: a pod's or the node's server name. */
  readonly serverName: string;
  /** ALPN; default that of two pods. */
  readonly protocol?: string;
}

/**
 * Opens a TLS connection and proves to be `identity`. Who is on the other end is *not* verified here: nothing may be
 * sent before a PeerVerifier has.
 * @throws {HandshakeError} `unreachable`, `disconnected`, `tls`, `timeout`, `aborted`
 */
export async function dial(
  destination: Destination,
  identity: TlsIdentity,
  contexts: TlsContexts,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<SecureLink> {
  if (signal.aborted) throw abortedBy(signal);
  const { address, port, serverName, protocol = applicationProtocol } = destination;
  const socket = connect({
    host: address,
    port,
    servername: serverName,
    secureContext: contexts.get(identity),
    ALPNProtocols: [protocol],
    // OpenSSL's chain verdict stays readable as `authorized`; what it means for us is PeerVerifier's to decide.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  socket.setNoDelay(true);
  const { promise, resolve, reject } = Promise.withResolvers<SecureLink>();
  let connected = false;
  const fail = (error: HandshakeError) => {
    socket.destroy();
    reject(error);
  };
  const abort = () => fail(abortedBy(signal));
  const timer = setTimeout(
    () => fail(new HandshakeError('timeout', `${address}:${port} did not finish TLS within ${timeoutMs} ms`)),
    timeoutMs,
  );
  const onClose = () => fail(broken(connected, destination));
  socket.once('connect', () => {
    connected = true;
  });
  socket.once('secureConnect', () => {
    try {
      resolve(new SocketLink(socket));
    } catch (cause) {
      fail(new HandshakeError('malformed', messageOf(cause), { cause }));
    }
  });
  socket.on('error', (cause) => fail(explain(cause, connected, destination)));
  socket.once('close', onClose);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    socket.off('close', onClose);
  }
}

function explain(cause: Error, connected: boolean, destination: Destination): HandshakeError {
  const { address, port } = destination;
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
  if (!connected)
    return new HandshakeError('unreachable', `${address}:${port} cannot be reached: ${messageOf(cause)}`, { cause });
  if (code === 'ECONNRESET' || code === 'EPIPE') return broken(connected, destination);
  return new HandshakeError(
    'tls',
    `TLS with ${address}:${port} failed: ${'reason' in cause ? String(cause.reason) : cause.message}`,
    {
      cause,
    },
  );
}

function broken(connected: boolean, { address, port, serverName }: Destination): HandshakeError {
  return connected
    ? new HandshakeError('disconnected', `${address}:${port} hung up during TLS: it may not have ${serverName}`)
    : new HandshakeError('unreachable', `${address}:${port} closed the connection at once`);
}
