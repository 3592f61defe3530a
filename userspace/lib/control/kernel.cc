// SPDX-License-Identifier: GPL-2.0
#include "control/kernel.h"

#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <poll.h>
#include <scribe_netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <map>

namespace control {

namespace {

using core::Code;
using core::Error;

// Above the largest message: a full leaf, 16 chunks of 64 segments with an extent each.
constexpr size_t kMessageBytes = size_t{128} << 10;
constexpr size_t kMovedAtOnce = 512;  // records of 48 bytes
constexpr int kSocketBytes = 8 << 20;

Error out_of_memory() { return {Code::storage, "netlink: out of memory"}; }

Code code_of(int error) {
  switch (error) {
    case EINVAL:
    case ERANGE:
      return Code::invalid;
    case ENOENT:
      return Code::not_found;
    case ESTALE:
      return Code::stale;
    case ENOSPC:
      return Code::no_space;
    case EBUSY:
    case EEXIST:
    case EAGAIN:
      return Code::conflict;
    default:
      return Code::storage;
  }
}

template <class Record>
std::span<const Record> records(const nlattr* attr) {
  if (attr == nullptr) return {};
  return {static_cast<const Record*>(nla_data(attr)),
          static_cast<size_t>(nla_len(attr)) / sizeof(Record)};
}

template <class Record>
int put_records(nl_msg* msg, int attr, const std::vector<Record>& recs) {
  return nla_put(msg, attr, static_cast<int>(recs.size() * sizeof(Record)), recs.data());
}

scribe_range_rec record_of(const SlotRange& range) {
  scribe_range_rec rec{};
  rec.life = range.life;
  rec.slot = range.slot;
  rec.disk = static_cast<uint16_t>(range.disk.value);
  rec.start = range.start;
  rec.len = range.len;
  rec.to = range.to;
  return rec;
}

scribe_extent_rec record_of(const meta::MappedExtent& extent) {
  scribe_extent_rec rec{};
  rec.id = extent.id.value;
  rec.flags = extent.exclusive ? SCRIBE_EXTENT_EXCLUSIVE : 0;
  for (const meta::Copy& copy : extent.copies) {
    if (rec.nr_copies == SCRIBE_MAX_COPIES) break;
    rec.copy[rec.nr_copies++] = {copy.slot, static_cast<uint16_t>(copy.disk.value),
                                 static_cast<uint16_t>(copy.stale ? SCRIBE_COPY_STALE : 0)};
  }
  return rec;
}

}  // namespace

// The attributes of an answer, copied out of libnl's buffer; STALES may repeat.
struct Kernel::Reply {
  std::multimap<int, std::string> attrs;
  int error = 0;
  std::string text;
  bool done = false;

  uint64_t u64(int attr) const {
    uint64_t value = 0;
    if (auto at = attrs.find(attr); at != attrs.end() && at->second.size() >= sizeof(value))
      std::memcpy(&value, at->second.data(), sizeof(value));
    return value;
  }
  template <class Record>
  std::vector<Record> all(int attr) const {
    std::vector<Record> out;
    for (auto [at, end] = attrs.equal_range(attr); at != end; ++at) {
      const size_t count = at->second.size() / sizeof(Record);
      const size_t first = out.size();
      out.resize(first + count);
      std::memcpy(out.data() + first, at->second.data(), count * sizeof(Record));
    }
    return out;
  }

  static int on_valid(nl_msg* msg, void* arg) {
    auto* reply = static_cast<Reply*>(arg);
    auto* header = static_cast<genlmsghdr*>(nlmsg_data(nlmsg_hdr(msg)));
    int left = genlmsg_attrlen(header, 0);
    for (nlattr* attr = genlmsg_attrdata(header, 0); nla_ok(attr, left);
         attr = nla_next(attr, &left))
      reply->attrs.emplace(nla_type(attr), std::string(static_cast<const char*>(nla_data(attr)),
                                                       static_cast<size_t>(nla_len(attr))));
    return NL_OK;
  }
  static int on_ack(nl_msg*, void* arg) {
    static_cast<Reply*>(arg)->done = true;
    return NL_STOP;
  }
  static int on_error(sockaddr_nl*, nlmsgerr* err, void* arg) {
    auto* reply = static_cast<Reply*>(arg);
    reply->done = true;
    reply->error = -err->error;
    auto* header = reinterpret_cast<nlmsghdr*>(reinterpret_cast<char*>(err) - NLMSG_HDRLEN);
    // With NETLINK_CAP_ACK only the header of our request comes back, then the texts.
    if ((header->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
      auto* attr = reinterpret_cast<nlattr*>(err + 1);
      int left =
          static_cast<int>(header->nlmsg_len) - NLMSG_HDRLEN - static_cast<int>(sizeof(*err));
      for (; nla_ok(attr, left); attr = nla_next(attr, &left))
        if (nla_type(attr) == NLMSGERR_ATTR_MSG) reply->text = nla_get_string(attr);
    }
    return NL_STOP;
  }
};

Result<std::unique_ptr<Kernel>> Kernel::open() {
  std::unique_ptr<Kernel> kernel(new Kernel);
  CORE_TRY(kernel->connect());
  return kernel;
}

Kernel::~Kernel() {
  if (sock_ != nullptr) nl_socket_free(sock_);
  if (events_ != nullptr) nl_socket_free(events_);
}

Result<void> Kernel::connect() {
  sock_ = nl_socket_alloc();
  if (sock_ == nullptr) return out_of_memory();
  if (const int err = genl_connect(sock_); err < 0)
    return Error{Code::storage, std::string("netlink: ") + nl_geterror(err)};
  nl_socket_set_buffer_size(sock_, kSocketBytes, kSocketBytes);
  nl_socket_enable_msg_peek(sock_);  // answers of any length
  nl_socket_enable_auto_ack(sock_);
  const int on = 1;
  const int fd = nl_socket_get_fd(sock_);
  if (setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)) != 0 ||
      setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)) != 0)
    return Error{Code::storage, std::string("netlink: ") + std::strerror(errno)};
  family_ = genl_ctrl_resolve(sock_, SCRIBE_GENL_NAME);
  if (family_ < 0)
    return Error{Code::not_found, "the kernel module is not loaded: modprobe dm_scribe"};
  return {};
}

Result<nl_msg*> Kernel::message(uint8_t command) {
  nl_msg* msg = nlmsg_alloc_size(kMessageBytes);
  if (msg == nullptr) return out_of_memory();
  if (genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family_, 0, 0, command, SCRIBE_GENL_VERSION) ==
      nullptr) {
    nlmsg_free(msg);
    return out_of_memory();
  }
  return msg;
}

Result<Kernel::Reply> Kernel::call(nl_msg* message) {
  Reply reply;
  const int sent = nl_send_auto(sock_, message);
  nlmsg_free(message);
  if (sent < 0) return Error{Code::storage, std::string("netlink: ") + nl_geterror(sent)};
  nl_cb* cb = nl_cb_alloc(NL_CB_DEFAULT);
  if (cb == nullptr) return out_of_memory();
  nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, Reply::on_valid, &reply);
  nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, Reply::on_ack, &reply);
  nl_cb_err(cb, NL_CB_CUSTOM, Reply::on_error, &reply);
  int err = 0;
  while (!reply.done && err >= 0) err = nl_recvmsgs(sock_, cb);
  nl_cb_put(cb);
  if (err < 0 && !reply.done)
    return Error{Code::storage, std::string("netlink: ") + nl_geterror(err)};
  if (reply.error != 0)
    return Error{code_of(reply.error), std::string("kernel: ") + std::strerror(reply.error) +
                                           (reply.text.empty() ? "" : ": " + reply.text)};
  return reply;
}

// Leaves the method with an error where a message cannot be made, filled or answered.
#define KERNEL_MESSAGE(command)              \
  auto made = message(SCRIBE_CMD_##command); \
  if (!made) return made.error();            \
  nl_msg* msg = *made
#define KERNEL_PUT(expression) \
  if ((expression) != 0) {     \
    nlmsg_free(msg);           \
    return out_of_memory();    \
  }
#define KERNEL_CALL()     \
  auto reply = call(msg); \
  if (!reply) return reply.error()

Result<uint64_t> Kernel::hello(core::NodeId node, const Uuid& cluster) {
  KERNEL_MESSAGE(HELLO);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_NODE_ID, static_cast<uint32_t>(node.value)) |
             nla_put(msg, SCRIBE_A_CLUSTER_UUID, cluster.size(), cluster.data()));
  KERNEL_CALL();
  return reply->u64(SCRIBE_A_LIFE);
}

Result<void> Kernel::set_deadline(uint64_t life, uint64_t boottime_ns) {
  KERNEL_MESSAGE(DEADLINE);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_DEADLINE_NS, boottime_ns) |
             nla_put_u64(msg, SCRIBE_A_LIFE, life));
  KERNEL_CALL();
  return {};
}

Result<OpenDisk> Kernel::open_disk(core::DiskId disk, const Uuid& uuid, const std::string& path,
                                   uint8_t tier) {
  KERNEL_MESSAGE(DISK_OPEN);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_DISK_ID, static_cast<uint32_t>(disk.value)) |
             nla_put(msg, SCRIBE_A_DISK_UUID, uuid.size(), uuid.data()) |
             nla_put_string(msg, SCRIBE_A_PATH, path.c_str()) |
             nla_put_u8(msg, SCRIBE_A_TIER, tier));
  KERNEL_CALL();
  return OpenDisk{reply->u64(SCRIBE_A_DISK_LIFE), reply->u64(SCRIBE_A_SLOTS)};
}

Result<void> Kernel::close_disk(core::DiskId disk) {
  KERNEL_MESSAGE(DISK_CLOSE);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_DISK_ID, static_cast<uint32_t>(disk.value)));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::set_route(core::DiskId disk, core::NodeId node, uint64_t life, uint8_t tier) {
  KERNEL_MESSAGE(ROUTE_SET);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_DISK_ID, static_cast<uint32_t>(disk.value)) |
             nla_put_u32(msg, SCRIBE_A_NODE_ID, static_cast<uint32_t>(node.value)) |
             nla_put_u64(msg, SCRIBE_A_DISK_LIFE, life) | nla_put_u8(msg, SCRIBE_A_TIER, tier));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::delete_route(core::DiskId disk) {
  KERNEL_MESSAGE(ROUTE_DEL);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_DISK_ID, static_cast<uint32_t>(disk.value)));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::set_peer(core::NodeId node, uint64_t life) {
  KERNEL_MESSAGE(PEER_SET);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_NODE_ID, static_cast<uint32_t>(node.value)) |
             nla_put_u64(msg, SCRIBE_A_LIFE, life));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::fence_peer(core::NodeId node, uint64_t life) {
  KERNEL_MESSAGE(PEER_FENCE);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_NODE_ID, static_cast<uint32_t>(node.value)) |
             nla_put_u64(msg, SCRIBE_A_LIFE, life));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::add_socket(core::NodeId node, uint64_t life, Role role, int fd,
                                bool data_crc) {
  KERNEL_MESSAGE(SOCKET_ADD);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_NODE_ID, static_cast<uint32_t>(node.value)) |
             nla_put_u64(msg, SCRIBE_A_LIFE, life) |
             nla_put_u8(msg, SCRIBE_A_ROLE, static_cast<uint8_t>(role)) |
             nla_put_u32(msg, SCRIBE_A_SOCK_FD, static_cast<uint32_t>(fd)) |
             nla_put_u32(msg, SCRIBE_A_FLAGS, data_crc ? SCRIBE_F_DATA_CRC : 0));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::grant_lease(core::VsdId vsd, uint64_t epoch, uint32_t copies) {
  KERNEL_MESSAGE(LEASE_GRANT);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put_u8(msg, SCRIBE_A_COPIES, static_cast<uint8_t>(copies)));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::flush_disks() {
  KERNEL_MESSAGE(DISKS_FLUSH);
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::release_lease(core::VsdId vsd, uint64_t epoch) {
  KERNEL_MESSAGE(LEASE_RELEASE);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::fail_lease(core::VsdId vsd, uint64_t epoch, bool relet) {
  KERNEL_MESSAGE(LEASE_FAIL);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) |
             nla_put_u32(msg, SCRIBE_A_FLAGS, relet ? SCRIBE_F_RELET : 0) |
             (epoch != 0 ? nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) : 0));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::put_leaf(core::VsdId vsd, uint64_t epoch, uint64_t index,
                              const meta::Leaf& leaf) {
  std::vector<scribe_seg_rec> segs;
  for (size_t i = 0; i < leaf.chunks.size(); i++)
    for (const core::Segment& seg : leaf.chunks[i])
      segs.push_back({seg.extent.value, static_cast<uint16_t>(i), seg.start, seg.len, seg.off});
  std::vector<scribe_extent_rec> extents;
  for (const meta::MappedExtent& extent : leaf.extents) extents.push_back(record_of(extent));
  KERNEL_MESSAGE(LEAF_PUT);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put_u64(msg, SCRIBE_A_LEAF, index) | put_records(msg, SCRIBE_A_SEGS, segs) |
             put_records(msg, SCRIBE_A_EXTENTS, extents));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::add_reservations(std::span<const meta::MappedExtent> extents, uint32_t copies,
                                      bool no_space) {
  std::vector<scribe_extent_rec> recs;
  for (const meta::MappedExtent& extent : extents) recs.push_back(record_of(extent));
  KERNEL_MESSAGE(RESERVE_ADD);
  KERNEL_PUT(put_records(msg, SCRIBE_A_EXTENTS, recs) |
             nla_put_u8(msg, SCRIBE_A_COPIES, static_cast<uint8_t>(copies)) |
             nla_put_u32(msg, SCRIBE_A_FLAGS, no_space ? SCRIBE_F_NOSPACE : 0));
  KERNEL_CALL();
  return {};
}

Result<std::vector<core::ExtentId>> Kernel::take_back_reservations(core::DiskId disk) {
  KERNEL_MESSAGE(RESERVE_TAKE_BACK);
  KERNEL_PUT(nla_put_u32(msg, SCRIBE_A_DISK_ID, static_cast<uint32_t>(disk.value)));
  KERNEL_CALL();
  std::vector<core::ExtentId> out;
  for (const uint64_t id : reply->all<uint64_t>(SCRIBE_A_IDS)) out.push_back({id});
  return out;
}

Result<ClosedBatch> Kernel::get_batch(core::VsdId vsd) {
  KERNEL_MESSAGE(BATCH_GET);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value));
  KERNEL_CALL();
  ClosedBatch out{reply->u64(SCRIBE_A_BATCH), {vsd, reply->u64(SCRIBE_A_EPOCH), {}, {}}};
  for (const scribe_op_rec& op : reply->all<scribe_op_rec>(SCRIBE_A_OPS))
    out.batch.ops.push_back({op.chunk, {op.start, op.len, op.off, {op.extent}}});
  for (const scribe_stale_rec& stale : reply->all<scribe_stale_rec>(SCRIBE_A_STALES))
    out.batch.stales.push_back({{stale.extent}, {stale.disk}, stale.suspect != 0});
  return out;
}

Result<void> Kernel::batch_done(core::VsdId vsd, uint64_t epoch, uint64_t number) {
  KERNEL_MESSAGE(BATCH_DONE);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put_u64(msg, SCRIBE_A_BATCH, number));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::batch_refused(core::VsdId vsd, uint64_t epoch, uint64_t number) {
  KERNEL_MESSAGE(BATCH_DONE);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put_u64(msg, SCRIBE_A_BATCH, number) |
             nla_put_u32(msg, SCRIBE_A_FLAGS, SCRIBE_F_REFUSED));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::add_intent(core::VsdId vsd, uint64_t epoch, std::span<const uint64_t> leaves) {
  KERNEL_MESSAGE(INTENT_ADD);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put(msg, SCRIBE_A_IDS, static_cast<int>(leaves.size_bytes()), leaves.data()));
  KERNEL_CALL();
  return {};
}

Result<std::vector<uint64_t>> Kernel::drop_intent(core::VsdId vsd, uint64_t epoch,
                                                  std::span<const uint64_t> leaves) {
  KERNEL_MESSAGE(INTENT_DROP);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             nla_put(msg, SCRIBE_A_IDS, static_cast<int>(leaves.size_bytes()), leaves.data()));
  KERNEL_CALL();
  return reply->all<uint64_t>(SCRIBE_A_IDS);
}

Result<void> Kernel::set_extents(core::VsdId vsd, uint64_t epoch,
                                 std::span<const ExtentState> extents) {
  std::vector<scribe_extent_rec> recs;
  for (const ExtentState& state : extents) {
    scribe_extent_rec rec = record_of(state.extent);
    rec.flags |= state.frozen ? SCRIBE_EXTENT_FROZEN : 0;
    rec.flags |= state.partial ? SCRIBE_EXTENT_PARTIAL : 0;
    for (uint32_t i = 0; i < rec.nr_copies; i++)
      if (state.refreshed && rec.copy[i].disk == state.refreshed.value)
        rec.copy[i].flags |= SCRIBE_COPY_REFRESHED;
    recs.push_back(rec);
  }
  KERNEL_MESSAGE(EXTENTS_SET);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch) |
             put_records(msg, SCRIBE_A_EXTENTS, recs));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::move_extents(std::span<const meta::MappedExtent> extents) {
  for (size_t at = 0; at < extents.size(); at += kMovedAtOnce) {
    std::vector<scribe_extent_rec> recs;
    for (const meta::MappedExtent& extent :
         extents.subspan(at, std::min(kMovedAtOnce, extents.size() - at)))
      recs.push_back(record_of(extent));
    KERNEL_MESSAGE(EXTENTS_MOVED);
    KERNEL_PUT(put_records(msg, SCRIBE_A_EXTENTS, recs));
    KERNEL_CALL();
  }
  return {};
}

Result<void> Kernel::flush_vsd(core::VsdId vsd, uint64_t epoch) {
  KERNEL_MESSAGE(VSD_FLUSH);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, vsd.value) | nla_put_u64(msg, SCRIBE_A_EPOCH, epoch));
  KERNEL_CALL();
  return {};
}

Result<uint64_t> Kernel::copy_slots(std::span<const SlotCopy> slots) {
  std::vector<scribe_slot_rec> recs;
  for (const SlotCopy& slot : slots) {
    scribe_slot_rec rec{};
    rec.from_life = slot.from_life;
    rec.to_life = slot.to_life;
    rec.from_slot = slot.from_slot;
    rec.to_slot = slot.to_slot;
    rec.from_disk = static_cast<uint16_t>(slot.from.value);
    rec.to_disk = static_cast<uint16_t>(slot.to.value);
    recs.push_back(rec);
  }
  KERNEL_MESSAGE(SLOTS_COPY);
  KERNEL_PUT(put_records(msg, SCRIBE_A_SLOTS_MOVE, recs));
  KERNEL_CALL();
  return reply->u64(SCRIBE_A_DONE);
}

Result<std::vector<std::optional<uint64_t>>> Kernel::digests(std::span<const SlotRange> ranges) {
  std::vector<std::optional<uint64_t>> out;
  while (out.size() < ranges.size()) {
    std::vector<scribe_range_rec> recs;
    for (const SlotRange& one :
         ranges.subspan(out.size(), std::min(kMaxSlotCopies, ranges.size() - out.size()))) {
      recs.push_back(record_of(one));
    }
    KERNEL_MESSAGE(SLOTS_DIGEST);
    KERNEL_PUT(put_records(msg, SCRIBE_A_RANGES, recs));
    KERNEL_CALL();
    const uint64_t done = reply->u64(SCRIBE_A_DONE);
    const auto found = reply->all<uint64_t>(SCRIBE_A_IDS);
    if (found.size() != recs.size())
      return Error{Code::storage, "kernel: an answer of another length"};
    for (size_t i = 0; i < found.size(); i++)
      out.push_back((done >> i & 1) != 0 ? std::optional(found[i]) : std::nullopt);
  }
  return out;
}

Result<void> Kernel::gather(std::span<const SlotRange> from, std::span<const SlotRange> targets) {
  std::vector<scribe_range_rec> sources;
  std::vector<scribe_range_rec> to;
  for (const SlotRange& one : from) sources.push_back(record_of(one));
  for (const SlotRange& one : targets) to.push_back(record_of(one));
  KERNEL_MESSAGE(SLOTS_GATHER);
  KERNEL_PUT(put_records(msg, SCRIBE_A_RANGES, sources) | put_records(msg, SCRIBE_A_TARGETS, to));
  KERNEL_CALL();
  return {};
}

Result<void> Kernel::move_pieces(const meta::Moved& moved) {
  std::vector<scribe_piece_rec> pieces;
  for (const meta::Piece& one : moved.pieces) {
    scribe_piece_rec rec{};
    rec.chunk = one.chunk;
    rec.from = one.from.extent.value;
    rec.start = one.from.start;
    rec.len = one.from.len;
    rec.off = one.from.off;
    rec.to = one.to;
    pieces.push_back(rec);
  }
  const std::vector<scribe_extent_rec> to = {record_of(moved.to)};
  KERNEL_MESSAGE(PIECES_MOVED);
  KERNEL_PUT(nla_put_u64(msg, SCRIBE_A_VSD, moved.vsd.value) |
             nla_put_u64(msg, SCRIBE_A_EPOCH, moved.epoch) |
             put_records(msg, SCRIBE_A_PIECES, pieces) | put_records(msg, SCRIBE_A_EXTENTS, to));
  KERNEL_CALL();
  return {};
}

Result<std::vector<Work>> Kernel::work() {
  KERNEL_MESSAGE(WORK_GET);
  KERNEL_CALL();
  std::vector<Work> out;
  for (const scribe_work_rec& rec : reply->all<scribe_work_rec>(SCRIBE_A_WORK))
    out.push_back({rec.type, rec.id, rec.vsd, rec.arg});
  return out;
}

Result<void> Kernel::barrier() {
  KERNEL_MESSAGE(BARRIER);
  KERNEL_CALL();
  return {};
}

Result<int> Kernel::subscribe() {
  if (events_ == nullptr) {
    events_ = nl_socket_alloc();
    if (events_ == nullptr) return out_of_memory();
    nl_socket_disable_seq_check(events_);
    const int group = genl_ctrl_resolve_grp(sock_, SCRIBE_GENL_NAME, SCRIBE_GENL_EVENTS);
    int err = group < 0 ? group : genl_connect(events_);
    if (err >= 0) err = nl_socket_add_membership(events_, group);
    if (err >= 0) err = nl_socket_set_nonblocking(events_);
    if (err < 0) return Error{Code::storage, std::string("netlink: ") + nl_geterror(err)};
  }
  return nl_socket_get_fd(events_);
}

void Kernel::drain() {
  std::array<char, 4096> buffer;
  while (recv(nl_socket_get_fd(events_), buffer.data(), buffer.size(), MSG_DONTWAIT) >= 0) {
  }
}

}  // namespace control
