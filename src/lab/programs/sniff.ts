import { createServer, type Server, type Socket } from 'node:net';

/** Takes over a connection of which the first bytes have been read and put back. */
export type Takeover = (socket: Socket) => void;

/** The first bytes of an HTTP/2 connection with prior knowledge (RFC 9113 section 3.4); three set it apart from every method. */
const preface = Buffer.from('PRI');

/**
 * One port for HTTP/1.1 and HTTP/2 in clear, as a service has that answers requests and gRPC health checks alike.
 * A connection that ends before it said which it is, is closed.
 */
export function sniffingServer(http1: Takeover, http2: Takeover): Server {
  return createServer((socket) => {
    socket.on('error', () => socket.destroy());
    const decide = () => {
      const chunk: unknown = socket.read();
      if (!Buffer.isBuffer(chunk)) return;
      const known = Math.min(chunk.length, preface.length);
      const isHttp2 = chunk.subarray(0, known).equals(preface.subarray(0, known));
      socket.unshift(chunk);
      if (isHttp2 && known < preface.length) return;
      socket.off('readable', decide);
      (isHttp2 ? http2 : http1)(socket);
    };
    socket.on('readable', decide);
  });
}
