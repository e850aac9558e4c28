import { constants } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import type { Logger } from 'pino';
import { parseServerName } from '../../identity/names.ts';
import type { NodePeer, PodPeer } from '../../identity/verify.ts';
import { listenTcp } from '../../kernel/listen.ts';
import { takeSocket } from '../../kernel/sockets.ts';
import { type IpAddress, tryParseIp } from '../../model/address.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import { Cancel } from './cancel.ts';
import { Channel } from './channel.ts';
import type { HandshakeCounters, RateLimit } from './counters.ts';
import type { TlsContexts, TlsIdentity } from './credentials.ts';
import { asHandshakeError, HandshakeError } from './error.ts';
import { type SecureLink, SocketLink } from './link.ts';
import type { PeerVerifier } from './peer.ts';
import type { ThreadFailure } from './threads/messages.ts';
import { applicationProtocol, nodeProtocol, tlsParameters } from './tls-parameters.ts';
import type { TlsWork } from './work.ts';

export interface HandshakeServerOptions {
  /** Address to listen on; default all of the node's, both families. */
  readonly host?: string;
  /** 0 takes any free one. */
  readonly port: number;
  readonly trustDomain: string;
  readonly groups: string;
  /** For TLS, and again for each message that is awaited. */
  readonly timeoutMs: number;
  readonly limits?: AdmissionLimits;
}

export interface HandshakeServerDeps {
  readonly contexts: TlsContexts;
  readonly work: TlsWork;
  readonly verifier: PeerVerifier;
  readonly counters: HandshakeCounters;
  readonly rateLimit: RateLimit;
  readonly logger: Logger;
  /** The certificate to show to who asks for the pod, or undefined: no such pod here, or it has none. */
  readonly podIdentity: (podUid: string) => TlsIdentity | undefined;
  readonly nodeIdentity: () => TlsIdentity | undefined;
  /** Whether a node of the cluster has the address. Absent: nobody is a stranger. */
  readonly isNode?: (address: IpAddress) => boolean;
  /** A verified pod asks for a pod of this node. The server ends the connection when the promise settles. */
  readonly onPod: (session: PodSession) => Promise<void>;
  /** A verified node has something to say to this node. */
  readonly onNode: (notice: NodeNotice) => Promise<void>;
  /** A verified node wants keys for pairs of pods derived from this handshake. Settles when the session has ended. */
  readonly onSession: (link: SecureLink, peer: NodePeer) => Promise<void>;
}

export interface PodSession {
  readonly channel: Channel;
  readonly podUid: string;
  readonly peer: PodPeer;
  readonly cipher: string;
  /** Cancelling it ends the connection. */
  readonly cancel: Cancel;
}

export interface NodeNotice {
  readonly channel: Channel;
  readonly peer: NodePeer;
}

/** The handshake port of a node: accepts, limits, proves, and hands verified peers on. */
export class HandshakeServer {
  readonly #options: HandshakeServerOptions;
  readonly #deps: HandshakeServerDeps;
  readonly #listener: Server;
  readonly #tls: TlsServer;
  readonly #admission: Admission;
  readonly #open = new Set<Socket>();
  /** Handshakes under way on this thread, by the client's address and port. */
  readonly #underWay = new Map<string, () => void>();
  /** Links that another thread works on, with what they serve. */
  readonly #links = new Set<SecureLink>();

  constructor(options: HandshakeServerOptions, deps: HandshakeServerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#admission = new Admission(options.limits ?? {}, () => performance.now());
    // Not listening itself: it is handed the sockets that pass the limits. It has no certificate of its own, so that
    // who asks for nobody finds nobody.
    this.#tls = createTlsServer({
      ...tlsParameters(options.groups),
      ALPNProtocols: [applicationProtocol, nodeProtocol],
      SNICallback: (name, answer) => {
        try {
          answer(null, deps.contexts.get(this.#identityFor(name)));
        } catch (error) {
          answer(error instanceof Error ? error : new Error(String(error)));
        }
      },
      requestCert: true,
      // OpenSSL's verdict is read by PeerVerifier, which refuses in words and with a reason.
      rejectUnauthorized: false,
      handshakeTimeout: options.timeoutMs,
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    });
    this.#tls.on('tlsClientError', (error, socket) => {
      this.#underWay.get(endOf(socket))?.();
      const { remoteAddress } = socket;
      // Node leaves it open where only time ran out: who says nothing would keep his place.
      socket.destroy();
      this.#refused(error instanceof HandshakeError ? error : this.#tlsError(failureOf(error)), remoteAddress);
    });
    this.#tls.on('secureConnection', (socket) => {
      this.#underWay.get(endOf(socket))?.();
      this.#secure(socket);
    });
    this.#listener = createServer((socket) => this.#admit(socket));
  }

  /** @returns The port that is listened on. @throws {ListenError} */
  async listen(): Promise<number> {
    const { host = '::', port } = this.#options;
    const listening = await listenTcp(this.#listener, { host, port, option: '--handshake-port' });
    this.#listener.on('error', (error) => this.#deps.logger.error({ error: error.message }, 'handshake port'));
    return listening;
  }

  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#listener.close(() => resolve());
    for (const socket of this.#open) socket.destroy();
    for (const link of this.#links) link.destroy();
    await promise;
  }

  #admit(socket: Socket): void {
    const address = socket.remoteAddress ?? '';
    const parsed = tryParseIp(address);
    const stranger = parsed !== undefined && this.#deps.isNode?.(parsed) === false;
    const leave = this.#admission.enter(address, stranger);
    if (leave === undefined) {
      socket.destroy();
      this.#refused(new HandshakeError('too-many'), address);
      return;
    }
    const { counters, work } = this.#deps;
    counters.connections = this.#admission.open;
    const gone = () => {
      leave();
      counters.connections = this.#admission.open;
    };
    if (work.isFull) {
      this.#handOver(socket, address, gone);
      return;
    }
    this.#open.add(socket);
    const end = endOf(socket);
    const begun = work.begin();
    const done = () => {
      begun();
      this.#underWay.delete(end);
    };
    this.#underWay.set(end, done);
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      done();
      this.#open.delete(socket);
      gone();
    });
    this.#tls.emit('connection', socket);
  }

  /** Lets another thread do the handshake. */
  #handOver(socket: Socket, address: string, gone: () => void): void {
    const { work, contexts } = this.#deps;
    const fd = takeSocket(socket);
    if (fd === undefined) {
      gone();
      return;
    }
    let refusal: HandshakeError | undefined;
    let opened: SecureLink | undefined;
    work.threads.accept(fd, {
      connected: () => {},
      identityFor: (name) => {
        try {
          return contexts.portable(this.#identityFor(name));
        } catch (error) {
          refusal = asHandshakeError(error);
          return undefined;
        }
      },
      secure: (link) => {
        opened = link;
        this.#links.add(link);
        void this.#serve(link);
      },
      failed: (failure) => this.#refused(refusal ?? this.#tlsError(failure), address),
      closed: () => {
        if (opened !== undefined) this.#links.delete(opened);
        gone();
      },
    });
  }

  #identityFor(name: string): TlsIdentity {
    const asked = parseServerName(name, this.#options.trustDomain);
    const identity = asked?.kind === 'node' ? this.#deps.nodeIdentity() : asked && this.#deps.podIdentity(asked.uid);
    if (identity === undefined) throw new HandshakeError('unknown-endpoint', 'nobody of that name is on this node');
    return identity;
  }

  #secure(socket: TLSSocket): void {
    let link: SecureLink;
    try {
      link = new SocketLink(socket);
    } catch (cause) {
      socket.destroy();
      this.#refused(new HandshakeError('malformed', undefined, { cause }), socket.remoteAddress);
      return;
    }
    void this.#serve(link);
  }

  async #serve(link: SecureLink): Promise<void> {
    const { verifier } = this.#deps;
    const { serverName, protocol, cipher, remoteAddress } = link.facts;
    let channel: Channel | undefined;
    try {
      const asked = serverName === undefined ? undefined : parseServerName(serverName, this.#options.trustDomain);
      if (protocol === nodeProtocol) {
        if (asked?.kind !== 'node') throw new HandshakeError('unknown-endpoint');
        await this.#deps.onSession(link, verifier.verify(link.facts, { kind: 'node' }, nodeProtocol));
        return;
      }
      const cancel = new Cancel();
      channel = new Channel(link, this.#options.timeoutMs, cancel.signal);
      if (asked === undefined) throw new HandshakeError('unknown-endpoint');
      if (asked.kind === 'node') {
        await this.#deps.onNode({ channel, peer: verifier.verify(link.facts, { kind: 'node' }) });
      } else {
        const peer = verifier.verify(link.facts, { kind: 'pod' });
        await this.#deps.onPod({ channel, podUid: asked.uid, peer, cipher, cancel });
      }
      channel.close();
    } catch (cause) {
      const error = asHandshakeError(cause);
      if (channel === undefined) link.destroy();
      else channel.refuse(error);
      this.#refused(error, remoteAddress);
    }
  }

  #refused(error: HandshakeError, from: string | undefined): void {
    this.#deps.counters.failed(error);
    const skipped = this.#deps.rateLimit.pass(error.code);
    if (skipped === undefined || error.code === 'yield' || error.code === 'aborted') return;
    const { code, message, cause } = error;
    const stack = code === 'internal' && cause instanceof Error ? cause.stack : undefined;
    this.#deps.logger.warn({ reason: code, from, skipped, detail: message, stack }, 'handshake refused');
  }

  #tlsError(failure: ThreadFailure | undefined): HandshakeError {
    const { code = 'ECONNRESET', message = '', reason = message } = failure ?? {};
    const options = { data: { openssl: code } };
    if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return new HandshakeError('timeout', undefined, options);
    if (code === 'ECONNRESET') return new HandshakeError('disconnected', undefined, options);
    this.#deps.counters.tlsFailed(reason);
    if (code === 'ERR_SSL_NO_APPLICATION_PROTOCOL') return new HandshakeError('alpn', undefined, options);
    return new HandshakeError('tls', `the TLS handshake failed: ${reason}`, options);
  }
}

function failureOf(error: Error): ThreadFailure {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const reason = 'reason' in error && typeof error.reason === 'string' ? error.reason : undefined;
  return { message: error.message, code, reason };
}

function endOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
