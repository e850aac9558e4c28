// SPDX-License-Identifier: Apache-2.0
// The control protocol between agent and engine: a Unix stream socket, messages of
//     u32 length (of what follows) | u8 type | payload
// Every integer is little endian, every struct packed, every address 16 bytes in network order (IPv4 as ::ffff:a.b.c.d).
// src/tunnel/engine/protocol.ts is the same thing in TypeScript; test/tunnel/engine-protocol.test.ts holds the two
// together. A message of unknown type or of a length its type cannot have closes the connection. There is one
// connection at a time; a new one replaces the old.
#pragma once

#include <stdint.h>

#define PROTOCOL_VERSION 1
#define PROTOCOL_MAX_REQUEST 2048 // length field of the longest request
#define PROTOCOL_MAX_NOTE 1024
#define PROTOCOL_NO_LIMIT UINT64_MAX
#define PROTOCOL_PAGE 256 // SAs in the answer to one MSG_LIST

enum message_type {
  // Requests. Each carries an id, which its answers repeat; the last answer is MSG_DONE. Carried out in order.
  MSG_INSTALL = 1,
  MSG_REMOVE = 2,
  MSG_MOVE_PEER = 3,
  MSG_LIST = 4,
  MSG_STATISTICS = 5,
  MSG_FAIL = 6,
  MSG_SHUTDOWN = 7,
  MSG_RELEASE = 8,
  MSG_PATH_MTU = 9,
  MSG_KEEPALIVE = 10,
  MSG_KEEP_SOCKET = 11,
  // Answers.
  MSG_DONE = 64,
  MSG_SA = 65,
  MSG_COUNTERS = 66,
  // Events.
  MSG_HELLO = 128, // once, first on every connection
  MSG_ACQUIRE = 129,
  MSG_EXPIRY = 130,
  MSG_UNKNOWN_SPI = 131,
  MSG_DROP = 132,
  MSG_MOVED = 133,
};

enum message_status {
  STATUS_OK = 0,
  STATUS_EXISTS = 1,
  STATUS_NO_SUCH_SA = 2,
  STATUS_INVALID = 3,
  STATUS_FULL = 4,
};

enum sa_direction { DIRECTION_IN = 0, DIRECTION_OUT = 1 };
enum expiry_kind { EXPIRY_SOFT = 0, EXPIRY_HARD = 1 };
enum expiry_cause { CAUSE_BYTES = 0, CAUSE_PACKETS = 1, CAUSE_SEQUENCE = 2 };

#define SA_FLAG_EXPIRED 1
#define HELLO_FLAG_USO 1    // the TUN device takes UDP super-packets
#define HELLO_FLAG_GRO 2    // the UDP socket coalesces what it receives
#define HELLO_FLAG_LOCKED 4 // key memory is locked into RAM
#define HELLO_FLAG_KERNEL_ESP 8 // the kernel takes ESP out of the UDP socket: this or another socket of the port
#define HELLO_LANES_SHIFT 8     // threads of each direction; 0, in an older engine: one
#define HELLO_LANES_MASK 0xf00

#define PACKED __attribute__((packed))

struct PACKED wire_header {
  uint32_t length;
  uint8_t type;
};

struct PACKED wire_selector {
  uint8_t local[16];
  uint8_t remote[16];
};

struct PACKED wire_underlay {
  uint8_t address[16];
  uint16_t port;
};

struct PACKED wire_lifetimes { // PROTOCOL_NO_LIMIT where there is none
  uint64_t soft_bytes;
  uint64_t hard_bytes;
  uint64_t soft_packets;
  uint64_t hard_packets;
};

struct PACKED wire_sa_id {
  uint8_t direction;
  uint32_t spi;
  struct wire_underlay peer; // names an outbound SA together with the SPI
};

// MSG_INSTALL, followed by `note_length` bytes of note. Answer: MSG_DONE.
struct PACKED wire_install {
  uint32_t id;
  struct wire_sa_id sa;
  uint8_t selector_count; // 1 or 2; two are one of each family
  struct wire_selector selectors[2];
  struct wire_lifetimes lifetimes;
  uint32_t replay_window; // inbound; a power of two, 64 … 32768
  uint8_t key[32];
  uint8_t salt[4];
  uint16_t note_length;
};

// MSG_REMOVE. MSG_DONE comes when no thread uses the SA any more and its key is zeroed.
struct PACKED wire_remove {
  uint32_t id;
  struct wire_sa_id sa;
};

struct PACKED wire_move_peer {
  uint32_t id;
  struct wire_sa_id sa;
  struct wire_underlay peer;
};

// MSG_LIST: SAs with a serial above `after`, oldest first. Answer: up to PROTOCOL_PAGE MSG_SA, then MSG_DONE with `more`.
struct PACKED wire_list {
  uint32_t id;
  uint64_t after;
};

// MSG_STATISTICS (answer: MSG_COUNTERS, MSG_DONE) and MSG_SHUTDOWN (answer: MSG_DONE; then the engine zeroes its keys and
// ends).
struct PACKED wire_request {
  uint32_t id;
};

struct PACKED wire_fail {
  uint32_t id;
  struct wire_selector pair;
};

// The packets held for the pair go back to the TUN device as they were read from it, in their order: something else carries
// the pair now. Answer: MSG_DONE.
struct PACKED wire_release {
  uint32_t id;
  struct wire_selector pair;
};

// How large a packet of the underlay may be on the way to an address; all zeros: to every address that has no word of its
// own. 0 forgets it: there is no limit then but the device's. Inner packets that do not fit are cut or their senders are told.
// Answer: MSG_DONE; STATUS_FULL where there are too many.
struct PACKED wire_path_mtu {
  uint32_t id;
  uint8_t address[16];
  uint32_t mtu;
};

// Sends a NAT keepalive (RFC 3948 section 2.3): a NAT on the way goes on taking packets from there for this node. Answer:
// MSG_DONE.
struct PACKED wire_keepalive {
  uint32_t id;
  struct wire_underlay peer;
};

// With `keep`: the descriptor that comes with the message (SCM_RIGHTS) is a socket of the ESP port out of which the kernel takes
// ESP for its own security associations; it stays open as long as the engine lives, in place of one that came before. Without:
// that one is closed. Answer: MSG_DONE; STATUS_INVALID where none came.
struct PACKED wire_keep_socket {
  uint32_t id;
  uint8_t keep;
};

struct PACKED wire_done {
  uint32_t id;
  uint8_t status; // enum message_status
  uint8_t more;
};

// MSG_SA, followed by `drop_count` u32 drops by reason and `note_length` bytes of note.
struct PACKED wire_sa {
  uint32_t id;
  uint64_t serial;
  struct wire_sa_id sa;
  uint8_t flags;
  uint8_t selector_count;
  struct wire_selector selectors[2];
  struct wire_lifetimes lifetimes;
  uint32_t replay_window;
  uint64_t packets;
  uint64_t bytes;
  uint64_t idle_ms; // PROTOCOL_NO_LIMIT where it never carried a packet
  uint64_t sequence;
  uint16_t drop_count;
  uint16_t note_length;
};

// MSG_COUNTERS, followed by `drop_count` u64 by reason and `detail_count` struct wire_detail.
struct PACKED wire_counters {
  uint32_t id;
  uint64_t sealed_packets;
  uint64_t sealed_bytes;
  uint64_t opened_packets;
  uint64_t opened_bytes;
  uint64_t held_pairs;
  uint64_t held_packets;
  uint64_t held_bytes;
  uint64_t sas_in;
  uint64_t sas_out;
  uint16_t drop_count;
  uint16_t detail_count;
};

struct PACKED wire_detail {
  char name[24]; // zero-padded
  uint64_t value;
};

struct PACKED wire_hello {
  uint32_t version;
  uint32_t pid;
  uint64_t instance; // random, another for every start
  uint32_t flags;
  char aead[16]; // zero-padded name of the implementation in use
};

struct PACKED wire_acquire {
  struct wire_selector pair;
};

struct PACKED wire_expiry {
  struct wire_sa_id sa;
  uint8_t kind;  // enum expiry_kind
  uint8_t cause; // enum expiry_cause
};

struct PACKED wire_unknown_spi {
  uint32_t spi;
  struct wire_underlay from;
};

// The newest packet of an inbound SA, authenticated, came from somewhere else than its peer is thought to be: a NAT gave the
// peer another address or port. Said at most ten times a second for an SA, until MSG_MOVE_PEER names that place.
struct PACKED wire_moved {
  struct wire_sa_id sa;
  struct wire_underlay from;
};

#define DROP_HAS_SPI 1
#define DROP_HAS_FROM 2
#define DROP_HAS_PAIR 4

struct PACKED wire_drop {
  uint16_t reason; // enum drop
  uint16_t has;    // DROP_HAS_…: which of the following are known
  uint64_t count;
  uint32_t spi;
  struct wire_underlay from;
  struct wire_selector pair;
};
