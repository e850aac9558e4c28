import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { StatusError } from '../status.ts';

/** Who asks, as their client certificate says: CN is the user, each O a group. */
export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  /** When the certificate runs out, Unix milliseconds: a connection does not outlive it. */
  readonly notAfter: number;
}

const known = new WeakMap<Socket, User>();

/**
 * @returns Who is at the other end of the connection.
 * @throws {StatusError} `Unauthorized` where there is no certificate, or one that is not good, or not any more.
 */
export function identify(socket: Socket): User {
  const user = known.get(socket) ?? readCertificate(socket);
  known.set(socket, user);
  if (Date.now() >= user.notAfter) throw unauthorized('the client certificate has expired');
  return user;
}

function readCertificate(socket: Socket): User {
  if (!(socket instanceof TLSSocket)) throw unauthorized('not a TLS connection');
  const certificate = socket.getPeerCertificate();
  if (certificate === null || Object.keys(certificate).length === 0)
    throw unauthorized('a client certificate is required');
  if (!socket.authorized)
    throw unauthorized(`the client certificate is not accepted: ${String(socket.authorizationError)}`);
  // Pods' certificates come from the same root. They prove a pod to another pod, and are no ticket to the API.
  if (/URI:"?spiffe:\/\/[^,"/]+\/ns\//.test(certificate.subjectaltname ?? ''))
    throw unauthorized('the client certificate is a workload’s, not a user’s or a node’s');
  const [name] = list(certificate.subject.CN);
  if (name === undefined || name === '') throw unauthorized('the client certificate names no user (CN)');
  return { name, groups: list(certificate.subject.O), notAfter: Date.parse(certificate.valid_to) };
}

function list(value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return [];
  return typeof value === 'string' ? [value] : value;
}

function unauthorized(why: string): StatusError {
  return new StatusError(401, 'Unauthorized', `Unauthorized: ${why}`);
}
