// SPDX-License-Identifier: GPL-2.0
#include "media/machine.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include "host/command.h"
#include "media/device.h"

namespace media {

namespace {

using core::Code;
using core::Error;
using core::Result;

namespace fs = std::filesystem;

// A firmware volume's header says so (UEFI Platform Initialization, volume 3).
constexpr std::string_view kVolume = "_FVH";
constexpr size_t kVolumeAt = 40;
constexpr size_t kHeader = 4096;
constexpr size_t kSeedBytes = size_t{1} << 20;

Result<std::string> contents_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  if (!in || !out) return Error{Code::storage, path + " cannot be read"};
  return std::move(out).str();
}

// A directory that goes with this.
class Folder {
 public:
  Folder() : path_((fs::temp_directory_path() / "seed-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~Folder() {
    std::error_code err;
    if (!path_.empty()) fs::remove_all(path_, err);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<void> put(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return Error{Code::storage, path.string() + " cannot be written"};
  return {};
}

}  // namespace

Result<void> prepare_flash(const std::string& device, const std::string& variables) {
  const auto first = contents_of(variables);
  if (!first) return Error{Code::storage, first.error().text + "; it is in the package ovmf"};
  Device old;
  CORE_TRY(old.open(device, false));
  // One byte more than there may be: a device of another length is another firmware's.
  const auto has = old.read(0, first->size() + 1);
  if (!has) return has.error();
  if (has->size() != first->size() || first->size() <= kHeader ||
      first->compare(kVolumeAt, kVolume.size(), kVolume) != 0)
    return Error{Code::storage, variables + " is not the firmware's that this cluster's VMs have"};
  if (has->compare(kVolumeAt, kVolume.size(), kVolume) == 0) return {};
  // The header last: where it is, the rest is.
  Device flash;
  CORE_TRY(flash.open(device, true));
  CORE_TRY(flash.write(kHeader, std::string_view(*first).substr(kHeader)));
  CORE_TRY(flash.flush());
  CORE_TRY(flash.write(0, std::string_view(*first).substr(0, kHeader)));
  return flash.flush();
}

Result<void> prepare_seed(const std::string& device, const Seed& seed) {
  const Folder folder;
  if (folder.path().empty()) return Error{Code::storage, "no temporary directory"};
  const fs::path files = fs::path(folder.path()) / "files";
  const std::string image = folder.path() + "/image";
  std::error_code err;
  fs::create_directory(files, err);
  CORE_TRY(put(files / "meta-data",
               "instance-id: " + seed.instance + "\nlocal-hostname: " + seed.hostname + "\n"));
  CORE_TRY(put(files / "user-data", seed.user_data));
  if (!seed.network_config.empty()) CORE_TRY(put(files / "network-config", seed.network_config));
  const auto made = host::run_command({"xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata",
                                       "-joliet", "-rational-rock", "-o", image, files.string()});
  if (!made) return Error{Code::storage, "xorriso: " + made.error().text};
  const auto bytes = contents_of(image);
  if (!bytes) return bytes.error();
  if (bytes->size() > kSeedBytes)
    return Error{Code::storage, "what cloud-init is to read is longer than a MiB"};
  Device to;
  CORE_TRY(to.open(device, true));
  CORE_TRY(to.write(0, *bytes));
  return to.flush();
}

}  // namespace media
