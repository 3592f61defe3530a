// SPDX-License-Identifier: GPL-2.0
#include "net/netlink.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>

namespace net {

namespace {

using core::Code;
using core::Error;

constexpr size_t kMacBytes = 6;

struct FreeMessage {
  void operator()(nl_msg* msg) const { nlmsg_free(msg); }
};
using Message = std::unique_ptr<nl_msg, FreeMessage>;

template <class Header>
Message make(int type, int flags, const Header& header) {
  Message msg(nlmsg_alloc_simple(type, NLM_F_REQUEST | flags));
  if (!msg) throw std::bad_alloc();
  if (nlmsg_append(msg.get(), const_cast<Header*>(&header), sizeof(header), NLMSG_ALIGNTO) != 0)
    throw std::bad_alloc();
  return msg;
}

// A message has room for a page, and none here is as long.
void put(const Message& msg, int type, const void* data, size_t bytes) {
  if (nla_put(msg.get(), type, static_cast<int>(bytes), data) != 0) throw std::bad_alloc();
}

template <class Number>
void put_number(const Message& msg, int type, Number number) {
  put(msg, type, &number, sizeof(number));
}

void put_text(const Message& msg, int type, const std::string& text) {
  put(msg, type, text.c_str(), text.size() + 1);
}

template <class Fill>
void put_nested(const Message& msg, int type, Fill fill) {
  nlattr* const nest = nla_nest_start(msg.get(), type);
  if (nest == nullptr) throw std::bad_alloc();
  fill();
  nla_nest_end(msg.get(), nest);
}

Error error_of(int nl) {
  const std::string text = nl_geterror(nl);
  if (nl == -NLE_EXIST) return {Code::conflict, text};
  if (nl == -NLE_OBJ_NOTFOUND || nl == -NLE_NODEV || nl == -NLE_NOADDR)
    return {Code::not_found, text};
  if (nl == -NLE_DUMP_INTR) return {Code::unknown, text};
  return {Code::storage, text};
}

Result<void> send(nl_sock* socket, Message msg) {
  const int done = nl_send_sync(socket, msg.release());
  if (done < 0) return error_of(done);
  return {};
}

using OnMessage = std::function<void(nlmsghdr*)>;

int pass_on(nl_msg* msg, void* arg) {
  (*static_cast<OnMessage*>(arg))(nlmsg_hdr(msg));
  return NL_OK;
}

template <class Header>
Result<void> dump(nl_sock* socket, int type, const Header& header, OnMessage each) {
  const Message msg = make(type, NLM_F_DUMP, header);
  nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, pass_on, &each);
  int done = nl_send_auto(socket, msg.get());
  if (done >= 0) done = nl_recvmsgs_default(socket);
  nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_DEFAULT, nullptr, nullptr);
  if (done < 0) return error_of(done);
  return {};
}

// The attributes behind a header, each with its data.
template <class Header, size_t N>
std::array<nlattr*, N + 1> attributes(nlmsghdr* message) {
  std::array<nlattr*, N + 1> out{};
  nlmsg_parse(message, sizeof(Header), out.data(), N, nullptr);
  return out;
}

template <size_t N>
std::array<nlattr*, N + 1> nested(nlattr* nest) {
  std::array<nlattr*, N + 1> out{};
  if (nest != nullptr) nla_parse_nested(out.data(), N, nest, nullptr);
  return out;
}

int int_of(const nlattr* attr) { return attr == nullptr ? 0 : static_cast<int>(nla_get_u32(attr)); }

std::string text_of(const nlattr* attr) { return attr == nullptr ? "" : nla_get_string(attr); }

std::string mac_text(const nlattr* attr) {
  if (attr == nullptr || nla_len(attr) != kMacBytes) return "";
  const auto* const byte = static_cast<const uint8_t*>(nla_data(attr));
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", byte[0], byte[1],
                byte[2], byte[3], byte[4], byte[5]);
  return text.data();
}

bool mac_bytes(const std::string& text, std::array<uint8_t, kMacBytes>& out) {
  auto& [a, b, c, d, e, f] = out;
  return std::sscanf(text.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &a, &b, &c, &d, &e, &f) ==
         kMacBytes;
}

BondSettings bond_of(nlattr* data) {
  const auto has = nested<IFLA_BOND_MAX>(data);
  BondSettings out;
  if (has[IFLA_BOND_MODE] != nullptr) out.mode = nla_get_u8(has[IFLA_BOND_MODE]);
  if (has[IFLA_BOND_MIIMON] != nullptr) out.miimon = nla_get_u32(has[IFLA_BOND_MIIMON]);
  if (has[IFLA_BOND_UPDELAY] != nullptr) out.updelay = nla_get_u32(has[IFLA_BOND_UPDELAY]);
  if (has[IFLA_BOND_PRIMARY_RESELECT] != nullptr)
    out.reselect = nla_get_u8(has[IFLA_BOND_PRIMARY_RESELECT]);
  out.primary = int_of(has[IFLA_BOND_PRIMARY]);
  out.active = int_of(has[IFLA_BOND_ACTIVE_SLAVE]);
  return out;
}

Link link_of_message(nlmsghdr* message) {
  const auto* const header = static_cast<ifinfomsg*>(nlmsg_data(message));
  const auto has = attributes<ifinfomsg, IFLA_MAX>(message);
  Link out;
  out.index = header->ifi_index;
  out.name = text_of(has[IFLA_IFNAME]);
  out.mac = mac_text(has[IFLA_ADDRESS]);
  out.master = int_of(has[IFLA_MASTER]);
  out.lower = int_of(has[IFLA_LINK]);
  out.mtu = static_cast<uint32_t>(int_of(has[IFLA_MTU]));
  out.up = (header->ifi_flags & IFF_UP) != 0;
  out.carrier = has[IFLA_CARRIER] != nullptr && nla_get_u8(has[IFLA_CARRIER]) != 0;
  const auto info = nested<IFLA_INFO_MAX>(has[IFLA_LINKINFO]);
  out.kind = text_of(info[IFLA_INFO_KIND]);
  if (out.kind == "bond") out.bond = bond_of(info[IFLA_INFO_DATA]);
  if (out.kind == "vlan") {
    const auto vlan = nested<IFLA_VLAN_MAX>(info[IFLA_INFO_DATA]);
    if (vlan[IFLA_VLAN_ID] != nullptr) out.vlan = nla_get_u16(vlan[IFLA_VLAN_ID]);
  }
  return out;
}

bool is_for_good(const ifaddrmsg& header) {
  return (header.ifa_flags & IFA_F_PERMANENT) != 0 && header.ifa_scope != RT_SCOPE_LINK;
}

void take_address(nlmsghdr* message, std::vector<Link>& links) {
  const auto* const header = static_cast<ifaddrmsg*>(nlmsg_data(message));
  const auto has = attributes<ifaddrmsg, IFA_MAX>(message);
  const nlattr* const local = has[IFA_LOCAL] != nullptr ? has[IFA_LOCAL] : has[IFA_ADDRESS];
  const auto at = std::find_if(links.begin(), links.end(), [&](const Link& one) {
    return one.index == static_cast<int>(header->ifa_index);
  });
  if (local == nullptr || at == links.end()) return;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (inet_ntop(header->ifa_family, nla_data(local), text.data(), text.size()) == nullptr) return;
  if (is_for_good(*header))
    at->addresses.push_back(text.data() + ("/" + std::to_string(header->ifa_prefixlen)));
  else if (header->ifa_family == AF_INET && header->ifa_scope != RT_SCOPE_LINK)
    at->leased = true;
}

void copy(const Message& msg, const nlattr* attr) {
  put(msg, nla_type(attr), nla_data(attr), static_cast<size_t>(nla_len(attr)));
}

// The same address on another link. It is the node's already: nobody else can have it.
Message address_on(nlmsghdr* message, int type, int index) {
  ifaddrmsg header = *static_cast<ifaddrmsg*>(nlmsg_data(message));
  header.ifa_index = static_cast<unsigned>(index);
  header.ifa_flags = header.ifa_family == AF_INET6 ? IFA_F_NODAD : 0;
  Message out = make(type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_REPLACE : 0, header);
  const auto has = attributes<ifaddrmsg, IFA_MAX>(message);
  for (const int attr : {IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY})
    if (has[static_cast<size_t>(attr)] != nullptr) copy(out, has[static_cast<size_t>(attr)]);
  return out;
}

// The same route by another link, in its place.
Message route_by(nlmsghdr* message, int index) {
  rtmsg header = *static_cast<rtmsg*>(nlmsg_data(message));
  header.rtm_flags &= RTNH_F_ONLINK;
  Message out = make(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, header);
  const auto has = attributes<rtmsg, RTA_MAX>(message);
  for (const int attr :
       {RTA_DST, RTA_SRC, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_VIA})
    if (has[static_cast<size_t>(attr)] != nullptr) copy(out, has[static_cast<size_t>(attr)]);
  put_number(out, RTA_OIF, index);
  return out;
}

// Not those that the kernel makes of addresses, or of what a router says.
bool is_by(nlmsghdr* message, int index) {
  const auto* const header = static_cast<rtmsg*>(nlmsg_data(message));
  const auto has = attributes<rtmsg, RTA_MAX>(message);
  return int_of(has[RTA_OIF]) == index && header->rtm_type == RTN_UNICAST &&
         (header->rtm_flags & RTM_F_CLONED) == 0 && header->rtm_protocol != RTPROT_KERNEL &&
         header->rtm_protocol != RTPROT_RA;
}

void put_bond(const Message& msg, const BondSettings& bond) {
  put_nested(msg, IFLA_LINKINFO, [&] {
    put_text(msg, IFLA_INFO_KIND, "bond");
    put_nested(msg, IFLA_INFO_DATA, [&] {
      put_number(msg, IFLA_BOND_MIIMON, bond.miimon);
      put_number(msg, IFLA_BOND_UPDELAY, bond.updelay);
      put_number(msg, IFLA_BOND_PRIMARY_RESELECT, bond.reselect);
      put_number(msg, IFLA_BOND_PRIMARY, bond.primary);
    });
  });
}

// The node itself has no address in its guests' networks, not even one of IPv6's own making.
void leave_to_guests(const std::string& link) {
  std::ofstream("/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6") << "1";
}

Message link_message(int type, int flags, int index) {
  ifinfomsg header{};
  header.ifi_index = index;
  return make(type, flags, header);
}

Message new_link(const std::string& name) {
  Message msg = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
  put_text(msg, IFLA_IFNAME, name);
  return msg;
}

Result<void> in_step(const Step& step, const Result<void>& done) {
  if (done) return {};
  return Error{done.error().code, step.link + (step.other.empty() ? "" : ", " + step.other) + ": " +
                                      done.error().text};
}

}  // namespace

Result<std::unique_ptr<Netlink>> Netlink::open() {
  auto made = std::unique_ptr<Netlink>(new Netlink(nl_socket_alloc(), nl_socket_alloc()));
  if (made->socket_ == nullptr || made->events_ == nullptr) throw std::bad_alloc();
  nl_socket_disable_seq_check(made->events_);
  int done = nl_connect(made->socket_, NETLINK_ROUTE);
  if (done == 0) done = nl_connect(made->events_, NETLINK_ROUTE);
  if (done == 0) done = nl_socket_add_membership(made->events_, RTNLGRP_LINK);
  if (done == 0) done = nl_socket_set_nonblocking(made->events_);
  if (done != 0) return error_of(done);
  return made;
}

Netlink::~Netlink() {
  nl_socket_free(socket_);
  nl_socket_free(events_);
}

// What changes while it is listed is listed anew.
Result<std::vector<Link>> Netlink::links() {
  constexpr int kAttempts = 10;
  for (int attempt = 1;; attempt++) {
    auto out = links_once();
    if (out || out.error().code != Code::unknown || attempt == kAttempts) return out;
  }
}

Result<std::vector<Link>> Netlink::links_once() {
  std::vector<Link> out;
  CORE_TRY(dump(socket_, RTM_GETLINK, ifinfomsg{},
                [&](nlmsghdr* message) { out.push_back(link_of_message(message)); }));
  CORE_TRY(dump(socket_, RTM_GETADDR, ifaddrmsg{},
                [&](nlmsghdr* message) { take_address(message, out); }));
  return out;
}

// The addresses are there and here for a moment, and the routes replaced: the node is never
// without.
Result<void> Netlink::move_addresses(int from, int to) {
  std::vector<Message> steps;
  std::vector<Message> last;
  CORE_TRY(dump(socket_, RTM_GETADDR, ifaddrmsg{}, [&](nlmsghdr* message) {
    const auto* const header = static_cast<ifaddrmsg*>(nlmsg_data(message));
    if (static_cast<int>(header->ifa_index) != from || !is_for_good(*header)) return;
    steps.push_back(address_on(message, RTM_NEWADDR, to));
    last.push_back(address_on(message, RTM_DELADDR, from));
  }));
  CORE_TRY(dump(socket_, RTM_GETROUTE, rtmsg{}, [&](nlmsghdr* message) {
    if (is_by(message, from)) steps.push_back(route_by(message, to));
  }));
  for (Message& msg : steps) CORE_TRY(send(socket_, std::move(msg)));
  for (Message& msg : last) {
    // With the first of a subnet its others go, too.
    const auto gone = send(socket_, std::move(msg));
    if (!gone && gone.error().code != Code::not_found) return gone.error();
  }
  return {};
}

Result<int> Netlink::index_of(const std::string& name) {
  const unsigned index = if_nametoindex(name.c_str());
  if (index == 0) return Error{Code::not_found, name + " is not there"};
  return static_cast<int>(index);
}

Result<void> Netlink::apply(const Step& step) {
  const bool adds = step.what == Step::What::add_bond || step.what == Step::What::add_bridge ||
                    step.what == Step::What::add_vlan;
  const auto link_found = adds ? Result<int>(0) : index_of(step.link);
  const auto other_found = step.other.empty() ? Result<int>(0) : index_of(step.other);
  if (!link_found) return link_found.error();
  if (!other_found) return other_found.error();
  const int link = *link_found;
  const int other = *other_found;
  Message msg;
  switch (step.what) {
    case Step::What::add_bond:
      msg = new_link(step.link);
      if (step.mtu != 0) put_number(msg, IFLA_MTU, step.mtu);
      put_nested(msg, IFLA_LINKINFO, [&] {
        put_text(msg, IFLA_INFO_KIND, "bond");
        put_nested(msg, IFLA_INFO_DATA, [&] {
          put_number(msg, IFLA_BOND_MODE, kActiveBackup);
          put_number(msg, IFLA_BOND_MIIMON, kMiimonMs);
        });
      });
      break;
    case Step::What::add_bridge: {
      msg = new_link(step.link);
      if (!step.other.empty()) {
        // Its own for good: else it is that of whichever port has the lowest.
        const auto all = links();
        if (!all) return all.error();
        std::array<uint8_t, kMacBytes> mac{};
        for (const Link& one : *all)
          if (one.index == other && mac_bytes(one.mac, mac))
            put(msg, IFLA_ADDRESS, mac.data(), mac.size());
      }
      put_nested(msg, IFLA_LINKINFO, [&] { put_text(msg, IFLA_INFO_KIND, "bridge"); });
      break;
    }
    case Step::What::add_vlan:
      msg = new_link(step.link);
      put_number(msg, IFLA_LINK, other);
      put_nested(msg, IFLA_LINKINFO, [&] {
        put_text(msg, IFLA_INFO_KIND, "vlan");
        put_nested(msg, IFLA_INFO_DATA, [&] { put_number(msg, IFLA_VLAN_ID, step.vlan); });
      });
      break;
    case Step::What::set_bond:
      msg = link_message(RTM_NEWLINK, 0, link);
      put_bond(msg, step.bond);
      break;
    case Step::What::set_master:
      msg = link_message(RTM_NEWLINK, 0, link);
      put_number(msg, IFLA_MASTER, other);
      break;
    case Step::What::set_up:
    case Step::What::set_down: {
      ifinfomsg header{};
      header.ifi_index = link;
      header.ifi_change = IFF_UP;
      header.ifi_flags = step.what == Step::What::set_up ? IFF_UP : 0;
      msg = make(RTM_NEWLINK, 0, header);
      break;
    }
    case Step::What::move_addresses:
      return in_step(step, move_addresses(link, other));
    case Step::What::remove:
      msg = link_message(RTM_DELLINK, 0, link);
      break;
  }
  CORE_TRY(in_step(step, send(socket_, std::move(msg))));
  if (step.what == Step::What::add_vlan ||
      (step.what == Step::What::add_bridge && step.other.empty()))
    leave_to_guests(step.link);
  return {};
}

void Netlink::wait(std::chrono::milliseconds most) {
  pollfd fd{nl_socket_get_fd(events_), POLLIN, 0};
  if (poll(&fd, 1, static_cast<int>(most.count())) <= 0) return;
  // What exactly is not looked at: links() asks for all.
  while (nl_recvmsgs_default(events_) >= 0) {
  }
}

Result<void> announce(const std::string& link, const std::string& mac) {
  struct [[gnu::packed]] Frame {
    ethhdr head;
    arphdr arp;
    std::array<uint8_t, kMacBytes> sender;
    uint32_t sender_ip;
    std::array<uint8_t, kMacBytes> target;
    uint32_t target_ip;
    std::array<uint8_t, 18> padding;
  };
  constexpr uint16_t kRarpRequest = 3;
  Frame frame{};
  if (!mac_bytes(mac, frame.sender)) return Error{Code::invalid, mac + " is no MAC"};
  frame.target = frame.sender;
  std::fill(std::begin(frame.head.h_dest), std::end(frame.head.h_dest), 0xff);
  std::copy(frame.sender.begin(), frame.sender.end(), std::begin(frame.head.h_source));
  frame.head.h_proto = htons(ETH_P_RARP);
  frame.arp.ar_hrd = htons(ARPHRD_ETHER);
  frame.arp.ar_pro = htons(ETH_P_IP);
  frame.arp.ar_hln = kMacBytes;
  frame.arp.ar_pln = sizeof(frame.sender_ip);
  frame.arp.ar_op = htons(kRarpRequest);
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error{Code::storage, std::string("packet socket: ") + std::strerror(errno)};
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(if_nametoindex(link.c_str()));
  const ssize_t sent =
      sendto(fd, &frame, sizeof(frame), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to));
  const int error = errno;
  close(fd);
  if (sent != sizeof(frame)) return Error{Code::storage, link + ": " + std::strerror(error)};
  return {};
}

}  // namespace net
