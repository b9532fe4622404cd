#include "dist/sockets.h"
#include "base/clock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int milliseconds_until(double deadline) {
    const double left = deadline - clock_seconds();
    if (left <= 0) return 0;
    return left > 3600 ? 3600000 : (int)(left * 1000) + 1;
}

// Whether the file becomes ready before the deadline.
static bool wait_ready(int file, short events, double deadline) {
    for (;;) {
        struct pollfd p = {.fd = file, .events = events};
        const int n = poll(&p, 1, milliseconds_until(deadline));
        if (n > 0) return true;
        if (n < 0 && errno != EINTR) return false;
        if (clock_seconds() >= deadline) {
            errno = ETIMEDOUT;
            return false;
        }
    }
}

// A host that vanishes without a word is noticed after a minute and a half.
static void set_options(int file) {
    const int one = 1, idle = 60, interval = 10, count = 3;
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(file, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(file, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(file, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(file, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static int new_socket(void) {
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int close_keeping_errno(int file) {
    const int reason = errno;
    if (file >= 0) close(file);
    errno = reason;
    return -1;
}

int socket_listen(unsigned short port, unsigned short *bound) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    const int one = 1, file = new_socket();
    if (file < 0) return -1;
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(file, (struct sockaddr *)&address, sizeof address) != 0 || listen(file, SOMAXCONN) != 0 ||
        getsockname(file, (struct sockaddr *)&address, &size) != 0)
        return close_keeping_errno(file);
    *bound = ntohs(address.sin_port);
    return file;
}

static int connect_once(struct sockaddr_in address, double deadline) {
    const int file = new_socket();
    int reason = 0;
    socklen_t size = sizeof reason;
    if (file < 0) return -1;
    if (connect(file, (struct sockaddr *)&address, sizeof address) != 0) {
        if (errno != EINPROGRESS || !wait_ready(file, POLLOUT, deadline)) return close_keeping_errno(file);
        getsockopt(file, SOL_SOCKET, SO_ERROR, &reason, &size);
        errno = reason;
        if (reason) return close_keeping_errno(file);
    }
    set_options(file);
    return file;
}

int socket_connect(struct sockaddr_in address, double deadline) {
    for (;;) {
        const int file = connect_once(address, deadline);
        if (file >= 0 || clock_seconds() >= deadline) return file;
        usleep(50000);
    }
}

int socket_accept(int listener, struct sockaddr_in *peer, double deadline) {
    socklen_t size = sizeof *peer;
    for (;;) {
        const int file = accept4(listener, (struct sockaddr *)peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (file >= 0) {
            set_options(file);
            return file;
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) return -1;
        if (!wait_ready(listener, POLLIN, deadline)) return -1;
    }
}

bool socket_send(int file, const void *bytes, size_t n, double deadline) {
    for (size_t done = 0; done < n;) {
        const ssize_t sent = send(file, (const char *)bytes + done, n - done, MSG_NOSIGNAL);
        if (sent > 0)
            done += (size_t)sent;
        else if (errno != EAGAIN && errno != EINTR)
            return false;
        else if (!wait_ready(file, POLLOUT, deadline))
            return false;
    }
    return true;
}

bool socket_receive(int file, void *bytes, size_t n, double deadline) {
    for (size_t done = 0; done < n;) {
        const ssize_t got = recv(file, (char *)bytes + done, n - done, 0);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            errno = 0;
            return false;
        } else if (errno != EAGAIN && errno != EINTR) {
            return false;
        } else if (!wait_ready(file, POLLIN, deadline)) {
            return false;
        }
    }
    return true;
}
