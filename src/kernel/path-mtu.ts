import { type IpAddress, ipFromBytes } from '../model/address.ts';
import { attributes, NetlinkSocket, netlinkFlags } from './netlink.ts';

const NETLINK_ROUTE = 0;
const RTM_GETLINK = 18;
const RTM_GETROUTE = 26;
const IFLA_MTU = 4;
const RTA_DST = 1;
const RTA_METRICS = 8;
const RTAX_MTU = 2;
const RTM_F_CLONED = 0x200;
const ifinfoBytes = 16;
const routeBytes = 12;
const AF_INET = 2;
const AF_INET6 = 10;

/** What the kernel of this process's network namespace knows of how large packets may be. */
export class MtuTable {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  /** @returns The MTU of a device. @throws {KernelError} `Errno` (ENODEV) */
  ofDevice(ifindex: number): number {
    // struct ifinfomsg: family 0, type 2, index 4
    const request = Buffer.alloc(ifinfoBytes);
    request.writeInt32LE(ifindex, 4);
    const [link] = this.#socket.request(RTM_GETLINK, 0, request, 'read the MTU of a device', `index ${ifindex}`);
    return (
      attributes(link?.payload.subarray(ifinfoBytes) ?? Buffer.alloc(0))
        .get(IFLA_MTU)
        ?.readUInt32LE(0) ?? 0
    );
  }

  /** @returns What routers said (ICMP) of the ways to single addresses, as far as the kernel believes and remembers it. */
  ofPaths(): Map<IpAddress, number> {
    const paths = new Map<IpAddress, number>();
    for (const family of [AF_INET, AF_INET6]) {
      // struct rtmsg: family 0, flags 8. With this flag: what was cloned from routes, which is what exceptions are.
      const request = Buffer.alloc(routeBytes);
      request.writeUInt8(family, 0);
      request.writeUInt32LE(RTM_F_CLONED, 8);
      const routes = this.#socket.request(
        RTM_GETROUTE,
        netlinkFlags.dump,
        request,
        'list path MTUs',
        `family ${family}`,
      );
      for (const { payload } of routes) {
        const route = attributes(payload.subarray(routeBytes));
        const destination = route.get(RTA_DST);
        const mtu =
          attributes(route.get(RTA_METRICS) ?? Buffer.alloc(0))
            .get(RTAX_MTU)
            ?.readUInt32LE(0) ?? 0;
        // The dump has IPv6 routes of other kinds, too; an exception is to one address.
        if (destination === undefined || mtu === 0 || payload.readUInt8(1) !== destination.length * 8) continue;
        paths.set(ipFromBytes(destination), mtu);
      }
    }
    return paths;
  }

  close(): void {
    this.#socket.close();
  }
}
