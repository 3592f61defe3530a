// SPDX-License-Identifier: GPL-2.0
#include "vm/domain.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <map>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "vm/cpus.h"
#include "vm/disks.h"
#include "vm/nics.h"
#include "vm/xml.h"

namespace vm {

namespace {

constexpr const char* kNamespace = "urn:scribe:domain:1";
constexpr size_t kLongestName = 48;  // a disk's number is put behind it, for a VSD's
constexpr size_t kLongestText = 4096;
constexpr size_t kLongestTag = 48;
constexpr size_t kMostTags = 32;
constexpr std::array<const char*, 3> kBuses = {"virtio", "scsi", "sata"};
constexpr std::array<const char*, 2> kModels = {"virtio", "e1000e"};
constexpr size_t kLongestBridge = 15;  // IFNAMSIZ
constexpr uint64_t kMaxVlan = 4094;
constexpr uint64_t kMaxIops = 1'000'000'000;
constexpr uint64_t kMaxBytesPerSecond = uint64_t{512} << 40;
// Where disks and network interfaces are plugged in while it runs.
constexpr size_t kFreePorts = 4;
// Beside disks and network interfaces: USB, SCSI, rng, balloon, the agent's channel.
constexpr size_t kOtherPorts = 5;
constexpr std::array<const char*, 2> kCpus = {"host", "baseline"};
constexpr std::array<const char*, 3> kFirmwares = {"bios", "uefi", "uefi-secure"};
constexpr std::array<Firmware, 2> kUefis = {
    {{"uefi", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", false},
     {"uefi-secure", "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
      true}}};

constexpr unsigned kMemorySlots = 32;  // in which memory is plugged
constexpr uint64_t kKibInMib = 1024;

// Cores of one socket: there are guests with a licence for two of these.
void put_cpu(pugi::xml_node domain, const meta::Vm& vm) {
  pugi::xml_node cpu = domain.append_child("cpu");
  if (vm.cpu == "host") {
    cpu.append_attribute("mode") = "host-passthrough";
    cpu.append_attribute("check") = "none";
  } else {
    cpu.append_attribute("mode") = "custom";
    cpu.append_attribute("match") = "exact";
    cpu.append_attribute("check") = "partial";
    // Where it does not run, one that it could have anywhere.
    cpu.append_child("model").text().set(vm.run_cpu.empty() ? kOldestCpu : vm.run_cpu.c_str());
  }
  pugi::xml_node topology = cpu.append_child("topology");
  topology.append_attribute("sockets") = "1";
  topology.append_attribute("cores") = std::to_string(most_vcpus(vm)).c_str();
  topology.append_attribute("threads") = "1";
  if (vm.max_memory_mib == 0) return;
  // Memory is plugged into a node of this kind, or not at all.
  pugi::xml_node cell = cpu.append_child("numa").append_child("cell");
  cell.append_attribute("id") = "0";
  cell.append_attribute("cpus") = ("0-" + std::to_string(most_vcpus(vm) - 1)).c_str();
  cell.append_attribute("memory") = std::to_string(vm.memory_mib).c_str();
  cell.append_attribute("unit") = "MiB";
}

// The firmware itself is the node's, what it keeps is the VM's; where that is not said, both are
// left to whoever runs it.
void put_firmware(pugi::xml_node os, const meta::Vm& vm, const std::string& flash) {
  const Firmware* const uefi = firmware_of(vm);
  if (uefi == nullptr) return;
  if (flash.empty()) {
    os.append_attribute("firmware") = "efi";
    pugi::xml_node secure = os.append_child("firmware").append_child("feature");
    secure.append_attribute("enabled") = uefi->secure ? "yes" : "no";
    secure.append_attribute("name") = "secure-boot";
    return;
  }
  pugi::xml_node loader = os.append_child("loader");
  loader.append_attribute("readonly") = "yes";
  loader.append_attribute("secure") = uefi->secure ? "yes" : "no";
  loader.append_attribute("type") = "pflash";
  loader.text().set(uefi->code);
  pugi::xml_node nvram = os.append_child("nvram");
  nvram.append_attribute("type") = "block";
  nvram.append_child("source").append_attribute("dev") = flash.c_str();
}

// It runs beside QEMU, where its node has begun it; else libvirt begins one.
void put_tpm(pugi::xml_node devices, const std::string& socket) {
  pugi::xml_node tpm = devices.append_child("tpm");
  tpm.append_attribute("model") = "tpm-crb";
  pugi::xml_node backend = tpm.append_child("backend");
  if (socket.empty()) {
    backend.append_attribute("type") = "emulator";
    backend.append_attribute("version") = "2.0";
    return;
  }
  backend.append_attribute("type") = "external";
  pugi::xml_node source = backend.append_child("source");
  source.append_attribute("type") = "unix";
  source.append_attribute("mode") = "connect";
  source.append_attribute("path") = socket.c_str();
}

// cloud-init finds it by its label.
void put_seed(pugi::xml_node devices, const std::string& path, const std::string& target) {
  const std::string xml = disk_xml({path, "virtio", kSeedSerial}, target, 0);
  devices.append_buffer(xml.data(), xml.size());
  devices.last_child().append_child("readonly");
}

// For whoever libvirt lets in, at a socket of the node. A pointer that is where the screen shows
// it.
void put_screen(pugi::xml_node devices) {
  pugi::xml_node graphics = devices.append_child("graphics");
  graphics.append_attribute("type") = "vnc";
  graphics.append_child("listen").append_attribute("type") = "socket";
  devices.append_child("video").append_child("model").append_attribute("type") = "vga";
  pugi::xml_node tablet = devices.append_child("input");
  tablet.append_attribute("type") = "tablet";
  tablet.append_attribute("bus") = "usb";
}

// libvirt makes as many as there are devices, and none for what comes later.
void put_ports(pugi::xml_node devices, size_t count) {
  pugi::xml_node root = devices.append_child("controller");
  root.append_attribute("type") = "pci";
  root.append_attribute("model") = "pcie-root";
  for (size_t i = 0; i < count; i++) {
    pugi::xml_node port = devices.append_child("controller");
    port.append_attribute("type") = "pci";
    port.append_attribute("model") = "pcie-root-port";
  }
}

bool is_word(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

template <size_t N>
std::string one_of(const std::array<const char*, N>& words) {
  std::string out;
  for (const char* word : words)
    out += (out.empty() ? "" : word == words.back() ? " or " : ", ") + std::string(word);
  return out;
}

template <size_t N>
bool contains(const std::array<const char*, N>& words, const std::string& word) {
  return std::any_of(words.begin(), words.end(), [&](const char* one) { return word == one; });
}

// Of one interface, in lower case: 52:54:00:12:34:56.
bool is_mac(const std::string& text) {
  constexpr size_t kLength = 17;
  for (size_t i = 0; i < text.size(); i++) {
    const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (i % 3 == 2 ? text[i] != ':' : !digit) return false;
  }
  const std::string evens = "02468ace";
  return text.size() == kLength && evens.find(text[1]) != std::string::npos &&
         text != "00:00:00:00:00:00";
}

Result<void> check_nic(const meta::VmNic& nic) {
  if (!nic.bridge.empty() && (!is_word(nic.bridge) || nic.bridge.size() > kLongestBridge))
    return Error{Code::invalid, "'" + nic.bridge + "' is no name of a bridge"};
  if (!nic.bridge.empty() && nic.vlan != 0)
    return Error{Code::invalid,
                 "a network interface at a bridge has no VLAN: that is the bridge's"};
  if (nic.vlan > kMaxVlan)
    return Error{Code::invalid, "a VLAN has a number from 1 to " + std::to_string(kMaxVlan)};
  if (!nic.mac.empty() && !is_mac(nic.mac))
    return Error{Code::invalid, "'" + nic.mac + "' is no MAC of a network interface"};
  if (!contains(kModels, nic.model))
    return Error{Code::invalid,
                 "'" + nic.model + "' is no model of a network interface: " + one_of(kModels)};
  return {};
}

Result<void> check_texts(const meta::Vm& vm) {
  if (!meta::valid_name(vm.name) || vm.name.size() > kLongestName)
    return Error{Code::invalid, "'" + vm.name + "' is no name for a VM: 1 to " +
                                    std::to_string(kLongestName) +
                                    " letters, digits, '-', '_' and '.'"};
  if (vm.description.size() > kLongestText)
    return Error{Code::invalid,
                 "a description has at most " + std::to_string(kLongestText) + " characters"};
  if (std::any_of(vm.description.begin(), vm.description.end(),
                  [](char c) { return static_cast<unsigned char>(c) < ' ' && c != '\n'; }))
    return Error{Code::invalid, "a description has no control characters"};
  if (vm.tags.size() > kMostTags)
    return Error{Code::invalid, "a VM has at most " + std::to_string(kMostTags) + " tags"};
  for (const std::string& tag : vm.tags)
    if (!is_word(tag) || tag.size() > kLongestTag)
      return Error{Code::invalid, "'" + tag + "' is no tag: 1 to " + std::to_string(kLongestTag) +
                                      " letters, digits, '-', '_' and '.'"};
  for (const std::string& group : {vm.apart, vm.together})
    if (!group.empty() && (!is_word(group) || group.size() > kLongestTag))
      return Error{Code::invalid, "'" + group + "' is no name of a group: 1 to " +
                                      std::to_string(kLongestTag) +
                                      " letters, digits, '-', '_' and '.'"};
  return {};
}

// Where a guest's qemu-guest-agent listens.
void put_agent(pugi::xml_node devices) {
  pugi::xml_node channel = devices.append_child("channel");
  channel.append_attribute("type") = "unix";
  pugi::xml_node target = channel.append_child("target");
  target.append_attribute("type") = "virtio";
  target.append_attribute("name") = kAgent;
}

}  // namespace

std::string mac_of(const std::string& uuid, size_t slot) {
  // FNV-1a: the same everywhere, for ever.
  uint32_t hash = 2166136261U;
  for (const char c : uuid + "/" + std::to_string(slot))
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "52:54:00:%02x:%02x:%02x", hash >> 16 & 0xff,
                hash >> 8 & 0xff, hash & 0xff);
  return text.data();
}

const Firmware* firmware_of(const meta::Vm& vm) {
  const auto* const at = std::find_if(kUefis.begin(), kUefis.end(),
                                      [&](const Firmware& one) { return vm.firmware == one.name; });
  return at == kUefis.end() ? nullptr : at;
}

Result<void> check(const meta::Vm& vm) {
  CORE_TRY(check_texts(vm));
  if (vm.vcpus < 1 || vm.vcpus > kMaxVcpus)
    return Error{Code::invalid, "a VM has 1 to " + std::to_string(kMaxVcpus) + " vCPUs"};
  if (vm.memory_mib < kMinMemoryMib || vm.memory_mib > kMaxMemoryMib)
    return Error{Code::invalid, "a VM has " + std::to_string(kMinMemoryMib) + " MiB to " +
                                    std::to_string(kMaxMemoryMib >> 20) + " TiB of memory"};
  if (vm.max_memory_mib != 0 &&
      (vm.max_memory_mib < vm.memory_mib || vm.max_memory_mib > kMaxMemoryMib))
    return Error{Code::invalid,
                 "the most memory that a VM can have is what it has, or more, up to " +
                     std::to_string(kMaxMemoryMib >> 20) + " TiB; 0: none is added while it runs"};
  if (!contains(kCpus, vm.cpu))
    return Error{Code::invalid, "'" + vm.cpu + "' is no kind of CPU: " + one_of(kCpus)};
  if (!contains(kFirmwares, vm.firmware))
    return Error{Code::invalid, "'" + vm.firmware + "' is no firmware: " + one_of(kFirmwares)};
  const auto of_guest = [](const meta::VmDisk& one) { return one.of_guest(); };
  if (std::count_if(vm.disks.begin(), vm.disks.end(), of_guest) > ptrdiff_t{kMaxDisks})
    return Error{Code::invalid, "a VM has at most " + std::to_string(kMaxDisks) + " disks"};
  for (const meta::VmDisk& disk : vm.disks) {
    if (!disk.of_guest()) continue;
    if (!contains(kBuses, disk.bus))
      return Error{Code::invalid, "'" + disk.bus + "' is no bus of a disk: " + one_of(kBuses)};
    if (disk.iops > kMaxIops || disk.bytes_per_s > kMaxBytesPerSecond)
      return Error{Code::invalid, "a disk's limits are at most " + std::to_string(kMaxIops) +
                                      " requests and " + std::to_string(kMaxBytesPerSecond >> 40) +
                                      " TiB a second; 0: none"};
  }
  if (vm.cdroms.size() > kMaxCdroms)
    return Error{Code::invalid, "a VM has at most " + std::to_string(kMaxCdroms) + " drives"};
  if (vm.nics.size() > kMaxNics)
    return Error{Code::invalid,
                 "a VM has at most " + std::to_string(kMaxNics) + " network interfaces"};
  std::set<std::string> macs;
  for (const meta::VmNic& nic : vm.nics) {
    if (!nic.mac.empty() && !macs.insert(nic.mac).second)
      return Error{Code::invalid, "two network interfaces have the MAC " + nic.mac};
    CORE_TRY(check_nic(nic));
  }
  return {};
}

std::string domain_xml(const meta::Vm& vm, const std::vector<DomainDisk>& disks,
                       const std::string& lan_bridge, const std::vector<DomainCdrom>& cdroms,
                       const DomainMachine& machine) {
  pugi::xml_document document;
  pugi::xml_node domain = document.append_child("domain");
  domain.append_attribute("type") = "kvm";
  put(domain, "name", vm.name);
  put(domain, "uuid", vm.uuid);
  pugi::xml_node ours = domain.append_child("metadata").append_child("scribe:vm");
  ours.append_attribute("xmlns:scribe") = kNamespace;
  ours.append_attribute("id") = std::to_string(vm.id).c_str();
  ours.append_attribute("run") = std::to_string(vm.run).c_str();
  if (!vm.description.empty()) put(domain, "description", vm.description);
  if (vm.max_memory_mib != 0) {
    pugi::xml_node most = domain.append_child("maxMemory");
    most.append_attribute("slots") = kMemorySlots;
    most.append_attribute("unit") = "MiB";
    most.text().set(std::to_string(vm.max_memory_mib).c_str());
  }
  pugi::xml_node memory = domain.append_child("memory");
  memory.append_attribute("unit") = "MiB";
  memory.text().set(std::to_string(vm.memory_mib).c_str());
  pugi::xml_node vcpu = domain.append_child("vcpu");
  vcpu.append_attribute("placement") = "static";
  vcpu.append_attribute("current") = std::to_string(vm.vcpus).c_str();
  vcpu.text().set(std::to_string(most_vcpus(vm)).c_str());
  pugi::xml_node os = domain.append_child("os");
  pugi::xml_node type = os.append_child("type");
  type.append_attribute("arch") = "x86_64";
  type.append_attribute("machine") = vm.machine.c_str();
  type.text().set("hvm");
  put_firmware(os, vm, machine.flash);
  pugi::xml_node features = domain.append_child("features");
  features.append_child("acpi");
  features.append_child("apic");
  if (const Firmware* const uefi = firmware_of(vm); uefi != nullptr && uefi->secure)
    features.append_child("smm").append_attribute("state") = "on";
  put_cpu(domain, vm);
  pugi::xml_node clock = domain.append_child("clock");
  clock.append_attribute("offset") = "utc";
  put(domain, "on_poweroff", "destroy");
  put(domain, "on_reboot", "restart");
  put(domain, "on_crash", "destroy");
  pugi::xml_node devices = domain.append_child("devices");
  std::set<std::string> used;
  uint64_t order = 0;
  for (const DomainDisk& disk : disks) {
    const std::string xml = disk_xml(disk, next_target(disk.bus, used), ++order);
    devices.append_buffer(xml.data(), xml.size());
  }
  // Behind the disks: what is on them begins, or else what is to be put there.
  for (const DomainCdrom& cdrom : cdroms) {
    const std::string xml = cdrom_xml(cdrom, next_target("sata", used), ++order);
    devices.append_buffer(xml.data(), xml.size());
  }
  if (!machine.seed.empty()) put_seed(devices, machine.seed, next_target("virtio", used));
  for (const meta::VmNic& nic : vm.nics) {
    const std::string xml = nic_xml(nic, lan_bridge);
    devices.append_buffer(xml.data(), xml.size());
  }
  put_ports(devices, disks.size() + vm.nics.size() + kOtherPorts + kFreePorts);
  // Also where nothing is at it yet.
  pugi::xml_node controller = devices.append_child("controller");
  controller.append_attribute("type") = "scsi";
  controller.append_attribute("model") = "virtio-scsi";
  devices.append_child("serial").append_attribute("type") = "pty";
  devices.append_child("console").append_attribute("type") = "pty";
  put_agent(devices);
  if (vm.screen) put_screen(devices);
  pugi::xml_node rng = devices.append_child("rng");
  rng.append_attribute("model") = "virtio";
  pugi::xml_node backend = rng.append_child("backend");
  backend.append_attribute("model") = "random";
  backend.text().set("/dev/urandom");
  if (vm.tpm) put_tpm(devices, machine.tpm);
  devices.append_child("panic").append_attribute("model") = "isa";
  devices.append_child("memballoon").append_attribute("model") = "virtio";
  std::ostringstream out;
  document.save(out, "  ", pugi::format_default | pugi::format_no_declaration);
  return out.str();
}

Result<DomainOf> domain_of(const std::string& xml) {
  pugi::xml_document document;
  const Error none{Code::not_found, "no domain of this cluster's"};
  // What a stranger's domain says is of no interest, and entities are not looked up.
  if (!document.load_string(xml.c_str(), pugi::parse_minimal)) return none;
  const pugi::xml_node ours = document.child("domain").child("metadata").child("scribe:vm");
  if (std::string(ours.attribute("xmlns:scribe").value()) != kNamespace) return none;
  DomainOf out;
  for (const auto& [name, value] : {std::pair{"id", &out.vm}, std::pair{"run", &out.run}}) {
    const std::string text = ours.attribute(name).value();
    const auto read = std::from_chars(text.data(), text.data() + text.size(), *value);
    if (read.ec != std::errc() || read.ptr != text.data() + text.size() || text.empty())
      return none;
  }
  return out;
}

uint64_t most_vcpus(const meta::Vm& vm) {
  constexpr uint64_t kRoom = 4;
  return std::min(kMaxVcpus, kRoom * (vm.run_vcpus == 0 ? vm.vcpus : vm.run_vcpus));
}

uint64_t vcpus_of(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_string(xml.c_str())) return 0;
  const pugi::xml_node vcpu = document.child("domain").child("vcpu");
  return vcpu.attribute("current").as_ullong(vcpu.text().as_ullong());
}

uint64_t memory_of(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_string(xml.c_str())) return 0;
  const pugi::xml_node memory = document.child("domain").child("memory");
  // libvirt writes no other unit.
  if (std::string_view(memory.attribute("unit").as_string("KiB")) != "KiB") return 0;
  return memory.text().as_ullong() / kKibInMib;
}

std::string memory_xml(uint64_t mib) {
  pugi::xml_document document;
  pugi::xml_node memory = document.append_child("memory");
  memory.append_attribute("model") = "dimm";
  pugi::xml_node target = memory.append_child("target");
  pugi::xml_node size = target.append_child("size");
  size.append_attribute("unit") = "MiB";
  size.text().set(std::to_string(mib).c_str());
  put(target, "node", "0");
  return text_of(memory);
}

bool has_agent(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_string(xml.c_str())) return false;
  for (const pugi::xml_node channel : document.child("domain").child("devices").children("channel"))
    if (is_agent(channel))
      return std::string_view(channel.child("target").attribute("state").value()) == "connected";
  return false;
}

Result<std::string> as_run(const std::string& xml, uint64_t run) {
  CORE_TRY(domain_of(xml));
  pugi::xml_document document;
  if (!document.load_string(xml.c_str(), pugi::parse_default | pugi::parse_ws_pcdata_single))
    return Error{Code::invalid, "libvirt's XML is none"};
  document.child("domain").child("metadata").child("scribe:vm").attribute("run") =
      std::to_string(run).c_str();
  std::ostringstream out;
  document.save(out, "  ", pugi::format_default | pugi::format_no_declaration);
  return out.str();
}

}  // namespace vm
