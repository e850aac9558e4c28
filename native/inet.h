// SPDX-License-Identifier: Apache-2.0
// Offsets and bits of the headers that segmentation and coalescing touch (RFC 791, 8200, 9293, 768).
#pragma once

#define IP4_HEADER 20
#define IP4_TOTAL_LENGTH 2
#define IP4_ID 4
#define IP4_FRAGMENT 6
#define IP4_PROTOCOL 9
#define IP4_CHECKSUM 10
#define IP4_SOURCE 12
#define IP4_DESTINATION 16
#define IP4_DONT_FRAGMENT 0x4000
#define IP4_FRAGMENT_BITS 0x3fff // more fragments, and the offset

#define IP6_HEADER 40
#define IP6_PAYLOAD_LENGTH 4
#define IP6_NEXT_HEADER 6
#define IP6_SOURCE 8
#define IP6_DESTINATION 24

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

#define TCP_HEADER 20
#define TCP_SEQUENCE 4
#define TCP_ACKNOWLEDGEMENT 8
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_WINDOW 14
#define TCP_CHECKSUM 16
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_CWR 0x80

#define UDP_HEADER 8
#define UDP_LENGTH 4
#define UDP_CHECKSUM 6
