// SPDX-License-Identifier: GPL-2.0
#include "transfer.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include "media/device.h"
#include "table.h"
#include "words.h"

namespace scalectl {

namespace {

constexpr size_t kPiece = size_t{8} << 20;
constexpr uint64_t kSector = 512;
constexpr std::chrono::seconds kAgain{2};
constexpr int kTries = 30;

// On a terminal only: elsewhere it would fill a log.
class Progress {
 public:
  Progress(const char* what, uint64_t whole) : what_(what), whole_(whole) {}
  ~Progress() {
    if (shown_) std::cerr << "\r\x1b[K";
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(uint64_t done) {
    if (!terminal_ || whole_ == 0) return;
    shown_ = true;
    constexpr uint64_t kPercent = 100;
    std::cerr << "\r\x1b[K" << what_ << " " << done * kPercent / whole_ << " %, "
              << human_bytes(done) << " of " << human_bytes(whole_) << std::flush;
  }

 private:
  const char* const what_;
  const uint64_t whole_;
  const bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
};

json::object failure(const char* code, const std::string& text) {
  return {{"error", {{"code", code}, {"text", text}}}};
}

std::string code_of(const json::object& answer) {
  return answer.contains("error") ? text(answer.at("error").as_object(), "code") : "";
}

// The file of an open stream, piece by piece.
std::string digest_of(const std::string& path, uint64_t bytes) {
  std::ifstream in(path, std::ios::binary);
  media::Digest digest;
  Progress progress("reading", bytes);
  std::string piece(kPiece, '\0');
  for (uint64_t at = 0; at < bytes; at += piece.size()) {
    piece.resize(std::min<uint64_t>(kPiece, bytes - at));
    if (!in.read(piece.data(), static_cast<std::streamsize>(piece.size())))
      throw UsageError{path + " cannot be read"};
    digest.add(piece);
    progress.show(at);
  }
  return digest.end();
}

std::string medium_path(const std::string& name) { return kRoot + ("medium/" + name); }

json::object look(const Ask& ask, const std::string& name) {
  return call(ask, "GET", "medium/" + name);
}

// The same again where nobody answered, or it is not known what became of it.
template <class Try>
json::object stubbornly(const Try& once) {
  for (int left = kTries;; left--) {
    try {
      json::object answer = once();
      if (code_of(answer) != "unknown" || left == 0) return answer;
    } catch (const Unreachable&) {
      if (left == 0) throw;
    }
    std::this_thread::sleep_for(kAgain);
  }
}

// Where the upload begins: a new medium, or one of which an earlier attempt has sent some.
json::object begin_upload(const Ask& ask, const std::string& name, uint64_t bytes,
                          const std::string& digest) {
  const json::object body{{"name", name}, {"size_bytes", bytes}, {"sha256", digest}};
  json::object made = call(ask, "POST", "medium", body);
  if (code_of(made) != "conflict") return made;
  json::object there = look(ask, name);
  if (there.contains("error")) return made;  // it was about something else
  const bool same = number(there, "size_bytes") == bytes && text(there, "sha256") == digest;
  if (same && text(there, "state") != "refused") return there;
  return failure("conflict", "there is another medium named " + name +
                                 "; say --name, or delete it: scalectl medium delete " + name);
}

json::object send_pieces(const Ask& ask, const std::string& path, json::object medium) {
  const std::string name = text(medium, "name");
  const uint64_t bytes = number(medium, "size_bytes");
  std::ifstream in(path, std::ios::binary);
  Progress progress("sending", bytes);
  std::string piece;
  while (text(medium, "state") == "uploading") {
    const uint64_t at = number(medium, "received_bytes");
    progress.show(at);
    piece.resize(std::min<uint64_t>(kPiece, bytes - at));
    in.clear();
    in.seekg(static_cast<std::streamoff>(at));
    if (!in.read(piece.data(), static_cast<std::streamsize>(piece.size())))
      throw UsageError{path + " cannot be read any more"};
    json::object answer = stubbornly([&] {
      return json::parse(
                 ask("PUT", medium_path(name) + "/data?offset=" + std::to_string(at), piece).body)
          .as_object();
    });
    // Somebody else sends it, too: on from where it is now.
    if (code_of(answer) == "conflict") answer = look(ask, name);
    if (answer.contains("error")) return answer;
    medium = std::move(answer);
  }
  return medium;
}

}  // namespace

json::object call(const Ask& ask, const std::string& method, const std::string& path,
                  const json::object& body) {
  return json::parse(ask(method, kRoot + path, body.empty() ? "" : json::serialize(body)).body)
      .as_object();
}

json::object wait_until_checked(const Ask& ask, json::object medium) {
  const std::string name = text(medium, "name");
  Progress progress("checking", number(medium, "size_bytes"));
  while (text(medium, "state") == "sealing" || text(medium, "state") == "checking") {
    progress.show(number(medium, "checked_bytes"));
    std::this_thread::sleep_for(kLook);
    medium = stubbornly([&] { return look(ask, name); });
    if (medium.contains("error")) return medium;
  }
  if (text(medium, "state") != "refused") return medium;
  return failure("invalid", text(medium, "problem") + "; medium " + name +
                                " is kept for you to look at: scalectl medium delete " + name);
}

json::object upload_file(const Ask& ask, const std::string& path, const std::string& name,
                         const std::string& digest) {
  std::error_code err;
  const uint64_t bytes = std::filesystem::file_size(path, err);
  if (err || bytes == 0) throw UsageError{path + " is no file that can be sent"};
  const std::string has = digest_of(path, bytes);
  if (!digest.empty() && digest != has)
    throw UsageError{path + " has the SHA-256 " + has + ", not " + digest};
  json::object medium = begin_upload(ask, name, bytes, has);
  return medium.contains("error") ? medium : send_pieces(ask, path, std::move(medium));
}

json::object upload(const Words& words, const Ask& ask) {
  const std::filesystem::path path = words.arguments[0];
  const std::string name =
      path_word(words.has("name") ? words.options.at("name") : path.filename().string());
  json::object medium =
      upload_file(ask, path, name, words.has("sha256") ? words.options.at("sha256") : "");
  if (medium.contains("error") || words.has("no-wait")) return medium;
  return wait_until_checked(ask, std::move(medium));
}

json::object download(const Words& words, const Ask& ask) {
  return download_file(ask, path_word(words.arguments[0]), words.arguments[1]);
}

json::object download_file(const Ask& ask, const std::string& name, const std::string& file) {
  const std::filesystem::path to = file;
  const std::string part = to.string() + ".part";
  if (std::filesystem::exists(to)) throw UsageError{to.string() + " exists"};
  json::object medium = look(ask, name);
  if (medium.contains("error")) return medium;
  const uint64_t bytes = number(medium, "size_bytes");
  std::error_code err;
  uint64_t at = std::filesystem::file_size(part, err);
  at = err ? 0 : std::min(at, bytes) / kSector * kSector;
  {
    Progress progress("fetching", bytes);
    // Not a new file where there is one.
    std::ofstream there(part, std::ios::binary | std::ios::app);
    there.close();
    std::fstream out(part, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(static_cast<std::streamoff>(at));
    while (at < bytes) {
      progress.show(at);
      std::string piece;
      json::object failed = stubbornly([&] {
        Answer answer = ask("GET",
                            medium_path(name) + "/data?offset=" + std::to_string(at) +
                                "&bytes=" + std::to_string(std::min<uint64_t>(kPiece, bytes - at)),
                            "");
        if (answer.is_json) return json::parse(answer.body).as_object();
        piece = std::move(answer.body);
        return json::object{};
      });
      if (failed.contains("error")) return failed;
      if (piece.empty() || !out.write(piece.data(), static_cast<std::streamsize>(piece.size())))
        return failure("storage", part + " cannot be written");
      at += piece.size();
    }
    out.flush();
    if (!out) return failure("storage", part + " cannot be written");
  }
  // A part of something else may have been longer.
  std::filesystem::resize_file(part, bytes, err);
  if (err || digest_of(part, bytes) != text(medium, "sha256")) {
    std::filesystem::remove(part, err);
    return failure("corrupt", part + " was not what medium " + name + " is, and is deleted");
  }
  std::filesystem::rename(part, to, err);
  if (err) return failure("storage", to.string() + ": " + err.message());
  return medium;
}

}  // namespace scalectl
