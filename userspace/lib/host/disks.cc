// SPDX-License-Identifier: GPL-2.0
#include "host/disks.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>

extern "C" {
#include <superblock.h>
}

namespace host {

namespace fs = std::filesystem;

namespace {

using core::Code;
using core::Error;

constexpr size_t kSectorBytes = SCRIBE_SECTOR_BYTES;

// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

Error failed(const std::string& path, const char* what) {
  return {Code::storage, path + ": " + what + ": " + std::strerror(errno)};
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const size_t from = line.find_first_not_of(" \t");
  const size_t to = line.find_last_not_of(" \t\r\n");
  return from == std::string::npos ? "" : line.substr(from, to - from + 1);
}

bool has_entries(const fs::path& directory) {
  std::error_code err;
  return fs::directory_iterator(directory, err) != fs::directory_iterator() && !err;
}

// udev's database knows the serial number where sysfs does not show it.
std::string udev_property(const std::string& devno, const std::string& name) {
  std::ifstream file("/run/udev/data/b" + devno);
  const std::string prefix = "E:" + name + "=";
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(prefix)) return line.substr(prefix.size());
  return "";
}

std::string serial_of(const fs::path& sys) {
  const std::string devno = first_line(sys / "dev");
  for (const char* name : {"ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_WWN", "ID_SERIAL"})
    if (std::string value = udev_property(devno, name); !value.empty()) return value;
  for (const char* name : {"serial", "device/serial", "wwid", "device/wwid"})
    if (std::string value = first_line(sys / name); !value.empty()) return value;
  return "";
}

std::string mounted_at(const std::string& devno) {
  std::ifstream file("/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string id, parent, number, root, where;
    words >> id >> parent >> number >> root >> where;
    if (number == devno) return where;
  }
  return "";
}

// Everything that libblkid knows: file systems, RAID and LVM members, partition tables, also ours.
std::string signature_on(const std::string& path) {
  struct Free {
    void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
  };
  std::unique_ptr<std::remove_pointer_t<blkid_probe>, Free> probe(
      blkid_new_probe_from_filename(path.c_str()));
  if (!probe) return "something that cannot be read";
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_BADCSUM);
  blkid_probe_enable_partitions(probe.get(), 1);
  const int found = blkid_do_fullprobe(probe.get());
  const char* value = nullptr;
  if (found == 0 && (blkid_probe_lookup_value(probe.get(), "TYPE", &value, nullptr) == 0 ||
                     blkid_probe_lookup_value(probe.get(), "PTTYPE", &value, nullptr) == 0))
    return value;
  return found < 0 ? "something that cannot be read" : "";
}

BlockDevice describe(const fs::path& sys) {
  BlockDevice out;
  out.path = "/dev/" + sys.filename().string();
  std::replace(out.path.begin(), out.path.end(), '!', '/');
  out.serial = serial_of(sys);
  out.model = first_line(sys / "device/model");
  out.sectors = std::strtoull(first_line(sys / "size").c_str(), nullptr, 10);
  out.rotational = first_line(sys / "queue/rotational") == "1";
  if (const std::string where = mounted_at(first_line(sys / "dev")); !where.empty())
    out.used_for = "mounted at " + where;
  else if (has_entries(sys / "holders"))
    out.used_for =
        "in use by " + fs::directory_iterator(sys / "holders")->path().filename().string();
  else if (const auto label = read_label(out.path); label && *label)
    out.used_for = "a scribe data disk";
  else
    out.used_for = signature_on(out.path);
  return out;
}

bool write_all(int fd, const void* data, size_t bytes, uint64_t at) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(fd, from, bytes, static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    from += put;
    at += static_cast<uint64_t>(put);
    bytes -= static_cast<size_t>(put);
  }
  return true;
}

Result<void> wipe_signatures(int fd, const std::string& path) {
  blkid_probe probe = blkid_new_probe();
  bool good = probe != nullptr && blkid_probe_set_device(probe, fd, 0, 0) == 0;
  if (good) {
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM);
    blkid_probe_enable_partitions(probe, 1);
    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
    while (good && blkid_do_probe(probe) == 0) good = blkid_do_wipe(probe, 0) == 0;
  }
  if (probe != nullptr) blkid_free_probe(probe);
  if (!good) return failed(path, "wipe");
  return {};
}

}  // namespace

std::vector<BlockDevice> list_disks() {
  std::vector<BlockDevice> out;
  std::error_code err;
  for (const auto& item : fs::directory_iterator("/sys/block", err)) {
    const std::string name = item.path().filename();
    // Those that are made of others or of memory are no disks.
    bool skip = false;
    for (const char* prefix : {"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd"})
      skip |= name.starts_with(prefix);
    if (skip || first_line(item.path() / "size") == "0") continue;
    out.push_back(describe(item.path()));
  }
  std::sort(out.begin(), out.end(),
            [](const BlockDevice& a, const BlockDevice& b) { return a.path < b.path; });
  return out;
}

Result<BlockDevice> inspect_disk(const std::string& path) {
  std::error_code err;
  const fs::path real = fs::canonical(path, err);
  struct stat about {};
  if (err || ::stat(real.c_str(), &about) != 0)
    return Error{Code::not_found, path + ": there is no such device"};
  if (!S_ISBLK(about.st_mode)) return Error{Code::invalid, path + " is no block device"};
  const fs::path sys = fs::canonical("/sys/dev/block/" + std::to_string(major(about.st_rdev)) +
                                         ":" + std::to_string(minor(about.st_rdev)),
                                     err);
  if (err) return Error{Code::not_found, path + ": not in sysfs: " + err.message()};
  if (fs::exists(sys / "partition"))
    return Error{Code::invalid, path + " is a partition; give the whole disk"};
  return describe(sys);
}

Result<std::optional<Label>> read_label(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return failed(path, "open");
  uint64_t bytes = 0;
  if (::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) return failed(path, "size");
  const uint64_t sectors = bytes / kSectorBytes;
  if (scribe_sb_slots_for(sectors) == 0) return std::optional<Label>();
  scribe_superblock first{};
  scribe_superblock second{};
  const bool have_first = ::pread(fd.get(), &first, sizeof(first),
                                  SCRIBE_SB_FIRST_SECTOR * kSectorBytes) == sizeof(first);
  const bool have_second =
      ::pread(fd.get(), &second, sizeof(second),
              static_cast<off_t>(scribe_sb_second_sector(sectors) * kSectorBytes)) ==
      sizeof(second);
  const char* why = nullptr;
  const scribe_superblock* sb = scribe_sb_choose(have_first ? &first : nullptr,
                                                 have_second ? &second : nullptr, sectors, &why);
  if (sb == nullptr) return std::optional<Label>();
  Label label{{le32_to_cpu(sb->disk_id)}, {}, {}};
  std::copy(std::begin(sb->cluster_uuid), std::end(sb->cluster_uuid), label.cluster.begin());
  std::copy(std::begin(sb->disk_uuid), std::end(sb->disk_uuid), label.uuid.begin());
  return std::optional(label);
}

uint64_t slots_for(uint64_t sectors) { return scribe_sb_slots_for(sectors); }

Result<void> check_free(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  if (fd) return {};
  if (errno == EBUSY)
    return Error{Code::conflict,
                 path + " is in use; where it has just left the pool, try again in some seconds"};
  return failed(path, "open");
}

Result<void> format_disk(const std::string& path, const Label& label, bool wipe) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  if (!fd) return failed(path, "open for formatting");
  uint64_t bytes = 0;
  if (::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) return failed(path, "size");
  const uint64_t sectors = bytes / kSectorBytes;
  if (wipe) CORE_TRY(wipe_signatures(fd.get(), path));
  scribe_superblock sb{};
  sb.magic = cpu_to_le64(SCRIBE_DISK_MAGIC);
  sb.version = cpu_to_le32(SCRIBE_DISK_VERSION);
  std::copy(label.cluster.begin(), label.cluster.end(), std::begin(sb.cluster_uuid));
  std::copy(label.uuid.begin(), label.uuid.end(), std::begin(sb.disk_uuid));
  sb.disk_id = cpu_to_le32(static_cast<uint32_t>(label.disk.value));
  sb.generation = cpu_to_le64(1);
  sb.disk_sectors = cpu_to_le64(sectors);
  sb.data_start_sector = cpu_to_le64(SCRIBE_DATA_START_SECTOR);
  sb.nr_slots = cpu_to_le64(scribe_sb_slots_for(sectors));
  sb.intent_start_sector = cpu_to_le64(SCRIBE_INTENT_START_SECTOR);
  sb.intent_sectors = cpu_to_le64(SCRIBE_INTENT_SECTORS);
  sb.intent_region_sectors = cpu_to_le64(SCRIBE_INTENT_REGION_SECTORS);
  sb.checksum = cpu_to_le32(scribe_sb_checksum(&sb));
  const std::vector<char> zeros(SCRIBE_INTENT_SECTORS * kSectorBytes);
  if (!write_all(fd.get(), zeros.data(), zeros.size(), SCRIBE_INTENT_START_SECTOR * kSectorBytes) ||
      ::fsync(fd.get()) != 0 ||
      !write_all(fd.get(), &sb, sizeof(sb), SCRIBE_SB_FIRST_SECTOR * kSectorBytes) ||
      ::fsync(fd.get()) != 0 ||
      !write_all(fd.get(), &sb, sizeof(sb), scribe_sb_second_sector(sectors) * kSectorBytes) ||
      ::fsync(fd.get()) != 0)
    return failed(path, "write the superblocks");
  return {};
}

Result<Uuid> parse_uuid(const std::string& text) {
  Uuid out{};
  size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (value < 0 || digits >= 2 * out.size())
      return Error{Code::invalid, "'" + text + "' is no UUID"};
    out[digits / 2] = static_cast<uint8_t>(out[digits / 2] << 4 | value);
    digits++;
  }
  if (digits != 2 * out.size()) return Error{Code::invalid, "'" + text + "' is no UUID"};
  return out;
}

std::string to_string(const Uuid& uuid) {
  std::string out;
  for (size_t i = 0; i < uuid.size(); i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out.push_back('-');
    out.push_back("0123456789abcdef"[uuid[i] >> 4]);
    out.push_back("0123456789abcdef"[uuid[i] & 15]);
  }
  return out;
}

Uuid make_uuid() {
  std::random_device device;
  Uuid out{};
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(device());
  out[6] = static_cast<uint8_t>((out[6] & 0x0f) | 0x40);
  out[8] = static_cast<uint8_t>((out[8] & 0x3f) | 0x80);
  return out;
}

}  // namespace host
