/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which bytes may stand where: RFC 9110 section 5.6.2, and src/policy/http/canonical.ts. */
#pragma once

#include "base.h"

#define BYTE_METHOD (1U << 0)
#define BYTE_TARGET (1U << 1)
#define BYTE_TOKEN (1U << 2)
#define BYTE_VALUE (1U << 3)
#define BYTE_HOST (1U << 4)
#define BYTE_HEX (1U << 5)
#define BYTE_DIGIT (1U << 6)

#define LETTER (BYTE_TARGET | BYTE_TOKEN | BYTE_VALUE | BYTE_HOST)
#define MARK (BYTE_TARGET | BYTE_VALUE)

static const __u8 http_bytes[256] = {
	['\t'] = BYTE_VALUE,
	[' '] = BYTE_VALUE,
	['!'] = MARK | BYTE_TOKEN,
	['"'] = BYTE_VALUE,
	['#'] = BYTE_VALUE | BYTE_TOKEN,
	['$' ... '\''] = MARK | BYTE_TOKEN,
	['(' ... ')'] = MARK,
	['*' ... '+'] = MARK | BYTE_TOKEN,
	[','] = MARK,
	['-'] = LETTER | BYTE_METHOD,
	['.'] = LETTER,
	['/'] = MARK,
	['0' ... '9'] = LETTER | BYTE_HEX | BYTE_DIGIT,
	[':'] = MARK | BYTE_HOST,
	[';'] = MARK,
	['<'] = BYTE_VALUE,
	['='] = MARK,
	['>'] = BYTE_VALUE,
	['?' ... '@'] = MARK,
	['A' ... 'F'] = LETTER | BYTE_METHOD | BYTE_HEX,
	['G' ... 'Z'] = LETTER | BYTE_METHOD,
	['['] = MARK | BYTE_HOST,
	['\\'] = BYTE_VALUE,
	[']'] = MARK | BYTE_HOST,
	['^'] = MARK | BYTE_TOKEN,
	['_'] = LETTER | BYTE_METHOD,
	['`'] = MARK | BYTE_TOKEN,
	['a' ... 'f'] = LETTER | BYTE_HEX,
	['g' ... 'z'] = LETTER,
	['{'] = MARK,
	['|'] = MARK | BYTE_TOKEN,
	['}'] = MARK,
	['~'] = LETTER,
	[0x80 ... 0xff] = BYTE_VALUE,
};

static __always_inline bool http_byte_is(__u8 byte, __u8 kind)
{
	return http_bytes[byte] & kind;
}

static __always_inline __u8 http_lower(__u8 byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

static __always_inline __u8 http_hex(__u8 byte)
{
	return byte <= '9' ? byte - '0' : (byte | 0x20) - 'a' + 10;
}
