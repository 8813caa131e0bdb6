// A WebSocket echo server on uWebSockets and epoll, one thread, with the library's own settings.
// There are no lean ones: it keeps no buffer for a connection that is idle.
// Usage: peer-uwebsockets HOST PORT

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "App.h"

struct Nothing {};

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "peer-uwebsockets HOST PORT" << std::endl;
        return 2;
    }
    bool listens = false;
    uWS::App app;
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
