// SPDX-License-Identifier: GPL-2.0
// Whole machines into files, and back: a folder with domain.xml, as libvirt has it, and disk-0,
// disk-1, ... in that order.
#include "vm_transfer.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "transfer.h"
#include "words.h"

namespace scalectl {

namespace {

namespace fs = std::filesystem;

constexpr const char* kXml = "domain.xml";
constexpr std::string_view kDevices = "/dev/mapper/scribe-";

json::object failure(const std::string& text) {
  return {{"error", {{"code", "storage"}, {"text", text}}}};
}

bool failed(const json::object& answer) { return answer.contains("error"); }

// The medium of an export, when it is made and checked.
json::object wait_until_ready(const Ask& ask, json::object medium) {
  while (!failed(medium) && text(medium, "state") == "making") {
    std::this_thread::sleep_for(kLook);
    medium = call(ask, "GET", "medium/" + text(medium, "name"));
  }
  return failed(medium) ? medium : wait_until_checked(ask, std::move(medium));
}

json::object export_disk(const Ask& ask, const std::string& snapshot, const std::string& medium,
                         const std::string& format, const std::string& to) {
  if (fs::exists(to)) return {};
  // It is there already where an earlier attempt got so far.
  json::object made = call(ask, "GET", "medium/" + medium);
  if (failed(made))
    made = call(ask, "POST", "snapshot/" + snapshot + "/export",
                {{"medium", medium}, {"format", format}});
  made = wait_until_ready(ask, std::move(made));
  if (!failed(made)) made = download_file(ask, medium, to);
  if (!failed(made)) made = call(ask, "DELETE", "medium/" + medium);
  return failed(made) ? made : json::object{};
}

json::object wait_for_task(const Ask& ask, const json::object& begun) {
  const auto task = begun.at("task").to_number<uint64_t>();
  if (task == 0) return {};
  for (;;) {
    json::object answer = call(ask, "POST", "task/" + std::to_string(task) + "/wait");
    if (!failed(answer) || text(answer.at("error").as_object(), "code") != "unknown")
      return failed(answer) ? answer : json::object{};
  }
}

json::object import_disk(const Ask& ask, const std::string& file, const std::string& vsd,
                         const json::object& copies) {
  const std::string medium = "import-" + vsd;
  json::object made = upload_file(ask, file, medium, "");
  if (!failed(made)) made = wait_until_checked(ask, std::move(made));
  if (failed(made)) return made;
  json::object body = copies;
  body["medium"] = medium;
  made = call(ask, "POST", "vsd/" + vsd + "/import", body);
  if (!failed(made)) made = wait_for_task(ask, made);
  if (!failed(made)) made = call(ask, "DELETE", "medium/" + medium);
  return failed(made) ? made : json::object{};
}

std::string disk_file(const fs::path& folder, size_t index) {
  const std::string begin = "disk-" + std::to_string(index) + ".";
  std::error_code err;
  for (const auto& entry : fs::directory_iterator(folder, err)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(begin) && !name.ends_with(".part")) return entry.path().string();
  }
  throw UsageError{(folder / (begin + "*")).string() +
                   ": the domain has such a disk, and there is none"};
}

}  // namespace

json::object export_machine(const Words& words, const Ask& ask) {
  const std::string what = snapshot_word(words.arguments[0]);
  const fs::path folder = words.arguments[1];
  const std::string format = words.has("format") ? words.options.at("format") : "qcow2";
  if (fs::exists(folder / kXml)) throw UsageError{(folder / kXml).string() + " exists"};
  json::object xml = call(ask, "GET", "vm_snapshot/" + what + "/xml");
  if (failed(xml)) return xml;
  std::error_code err;
  fs::create_directories(folder, err);
  size_t index = 0;
  for (const json::value& disk : xml.at("snapshots").as_array()) {
    const std::string number = std::to_string(index++);
    std::string medium = "export-";
    medium.append(what).append("-").append(number);
    medium[medium.find('@')] = '-';
    std::string file = "disk-";
    file.append(number).append(".").append(format);
    json::object done = export_disk(ask, json::value_to<std::string>(disk), medium, format,
                                    (folder / file).string());
    if (failed(done)) return done;
  }
  // Last: a folder that has it is whole.
  std::ofstream out(folder / kXml);
  if (!(out << text(xml, "xml")).flush())
    return failure((folder / kXml).string() + " cannot be written");
  return xml;
}

json::object import_machine(const Words& words, const Ask& ask) {
  const fs::path folder = words.arguments[0];
  const std::string name = path_word(words.arguments[1]);
  std::ifstream in(folder / kXml);
  std::string xml{std::istreambuf_iterator<char>(in), {}};
  if (!in || xml.empty()) throw UsageError{(folder / kXml).string() + " cannot be read"};
  json::object copies;
  if (words.has("copies")) copies["copies"] = count_of(words.options.at("copies"), "--copies");
  size_t index = 0;
  for (size_t at = xml.find(kDevices); at != std::string::npos; at = xml.find(kDevices, at + 1)) {
    const size_t begin = at + kDevices.size();
    const size_t end = xml.find_first_of("'\"", begin);
    if (end == std::string::npos) break;
    const std::string vsd = name + "-" + std::to_string(index);
    json::object done = import_disk(ask, disk_file(folder, index), vsd, copies);
    if (failed(done)) return done;
    xml.replace(begin, end - begin, vsd);
    index++;
  }
  return call(ask, "POST", "vm_import", {{"xml", xml}, {"name", name}});
}

}  // namespace scalectl
