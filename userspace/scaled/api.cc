// SPDX-License-Identifier: GPL-2.0
#include "api.h"

#include <boost/url.hpp>
#include <ctime>
#include <optional>
#include <sstream>
#include <vector>

#include "api_call.h"
#include "etcd_service.h"
#include "openapi.h"

namespace scaled {

namespace json = boost::json;
using core::NodeId;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

unsigned status_of(Code code) {
  switch (code) {
    case Code::invalid:
      return 400;
    case Code::not_found:
      return 404;
    case Code::conflict:
    case Code::stale:
      return 409;
    case Code::no_space:
      return 507;
    case Code::unknown:
      return 503;
    default:
      return 500;
  }
}

http::Response respond(const Outcome& outcome) {
  if (outcome) return {200, json::serialize(*outcome) + "\n"};
  return {status_of(outcome.error().code),
          json::serialize(policy::to_answer(outcome.error())) + "\n"};
}

http::Response denied(const char* why) {
  return {403,
          json::serialize(json::object{{"error", {{"code", "denied"}, {"text", why}}}}) + "\n"};
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream in(path);
  for (std::string part; std::getline(in, part, '/');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

// What a GET asks, and where a piece of a PUT belongs, is in its query, and to a handler as what
// others have in their bodies.
Result<json::object> take_query(std::string& path) {
  const auto url = boost::urls::parse_origin_form(path);
  if (!url) return Error{Code::invalid, "that is no path of a URL"};
  json::object out;
  for (const auto& param : url->params()) {
    if (out.contains(param.key)) return Error{Code::invalid, "'" + param.key + "' is said twice"};
    out[param.key] = param.value;
  }
  path = url->path();
  return out;
}

// Other nodes

Outcome serve_proposals(Call& call) {
  std::vector<policy::Proposal> proposals;
  for (const json::value& value : call.body().at("proposals").as_array()) {
    auto proposal = policy::proposal_from_json(value);
    if (!proposal) return proposal.error();
    proposals.push_back(std::move(*proposal));
  }
  auto served =
      call.member().replica().serve(std::move(proposals), steady_clock::now() + kCallProposesFor);
  if (!served) return served.error();
  json::array answers;
  for (auto& answer : served->answers) answers.push_back(std::move(answer));
  return json::object{{"index", served->index}, {"answers", std::move(answers)}};
}

Outcome serve_release(Call& call) {
  CORE_TRY(call.member().agent().release({call.body().at("vsd").to_number<uint64_t>()},
                                         call.body().at("epoch").to_number<uint64_t>()));
  return json::object{};
}

Outcome serve_backplane(Call& call, NodeId peer) {
  if (call.body().at("node").to_number<uint64_t>() != peer.value)
    return Error{Code::invalid, "a node asked in another's name"};
  if (call.body().at("peer_life").to_number<uint64_t>() != call.member().agent().life())
    return Error{Code::stale, "this node has another life"};
  return call.member().peers().admit(peer, call.body().at("life").to_number<uint64_t>());
}

// Whoever gets at libvirt can do anything here: a certificate outlives its node's membership.
Outcome serve_libvirt(Call& call, NodeId peer) {
  const auto nodes = call.cluster().nodes();
  if (!nodes) return nodes.error();
  for (const meta::Node& node : *nodes)
    if (node.id == peer && node.state == "up") return call.member().peers().admit_libvirt(peer);
  return Error{Code::conflict, "node " + std::to_string(peer.value) + " is not up in this cluster"};
}

Outcome serve_promote(Call& call, NodeId peer) {
  auto node = call.node(std::to_string(peer.value));
  if (!node) return node.error();
  journal::Etcd etcd(etcd_endpoints(call.member().config(), call.member().peers()), kEtcdTimeout);
  auto members = etcd.members();
  if (!members) return members.error();
  for (const auto& one : *members)
    if (one.peer_url == etcd_peer_url(node->backplane_addr) && one.learner)
      CORE_TRY(etcd.promote(one.id));
  return json::object{};
}

Outcome serve_status(Call& call) {
  const meta::Position at = call.member().replica().applied();
  json::object out = call.member().audit().status();
  out["applied"] = at.index;
  out["hash"] = at.hash;
  out["time"] = std::time(nullptr);
  return out;
}

http::Response serve_database(Call& call) {
  const std::filesystem::path copy =
      call.member().paths().state / ("copy-" + tls::random_hex(kSecretBytes));
  auto copied = call.database().copy_to(copy);
  auto data = copied ? read_file(copy) : Result<std::string>(copied.error());
  std::error_code err;
  std::filesystem::remove(copy, err);
  if (!data) return respond(data.error());
  return {200, std::move(*data), "application/octet-stream"};
}

Outcome serve_peer(Call& call, const std::vector<std::string>& path, NodeId peer) {
  const std::string what = path.size() == 2 ? path[1] : "";
  if (what == "propose") return serve_proposals(call);
  if (what == "release") return serve_release(call);
  if (what == "hold") return serve_hold(call);
  if (what == "go_on") return serve_go_on(call);
  if (what == "backplane") return serve_backplane(call, peer);
  if (what == "restart") return serve_restart(call);
  if (what == "freeze") return serve_freeze(call);
  if (what == "thaw") return serve_thaw(call);
  if (what == "tpm") return serve_tpm(call);
  if (what == "screen") return serve_screen(call, peer);
  if (what == "stats") return serve_stats(call);
  if (what == "progress") return serve_progress(call);
  if (what == "libvirt") return serve_libvirt(call, peer);
  if (what == "disk") return add_local_disk(call);
  if (what == "promote") return serve_promote(call, peer);
  if (what == "status") return serve_status(call);
  return Error{Code::not_found, "no such call"};
}

Outcome serve_rest(Call& call, const std::string& method, const std::vector<std::string>& path) {
  // rest v1 NOUN [NAME [VERB]]
  const std::string& noun = path[2];
  const std::string name = path.size() > 3 ? path[3] : "";
  const std::string verb = path.size() > 4 ? path[4] : "";
  const std::string key =
      method + " " + noun + (name.empty() ? "" : "/*") + (verb.empty() ? "" : "/" + verb);
  if (key == "GET cluster") return show_cluster(call);
  if (key == "PATCH cluster") return set_cluster(call);
  if (key == "POST cluster/*" && name == "token") return make_token(call);
  if (key == "POST cluster/*" && name == "audit") return audit_cluster(call);
  if (key == "GET node") return list_nodes(call);
  if (key == "POST node/*/remove") return remove_node(call, name);
  if (key == "POST node/*/bond") return bond_node(call, name);
  if (key == "POST node/*" && name == "drain") return drain_node(call);
  if (key == "GET disk") return list_disks(call);
  if (key == "GET disk/*" && name == "candidates") return list_candidates(call);
  if (key == "POST disk") return add_disk(call);
  if (key == "DELETE disk/*") return remove_disk(call, name);
  if (key == "POST disk/*/evacuate") return evacuate_disk(call, name);
  if (key == "GET pool") return show_pool(call);
  if (key == "POST pool/*" && name == "verify") return verify_pool(call);
  if (key == "POST pool/*" && name == "repair") return repair_pool(call);
  if (key == "POST pool/*" && name == "rebalance") return rebalance_pool(call);
  if (key == "GET vsd") return list_vsds(call);
  if (key == "POST vsd") return create_vsd(call);
  if (key == "GET vsd/*") return show_vsd(call, name);
  if (key == "PATCH vsd/*") return change_vsd(call, name);
  if (key == "DELETE vsd/*") return delete_vsd(call, name);
  if (key == "POST vsd/*/clone") return clone_vsd(call, name);
  if (key == "POST vsd/*/open") return open_or_close(call, name, "open");
  if (key == "POST vsd/*/close") return open_or_close(call, name, "close");
  if (key == "POST vsd/*/import") return import_vsd(call, name);
  if (key == "POST vsd/*/export" || key == "POST snapshot/*/export") return export_vsd(call, name);
  if (key == "DELETE vsd/*/import") return cancel_import(call, name);
  if (key == "GET medium") return list_media(call);
  if (key == "POST medium") return create_medium(call);
  if (key == "GET medium/*") return show_medium(call, name);
  if (key == "DELETE medium/*") return delete_medium(call, name);
  if (key == "POST vm/*/cdrom") return add_cdrom(call, name);
  if (key == "PATCH vm/*/cdrom") return change_cdrom(call, name);
  if (key == "DELETE vm/*/cdrom") return remove_cdrom(call, name);
  if (key == "GET vm") return list_vms(call);
  if (key == "POST vm") return create_vm(call);
  if (key == "GET vm/*") return show_vm(call, name);
  if (key == "PATCH vm/*") return change_vm(call, name);
  if (key == "DELETE vm/*") return delete_vm(call, name);
  if (key == "POST vm/*/disk") return add_disk_to_vm(call, name);
  if (key == "PATCH vm/*/disk") return change_disk_of_vm(call, name);
  if (key == "DELETE vm/*/disk") return remove_disk_of_vm(call, name);
  if (key == "POST vm/*/nic") return add_nic(call, name);
  if (key == "PATCH vm/*/nic") return change_nic(call, name);
  if (key == "DELETE vm/*/nic") return remove_nic(call, name);
  if (key == "POST vm/*/start") return start_vm(call, name);
  if (key == "POST vm/*/shutdown") return want_vm(call, name, "off", "shutdown");
  if (key == "POST vm/*/stop") return want_vm(call, name, "off", "stop");
  if (key == "POST vm/*/pause") return want_vm(call, name, "paused", "");
  if (key == "POST vm/*/resume") return want_vm(call, name, "running", "");
  if (key == "POST vm/*/clone") return clone_vm(call, name);
  if (key == "GET vm/*/stats") return show_stats(call, name);
  if (key == "GET vm/*/xml") return export_vm(call, name);
  if (key == "POST vm_import") return import_vm(call);
  if (key == "POST vm/*/reboot") return restart_vm(call, name, "reboot");
  if (key == "POST vm/*/reset") return restart_vm(call, name, "reset");
  if (key == "POST vm/*/console") return console_of_vm(call, name);
  if (key == "POST vm/*/migrate") return migrate_vm(call, name);
  if (key == "DELETE vm/*/migrate") return cancel_migration(call, name);
  if (key == "GET vm_snapshot") return list_vm_snapshots(call);
  if (key == "POST vm_snapshot") return create_vm_snapshot(call);
  if (key == "GET vm_snapshot/*/xml") return export_vm_snapshot(call, name);
  if (key == "DELETE vm_snapshot/*") return delete_vm_snapshot(call, name);
  if (key == "POST vm_snapshot/*/revert") return revert_vm(call, name);
  if (key == "POST vm_snapshot/*/clone") return clone_vm(call, name);
  if (key == "GET snapshot") return list_snapshots(call);
  if (key == "POST snapshot") return create_snapshot(call);
  if (key == "POST snapshot/*" && name == "space") return weigh_snapshots(call);
  if (key == "GET snapshot/*") return show_snapshot(call, name);
  if (key == "DELETE snapshot/*") return delete_snapshot(call, name);
  if (key == "POST snapshot/*/clone") return clone_snapshot(call, name);
  if (key == "POST snapshot/*/open") return open_or_close_snapshot(call, name, "snapshot_open");
  if (key == "POST snapshot/*/close") return open_or_close_snapshot(call, name, "snapshot_close");
  if (key == "POST snapshot/*/revert") return revert_snapshot(call, name);
  if (key == "POST snapshot/*/diff") return diff_snapshot(call, name);
  if (key == "GET schedule") return list_schedules(call);
  if (key == "POST schedule") return create_schedule(call);
  if (key == "GET schedule/*") return show_schedule(call, name);
  if (key == "PATCH schedule/*") return change_schedule(call, name);
  if (key == "DELETE schedule/*") return delete_schedule(call, name);
  if (key == "GET event") return list_events(call);
  if (key == "GET task") return list_tasks(call);
  if (key == "GET task/*") return show_task(call, name);
  if (key == "POST task/*/wait") return wait_for_task(call, name);
  return Error{Code::not_found, "no such call: " + key};
}

// Pieces of files, as they are; nothing where it is another call.
std::optional<http::Response> serve_piece(Call& call, const http::Request& request,
                                          const std::vector<std::string>& path) {
  if (path.size() != 5 || path[2] != "medium" || path[4] != "data") return std::nullopt;
  if (request.method == "PUT") return respond(put_piece(call, path[3], request.body));
  if (request.method != "GET") return std::nullopt;
  auto piece = get_piece(call, path[3]);
  if (!piece) return respond(piece.error());
  return http::Response{200, std::move(*piece), "application/octet-stream"};
}

http::Response route(Daemon& daemon, const http::Request& request) {
  std::string asked = request.path;
  auto query = take_query(asked);
  if (!query) return respond(query.error());
  const std::vector<std::string> path = split(asked);
  const bool rest = path.size() >= 3 && path[0] == "rest" && path[1] == "v1";
  const bool peer = !path.empty() && path[0] == "peer";
  if (!rest && !peer)
    return respond(Error{Code::not_found, "the API begins at /rest/v1/openapi.json"});
  if (rest && request.method == "GET" && path[2] == "openapi.json") return {200, kOpenApi};
  const bool asks_in = rest && request.method == "POST" && path.size() == 4 &&
                       path[2] == "cluster" && path[3] == "members";
  if (peer ? !request.peer : !request.local && !request.peer && !asks_in)
    return denied("not without a certificate of this cluster's nodes");
  json::object body;
  if (request.method == "GET" || request.method == "PUT") {
    body = std::move(*query);
  } else if (!request.body.empty()) {
    boost::system::error_code err;
    json::value parsed = json::parse(request.body, err);
    if (err || !parsed.is_object())
      return respond(Error{Code::invalid, "the request's body is no JSON object"});
    body = std::move(parsed.as_object());
  }
  if (rest && request.method == "POST" && path[2] == "cluster" && path.size() == 3) {
    if (auto created = daemon.create(body); !created) return respond(created.error());
    body.clear();
  }
  const bool joins = rest && request.method == "POST" && path.size() == 4 && path[2] == "cluster" &&
                     path[3] == "join";
  if (joins) {
    if (auto joined = daemon.join(body); !joined) return respond(joined.error());
    body.clear();
  }
  Member* member = daemon.member();
  if (member == nullptr)
    return respond(
        Error{Code::conflict, "this node is in no cluster: scalectl cluster create, or join"});
  if (peer && path.size() == 2 && path[1] == "hint") {
    member->replica().look_for(body.at("index").to_number<uint64_t>());
    return respond(json::object{});
  }
  Call call(*member, std::move(body));
  if (auto opened = call.open(); !opened) return respond(opened.error());
  if (peer && path.size() == 2 && path[1] == "database") return serve_database(call);
  if (peer) return respond(serve_peer(call, path, request.peer));
  if (asks_in) return respond(admit_node(call));
  if (joins || (request.method == "POST" && path[2] == "cluster" && path.size() == 3)) {
    wait_for_leader(call);
    return respond(show_cluster(call));
  }
  const std::string person = request.person.empty() ? "administrator" : request.person;
  call.set_by(request.local ? person + " at " + member->config().name
                            : "node " + std::to_string(request.peer.value));
  if (auto piece = serve_piece(call, request, path)) return std::move(*piece);
  return respond(serve_rest(call, request.method, path));
}

}  // namespace

http::Response handle(Daemon& daemon, const http::Request& request) {
  try {
    return route(daemon, request);
  } catch (const std::exception& err) {
    // A field of the wrong type, as a rule.
    return respond(Error{Code::invalid, std::string("the request makes no sense: ") + err.what()});
  }
}

}  // namespace scaled
