import { rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';

/**
 * Passes every connection to a socket file on to an address, byte for byte, so that TLS ends where it would without it.
 * @returns The server, which listens once this resolves.
 */
export function relay(path: string, to: { readonly host: string; readonly port: number }): Promise<Server> {
  rmSync(path, { force: true });
  const server = createServer((near) => {
    const far = connect(to);
    near.pipe(far).pipe(near);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const)
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(path, () => resolve(server));
  });
}
