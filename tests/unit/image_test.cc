// SPDX-License-Identifier: GPL-2.0
// Images that strangers made: what is taken for what, and what is not taken at all.
#include "media/image.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "media/convert.h"
#include "media/device.h"
#include "media/machine.h"

namespace {

using core::Code;
using media::Image;

media::Read reader(const std::string& file) {
  return [&file](uint64_t offset, size_t bytes) -> core::Result<std::string> {
    return offset >= file.size() ? std::string() : file.substr(offset, bytes);
  };
}

core::Result<Image> identify(const std::string& file) {
  return media::identify(reader(file), file.size());
}

std::string why_not(const std::string& file) {
  const auto image = identify(file);
  if (image) return "taken as " + image->format;
  EXPECT_EQ(image.error().code, Code::invalid);
  return image.error().text;
}

void put(std::string& file, size_t at, const std::string& what) {
  if (file.size() < at + what.size()) file.resize(at + what.size());
  file.replace(at, what.size(), what);
}

void put_big(std::string& file, size_t at, size_t bytes, uint64_t value) {
  std::string field;
  for (size_t i = bytes; i-- > 0;) field += static_cast<char>(value >> (8 * i));
  put(file, at, field);
}

void put_little(std::string& file, size_t at, size_t bytes, uint64_t value) {
  std::string field;
  for (size_t i = 0; i < bytes; i++) field += static_cast<char>(value >> (8 * i));
  put(file, at, field);
}

std::string qcow2(uint64_t version = 3) {
  std::string file(65536, '\0');
  put(file, 0, "QFI\xfb");
  put_big(file, 4, 4, version);
  put_big(file, 20, 4, 16);
  put_big(file, 24, 8, 8 << 20);
  return file;
}

std::string vmdk(const std::string& description =
                     "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
                     "createType=\"streamOptimized\"\nRDONLY 16384 SPARSE \"a.vmdk\"\n") {
  std::string file(65536, '\0');
  put(file, 0, "KDMV");
  put_little(file, 4, 4, 3);
  put_little(file, 12, 8, 16384);
  put_little(file, 28, 8, 1);
  put_little(file, 36, 8, 20);
  put(file, 512, description);
  return file;
}

std::string iso() {
  std::string file(40000, '\0');
  put(file, 32768,
      "\x01"
      "CD001");
  return file;
}

std::string member(const std::string& name, const std::string& content) {
  std::string out(512, '\0');
  put(out, 0, name);
  std::array<char, 13> size{};
  std::snprintf(size.data(), size.size(), "%011zo", content.size());
  put(out, 124, size.data());
  put(out, 257, "ustar");
  out += content;
  out.resize((out.size() + 511) / 512 * 512);
  return out;
}

std::string ova(const std::string& disk) {
  return member("m.ovf", "<Envelope/>") + member("m.mf", "SHA256") + member("d.vmdk", disk) +
         std::string(1024, '\0');
}

TEST(Images, AreTakenForWhatTheyAre) {
  EXPECT_EQ(identify(qcow2())->format, "qcow2");
  EXPECT_EQ(identify(qcow2(2))->format, "qcow2");
  EXPECT_EQ(identify(vmdk())->format, "vmdk");
  EXPECT_EQ(identify("vhdxfile" + std::string(70000, '\0'))->format, "vhdx");
  EXPECT_EQ(identify(iso())->format, "iso");
  EXPECT_EQ(identify(std::string(512, '\0'))->format, "raw");
  EXPECT_EQ(identify("x")->format, "raw");
  // What boots from a CD or a stick begins with the code of a disk.
  std::string hybrid = iso();
  put(hybrid, 0, "\xeb\x63\x90");
  EXPECT_EQ(identify(hybrid)->format, "iso");
}

TEST(Images, TheDiskInAnArchiveIsFoundWhereItLies) {
  const auto image = identify(ova(vmdk()));
  ASSERT_TRUE(image) << image.error().text;
  EXPECT_EQ(image->format, "ova");
  EXPECT_EQ(image->inner, "vmdk");
  EXPECT_EQ(image->offset, 5 * 512U);
  EXPECT_EQ(image->bytes, vmdk().size());
}

TEST(Images, ThatLeadToOtherFilesAreRefused) {
  std::string file = qcow2();
  put_big(file, 8, 8, 1024);
  put_big(file, 16, 4, 11);
  put(file, 1024, "/etc/shadow");
  EXPECT_NE(why_not(file).find("backing file"), std::string::npos);
  file = qcow2();
  put_big(file, 16, 4, 11);  // its name's length alone
  EXPECT_NE(why_not(file).find("backing file"), std::string::npos);
  file = qcow2();
  put_big(file, 72, 8, 4);
  EXPECT_NE(why_not(file).find("data in another file"), std::string::npos);

  file = vmdk();
  put_little(file, 12, 8, 0);
  EXPECT_NE(why_not(file).find("data are in other files"), std::string::npos);
  file = vmdk();
  put_little(file, 28, 8, 40);  // a harmless description elsewhere; QEMU looks at the first
  EXPECT_NE(why_not(file).find("several files"), std::string::npos);
  for (const char* description :
       {"parentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 9 FLAT \"/etc/shadow\" 0",
        "parentCID=12345678\ncreateType=\"monolithicSparse\"\nparentFileNameHint=\"/etc/shadow\"",
        "parentCID=ffffffff\ncreateType=\"monolithicSparse\"\nPARENTFILENAMEHINT=\"/etc/shadow\"",
        "parentCID=12345678\ncreateType=\"monolithicSparse\"", "createType=\"streamOptimized\"",
        "parentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"", ""}) {
    EXPECT_EQ(why_not(vmdk(description)).find("taken"), std::string::npos) << description;
    EXPECT_EQ(why_not(ova(vmdk(description))).find("taken"), std::string::npos) << description;
  }
  EXPECT_NE(why_not("# Disk DescriptorFile\nRW 9 FLAT \"/etc/shadow\" 0").find("other files"),
            std::string::npos);
}

TEST(Images, ThatNobodyCouldUseAreRefusedWithWhatToDo) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {std::string("\x1f\x8b") + "x", "gzip"},
      {"\xfd"
       "7zXZ",
       "xz"},
      {"BZh9", "bzip2"},
      {"\x28\xb5\x2f\xfd", "zstd"},
      {"PK\x03\x04", "zip"},
      {"conectix", "VHD"},
      {"LUKS\xba\xbe", "encrypted"},
      {std::string(64, '\0') + "\x7f\x10\xda\xbe", "VDI"},
      {std::string("QED\0", 4), "QED"},
      {"<?xml version='1.0'?>", "description"}};
  for (const auto& [file, why] : cases)
    EXPECT_NE(why_not(file).find(why), std::string::npos) << why << ": " << why_not(file);
  std::string file = qcow2();
  put_big(file, 32, 4, 2);
  EXPECT_NE(why_not(file).find("encrypted"), std::string::npos);
  file = qcow2();
  put_big(file, 72, 8, 2);
  EXPECT_NE(why_not(file).find("corrupt"), std::string::npos);
  file = qcow2();
  put_big(file, 72, 8, uint64_t{1} << 40);
  EXPECT_NE(why_not(file).find("not known"), std::string::npos);
  EXPECT_NE(why_not(qcow2(4)).find("version 4"), std::string::npos);
}

TEST(Images, ArchivesThatAreNoneOfAMachineWithOneDiskAreRefused) {
  const std::string disk = vmdk();
  EXPECT_NE(why_not(member("a.txt", "x")).find("no machine"), std::string::npos);
  EXPECT_NE(why_not(member("d.vmdk", disk)).find("no machine"), std::string::npos);
  EXPECT_NE(why_not(member("m.ovf", "x")).find("no disk"), std::string::npos);
  EXPECT_NE(why_not(member("m.ovf", "x") + member("a.vmdk", disk) + member("b.vmdk", disk))
                .find("several disks"),
            std::string::npos);
  EXPECT_NE(why_not(member("m.ovf", "x") + member("a.vmdk.gz", disk)).find("compressed"),
            std::string::npos);
  EXPECT_NE(why_not(ova(qcow2())).find("no VMDK"), std::string::npos);
  EXPECT_NE(why_not(ova(disk).substr(0, 4000)).find("cut off"), std::string::npos);
  std::string huge = ova(disk);
  put(huge, 124, std::string("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12));
  EXPECT_NE(why_not(huge).find("cut off"), std::string::npos);
  std::string damaged = ova(disk);
  put(damaged, 1024 + 257, "xxxxx");
  EXPECT_NE(why_not(damaged).find("damaged"), std::string::npos);
}

TEST(Images, AnArchiveWhoseMembersNeverEndIsNotReadForEver) {
  std::string file = member("m.ovf", "");
  for (int i = 0; i < 3000; i++) file += member("x", "");
  size_t reads = 0;
  const auto image = media::identify(
      [&](uint64_t offset, size_t bytes) {
        reads++;
        return reader(file)(offset, bytes);
      },
      file.size());
  EXPECT_FALSE(image);
  EXPECT_LT(reads, 1100U);
}

TEST(Images, WhatTheReaderSaysIsPassedOn) {
  const auto image = media::identify(
      [](uint64_t, size_t) -> core::Result<std::string> {
        return core::Error{Code::storage, "no disk"};
      },
      5000);
  EXPECT_EQ(image.error().code, Code::storage);
}

TEST(Images, OfAnyBytesAreTakenOrRefusedAndLieWithinTheFile) {
  rc::check([] {
    std::vector<std::string> seeds = {qcow2(), vmdk(), ova(vmdk()), iso(), std::string(3000, 'x')};
    std::string file = *rc::gen::elementOf(seeds);
    const auto changes = *rc::gen::container<std::vector<std::pair<uint16_t, char>>>(
        rc::gen::pair(rc::gen::arbitrary<uint16_t>(), rc::gen::arbitrary<char>()));
    for (const auto& [at, what] : changes) file[at % std::min<size_t>(file.size(), 6000)] = what;
    file.resize(*rc::gen::inRange<size_t>(1, file.size() + 1));
    const auto image = identify(file);
    if (!image) {
      RC_ASSERT(image.error().code == Code::invalid);
      return;
    }
    RC_ASSERT(image->offset <= file.size());
    RC_ASSERT(image->bytes <= file.size() - image->offset);
    RC_ASSERT(image->bytes > 0U);
  });
}

TEST(QemuImg, OpensTheDiskInTheImageAndNothingElse) {
  const Image image{"ova", "vmdk", 2560, 1000};
  const std::string source = media::source_of(image);
  ASSERT_EQ(source.rfind("json:", 0), 0U);
  const auto options = boost::json::parse(source.substr(5)).as_object();
  EXPECT_EQ(options.at("driver"), "vmdk");
  EXPECT_TRUE(options.at("backing").is_null());
  const auto& part = options.at("file").as_object();
  EXPECT_EQ(part.at("offset"), 2560);
  EXPECT_EQ(part.at("size"), 1024) << "whole sectors";
  EXPECT_EQ(part.at("file").at("driver"), "host_device");
  EXPECT_EQ(part.at("file").at("filename"), "/image");
}

TEST(QemuImg, SeesItsDevicesAndHasNoNetworkAndNoRights) {
  const auto command = media::confined({{"/dev/mapper/a", "/image"}}, {"qemu-img", "info"});
  const auto has = [&](const std::string& word) {
    return std::find(command.begin(), command.end(), word) != command.end();
  };
  EXPECT_TRUE(has("--unshare-net"));
  EXPECT_TRUE(has("--die-with-parent"));
  EXPECT_TRUE(has("--cap-drop"));
  for (size_t i = 0; i < command.size(); i++) {
    EXPECT_NE(command[i], "--bind");
    if (command[i] == "--ro-bind") {
      EXPECT_EQ(command[i + 1], "/usr");
    }
    if (command[i] == "--dev-bind") {
      EXPECT_EQ(command[i + 1], "/dev/mapper/a");
    }
  }
  EXPECT_EQ(command.back(), "info");
}

TEST(QemuImg, IsAskedForTheSizeAndWhatItSaysOfOtherFilesEndsIt) {
  EXPECT_EQ(media::disk_bytes_in(R"({"virtual-size": 1048576, "format": "vmdk"})").value(),
            1048576U);
  for (const char* answer :
       {"", "[]", "{}", R"({"virtual-size": "x"})", R"({"virtual-size": 0})",
        R"({"virtual-size": -5})", R"({"virtual-size": 5, "backing-filename": "/etc/shadow"})",
        R"({"virtual-size": 5, "full-backing-filename": "nbd://far"})"})
    EXPECT_EQ(media::disk_bytes_in(answer).error().code, Code::invalid) << answer;
}

TEST(QemuImg, ItsProgressIsTheLastThatItHasWritten) {
  EXPECT_EQ(media::progress_in(""), 0U);
  EXPECT_EQ(media::progress_in("    (0.00/100%)\r    (12.34/100%)\r"), 123U);
  EXPECT_EQ(media::progress_in("    (12.34/100%)\r    (100.00/100%)\r\n"), 1000U);
  EXPECT_EQ(media::progress_in("(/100%)"), 0U);
  EXPECT_EQ(media::progress_in("(nan/100%)"), 0U);
  EXPECT_EQ(media::progress_in("(-7/100%) (900/100%)"), 1000U);
  EXPECT_EQ(media::progress_in("/100%)"), 0U);
}

TEST(Digests, AreThoseOfTheStandardHoweverTheBytesCome) {
  media::Digest whole;
  whole.add("abc");
  media::Digest pieces;
  pieces.add("a");
  pieces.add("");
  pieces.add("bc");
  const char* const kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(whole.end(), kAbc);
  EXPECT_EQ(pieces.end(), kAbc);
}

// A test's own: others run beside it.
std::string own(const std::string& name) { return name + "." + std::to_string(::getpid()); }

TEST(Devices, AreWrittenInWholeSectorsAndReadToTheirEnd) {
  // Where it is built, not in a temporary folder: that may be in memory, which knows no O_DIRECT.
  const std::string path = std::filesystem::current_path() / own("image_test.device");
  std::ofstream(path) << std::string(8192, 'x');
  media::Device out;
  out.open(path, true).value();
  out.write(4096, "abc").value();
  out.flush().value();
  media::Device in;
  in.open(path, false).value();
  EXPECT_EQ(in.read(4096, 5).value(), std::string("abc\0\0", 5));
  EXPECT_EQ(in.read(4608, 1 << 20).value(), std::string(3584, 'x'));
  EXPECT_EQ(in.read(8192, 512).value(), "");
  media::Device none;
  std::filesystem::remove(path);
  EXPECT_EQ(none.open(testing::TempDir() + "/nothing", false).error().code, Code::storage);
}

// Where it is built, as above.
std::string device_of(const char* name, size_t bytes) {
  std::string path = std::filesystem::current_path() / own(name);
  std::ofstream(path) << std::string(bytes, '\0');
  return path;
}

std::string contents_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(AFlash, GetsItsVariablesOnceAndAnewWhereItGotHalfOfThem) {
  std::string variables(16384, 'v');
  variables.replace(40, 4, "_FVH");
  const std::string path = testing::TempDir() + own("variables");
  std::ofstream(path) << variables;
  const std::string device = device_of("image_test.flash", variables.size());
  media::prepare_flash(device, path).value();
  EXPECT_TRUE(contents_of(device) == variables);
  // What a guest has written stays.
  std::string written = variables;
  written.replace(9000, 5, "mine!");
  std::ofstream(device) << written;
  media::prepare_flash(device, path).value();
  EXPECT_TRUE(contents_of(device) == written);
  // A node that died on its way to the header has not begun.
  std::ofstream(device) << std::string(4096, '\0') + variables.substr(4096, 100) +
                               std::string(variables.size() - 4196, '\0');
  media::prepare_flash(device, path).value();
  EXPECT_TRUE(contents_of(device) == variables);
  std::filesystem::remove(device);
  std::filesystem::remove(path);
}

TEST(AFlash, OfAnotherLengthOrFromWhatIsNoFirmwareIsRefused) {
  const std::string device = device_of("image_test.flash", 16384);
  const std::string path = testing::TempDir() + own("variables");
  std::string variables(8192, 'v');
  std::ofstream(path) << variables;
  EXPECT_EQ(media::prepare_flash(device, path).error().code, Code::storage);
  variables.replace(40, 4, "_FVH");
  std::ofstream(path) << variables;
  EXPECT_EQ(media::prepare_flash(device, path).error().code, Code::storage) << "too short";
  EXPECT_EQ(media::prepare_flash(device, path + ".none").error().code, Code::storage);
  EXPECT_TRUE(contents_of(device) == std::string(16384, '\0'));
  std::filesystem::remove(device);
  std::filesystem::remove(path);
}

TEST(ASeed, HasWhatCloudInitReads) {
  const std::string device = device_of("image_test.seed", 1 << 20);
  media::prepare_seed(device, {"an-id", "mail", "#cloud-config\nx: 1\n", "version: 2\n"}).value();
  const std::string image = contents_of(device);
  EXPECT_EQ(image.size(), size_t{1} << 20);
  // The volume's label, in the first of ISO 9660's descriptors.
  EXPECT_EQ(image.substr(32768 + 40, 8), "cidata  ");
  for (const char* text : {"instance-id: an-id\nlocal-hostname: mail\n", "#cloud-config\nx: 1\n",
                           "version: 2\n", "network-config", "user-data", "meta-data"})
    EXPECT_NE(image.find(text), std::string::npos) << text;
  media::prepare_seed(device, {"another", "mail", "#!/bin/sh\n", ""}).value();
  EXPECT_EQ(contents_of(device).find("network-config"), std::string::npos);
  std::filesystem::remove(device);
}

}  // namespace
