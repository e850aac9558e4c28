import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { startDaemon, waitUntil } from './daemon.ts';
import type { Site } from './sites.ts';

/** wireguard-go between two sites. @param mtu Of its devices: 80 less than the underlay's. @returns The tunnel devices' names and an end. */
export async function openWireguard(
  name: string,
  sites: readonly [Site, Site],
  mtu = 1420,
): Promise<{ devices: [string, string]; close(): Promise<void> }> {
  const devices: [string, string] = [`${name}w1`, `${name}w2`];
  const daemons = sites.map((site, i) =>
    startDaemon('wireguard-go', ['--foreground', devices[i] ?? ''], { netns: site.netns, env: { LOG_LEVEL: 'error' } }),
  );
  const close = async () => {
    for (const daemon of daemons) await daemon.close();
  };
  try {
    const keys = await Promise.all(
      sites.map(async () => {
        const secret = (await run('wg', ['genkey'])).stdout.trim();
        return { secret, public: (await run('wg', ['pubkey'], { input: secret })).stdout.trim() };
      }),
    );
    for (const [i, site] of sites.entries()) {
      const [device = '', mine, peer, peerSite] = [devices[i], keys[i], keys[1 - i], sites[1 - i]];
      if (mine === undefined || peer === undefined || peerSite === undefined) throw new Error('there are two sides');
      await waitUntil(`wireguard-go makes ${device}`, 5, () =>
        run('wg', ['show', device], { netns: site.netns }).then(
          () => true,
          () => false,
        ),
      );
      const config = `[Interface]\nPrivateKey = ${mine.secret}\nListenPort = 51820\n[Peer]\nPublicKey = ${peer.public}\nEndpoint = ${peerSite.underlay}:51820\nAllowedIPs = 0.0.0.0/0\n`;
      // Node's standard input is a socket, which cannot be opened by name; cat's output is a pipe, which can.
      await run('sh', ['-c', 'cat | wg setconf "$0" /dev/stdin', device], { netns: site.netns, input: config });
      await ipBatch([`link set ${device} mtu ${mtu} up`], { netns: site.netns });
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { devices, close };
}
