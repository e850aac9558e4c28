/**
 * A thread that does TLS, and nothing else: it decides nothing, verifies nobody and reads no message. Who may connect, who
 * the peer is and what is said are the agent's own thread's business (pool.ts). It imports little, to cost little.
 */
import { constants } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { Socket } from 'node:net';
import { setPriority } from 'node:os';
import { connect, createSecureContext, createServer, type SecureContext, type TLSSocket } from 'node:tls';
import { parentPort, workerData } from 'node:worker_threads';
import { SocketLink } from '../link.ts';
import { applicationProtocol, nodeProtocol, tlsParameters } from '../tls-parameters.ts';
import type { ThreadFailure, ThreadReport, ThreadRequest } from './messages.ts';

interface Link {
  readonly socket: Socket | TLSSocket;
  secure: SocketLink | undefined;
  failure: ThreadFailure | undefined;
  /** Awaits the answer to `asked`. */
  named: ((context: SecureContext | undefined) => void) | undefined;
}

/** Of one pair's conversation. */
const mostBytes = 65_536;

const port = parentPort;
if (port === null) throw new TypeError('this is a thread’s program');
const { groups, timeoutMs }: { groups: string; timeoutMs: number } = workerData;
const links = new Map<number, Link>();
const contexts = new Map<string, SecureContext>();
/** Links that were accepted, by the client's address and port, until their handshake is done. */
const accepted = new Map<string, number>();

// Whatever has to be done for pods that are there already goes first. A thread's number in Linux is a process's.
setPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)), 5);

const say = (report: ThreadReport, transfer: readonly ArrayBuffer[] = []) => port.postMessage(report, transfer);

const server = createServer({
  ...tlsParameters(groups),
  ALPNProtocols: [applicationProtocol, nodeProtocol],
  SNICallback(this: TLSSocket, serverName: string, answer: (error: Error | null, context?: SecureContext) => void) {
    const id = accepted.get(endOf(this));
    const link = id === undefined ? undefined : links.get(id);
    if (id === undefined || link === undefined) {
      answer(new Error('the connection is gone'));
      return;
    }
    link.named = (context) => {
      if (context === undefined) answer(new Error('nobody of that name is on this node'));
      else answer(null, context);
    };
    say({ type: 'asked', link: id, serverName });
  },
  requestCert: true,
  rejectUnauthorized: false,
  handshakeTimeout: timeoutMs,
  secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
});
server.on('secureConnection', (socket) => {
  const id = accepted.get(endOf(socket));
  if (id === undefined) socket.destroy();
  else secure(id, socket);
});
server.on('tlsClientError', (error, socket) => {
  const id = accepted.get(endOf(socket));
  const link = id === undefined ? undefined : links.get(id);
  if (link !== undefined) link.failure ??= failureOf(error);
  socket.destroy();
});

function endOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

function failureOf(error: Error): ThreadFailure {
  const text = (name: string) => {
    const value: unknown = Object.entries(error).find(([key]) => key === name)?.[1];
    return typeof value === 'string' ? value : undefined;
  };
  return { message: error.message, code: text('code') ?? '', reason: text('reason') };
}

function follow(id: number, socket: Socket): Link {
  const link: Link = { socket, secure: undefined, failure: undefined, named: undefined };
  links.set(id, link);
  socket.on('error', (error) => {
    link.failure ??= failureOf(error);
    socket.destroy();
  });
  socket.once('close', () => {
    // A socket that failed says why in the same turn, before or after.
    setImmediate(() => {
      links.delete(id);
      say({ type: 'closed', link: id, failure: link.failure });
    });
  });
  return link;
}

function secure(id: number, socket: TLSSocket): void {
  const link = links.get(id);
  if (link === undefined) {
    socket.destroy();
    return;
  }
  socket.on('error', (error) => {
    link.failure ??= failureOf(error);
  });
  try {
    link.secure = new SocketLink(socket);
  } catch (error) {
    link.failure = { message: String(error), code: 'MALFORMED', reason: undefined };
    socket.destroy();
    return;
  }
  say({ type: 'secure', link: id, facts: link.secure.facts });
  let received = 0;
  socket.on('data', (chunk: Buffer) => {
    received += chunk.length;
    // Nothing here holds a talker back, and two pods have little to say.
    if (received > mostBytes && socket.alpnProtocol !== nodeProtocol) socket.destroy();
    else say({ type: 'data', link: id, chunk });
  });
}

function carryOut(request: ThreadRequest): void {
  switch (request.type) {
    case 'identity': {
      const { name, chain, privateKey, roots } = request.identity;
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' });
      contexts.set(name, createSecureContext({ ...tlsParameters(groups), cert: chain, key, ca: roots }));
      return;
    }
    case 'forget':
      contexts.delete(request.name);
      return;
    case 'dial':
      dial(request);
      return;
    case 'accept': {
      const { link: id, fd } = request;
      say({ type: 'taken', link: id });
      const socket = new Socket({ fd, readable: true, writable: true });
      socket.setNoDelay(true);
      const end = endOf(socket);
      accepted.set(end, id);
      socket.once('close', () => accepted.delete(end));
      follow(id, socket);
      server.emit('connection', socket);
      return;
    }
    default: {
      const link = links.get(request.link);
      if (link !== undefined) act(link, request);
    }
  }
}

function dial({ link: id, host, port: to, serverName, protocol, identity }: ThreadRequest & { type: 'dial' }): void {
  const secureContext = contexts.get(identity);
  const socket = connect({
    host,
    port: to,
    servername: serverName,
    ...(secureContext === undefined ? {} : { secureContext }),
    ALPNProtocols: [protocol],
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  socket.setNoDelay(true);
  follow(id, socket);
  socket.once('connect', () => say({ type: 'connected', link: id }));
  socket.once('secureConnect', () => secure(id, socket));
}

function act(link: Link, request: Exclude<ThreadRequest, { type: 'identity' | 'forget' | 'dial' | 'accept' }>): void {
  switch (request.type) {
    case 'named': {
      const { identity } = request;
      link.named?.(identity === undefined ? undefined : contexts.get(identity));
      link.named = undefined;
      return;
    }
    case 'write':
      link.secure?.write(request.data);
      return;
    case 'export': {
      const { link: id, length, label, context } = request;
      const own = link.secure?.exportKeyingMaterial(length, label, Buffer.from(context));
      const material = own === undefined ? undefined : Uint8Array.from(own);
      own?.fill(0);
      say({ type: 'exported', link: id, material }, material === undefined ? [] : [material.buffer]);
      return;
    }
    case 'end':
      if (link.secure === undefined) link.socket.destroy();
      else link.secure.end();
      return;
    case 'destroy':
      (link.secure ?? link.socket).destroy();
      return;
  }
}

port.on('message', carryOut);
