import type { Duplex } from 'node:stream';

/**
 * Pipes what comes out of the one into the other, as it comes: the one is read only as fast as the other takes it, and when it
 * has ended, so does the other. Errors are not its business.
 */
export function relay(from: Duplex, to: Duplex): void {
  from.on('data', (bytes: Buffer) => {
    if (!to.write(bytes)) from.pause();
  });
  to.on('drain', () => from.resume());
  from.on('end', () => to.end());
  from.resume();
}
