/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is kept of a connection whose requests are read, and of a request while it is read. docs/HTTP.md. */
#pragma once

#include "policy.h"

#define HTTP_HEAD 8192
#define HTTP_HEADERS 100
#define HTTP_METHOD 32
#define HTTP_CHUNK_LINE 256
/* Bytes behind a buffer that eight may be read at once from. */
#define HTTP_SLACK 32

/* A connection, as its pod sees it. Unique on a node, since a pod's addresses are. */
struct http_key {
	struct addr local;
	struct addr remote;
	__be16 local_port;
	__be16 remote_port;
};

/* What the next byte of a connection is part of. */
enum http_phase {
	HTTP_IN_HEAD = 0,
	HTTP_IN_BODY = 1,    /* `remaining` bytes of it */
	HTTP_IN_CHUNKS = 2,  /* enum http_chunk says where */
	HTTP_IN_OTHER = 3,   /* no HTTP any more: passes while policy allows it unread */
	HTTP_REFUSED = 4,    /* answered for the last time, or to be reset: nobody gets what comes */
};

enum http_chunk {
	CHUNK_SIZE = 0,      /* no digit yet */
	CHUNK_DIGITS = 1,
	CHUNK_EXTENSION = 2,
	CHUNK_SIZE_LF = 3,
	CHUNK_DATA = 4,      /* `remaining` bytes of it */
	CHUNK_DATA_CR = 5,
	CHUNK_DATA_LF = 6,
	TRAILER_START = 7,
	TRAILER_NAME = 8,
	TRAILER_VALUE = 9,
	TRAILER_LF = 10,
	TRAILERS_LF = 11,
};

#define HTTP_SWALLOW (1U << 0) /* the body of a request that was denied: nobody gets it */
#define HTTP_TOO_BIG (1U << 1) /* the message at hand is the beginning of a head that is too big */
#define HTTP_NO_HTTP (1U << 2) /* the message at hand is no head: what it begins with is not HTTP's */
#define HTTP_LAST (1U << 3)    /* the message at hand ends the body */
#define HTTP_BROKEN (1U << 4)  /* the message at hand breaks the body, or cannot be read */
#define HTTP_SEEN (1U << 5)    /* `next` is known */
#define HTTP_BEGUN (1U << 6)   /* the pod has the beginning of the head at hand already */


/* The beginning of a head, while its end has not come. */
struct http_partial {
	__u8 bytes[HTTP_HEAD];
};

/*
 * Written by the stream verdict, which the socket's lock lets one packet at a time come to; what the pod answers is another
 * program's (struct http_answers).
 */
struct http_stream {
	struct ct_key connection;
	__u32 ifindex;
	__u8 phase; /* enum http_phase */
	__u8 chunk; /* enum http_chunk */
	__u8 flags;
	__u8 sized; /* digits of the chunk's size so far */
	__u32 line;    /* bytes of the chunk's or trailers' lines so far */
	__u64 remaining;
	__u32 begun; /* bytes of a head that is not complete, which are in http_partials */
	__u32 next;  /* the sequence number of the next byte */
	__u32 name_hash; /* of a trailer's name so far */
	__u32 revision;  /* that let it be no HTTP any more */
	__u32 sets[3];   /* admin, network and mesh set that the last request was let through by; 0: none was */
	__u32 pad;
};

#define HTTP_SAID_METHOD 16
#define HTTP_SAID_PATH 128

/* What is said of a request in an event. */
struct http_said {
	__u64 started_ns;
	__u32 rule;
	__u32 identity; /* of who asked */
	__u32 number;   /* of the request on its connection, from 0 */
	__u32 unsaid;   /* that should have been said before */
	__u8 method_length;
	__u8 path_length;
	__u8 kind;      /* enum event_kind */
	__u8 logged;    /* the rule wants it said in the log */
	__u32 unlogged; /* how many it should have had said before */
	__u8 method[HTTP_SAID_METHOD];
	__u8 path[HTTP_SAID_PATH]; /* canonical, its beginning */
};

/* Where in the pod's answers the next byte is. */
enum http_answer_phase {
	ANSWER_STATUS = 0,
	ANSWER_LINE,
	ANSWER_NAME,
	ANSWER_LENGTH,
	ANSWER_SKIP, /* to the line's end */
	ANSWER_BODY, /* `remaining` bytes of it */
	ANSWER_CHUNK,
	ANSWER_CHUNK_SKIP,
	ANSWER_CHUNK_DATA,
	ANSWER_TRAILER,
	ANSWER_TRAILER_SKIP,
	ANSWER_REST, /* all that comes: to the connection's end, or no HTTP any more */
	ANSWER_LOST, /* nobody knows: an order that was not kept, or no answer to anything */
};

#define ANSWER_SEEN (1U << 0)    /* `next` is known */
#define ANSWER_CHUNKED (1U << 1)
#define ANSWER_SIZED (1U << 2)
#define ANSWER_ENDS (1U << 3)    /* `ends` is known, while the phase is ANSWER_BODY */

/*
 * What a connection's requests were answered: so that the kernel's own answer is not put before, or into, one of the
 * pod's. The verdict writes `asked`, `passed`, `settled`, `heads` and (while it is 0) what `saying` guards; from_pod writes
 * the rest.
 */
struct http_answers {
	__u32 asked;    /* requests that the pod was given, and those that the kernel has answered */
	__u32 answered; /* of these, whose answer has left, whole */
	__u64 heads;    /* of the last 64 requests, which were HEAD: by number modulo 64 */
	__u32 next;     /* the sequence number of the next byte */
	__u8 phase;     /* enum http_answer_phase */
	__u8 flags;
	__u16 status;
	__u64 remaining;
	__u32 at;       /* bytes of the status line so far */
	__u32 hash;     /* of a header's name so far */
	__u32 saying;   /* 1: `said` is of a request whose answer is still to come */
	__u32 passed;   /* `asked`, when the pod was given a request last */
	__u32 settled;  /* `passed`, when all that had been passed was seen to be answered, or its answer to be written whole */
	__u32 ends;     /* of an answer with a length: the sequence number behind it */
	struct http_said said;
};

/* An event of one request: what event_kind says EVENT_REQUEST of; with EVENT_AUDIT, one that audited policies would deny. */
struct http_event {
	struct event event;
	__u16 status; /* 0: it has none */
	__u8 method_length;
	__u8 path_length;
	__u32 unsaid; /* requests that should have been said before this one, and were too many */
	__u8 method[HTTP_SAID_METHOD];
	__u8 path[HTTP_SAID_PATH];
};

struct http_settings {
	__u32 every;       /* of so many requests that pass, one is said; 0: none */
	__u32 pad;
	__u64 interval_ns; /* between two that are said, on each CPU, in the long run; 0: none is */
};

struct http_limit {
	__u64 next_ns;
	__u64 unsaid;
	__u64 passed;
};

#define HTTP_IS_10 (1U << 0)
#define HTTP_HAS_HOST (1U << 1)
#define HTTP_HAS_LENGTH (1U << 2)
#define HTTP_IS_CHUNKED (1U << 3)
#define HTTP_UPGRADES (1U << 4)
#define HTTP_HAS_AUTHORITY (1U << 5)
#define HTTP_IS_HEAD (1U << 6) /* the method HEAD, whose answer has no body */

struct http_line {
	__u16 name;
	__u16 name_length;
	__u16 value;
	__u16 value_length;
};

/*
 * Where a reader is. Kept in a map, since the verifier knows nothing of what is in one: what is on the stack it would
 * follow through every turn of a loop.
 */
struct http_reader {
	__u32 at;      /* the next byte */
	__u32 state;   /* enum lex_state */
	__u32 reason;  /* enum drop_reason, once it is refused */
	__u32 out;     /* of the canonical target, so far */
	__u32 segment; /* where in it the last segment begins */
	__u32 depth;   /* segments before that one */
	__u32 count;   /* within a fixed text */
	__u32 kind;    /* enum lex_kind */
	__u32 value_end;
	__u32 hex;
	/* Of what looks for a head's end, and of chunks. */
	__u32 from;
	__u32 length;
	__u32 line_end;
	__u32 first_line;
	__u32 end;
	__u32 window;
	__u32 loaded;
	__u32 ended;
	__u32 broken;
	__u32 pad;
};

/* What came out of a request. */
struct http_judgement {
	__u32 reason; /* enum drop_reason */
	__u32 rule;
	__u32 flags;
	__u32 identity; /* of who asks */
	__u32 revision; /* of the policy that was asked */
	__u32 sets[3];  /* that were asked */
	__u32 audited;  /* there are others to be asked, about what these let through */
	__u32 pad;
};

/* How far one packet's messages are looked at. */
struct http_progress {
	__u32 at;
	__u32 seen;   /* bits of enum http_action */
	__u32 reason; /* enum drop_reason, with HTTP_ANSWER: of the answer that is to be written next */
	__u32 last;   /* it is the connection's last */
	__u32 from;   /* where in the packet it begins: it takes all up to the next, or to the packet's end */
	__u32 bodiless; /* it is of a HEAD */
};

/* A request's head and what was read in it. Offsets are into `head`. */
struct http_request {
	struct http_reader reader;
	struct http_progress walk;
	struct http_judgement judgement;
	struct policy_query query;
	__u32 busy;
	__u32 length;
	__u32 flags;
	__u32 method_length;
	__u32 path_length; /* the canonical path's, at the beginning of `target` */
	__u32 target_length;
	__u32 authority;
	__u32 authority_length;
	__u32 host;
	__u32 host_length;
	__u32 lines;
	__u32 pad;
	__u64 content_length;
	struct http_bits bits; /* the alternatives of one rule set that it is */
	struct http_said said;
	struct http_line line[128];
	/*
	 * Twice as long as a head: of two pieces the verifier sees no more than that neither is longer. Once a head is whole,
	 * the places where segments begin that a `..` may remove stand behind it.
	 */
	__u8 head[2 * HTTP_HEAD + HTTP_SLACK];
	__u8 target[HTTP_HEAD + HTTP_SLACK];
};
