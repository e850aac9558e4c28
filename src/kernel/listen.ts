import type { AddressInfo, Server } from 'node:net';
import { MyelinError } from '../model/error.ts';

export type ListenErrorCode = 'PortTaken' | 'ListenFailed';

/** A port that cannot be listened on; the message says what to do. */
export class ListenError extends MyelinError<ListenErrorCode> {}

export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  /** How a person chooses another: `--listen`. */
  readonly option: string;
}

/**
 * Has a server listen on TCP.
 * @returns The port that is listened on.
 * @throws {ListenError}
 */
export async function listenTcp(server: Server, { host, port, option }: ListenOptions): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host, port, backlog: 1024 }, resolve);
  try {
    await promise;
  } catch (cause) {
    throw listenError(cause, { what: `TCP port ${port}`, host, option });
  } finally {
    server.off('error', reject);
  }
  const address: AddressInfo | string | null = server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}

/** @param what Protocol and port. @returns The error in words, for whatever the system said. */
export function listenError(cause: unknown, { what, host, option }: { what: string; host: string; option: string }) {
  const said = cause instanceof Error ? cause.message : String(cause);
  return /\bEADDRINUSE\b/.test(said)
    ? new ListenError(
        'PortTaken',
        `${what} of ${host} is taken by another program; stop it, or give another ${option}`,
        { cause },
      )
    : new ListenError('ListenFailed', `cannot listen on ${what} of ${host} (${option}): ${said}`, { cause });
}
