// A WebSocket server on uWebSockets and epoll, one thread, with the library's own settings: an echo,
// and on /ws channels with a feed and a service, on the library's own topics. It speaks the part of
// docs/protocol.md that the load generator uses. It searches commands for their fields instead of
// parsing them. It has no settings that save memory: an idle connection has no buffer.
// Usage: peer-uwebsockets HOST PORT

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "App.h"

struct Nothing {};
struct Member {
    std::unordered_set<std::string> own;
};
using Socket = uWS::WebSocket<false, true, Member>;

static uWS::App app;

// The value after `"name":` in a command, without the quotes of a string.
static std::string_view value(std::string_view text, std::string_view name) {
    std::string key = "\"" + std::string(name) + "\":";
    size_t at = text.find(key);
    if (at == text.npos) return {};
    text.remove_prefix(at + key.size());
    if (text.starts_with('"')) return text.substr(1, text.find('"', 1) - 1);
    return text.substr(0, text.find_first_of(",}"));
}

// The data of a publication: up to the end of the command, or up to the id after the data.
static std::string_view data_of(std::string_view text) {
    size_t from = text.find("\"data\":");
    if (from == text.npos) return "null";
    text.remove_prefix(from + 7);
    text.remove_suffix(1);
    size_t id = text.rfind(",\"id\":");
    if (id != text.npos && text.find_first_not_of("0123456789", id + 6) == text.npos) {
        text.remove_suffix(text.size() - id);
    }
    return text;
}

// The subscribers of each channel, for the feed: the library does not list them.
struct Channels {
    std::unordered_map<std::string, std::unordered_set<Socket *>> members;
    std::vector<std::string> identifiers;
    bool stale = false;

    void add(const std::string &identifier, Socket *socket) {
        members[identifier].insert(socket);
        stale = true;
    }

    void remove(const std::string &identifier, Socket *socket) {
        auto found = members.find(identifier);
        if (found == members.end()) return;
        found->second.erase(socket);
        if (found->second.empty()) members.erase(found);
        stale = true;
    }

    const std::vector<std::string> &names() {
        if (stale) {
            identifiers.clear();
            for (auto &[identifier, _] : members) identifiers.push_back(identifier);
            stale = false;
        }
        return identifiers;
    }
};
static Channels channels;

// Publishes the feed of a server of 2012: each message goes to one random identifier with a
// subscription. A slow subscriber gets no message until it has read the earlier ones.
struct Feed {
    static constexpr int batch = 100;
    static constexpr unsigned waiting_bytes_max = 64 * 1024;
    size_t bytes = 0;
    double rate = 0, sent = 0;
    unsigned long request = 0;
    bool runs = false;
    std::chrono::steady_clock::time_point begun;
    std::minstd_rand random;

    void set(size_t new_bytes, double new_rate) {
        bytes = new_bytes, rate = new_rate, sent = 0, begun = std::chrono::steady_clock::now();
        if (!runs && rate > 0) later();
    }

    void later() {
        runs = true;
        uWS::Loop::get()->defer([this]() { some(); });
    }

    void some() {
        std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
        double due = std::min<double>(batch, rate * passed.count() - sent);
        const auto &names = channels.names();
        for (; due >= 1 && !names.empty(); due--) {
            sent++;
            const std::string &identifier = names[random() % names.size()];
            bool slow = false;
            for (Socket *socket : channels.members[identifier]) {
                slow |= socket->getBufferedAmount() > waiting_bytes_max;
            }
            if (!slow) app.publish(identifier, message(identifier), uWS::TEXT);
        }
        runs = false;
        if (rate > 0) later();
    }

    std::string message(const std::string &identifier) {
        auto now = std::chrono::system_clock::now().time_since_epoch();
        auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
        std::string text = "{\"type\":\"publication\",\"identifier\":\"" + identifier +
            "\",\"data\":{\"request\":" + std::to_string(request++) + ",\"timestamp\":" +
            std::to_string(milliseconds) + ",\"identifier\":\"" + identifier + "\",\"elements\":\"";
        text.append(bytes > text.size() + 4 ? bytes - text.size() - 3 : 1, 'x');
        return text + "\"}}";
    }
};
static Feed feed;

static void answer(Socket *socket, std::string text, std::string_view id) {
    if (!id.empty()) text += ",\"id\":" + std::string(id);
    socket->send(text + "}", uWS::TEXT);
}

static void obey(Socket *socket, std::string_view command) {
    std::string_view action = value(command, "action");
    std::string_view id = value(command, "id");
    std::string identifier(value(command, "identifier"));
    auto about = [&](const char *type) {
        return std::string("{\"type\":\"") + type + "\",\"identifier\":\"" + identifier + "\"";
    };
    if (action == "subscribe") {
        socket->subscribe(identifier);
        socket->getUserData()->own.insert(identifier);
        channels.add(identifier, socket);
        answer(socket, about("subscribed"), id);
    } else if (action == "unsubscribe") {
        socket->unsubscribe(identifier);
        socket->getUserData()->own.erase(identifier);
        channels.remove(identifier, socket);
        answer(socket, about("unsubscribed"), id);
    } else if (action == "publish") {
        std::string text = about("publication") + ",\"data\":";
        app.publish(identifier, text.append(data_of(command)) + "}", uWS::TEXT);
        if (!id.empty()) answer(socket, about("published"), id);
    } else if (action == "feed") {
        std::string rate(value(command, "rate")), bytes(value(command, "bytes"));
        feed.set(std::atoi(bytes.c_str()), rate.empty() ? 1e12 : std::atof(rate.c_str()));
        answer(socket, "{\"type\":\"feed\"", id);
    } else if (action == "request") {
        std::string text = "{\"type\":\"response\",\"service\":\"";
        text.append(value(command, "service")).append("\",\"data\":{\"request\":");
        text.append(value(command, "request")).append(",\"timestamp\":");
        text.append(value(command, "timestamp")).append(",\"address\":\"");
        text.append(socket->getRemoteAddressAsText()).append("\"}");
        answer(socket, text, id);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "peer-uwebsockets HOST PORT" << std::endl;
        return 2;
    }
    bool listens = false;
    app.ws<Member>("/ws", {
        .message = [](auto *socket, std::string_view message, uWS::OpCode) { obey(socket, message); },
        .close = [](auto *socket, int, std::string_view) {
            for (auto &identifier : socket->getUserData()->own) channels.remove(identifier, socket);
        },
    });
    app.ws<Nothing>("/*", {
        .message = [](auto *socket, std::string_view message, uWS::OpCode kind) {
            socket->send(message, kind);
        },
    });
    app.listen(argv[1], std::atoi(argv[2]), [&listens](auto *socket) { listens = socket; });
    if (!listens) {
        std::cerr << "cannot listen on " << argv[1] << ":" << argv[2] << std::endl;
        return 1;
    }
    app.run();
}
