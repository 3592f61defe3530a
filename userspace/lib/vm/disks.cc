// SPDX-License-Identifier: GPL-2.0
#include "vm/disks.h"

#include <algorithm>
#include <pugixml.hpp>
#include <sstream>
#include <string_view>

#include "vm/xml.h"

namespace vm {

namespace {

using core::Code;
using core::Error;

constexpr const char* kCdrom = "cdrom";

bool is_cdrom(const pugi::xml_node& disk) {
  return std::string_view(disk.attribute("device").value()) == kCdrom;
}

std::string serial_of(const DomainCdrom& cdrom) { return "drive-" + std::to_string(cdrom.slot); }

void put_source(pugi::xml_node disk, const std::string& path) {
  disk.append_child("source").append_attribute("dev") = path.c_str();
}

uint64_t limit_of(const pugi::xml_node& disk, const char* name) {
  return disk.child("iotune").child(name).text().as_ullong();
}

}  // namespace

std::string next_target(const std::string& bus, std::set<std::string>& used) {
  const std::string prefix = bus == "virtio" ? "vd" : "sd";
  std::string out;
  for (char letter = 'a'; letter <= 'z'; letter++)
    if (out = prefix + letter; used.insert(out).second) break;
  return out;
}

// Raw, past the node's page cache; a full pool stops the guest instead of breaking its file system.
std::string disk_xml(const DomainDisk& disk, const std::string& target, uint64_t order) {
  pugi::xml_document document;
  pugi::xml_node out = document.append_child("disk");
  out.append_attribute("type") = "block";
  out.append_attribute("device") = "disk";
  pugi::xml_node driver = out.append_child("driver");
  driver.append_attribute("name") = "qemu";
  driver.append_attribute("type") = "raw";
  driver.append_attribute("cache") = "none";
  driver.append_attribute("io") = "native";
  driver.append_attribute("discard") = "unmap";
  driver.append_attribute("error_policy") = "enospace";
  driver.append_attribute("rerror_policy") = "report";
  out.append_child("source").append_attribute("dev") = disk.path.c_str();
  pugi::xml_node where = out.append_child("target");
  where.append_attribute("dev") = target.c_str();
  where.append_attribute("bus") = disk.bus.c_str();
  if (disk.iops != 0 || disk.bytes_per_s != 0) {
    pugi::xml_node limits = out.append_child("iotune");
    if (disk.bytes_per_s != 0) put(limits, "total_bytes_sec", std::to_string(disk.bytes_per_s));
    if (disk.iops != 0) put(limits, "total_iops_sec", std::to_string(disk.iops));
  }
  put(out, "serial", disk.serial);
  if (order != 0) out.append_child("boot").append_attribute("order") = order;
  return text_of(out);
}

std::string cdrom_xml(const DomainCdrom& cdrom, const std::string& target, uint64_t order) {
  pugi::xml_document document;
  pugi::xml_node out = document.append_child("disk");
  out.append_attribute("type") = "block";
  out.append_attribute("device") = kCdrom;
  pugi::xml_node driver = out.append_child("driver");
  driver.append_attribute("name") = "qemu";
  driver.append_attribute("type") = "raw";
  driver.append_attribute("cache") = "none";
  if (!cdrom.path.empty()) put_source(out, cdrom.path);
  pugi::xml_node where = out.append_child("target");
  where.append_attribute("dev") = target.c_str();
  where.append_attribute("bus") = "sata";
  put(out, "serial", serial_of(cdrom));
  out.append_child("readonly");
  out.append_child("boot").append_attribute("order") = order;
  return text_of(out);
}

core::Result<std::vector<CdromChange>> cdrom_changes(const std::string& domain,
                                                     const std::vector<DomainCdrom>& wanted) {
  pugi::xml_document document;
  if (!document.load_string(domain.c_str())) return Error{Code::invalid, "libvirt's XML is none"};
  std::vector<CdromChange> out;
  for (pugi::xml_node disk : document.child("domain").child("devices").children("disk")) {
    if (!is_cdrom(disk)) continue;
    for (const DomainCdrom& cdrom : wanted) {
      if (serial_of(cdrom) != disk.child("serial").text().get() ||
          cdrom.path == disk.child("source").attribute("dev").value())
        continue;
      // The drive as it is, but for what is in it: libvirt refuses any other change. An empty one
      // has become one of files there.
      disk.attribute("type") = "block";
      disk.child("driver").remove_attribute("type");
      disk.child("driver").append_attribute("type") = "raw";
      disk.remove_child("source");
      disk.remove_child("backingStore");
      if (!cdrom.path.empty()) put_source(disk, cdrom.path);
      out.push_back({cdrom.slot, text_of(disk)});
    }
  }
  return out;
}

core::Result<std::map<std::string, std::string>> serials_by_target(const std::string& domain) {
  pugi::xml_document document;
  if (!document.load_string(domain.c_str())) return Error{Code::invalid, "libvirt's XML is none"};
  std::map<std::string, std::string> out;
  for (const pugi::xml_node disk : document.child("domain").child("devices").children("disk"))
    out[disk.child("target").attribute("dev").value()] = disk.child("serial").text().get();
  return out;
}

core::Result<std::vector<DiskChange>> disk_changes(const std::string& domain,
                                                   const std::vector<DomainDisk>& wanted) {
  pugi::xml_document document;
  if (!document.load_string(domain.c_str(), pugi::parse_default | pugi::parse_ws_pcdata_single))
    return Error{Code::invalid, "libvirt's XML is none"};
  std::vector<DiskChange> out;
  std::set<std::string> used;
  std::set<std::string> has;
  for (const pugi::xml_node disk : document.child("domain").child("devices").children("disk")) {
    const std::string target = disk.child("target").attribute("dev").value();
    const std::string serial = disk.child("serial").text().get();
    used.insert(target);
    if (is_cdrom(disk) || serial == kSeedSerial) continue;
    has.insert(serial);
    const auto at = std::find_if(wanted.begin(), wanted.end(),
                                 [&](const DomainDisk& one) { return one.serial == serial; });
    if (at == wanted.end())
      out.push_back({DiskChange::What::detach, serial, text_of(disk), "", 0, 0});
    else if (limit_of(disk, "total_iops_sec") != at->iops ||
             limit_of(disk, "total_bytes_sec") != at->bytes_per_s)
      out.push_back({DiskChange::What::limit, serial, "", target, at->iops, at->bytes_per_s});
  }
  for (const DomainDisk& disk : wanted)
    if (!has.contains(disk.serial))
      out.push_back({DiskChange::What::attach, disk.serial,
                     disk_xml(disk, next_target(disk.bus, used), 0), "", 0, 0});
  return out;
}

}  // namespace vm
