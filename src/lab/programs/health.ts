/** The parts of grpc.health.v1 that a probe needs: two messages of one field each, framed as gRPC frames them. */

export const healthPath = '/grpc.health.v1.Health/Check';

/** @returns HealthCheckRequest{service} behind gRPC's five-byte prefix (flag, big-endian length). */
export function healthRequest(service: string): Buffer {
  const name = Buffer.from(service);
  return frame(name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name]));
}

/** @returns HealthCheckResponse{status: SERVING}, framed. */
export function servingResponse(): Buffer {
  return frame(Buffer.from([0x08, 0x01]));
}

/** Whether a framed HealthCheckResponse says SERVING. */
export function isServing(message: Buffer): boolean {
  return message.length >= 7 && message[5] === 0x08 && message[6] === 0x01;
}

function frame(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}
