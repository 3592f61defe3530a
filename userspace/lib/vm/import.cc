// SPDX-License-Identifier: GPL-2.0
#include "vm/import.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <initializer_list>
#include <map>
#include <pugixml.hpp>
#include <string_view>

#include "net/plan.h"
#include "vm/domain.h"
#include "vm/xml.h"

namespace vm {

namespace {

using core::Code;
using core::Error;
using core::Result;

constexpr std::string_view kDevices = "/dev/mapper/scribe-";
constexpr std::string_view kMedia = "/dev/mapper/scribe-medium:";
constexpr std::string_view kMachines = "pc-q35-";
constexpr uint64_t kKib = 1024;
constexpr uint64_t kMib = kKib * 1024;

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

Error refused(const std::string& what) { return {Code::invalid, "the domain's XML: " + what}; }

std::string in_quotes(std::string_view text) { return "'" + std::string(text) + "'"; }

Result<uint64_t> number_of(std::string_view text, const char* what) {
  uint64_t out = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), out);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || text.empty())
    return refused(std::string(what) + " is no number: " + in_quotes(text));
  return out;
}

Result<uint64_t> memory_mib(pugi::xml_node memory) {
  static const std::map<std::string_view, uint64_t> kUnits = {
      {"", kKib},           {"b", 1},           {"bytes", 1},        {"k", kKib},
      {"KiB", kKib},        {"M", kMib},        {"MiB", kMib},       {"G", kMib * kKib},
      {"GiB", kMib * kKib}, {"T", kMib * kMib}, {"TiB", kMib * kMib}};
  const auto unit = kUnits.find(memory.attribute("unit").value());
  if (unit == kUnits.end())
    return refused("memory in " + in_quotes(memory.attribute("unit").value()) +
                   " is not known here");
  auto count = number_of(memory.text().get(), "memory");
  if (!count) return count;
  if (*count > kMaxMemoryMib * kMib / unit->second) return refused("memory is too large");
  const uint64_t bytes = *count * unit->second;
  if (bytes % kMib != 0) return refused("memory must be a multiple of 1 MiB");
  return bytes / kMib;
}

// The files of firmwares are never looked at, their names say what they are: the node has its own.
Result<void> take_firmware(pugi::xml_node os, Imported& out) {
  const pugi::xml_node loader = os.child("loader");
  const std::string_view path = loader.text().get();
  const std::string_view kind = os.attribute("firmware").value();
  if (!is_one_of(kind, {"", "bios", "efi"})) return refused("firmware " + in_quotes(kind));
  if (!path.empty() && !is_one_of(loader.attribute("type").value(), {"pflash"}))
    return refused("<loader> of " + in_quotes(path) + " is not known here, only a UEFI in pflash");
  if (kind != "efi" && path.empty()) return {};
  bool secure = std::string_view(loader.attribute("secure").value()) == "yes";
  for (const pugi::xml_node feature : os.child("firmware").children("feature"))
    if (std::string_view(feature.attribute("name").value()) == "secure-boot" &&
        std::string_view(feature.attribute("enabled").value()) == "yes")
      secure = true;
  out.vm.firmware = secure ? "uefi-secure" : "uefi";
  out.left_out.emplace_back("what its UEFI kept");
  return {};
}

Result<void> take_os(pugi::xml_node os, Imported& out) {
  for (const pugi::xml_node one : os.children()) {
    const std::string_view name = one.name();
    if (is_one_of(name, {"type", "bios", "bootmenu", "smbios", "loader", "nvram", "firmware"}))
      continue;
    if (name == "boot" && std::string_view(one.attribute("dev").value()) == "hd") continue;
    return refused(
        "<os> with <" + std::string(name) +
        ">: only a BIOS or UEFI that boots from the disks, in their order, is known here");
  }
  CORE_TRY(take_firmware(os, out));
  const pugi::xml_node type = os.child("type");
  if (std::string_view(type.text().get()) != "hvm" ||
      !is_one_of(type.attribute("arch").value(), {"", "x86_64"}))
    return refused("only fully virtual machines (hvm) of x86_64 are known here");
  const std::string machine = type.attribute("machine").value();
  if (is_one_of(machine, {"", "q35"}))
    out.vm.machine = kMachine;
  else if (machine.starts_with(kMachines) && machine.size() < 20)
    out.vm.machine = machine;
  else
    return refused("machine " + in_quotes(machine) + " is not known here, only those of q35");
  return {};
}

void take_cpu(pugi::xml_node cpu, Imported& out) {
  const std::string_view mode = cpu.attribute("mode").value();
  out.vm.cpu = mode == "custom" || (mode.empty() && cpu) ? "baseline" : "host";
  if (out.vm.cpu == "baseline" || mode == "host-model")
    out.left_out.push_back("its CPU is " + out.vm.cpu + " here");
}

Result<void> take_disk(pugi::xml_node disk, Imported& out) {
  const std::string_view device = disk.attribute("device").value();
  const std::string path = disk.child("source").attribute("dev").value();
  const std::string where = disk.child("target").attribute("dev").value();
  if (device == "cdrom") {
    out.vm.cdroms.push_back({out.vm.cdroms.size(), 0, 0});
    if (!disk.child("source")) return {};
    if (!path.starts_with(kMedia))
      return refused("what is in the drive " + where + " is no medium of this cluster");
    out.left_out.push_back("what is in the drive " + where);
    return {};
  }
  if (device == "floppy" && !disk.child("source")) {
    out.left_out.push_back("the drive " + where + ", which has no medium");
    return {};
  }
  if (std::string_view(disk.child("serial").text().get()) == kSeedSerial) {
    out.left_out.emplace_back("what cloud-init reads");
    return {};
  }
  for (const pugi::xml_node one : disk.children()) {
    if (is_one_of(one.name(), {"driver", "source", "target", "serial", "boot", "alias", "address",
                               "wwn", "vendor", "product", "backingStore", "iotune"}))
      continue;
    return refused("disk " + where + " with <" + one.name() + "> is not known here");
  }
  if (std::string_view(disk.attribute("type").value()) != "block" ||
      !is_one_of(device, {"", "disk"}) || !path.starts_with(kDevices) ||
      !meta::valid_name(path.substr(kDevices.size())))
    return refused(
        "disk " + where + " is no virtual disk of this cluster: make one, fill it, and name " +
        "it as <source dev='" + std::string(kDevices) + "NAME'/> of a disk of type 'block'");
  if (disk.child("backingStore").first_child())
    return refused("disk " + where + " has a backing store");
  if (!is_one_of(disk.child("driver").attribute("type").value(), {"", "raw"}))
    return refused("disk " + where + " is not raw");
  const pugi::xml_node limits = disk.child("iotune");
  for (const pugi::xml_node one : limits.children())
    if (!is_one_of(one.name(), {"total_iops_sec", "total_bytes_sec"}))
      out.left_out.push_back("<" + std::string(one.name()) + "> of disk " + where);
  out.disks.push_back({path.substr(kDevices.size()), disk.child("target").attribute("bus").value(),
                       limits.child("total_iops_sec").text().as_ullong(),
                       limits.child("total_bytes_sec").text().as_ullong()});
  return {};
}

Result<void> take_nic(pugi::xml_node nic, Imported& out) {
  std::string mac = nic.child("mac").attribute("address").value();
  std::transform(mac.begin(), mac.end(), mac.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const pugi::xml_node one : nic.children()) {
    if (is_one_of(one.name(), {"mac", "source", "model", "alias", "address", "target", "boot",
                               "mtu", "link", "driver"}))
      continue;
    return refused("network interface " + mac + " with <" + one.name() + "> is not known here");
  }
  if (std::string_view(nic.attribute("type").value()) != "bridge")
    return refused("network interface " + mac + " of type " +
                   in_quotes(nic.attribute("type").value()) +
                   ": only those at bridges of the nodes are known here");
  for (const char* what : {"boot", "mtu"})
    if (nic.child(what))
      out.left_out.push_back("<" + std::string(what) + "> of the network interface " + mac);
  const std::string model = nic.child("model").attribute("type").value();
  meta::VmNic one;
  one.slot = out.vm.nics.size();
  one.mac = mac;
  one.bridge = nic.child("source").attribute("bridge").value();
  if (one.bridge.empty()) return refused("network interface " + mac + " is at no bridge");
  if (!model.empty()) one.model = model;
  one.connected = std::string_view(nic.child("link").attribute("state").value()) != "down";
  // What the cluster itself makes has a name that says what it is.
  one.vlan = net::tag_of(one.bridge);
  if (one.vlan != 0 || one.bridge == net::kLanBridge) one.bridge.clear();
  out.vm.nics.push_back(std::move(one));
  return {};
}

// Each gets what all VMs have of these; none of them leads anywhere.
bool is_furniture(std::string_view name) {
  return is_one_of(name, {"controller", "input", "graphics", "video", "sound", "audio", "console",
                          "memballoon", "rng", "panic", "hub", "emulator"});
}

// Its own, of the same kind: what another one kept is sealed, and of another machine.
Result<void> take_tpm(pugi::xml_node tpm, Imported& out) {
  const pugi::xml_node backend = tpm.child("backend");
  const std::string_view type = backend.attribute("type").value();
  if (!is_one_of(type, {"emulator", "external"}))
    return refused("<tpm> of type " + in_quotes(type) + " is not known here, only one of its own");
  if (is_one_of(backend.attribute("version").value(), {"1.2"}))
    return refused("a TPM 1.2 is not known here, only 2.0");
  out.vm.tpm = true;
  out.left_out.emplace_back("what its TPM kept");
  return {};
}

// As all VMs have it here.
bool is_our_screen(pugi::xml_node one) {
  const std::string_view type = one.attribute("type").value();
  const std::string_view listen = one.child("listen").attribute("type").value();
  const std::string_view model = one.child("model").attribute("type").value();
  return (type == "vnc" && listen == "socket") || model == "vga";
}

Result<void> take_devices(pugi::xml_node devices, Imported& out) {
  for (const pugi::xml_node one : devices.children()) {
    const std::string_view name = one.name();
    if (name == "disk") {
      CORE_TRY(take_disk(one, out));
    } else if (name == "interface") {
      CORE_TRY(take_nic(one, out));
    } else if (name == "tpm") {
      CORE_TRY(take_tpm(one, out));
    } else if (name == "memory") {
      if (std::string_view(one.attribute("model").value()) != "dimm" || one.child("source"))
        return refused("<memory> is not known here, only of the model 'dimm'");
    } else if (is_one_of(name, {"serial", "channel"})) {
      if (!is_one_of(one.attribute("type").value(), {"pty", "unix", "spicevmc"}))
        return refused("<" + std::string(name) + "> of type " +
                       in_quotes(one.attribute("type").value()) + " is not known here");
      if (name == "channel" && !is_agent(one)) out.left_out.emplace_back("a channel to the guest");
    } else if (is_one_of(name, {"graphics", "video", "sound"})) {
      if (!is_our_screen(one)) out.left_out.push_back("<" + std::string(name) + ">");
    } else if (!is_furniture(name)) {
      return refused("<" + std::string(name) + "> is not known here");
    }
  }
  return {};
}

Result<void> take_element(pugi::xml_node one, Imported& out) {
  const std::string_view name = one.name();
  if (is_one_of(name, {"name", "uuid", "description", "maxMemory", "memory", "currentMemory",
                       "vcpu", "os", "cpu", "devices", "metadata", "title", "on_poweroff",
                       "on_reboot", "on_crash", "resource"}))
    return {};
  if (is_one_of(name, {"pm", "cputune", "memtune", "blkiotune", "seclabel", "iothreads"})) {
    out.left_out.push_back("<" + std::string(name) + ">");
    return {};
  }
  if (name == "features") {
    for (const pugi::xml_node feature : one.children())
      if (!is_one_of(feature.name(), {"acpi", "apic", "pae", "smm"}))
        out.left_out.push_back("the feature <" + std::string(feature.name()) + ">");
    return {};
  }
  if (name != "clock") return refused("<" + std::string(name) + "> is not known here");
  if (std::string_view(one.attribute("offset").value()) != "utc")
    out.left_out.emplace_back("its clock begins in UTC here");
  return {};
}

}  // namespace

Result<Imported> from_xml(const std::string& xml) {
  if (xml.size() > kMaxXmlBytes) return refused("is larger than 256 KiB");
  pugi::xml_document document;
  // Neither a document type nor entities of its own: none of them is looked at.
  if (const auto read = document.load_buffer(xml.data(), xml.size(), pugi::parse_default); !read)
    return refused(std::string(read.description()) + " at byte " + std::to_string(read.offset));
  const pugi::xml_node domain = document.child("domain");
  if (!domain) return refused("is none of a domain");
  if (!is_one_of(domain.attribute("type").value(), {"kvm", "qemu"}))
    return refused("a domain of type " + in_quotes(domain.attribute("type").value()) +
                   " cannot be run here, only of kvm");
  Imported out;
  for (const pugi::xml_node one : domain.children()) CORE_TRY(take_element(one, out));
  out.vm.screen =
      domain.child("devices").child("graphics") || domain.child("devices").child("video");
  out.vm.name = domain.child("name").text().get();
  out.vm.uuid = domain.child("uuid").text().get();
  out.vm.description = domain.child("description").text().get();
  const auto memory = memory_mib(domain.child("memory"));
  if (!memory) return memory.error();
  out.vm.memory_mib = *memory;
  if (const pugi::xml_node most = domain.child("maxMemory")) {
    const auto max = memory_mib(most);
    if (!max) return max.error();
    out.vm.max_memory_mib = *max;
  }
  if (const pugi::xml_node now = domain.child("currentMemory")) {
    const auto begin = memory_mib(now);
    if (!begin) return begin.error();
    if (*begin != *memory) out.left_out.emplace_back("it begins with all of its memory here");
  }
  const pugi::xml_node vcpu = domain.child("vcpu");
  const auto vcpus =
      number_of(vcpu.attribute("current").as_string(vcpu.text().as_string("1")), "vcpu");
  if (!vcpus) return vcpus.error();
  out.vm.vcpus = *vcpus;
  CORE_TRY(take_os(domain.child("os"), out));
  take_cpu(domain.child("cpu"), out);
  CORE_TRY(take_devices(domain.child("devices"), out));
  return out;
}

}  // namespace vm
