import type { ClientSessionOptions, ServerSessionOptions, Settings } from 'node:http2';
import { limits } from '../limits.ts';

const settings: Settings = {
  enablePush: false,
  enableConnectProtocol: false,
  maxConcurrentStreams: limits.streams,
};

/**
 * A header that should stand once and stands twice passes as it came, and rules see both; node:http2 would throw. Its types
 * do not know that it can be told not to.
 */
const asItCame = { strictSingleValueFields: false };

/**
 * What is borne of a client. Node and nghttp2 bear more by default; what they refuse by themselves: more than 8
 * CONTINUATION frames in a row, more than 1,000 PING and SETTINGS whose answers the client does not read, invalid and
 * empty frames in numbers.
 */
export const clientSide: ServerSessionOptions = {
  ...asItCame,
  settings: { ...settings, maxHeaderListSize: limits.headerList },
  maxSessionMemory: limits.sessionMegabytes,
  maxHeaderListPairs: 110,
  maxSettings: 16,
  maxSessionInvalidFrames: 32,
  maxSessionRejectedStreams: 64,
  streamResetBurst: limits.resets,
  streamResetRate: limits.resetsPerSecond,
};

/** What is borne of a server. */
export const serverSide: ClientSessionOptions = {
  ...asItCame,
  settings: { ...settings, maxHeaderListSize: limits.answerHeaderList },
  maxSessionMemory: limits.sessionMegabytes,
  maxHeaderListPairs: 512,
  maxReservedRemoteStreams: 0,
  maxSettings: 16,
  // A server that says nothing of it may take as many as the client may open here.
  peerMaxConcurrentStreams: limits.streams,
};
