// SPDX-License-Identifier: GPL-2.0
#include "media.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <ctime>

#include "api_call.h"
#include "core/rest.h"
#include "host/dm.h"
#include "media/convert.h"
#include "media/device.h"
#include "media/image.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kMediaLookEvery{1};
constexpr seconds kMediaAgain{10};
constexpr seconds kMediaTidyEvery{10};
constexpr seconds kTellEvery{5};
constexpr seconds kDeviceFor{60};
constexpr seconds kReadFor{120};
constexpr int64_t kRenewBefore = 60;
constexpr size_t kPiece = size_t{4} << 20;

bool is_open_on(const std::vector<meta::Opened>& opened, core::VsdId vsd, core::NodeId node) {
  return std::any_of(opened.begin(), opened.end(), [&](const meta::Opened& row) {
    return row.vsd == vsd && row.node == node && row.state == "open";
  });
}

Result<meta::Medium> find(Call& call, const std::string& name) {
  auto all = call.cluster().media();
  if (!all) return all.error();
  for (meta::Medium& one : *all)
    if (one.name == name) return std::move(one);
  return Error{Code::not_found, "no medium named " + name};
}

std::string about(const meta::Medium& medium) { return "medium " + medium.name; }

std::string about(const meta::Filling& filling) {
  return "import to VSD " + std::to_string(filling.vsd.value);
}

// Whether a device of a medium was in use when it was to be closed.
bool is_stuck(meta::Cluster& cluster, const std::vector<meta::Medium>& media) {
  const auto opened = cluster.opened();
  const auto vsds = cluster.vsds();
  if (!opened || !vsds) return false;
  const auto is_one = [&](const meta::Vsd& vsd) {
    return vsd.is_medium() || std::any_of(media.begin(), media.end(), [&](const auto& medium) {
             return vsd.view && vsd.view == medium.snapshot;
           });
  };
  for (const meta::Opened& row : *opened)
    for (const meta::Vsd& vsd : *vsds)
      if (row.vsd == vsd.id && row.state == "open" && !row.error.empty() && is_one(vsd))
        return true;
  return false;
}

media::Read reader_of(const media::Device& device, uint64_t bytes) {
  return [&device, bytes](uint64_t offset, size_t most) -> Result<std::string> {
    constexpr uint64_t kSector = 512;
    if (offset >= bytes) return std::string();
    const uint64_t before = offset % kSector;
    auto got = device.read(offset - before, before + std::min<uint64_t>(most, bytes - offset));
    if (!got) return got;
    return got->substr(std::min<size_t>(before, got->size()));
  };
}

}  // namespace

Media::Media(Member& member)
    : member_(member),
      keeper_([this](const std::stop_token& stop) { keep(stop); }),
      worker_([this](const std::stop_token& stop) { work(stop); }) {}

Media::~Media() = default;

bool Media::open(std::unique_ptr<meta::Database>& database) const {
  if (member_.agent().life() == 0) return false;
  if (database) return true;
  auto reader = meta::Database::open_reader(member_.paths().database());
  if (!reader) return false;
  database = std::move(*reader);
  return true;
}

bool Media::is_mine(core::NodeId node, uint64_t life) const {
  return node == member_.config().node && life == member_.agent().life();
}

Media::Said Media::propose(json::object body) {
  body["node"] = member_.config().node.value;
  body["life"] = member_.agent().life();
  return member_.replica().propose(std::move(body), Clock::now() + kCallProposesFor);
}

Media::Said Media::propose_of(const char* op, const meta::Medium& medium) {
  return propose({{"op", op}, {"medium", medium.id}});
}

// A job that is tried again: what hindered it is a condition until it has gone well, or is this
// node's no more.
void Media::note(const std::string& job, const std::string& problem) {
  member_.agent().set_condition(job, problem);
  if (problem.empty()) {
    noted_.erase(job);
    return;
  }
  noted_.insert(job);
  spdlog::warn("{}: {}", job, problem);
  not_before_ = Clock::now() + kMediaAgain;
}

std::optional<std::string> Media::view_path(meta::Cluster& cluster,
                                            const meta::Medium& medium) const {
  const auto opened = cluster.opened();
  const auto vsds = cluster.vsds();
  const auto label = cluster.label(medium.snapshot);
  if (!opened || !vsds || !label) return std::nullopt;
  for (const meta::Vsd& vsd : *vsds)
    if (vsd.view == medium.snapshot && !vsd.deleted &&
        is_open_on(*opened, vsd.id, member_.config().node))
      return kDevices + host::device_name(*label);
  return std::nullopt;
}

// Uploads

std::shared_ptr<std::mutex> Media::lock_of(uint64_t medium) {
  const std::lock_guard lock(mutex_);
  auto& out = locks_[medium];
  if (!out) out = std::make_shared<std::mutex>();
  return out;
}

// This node takes its pieces from now on, when the one before has let go of it: no piece that it
// still writes comes behind one of ours.
Result<void> Media::own(Call& call, const meta::Medium& medium) {
  if (!is_mine(medium.node, medium.life)) {
    const auto taken = propose_of("medium_take", medium);
    if (!taken) return taken.error();
  }
  const auto until = Clock::now() + kDeviceFor;
  while (Clock::now() < until) {
    const auto opened = call.cluster().opened();
    if (!opened) return opened.error();
    const bool elsewhere = std::any_of(opened->begin(), opened->end(), [&](const auto& row) {
      return row.vsd == medium.vsd && row.node != member_.config().node;
    });
    if (!elsewhere && is_open_on(*opened, medium.vsd, member_.config().node)) return {};
    for (const meta::Opened& row : *opened)
      if (row.vsd == medium.vsd && row.node == member_.config().node && row.state == "failed")
        return Error{Code::conflict, row.error};
    std::this_thread::sleep_for(kLook);
  }
  return Error{Code::unknown, "the device of medium " + medium.name +
                                  " is not there yet; another node may still have it. Try again"};
}

Result<void> Media::put(Call& call, const std::string& name, uint64_t offset,
                        const std::string& piece) {
  auto medium = find(call, name);
  if (!medium) return medium.error();
  const auto mutex = lock_of(medium->id);
  const std::lock_guard lock(*mutex);
  medium = find(call, name);
  if (!medium) return medium.error();
  if (piece.empty()) return Error{Code::invalid, "a piece of a medium has 1 byte or more"};
  if (offset > medium->bytes || piece.size() > medium->bytes - offset)
    return Error{Code::invalid, "that piece ends behind the end of medium " + name +
                                    ", which has " + std::to_string(medium->bytes) + " bytes"};
  if (offset + piece.size() <= medium->received) return {};
  if (medium->state != "uploading")
    return Error{Code::conflict, "medium " + name + " is " + medium->state};
  if (offset != medium->received)
    return Error{Code::conflict, "medium " + name + " has its first " +
                                     std::to_string(medium->received) + " bytes; go on there"};
  if (offset + piece.size() != medium->bytes && piece.size() % kSectorBytes != 0)
    return Error{Code::invalid, "a piece but the last has a multiple of 512 bytes"};
  CORE_TRY(own(call, *medium));
  const auto vsd = call.cluster().vsd(medium->vsd);
  if (!vsd) return vsd.error();
  if (!*vsd) return Error{Code::not_found, "no medium named " + name};
  {
    media::Device device;
    CORE_TRY(device.open(kDevices + host::device_name((*vsd)->name), true));
    CORE_TRY(device.write(offset, piece));
    CORE_TRY(device.flush());
  }
  const auto said = propose({{"op", "medium_received"},
                             {"medium", medium->id},
                             {"offset", offset},
                             {"bytes", piece.size()}});
  if (!said) return said.error();
  return {};
}

Result<std::string> Media::get(Call& call, const std::string& name, uint64_t offset,
                               uint64_t bytes) {
  const auto medium = find(call, name);
  if (!medium) return medium.error();
  if (medium->state != "ready")
    return Error{Code::conflict, "medium " + name + " is " + medium->state};
  if (offset % kSectorBytes != 0 || offset >= medium->bytes)
    return Error{Code::invalid, "'offset' is a multiple of 512, less than the medium's " +
                                    std::to_string(medium->bytes) + " bytes"};
  const auto until = call.cluster().read_until(medium->id, member_.config().node);
  if (!until) return until.error();
  if (*until < std::time(nullptr) + kRenewBefore) {
    const auto said = propose({{"op", "medium_read"},
                               {"medium", medium->id},
                               {"seconds", static_cast<uint64_t>(kReadFor.count())}});
    if (!said) return said.error();
  }
  const auto end = Clock::now() + kDeviceFor;
  meta::Cluster cluster = call.cluster();
  auto path = view_path(cluster, *medium);
  while (!path && Clock::now() < end) {
    std::this_thread::sleep_for(kLook);
    path = view_path(cluster, *medium);
  }
  if (!path)
    return Error{Code::unknown, "the device of medium " + name + " is not there yet; try again"};
  media::Device device;
  CORE_TRY(device.open(*path, false));
  return device.read(offset, std::min(bytes, medium->bytes - offset));
}

// What becomes of them

void Media::keep(const std::stop_token& stop) {
  std::unique_ptr<meta::Database> database;
  while (!stop.stop_requested()) {
    core::rest_until(stop, Clock::now() + kMediaLookEvery);
    if (stop.stop_requested()) return;
    if (!open(database)) continue;
    meta::Cluster cluster(*database);
    const auto media = cluster.media();
    const auto fillings = cluster.fillings();
    if (!media || !fillings) continue;
    for (const meta::Medium& medium : *media)
      if (medium.state == "sealing" && is_mine(medium.node, medium.life)) seal(cluster, medium);
    if (member_.replica().leading()) lead(cluster, *media, *fillings);
  }
}

// All of it has come, and its device is being closed.
void Media::seal(meta::Cluster& cluster, const meta::Medium& medium) {
  const auto opened = cluster.opened();
  if (!opened || std::any_of(opened->begin(), opened->end(),
                             [&](const auto& row) { return row.vsd == medium.vsd; }))
    return;
  const auto said = propose_of("medium_sealed", medium);
  if (!said) spdlog::info("medium {}: {}", medium.name, said.error().text);
}

void Media::lead(meta::Cluster& cluster, const std::vector<meta::Medium>& media,
                 const std::vector<meta::Filling>& fillings) {
  const auto nodes = cluster.nodes();
  if (!nodes) return;
  const auto lives = [&](core::NodeId node, uint64_t life) {
    return std::any_of(nodes->begin(), nodes->end(), [&](const meta::Node& one) {
      return one.id == node && one.life == life && one.state == "up";
    });
  };
  for (const meta::Medium& medium : media)
    if ((medium.state == "sealing" || medium.state == "checking" || medium.state == "making") &&
        !lives(medium.node, medium.life))
      (void)propose_of("medium_take", medium);
  for (const meta::Filling& one : fillings)
    if (one.problem.empty() && !lives(one.node, one.life))
      (void)propose({{"op", "filling_take"}, {"vsd", one.vsd.value}});
  const auto read = cluster.oldest_reader();
  const bool over = read && *read != 0 && *read < std::time(nullptr);
  const bool deleting = std::any_of(media.begin(), media.end(),
                                    [](const auto& one) { return one.state == "deleting"; });
  if ((!over && !deleting && !is_stuck(cluster, media)) || Clock::now() < tidied_ + kMediaTidyEvery)
    return;
  tidied_ = Clock::now();
  (void)propose({{"op", "media_tidy"}});
}

void Media::work(const std::stop_token& stop) {
  std::unique_ptr<meta::Database> database;
  while (!stop.stop_requested()) {
    core::rest_until(stop, Clock::now() + kMediaLookEvery);
    if (stop.stop_requested()) return;
    if (Clock::now() < not_before_ || !open(database)) continue;
    meta::Cluster cluster(*database);
    const auto media = cluster.media();
    const auto fillings = cluster.fillings();
    if (!media || !fillings) continue;
    std::set<std::string> left = noted_;
    const auto find = [&](uint64_t id) {
      return std::find_if(media->begin(), media->end(), [&](const auto& m) { return m.id == id; });
    };
    for (const meta::Medium& medium : *media) {
      if (!is_mine(medium.node, medium.life)) continue;
      const auto source = find(medium.source);
      if (medium.state == "checking" || medium.state == "making") left.erase(about(medium));
      if (medium.state == "checking") check(cluster, medium, stop);
      if (medium.state == "making" && source != media->end()) make(cluster, medium, *source, stop);
    }
    for (const meta::Filling& filling : *fillings) {
      const auto medium = find(filling.medium);
      if (medium == media->end() || !filling.problem.empty() ||
          !is_mine(filling.node, filling.life))
        continue;
      left.erase(about(filling));
      fill(cluster, filling, *medium, stop);
    }
    for (const std::string& over : left) note(over, "");
  }
}

// Reads all of it, half of the time at most: guests go first.
void Media::check(meta::Cluster& cluster, const meta::Medium& medium, const std::stop_token& stop) {
  const auto path = view_path(cluster, medium);
  if (!path) return;
  media::Device device;
  if (auto opened = device.open(*path, false); !opened)
    return note(about(medium), opened.error().text);
  media::Digest digest;
  const auto goes_on = teller(stop, {{"op", "medium_progress"}, {"medium", medium.id}});
  for (uint64_t at = 0; at < medium.bytes;) {
    const auto began = Clock::now();
    const auto piece = device.read(at, std::min<uint64_t>(kPiece, medium.bytes - at));
    if (!piece) return note(about(medium), piece.error().text);
    if (piece->empty()) return note(about(medium), "its device is too small");
    digest.add(*piece);
    at += piece->size();
    core::rest_until(stop, Clock::now() + (Clock::now() - began));
    if (!goes_on(at)) return;
  }
  json::object body{{"op", "medium_checked"}, {"medium", medium.id}, {"sha256", digest.end()},
                    {"format", ""},           {"disk_bytes", 0},     {"problem", ""}};
  const auto image = media::identify(reader_of(device, medium.bytes), medium.bytes);
  if (!image && image.error().code != Code::invalid) return note(about(medium), image.error().text);
  Result<uint64_t> disk = medium.bytes;
  if (image && image->format != "raw" && image->format != "iso")
    disk = media::disk_bytes(*path, *image);
  if (!disk && disk.error().code != Code::invalid) return note(about(medium), disk.error().text);
  if (image) body["format"] = image->format;
  if (disk) body["disk_bytes"] = *disk;
  if (!image || !disk) body["problem"] = image ? disk.error().text : image.error().text;
  const auto said = propose(std::move(body));
  if (!said && said.error().code != Code::stale) return note(about(medium), said.error().text);
  note(about(medium), "");
}

std::function<bool(uint64_t)> Media::teller(const std::stop_token& stop, json::object progress) {
  return [this, &stop, progress = std::move(progress),
          tell = Clock::now() + kTellEvery](uint64_t done) mutable {
    if (stop.stop_requested()) return false;
    if (Clock::now() < tell) return true;
    tell = Clock::now() + kTellEvery;
    progress["done"] = done;
    // It may be another node's by now, or nobody's.
    const auto said = propose(progress);
    return said || said.error().code == Code::unknown;
  };
}

void Media::make(meta::Cluster& cluster, const meta::Medium& medium, const meta::Medium& source,
                 const std::stop_token& stop) {
  const auto from = view_path(cluster, source);
  const auto vsd = cluster.vsd(medium.vsd);
  const auto opened = cluster.opened();
  if (!from || !vsd || !*vsd || !opened || !is_open_on(*opened, medium.vsd, member_.config().node))
    return;
  const auto bytes =
      media::convert_to_qcow2(*from, source.bytes, kDevices + host::device_name((*vsd)->name),
                              teller(stop, {{"op", "medium_progress"}, {"medium", medium.id}}));
  if (!bytes && bytes.error().code == Code::conflict) return;
  if (!bytes && bytes.error().code == Code::storage) return note(about(medium), bytes.error().text);
  const auto said = propose({{"op", "medium_made"},
                             {"medium", medium.id},
                             {"bytes", bytes ? *bytes : 0},
                             {"problem", bytes ? "" : bytes.error().text}});
  if (!said && said.error().code != Code::stale) return note(about(medium), said.error().text);
  note(about(medium), "");
}

void Media::fill(meta::Cluster& cluster, const meta::Filling& filling, const meta::Medium& medium,
                 const std::stop_token& stop) {
  const auto from = view_path(cluster, medium);
  const auto vsd = cluster.vsd(filling.vsd);
  const auto opened = cluster.opened();
  if (!from || !vsd || !*vsd || !opened || !is_open_on(*opened, filling.vsd, member_.config().node))
    return;
  media::Device device;
  if (auto done = device.open(*from, false); !done) return note(about(filling), done.error().text);
  const auto image = media::identify(reader_of(device, medium.bytes), medium.bytes);
  if (!image && image.error().code != Code::invalid)
    return note(about(filling), image.error().text);
  const auto goes_on = teller(stop, {{"op", "filling_progress"}, {"vsd", filling.vsd.value}});
  spdlog::info("VSD {} is made from medium {}", (*vsd)->name, medium.name);
  const auto done =
      image ? media::convert(*from, *image, kDevices + host::device_name((*vsd)->name), goes_on)
            : Result<void>(image.error());
  if (!done && done.error().code == Code::conflict) return;
  if (!done && done.error().code == Code::storage) return note(about(filling), done.error().text);
  const auto said = propose(
      {{"op", "filled"}, {"vsd", filling.vsd.value}, {"problem", done ? "" : done.error().text}});
  if (!said && said.error().code != Code::stale) return note(about(filling), said.error().text);
  note(about(filling), "");
}

}  // namespace scaled
