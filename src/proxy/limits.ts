/**
 * What one proxy bears, whoever its peers are: each number bounds memory or time that a peer could else take for nothing.
 * docs/HTTP.md has the table.
 */
const values = {
  /** Connections at once; a new one beyond is reset. Fewer where the process may not have two descriptors for each. */
  connections: 16_384,
  /** Of them from one client's address: no client takes all places of a node. */
  connectionsOfClient: 4_096,
  /** Connections that wait for the first policy after the process began. */
  waiting: 1_024,
  /** How long they wait, in milliseconds. */
  waitMs: 10_000,
  /** For a head (HTTP/1), a ClientHello or a preface, from its first byte to its end. */
  headMs: 15_000,
  /** How long those that policy does not know wait for the next one. */
  knownMs: 2_000,
  /** Without a request, as long as there is no connection to the server whose own patience would count. */
  idleMs: 60_000,
  /** From a last answer, or an alert, to the end: whatever the client sends meanwhile is swallowed. */
  lingerMs: 2_000,
  /** From the order to drain to the end of accepting: what the kernel has begun to take still comes. */
  settleMs: 1_000,
  /** For the server to take the connection. */
  connectMs: 30_000,
  /** Bytes that wait behind a request whose answer is outstanding. Then the client is no longer read. */
  pipelined: 65_536,
  /** Bytes of an answer's head: one that is longer is passed on and not followed, and its connection's last. */
  answerHead: 65_536,
  /** Of a ClientHello, as TLS counts: RFC 8446 section 4 allows more, nobody sends it. */
  hello: 16_384,
  /** Of it with its records' heads, which come with every byte if the client likes. */
  helloOnWire: 32_768,
  /** Streams of an HTTP/2 connection at once, said in SETTINGS. */
  streams: 128,
  /** Bytes of a header list as RFC 9113 section 6.5.2 counts them; what is longer than HTTP/1's head is answered 431. */
  headerList: 16_384,
  /** Of an answer's. */
  answerHeaderList: 65_536,
  /** Bytes on their way in one HTTP/2 connection and direction; in one stream it is the protocol's default, 65,535. */
  window: 1_048_576,
  /** Megabytes that Node and nghttp2 may hold for one HTTP/2 session. */
  sessionMegabytes: 4,
  /** Streams that a client may reset at once, and then each second (CVE-2023-44487, Rapid Reset). */
  resets: 200,
  resetsPerSecond: 50,
  /** Request flows that wait for the agent; of more it is only told how many. */
  flows: 4_096,
};

export type Limits = Readonly<Record<keyof typeof values, number>>;
export const limits: Limits = values;
