// SPDX-License-Identifier: GPL-2.0
#include "media/convert.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <cmath>

#include "host/command.h"

namespace media {

namespace {

namespace json = boost::json;
using core::Code;
using core::Error;
using core::Result;

constexpr uint64_t kPermille = 1000;
constexpr std::chrono::seconds kInfoFor{120};
constexpr const char* kImage = "/image";
constexpr const char* kDisk = "/disk";

// Where the confinement itself failed, that says nothing of the image.
Result<std::string> run(const std::vector<std::string>& command,
                        const std::function<bool(const std::string& output)>& goes_on) {
  auto out = host::run_command(command, goes_on);
  if (!out && out.error().text.starts_with("bwrap:")) return Error{Code::storage, out.error().text};
  return out;
}

}  // namespace

std::vector<std::string> confined(const std::vector<std::pair<std::string, std::string>>& devices,
                                  const std::vector<std::string>& command) {
  std::vector<std::string> out = {// Not as the daemon, which is the last to be killed.
                                  "choom",
                                  "-n",
                                  "500",
                                  "--",
                                  "nice",
                                  "-n",
                                  "10",
                                  "prlimit",
                                  "--as=4294967296",
                                  "--core=0",
                                  "bwrap",
                                  "--unshare-ipc",
                                  "--unshare-net",
                                  "--unshare-pid",
                                  "--unshare-uts",
                                  "--unshare-cgroup-try",
                                  "--die-with-parent",
                                  "--new-session",
                                  "--cap-drop",
                                  "ALL",
                                  "--clearenv",
                                  "--setenv",
                                  "PATH",
                                  "/usr/bin",
                                  "--ro-bind",
                                  "/usr",
                                  "/usr",
                                  "--symlink",
                                  "usr/lib",
                                  "/lib",
                                  "--symlink",
                                  "usr/lib64",
                                  "/lib64",
                                  "--dev",
                                  "/dev"};
  for (const auto& [here, there] : devices) out.insert(out.end(), {"--dev-bind", here, there});
  out.insert(out.end(), command.begin(), command.end());
  return out;
}

std::string source_of(const Image& image) {
  // Part of a device: formats that end with something find it where their file ends.
  const uint64_t bytes = (image.bytes + kSector - 1) / kSector * kSector;
  const json::object device{
      {"driver", "host_device"}, {"filename", kImage}, {"cache", json::object{{"direct", true}}}};
  const json::object part{
      {"driver", "raw"}, {"offset", image.offset}, {"size", bytes}, {"file", device}};
  const json::object disk{{"driver", image.inner}, {"backing", nullptr}, {"file", part}};
  return "json:" + json::serialize(disk);
}

Result<uint64_t> disk_bytes_in(const std::string& answer) {
  boost::system::error_code err;
  const json::value parsed = json::parse(answer, err);
  if (err || !parsed.is_object()) return Error{Code::invalid, "qemu-img's answer is none"};
  const json::object& info = parsed.as_object();
  if (info.contains("backing-filename") || info.contains("full-backing-filename"))
    return Error{Code::invalid, "the image has a backing file"};
  const json::value* size = info.if_contains("virtual-size");
  const uint64_t bytes = size == nullptr ? 0 : size->to_number<uint64_t>(err);
  if (size == nullptr || err || bytes == 0)
    return Error{Code::invalid, "the image has no disk in it"};
  return bytes;
}

Result<uint64_t> disk_bytes(const std::string& device, const Image& image) {
  const auto until = std::chrono::steady_clock::now() + kInfoFor;
  const auto answer =
      run(confined({{device, kImage}}, {"qemu-img", "info", "--output=json", source_of(image)}),
          [&](const std::string&) { return std::chrono::steady_clock::now() < until; });
  if (!answer && answer.error().code == Code::conflict)
    return Error{Code::invalid,
                 "the image cannot be read in " + std::to_string(kInfoFor.count()) + " s"};
  if (!answer) return answer.error();
  return disk_bytes_in(*answer);
}

uint64_t progress_in(const std::string& output) {
  const size_t end = output.rfind("/100%)");
  if (end == std::string::npos) return 0;
  const size_t begin = output.rfind('(', end);
  if (begin == std::string::npos) return 0;
  double percent = 0;
  const auto read = std::from_chars(output.data() + begin + 1, output.data() + end, percent);
  if (read.ec != std::errc() || !std::isfinite(percent)) return 0;
  constexpr double kWhole = 100;
  constexpr double kScale = 10;
  return static_cast<uint64_t>(std::clamp(percent, 0.0, kWhole) * kScale);
}

Result<void> convert(const std::string& device, const Image& image, const std::string& to,
                     const std::function<bool(uint64_t done)>& goes_on) {
  const auto done = run(confined({{device, kImage}, {to, kDisk}},
                                 {"qemu-img", "convert", "-p", "-n", "-t", "none", "-T", "none",
                                  "-O", "raw", source_of(image), kDisk}),
                        [&](const std::string& output) { return goes_on(progress_in(output)); });
  if (!done) return done.error();
  return {};
}

Result<uint64_t> end_in(const std::string& answer) {
  boost::system::error_code err;
  const json::value parsed = json::parse(answer, err);
  const json::value* end =
      err || !parsed.is_object() ? nullptr : parsed.as_object().if_contains("image-end-offset");
  const uint64_t bytes = end == nullptr ? 0 : end->to_number<uint64_t>(err);
  if (err || bytes == 0) return Error{Code::invalid, "qemu-img's answer is none"};
  return bytes;
}

Result<uint64_t> convert_to_qcow2(const std::string& device, uint64_t bytes, const std::string& to,
                                  const std::function<bool(uint64_t done)>& goes_on) {
  const Image image{"raw", "raw", 0, bytes};
  const auto done = run(
      confined({{device, kImage}, {to, kDisk}}, {"qemu-img", "convert", "-p", "-t", "none", "-T",
                                                 "none", "-O", "qcow2", source_of(image), kDisk}),
      [&](const std::string& output) { return goes_on(progress_in(output)); });
  if (!done) return done.error();
  const auto answer =
      run(confined({{to, kDisk}}, {"qemu-img", "check", "--output=json", "-f", "qcow2", kDisk}),
          [&](const std::string&) { return goes_on(kPermille); });
  if (!answer) return answer.error();
  return end_in(*answer);
}

}  // namespace media
