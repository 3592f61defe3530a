// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cstring>
#include <string>

extern "C" {
#include "wire.h"
}

namespace {

scribe_msg write_request() {
  scribe_msg msg{};
  msg.tag = 7;
  msg.sender_life = 0x1122334455667788;
  msg.expected_life = 0x99aabbccddeeff00;
  msg.sector = 4096;
  msg.length_bytes = 8192;
  msg.disk = 3;
  msg.op = SCRIBE_WIRE_WRITE;
  return msg;
}

void reseal(scribe_wire_header& header) {
  header.header_crc = cpu_to_le32(~crc32c(~0U, &header, offsetof(scribe_wire_header, header_crc)));
}

TEST(Wire, TheHeaderIs64BytesAndItsBytesNeverChange) {
  static_assert(sizeof(scribe_wire_header) == 64);
  static_assert(offsetof(scribe_wire_header, header_crc) == 60);
  scribe_wire_header header;
  const scribe_msg msg = write_request();
  scribe_wire_encode(&msg, &header);
  std::string hex;
  for (size_t i = 0; i < sizeof(header); i++) {
    char byte[3];
    std::snprintf(byte, sizeof(byte), "%02x", reinterpret_cast<unsigned char*>(&header)[i]);
    hex += byte;
  }
  EXPECT_EQ(hex.substr(0, 120),
            "534342450102000007000000000000008877665544332211"
            "00ffeeddccbbaa9900100000000000000020000003000000"
            "000000000000000000000000");
}

RC_GTEST_PROP(Wire, WhatIsEncodedIsDecoded, ()) {
  scribe_msg msg = write_request();
  msg.tag = *rc::gen::arbitrary<u64>();
  msg.sector = *rc::gen::arbitrary<u64>();
  msg.length_bytes = *rc::gen::inRange<u32>(1, 2049) * 512;
  msg.status = *rc::gen::arbitrary<u16>();
  scribe_wire_header header;
  scribe_wire_encode(&msg, &header);
  scribe_msg out;
  RC_ASSERT(scribe_wire_decode(&header, &out) == nullptr);
  RC_ASSERT(std::memcmp(&msg.tag, &out.tag, sizeof(msg.tag)) == 0);
  RC_ASSERT(out.sector == msg.sector && out.length_bytes == msg.length_bytes &&
            out.status == msg.status);
  RC_ASSERT(scribe_wire_payload_bytes(&out) == msg.length_bytes);
}

RC_GTEST_PROP(Wire, AnyFlippedBitIsFound, ()) {
  const scribe_msg msg = write_request();
  scribe_wire_header header;
  scribe_wire_encode(&msg, &header);
  const int bit = *rc::gen::inRange(0, 512);
  reinterpret_cast<unsigned char*>(&header)[bit / 8] ^= 1U << bit % 8;
  scribe_msg out;
  RC_ASSERT(scribe_wire_decode(&header, &out) != nullptr);
}

TEST(Wire, RefusesLengthsAndOperationsThatMakeNoSense) {
  auto refused = [](auto change) {
    scribe_msg msg = write_request();
    scribe_wire_header header;
    scribe_wire_encode(&msg, &header);
    change(header);
    reseal(header);
    scribe_msg out;
    return scribe_wire_decode(&header, &out);
  };
  EXPECT_EQ(refused([](auto&) {}), nullptr);
  EXPECT_STREQ(refused([](auto& h) { h.magic = 1; }), "bad magic");
  EXPECT_STREQ(refused([](auto& h) { h.version = 2; }), "unknown protocol version");
  EXPECT_STREQ(refused([](auto& h) { h.op = 0; }), "unknown operation");
  EXPECT_STREQ(refused([](auto& h) { h.op = SCRIBE_WIRE_NR_OPS; }), "unknown operation");
  EXPECT_STREQ(refused([](auto& h) { h.length = 0; }), "length out of range");
  EXPECT_STREQ(refused([](auto& h) { h.length = cpu_to_le32(SCRIBE_WIRE_MAX_BYTES + 512); }),
               "length out of range");
  EXPECT_STREQ(refused([](auto& h) { h.length = cpu_to_le32(100); }),
               "length not a multiple of 512");
  EXPECT_STREQ(refused([](auto& h) { h.op = SCRIBE_WIRE_FLUSH; }),
               "length on an operation without data");
}

TEST(Wire, OnlyWritesAndGoodReadAnswersCarryData) {
  scribe_msg msg = write_request();
  EXPECT_EQ(scribe_wire_payload_bytes(&msg), 8192U);
  msg.flags = SCRIBE_WIRE_F_RESPONSE;
  EXPECT_EQ(scribe_wire_payload_bytes(&msg), 0U);
  msg.op = SCRIBE_WIRE_READ;
  EXPECT_EQ(scribe_wire_payload_bytes(&msg), 8192U);
  msg.status = SCRIBE_WIRE_IOERR;
  EXPECT_EQ(scribe_wire_payload_bytes(&msg), 0U);
}

}  // namespace
