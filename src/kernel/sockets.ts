import { closeSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { IpAddress } from '../model/address.ts';
import { familyOf, ipToBytes } from '../model/address.ts';
import { errnoError } from './error.ts';
import { checked, lastErrno, memoryOf, raw } from './ffi/libc.ts';

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const SO_REUSEPORT = 15;
const SO_PEERCRED = 17;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_ATTACH_REUSEPORT_EBPF = 52;
const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IPPROTO_UDP = 17;
const IP_MTU_DISCOVER = 10;
const IPV6_MTU_DISCOVER = 23;
const IPV6_V6ONLY = 26;
const UDP_ENCAP = 100;
const UDP_ENCAP_ESPINUDP = 2;
const UDP_GRO = 104;

/** IP_PMTUDISC_*: whether sent packets carry "do not fragment", and whether the kernel's learnt path MTU binds them. */
export const mtuDiscover = { dont: 0, want: 1, do: 2, probe: 3 } as const;

export interface UdpOptions {
  /** `::` takes IPv4 too, unless `ipv6Only`. */
  readonly address: IpAddress;
  /** 0 lets the kernel choose. */
  readonly port: number;
  readonly ipv6Only?: boolean;
  /** Other sockets of this user may be bound to the same address and port, if they say this too. */
  readonly reusePort?: boolean;
  /** Receive several datagrams of one flow as one, with their size in a control message. */
  readonly gro?: boolean;
  readonly mtuDiscover?: keyof typeof mtuDiscover;
  /** The kernel takes ESP out of UDP by itself and gives it to xfrm (RFC 3948). */
  readonly espInUdp?: boolean;
  /** Bytes, for each direction, beyond the system's limit. */
  readonly bufferBytes?: number;
}

/**
 * Opens a bound UDP socket in this process's network namespace, not blocking, for a child process.
 * @returns Its descriptor, which the caller closes or passes on, and its port.
 * @throws {KernelError} `Errno` (EADDRINUSE, EADDRNOTAVAIL)
 */
export function openUdp(options: UdpOptions): { fd: number; port: number } {
  const v6 = familyOf(options.address) === 6;
  const name = `UDP ${v6 ? `[${options.address}]` : options.address}:${options.port}`;
  const type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const fd = checked(raw.socket(v6 ? AF_INET6 : AF_INET, type, 0), 'open the socket', name);
  try {
    if (options.reusePort === true) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, name);
    if (v6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6Only === true ? 1 : 0, name);
    if (options.mtuDiscover !== undefined) {
      const mode = mtuDiscover[options.mtuDiscover];
      if (v6) setOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode, name);
      // On a dual-stack socket the IPv4 option governs what goes out as IPv4.
      setOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, mode, name);
    }
    if (options.bufferBytes !== undefined)
      for (const option of [SO_RCVBUFFORCE, SO_SNDBUFFORCE])
        setOption(fd, SOL_SOCKET, option, options.bufferBytes, name);
    if (options.gro === true) setOption(fd, IPPROTO_UDP, UDP_GRO, 1, name);
    if (options.espInUdp === true) setOption(fd, IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP, name);
    const address = socketAddress(options.address, options.port);
    checked(raw.bind(fd, address, address.length), 'bind', name);
    return { fd, port: boundPort(fd, name) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Has a program of type sk_reuseport choose, for each datagram, among all sockets that are bound to this one's address and port.
 * @throws {KernelError} `Errno`
 */
export function steerSockets(fd: number, programFd: number): void {
  setOption(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, programFd, 'a group of sockets');
}

/**
 * Opens a listening Unix stream socket; a socket file that an earlier process left at the path is replaced.
 * @returns Its descriptor, which the caller closes or passes on.
 * @throws {KernelError} `Errno` (ENAMETOOLONG: a path has at most 107 bytes)
 */
export function listenUnix(path: string, backlog = 16): number {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length > 107) throw errnoError(36, 'listen', path);
  const address = new Uint8Array(2 + bytes.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  const fd = checked(raw.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'open the socket', path);
  try {
    rmSync(path, { force: true });
    checked(raw.bind(fd, address, address.length), 'bind', path);
    checked(raw.listen(fd, backlog), 'listen', path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Takes a connected socket out of Node's hands, for another thread to go on with. Nothing of it may have been read.
 * @returns A descriptor of its own, which the caller closes or passes on; undefined where the socket is closed already.
 */
export function takeSocket(socket: Socket): number | undefined {
  const fd = descriptorOf(socket);
  const own = fd === undefined ? undefined : checked(raw.dup(fd), 'duplicate', 'an accepted socket');
  socket.destroy();
  return own;
}

/** Of a socket that is in Node's hands; undefined where it is closed. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = '_handle' in socket ? socket._handle : undefined;
  const fd = typeof handle === 'object' && handle !== null && 'fd' in handle ? handle.fd : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}

/**
 * Writes a short message to a connected Unix socket together with a descriptor (SCM_RIGHTS), of which the other process gets a copy.
 * Nothing else may be waiting to be written.
 * @throws {KernelError} `Errno` (EAGAIN: its buffer is full; EBADF: it is closed)
 */
export function sendDescriptor(socket: Socket, message: Uint8Array, fd: number): void {
  // struct msghdr (56 bytes), struct iovec (16), struct cmsghdr with one int (24), as on every 64-bit architecture; in one piece,
  // which the call keeps alive.
  const bytes = new Uint8Array(96);
  const at = memoryOf(bytes);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(16, at + 56n, true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, at + 72n, true);
  view.setBigUint64(40, 24n, true);
  view.setBigUint64(56, memoryOf(message), true);
  view.setBigUint64(64, BigInt(message.length), true);
  view.setBigUint64(72, 20n, true);
  view.setInt32(80, SOL_SOCKET, true);
  view.setInt32(84, SCM_RIGHTS, true);
  view.setInt32(88, fd, true);
  const sent = checked(raw.sendmsg(descriptorOf(socket) ?? -1, bytes, MSG_NOSIGNAL), 'send', 'a descriptor');
  if (sent !== message.length) throw errnoError(11, 'send', 'a descriptor');
}

/** @returns Who is at the other end of a connected Unix socket (SO_PEERCRED). */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const value = new Int32Array(3);
  const bytes = new Uint8Array(value.buffer);
  const result = raw.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytes, Uint8Array.of(12, 0, 0, 0));
  checked(result, 'read the peer’s credentials', `descriptor ${fd}`);
  const [pid = -1, uid = -1, gid = -1] = value;
  return { pid, uid, gid };
}

/** Sets an option that is a number. @throws {KernelError} `Errno` */
export function setOption(fd: number, level: number, option: number, value: number, object: string): void {
  const bytes = new Uint8Array(Int32Array.of(value).buffer);
  if (raw.setsockopt(fd, level, option, bytes, 4) < 0)
    throw errnoError(lastErrno(), `set socket option ${level}/${option}`, object);
}

/** struct sockaddr_in or sockaddr_in6. */
export function socketAddress(ip: IpAddress, port: number): Uint8Array {
  const v6 = familyOf(ip) === 6;
  const bytes = new Uint8Array(v6 ? 28 : 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, v6 ? AF_INET6 : AF_INET, true);
  view.setUint16(2, port);
  bytes.set(ipToBytes(ip), v6 ? 8 : 4);
  return bytes;
}

function boundPort(fd: number, name: string): number {
  const address = new Uint8Array(28);
  const length = Uint8Array.of(address.length, 0, 0, 0);
  checked(raw.getsockname(fd, address, length), 'read the port', name);
  return new DataView(address.buffer).getUint16(2);
}
