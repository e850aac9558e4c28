/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * SCTP's CRC32c after a change of ports, without reading the packet. A CRC is linear: that of the changed packet is the
 * old one XOR the CRC (started from zero) of the difference, which is four bytes and then zeros; running over n zero
 * bytes is a multiplication by x^8n modulo the polynomial, done by squaring (as zlib's crc32_combine).
 */
#pragma once

#include "base.h"

#define CRC32C_POLYNOMIAL 0x82f63b78U /* reflected */
#define CRC32C_X8 0x00800000U	      /* x^8, reflected: the most significant bit is x^0 */

/* a × b modulo the polynomial. */
SUBPROGRAM __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 31; i >= 0; i--) {
		product ^= b & -((a >> i) & 1);
		b = (b >> 1) ^ (CRC32C_POLYNOMIAL & -(b & 1));
	}
	return product;
}

/*
 * @param difference Old XOR new of the packet's first four bytes, as they lie in memory.
 * @param length Of the SCTP packet.
 * @returns What to XOR the checksum field (as it lies in memory) with.
 */
SUBPROGRAM __u32 crc32c_difference(__u32 difference, __u32 length)
{
	__u32 power = CRC32C_X8;

	for (int bit = 0; bit < 17; bit++) {
		if (length & (1U << bit))
			difference = crc32c_multiply(power, difference);
		power = crc32c_multiply(power, power);
	}
	return difference;
}
