import { closeSync } from 'node:fs';
import { familyOf, type IpAddress } from '../model/address.ts';
import { checked, raw } from './ffi/libc.ts';
import { inNamespace } from './netns.ts';
import { setOption, socketAddress } from './sockets.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_TCP = 6;
const TCP_SAVE_SYN = 27;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
/** From the Ethernet header on. */
const saveFrame = 2;

export interface TcpListenerOptions {
  /** Path of the network namespace that the socket is to be in, for good. */
  readonly netns: string;
  readonly address: IpAddress;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** How many connections may wait to be accepted; at most net.core.somaxconn of the namespace. */
  readonly backlog: number;
  /** Has the kernel keep, with each connection, the frame that opened it. */
  readonly saveSyn?: boolean;
}

/**
 * Opens a TCP socket that listens in another network namespace, for one family, not blocking, for a child process.
 * @returns Its descriptor, which the caller closes or passes on.
 * @throws {KernelError} `Errno` (EADDRINUSE)
 */
export function listenTcpIn({ netns, address, port, backlog, saveSyn }: TcpListenerOptions): number {
  const v6 = familyOf(address) === 6;
  const name = `TCP ${v6 ? `[${address}]` : address}:${port}`;
  return inNamespace(netns, () => {
    const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const fd = checked(raw.socket(v6 ? AF_INET6 : AF_INET, type, 0), 'open the socket', name);
    try {
      setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, name);
      if (v6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, name);
      if (saveSyn === true) setOption(fd, IPPROTO_TCP, TCP_SAVE_SYN, saveFrame, name);
      const bytes = socketAddress(address, port);
      checked(raw.bind(fd, bytes, bytes.length), 'bind', name);
      checked(raw.listen(fd, backlog), 'listen', name);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  });
}
