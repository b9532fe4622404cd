// Sockets of our own, for ranks that were started without MPI. Three kinds of connections: the star (every
// rank with rank 0), the alarm beside it, which carries nothing but a rank's last words, and the ring (every
// rank to the next one). Every wait also listens to the alarms, so that no rank waits for one that has given
// up.
#include "base/clock.h"
#include "base/memory.h"
#include "dist/sockets.h"
#include "dist/transport.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef enum Role { ROLE_STAR, ROLE_ALARM, ROLE_RING, ROLE_COUNT } Role;

typedef struct Tcp {
    Transport base;
    struct sockaddr_in master;
    // Rank 0 has one with each rank, at its number; the others one with rank 0, at 0. -1: not there.
    int *star, *alarm;
    int ring_out, ring_in;
    struct pollfd *polled;      // [2 + world_size]
    char cause[TRANSPORT_TEXT]; // last words of the rank that gave up first
} Tcp;

// The first words on every connection; processes of a world run the same program on the same kind of machine.
typedef struct Hello {
    char magic[8];
    uint32_t rank, world_size, role;
    uint32_t ring_port; // where this rank waits for the one before it
} Hello;

typedef struct Neighbour {
    uint32_t address; // network order; 0: the host of rank 0
    uint32_t port;
} Neighbour;

static const char magic[8] = "vlmcomm1";

// ---- last words ----

static size_t count_alarms(const Tcp *t) {
    return t->base.launch.rank == 0 ? t->base.launch.world_size : 1;
}

// What came over an alarm that has become readable: true when its rank left in peace.
static bool hear_alarm(Tcp *t, size_t rank, const char *what, Error *err) {
    char text[TRANSPORT_TEXT];
    const bool spoke = socket_receive(t->alarm[rank], text, sizeof text, clock_seconds() + 2);
    close(t->alarm[rank]);
    t->alarm[rank] = -1;
    if (spoke && !text[0]) return true;
    if (!spoke) return transport_error(&t->base, what, err, "rank %zu is gone: its connection closed", rank);
    text[sizeof text - 1] = 0;
    snprintf(t->cause, sizeof t->cause, "%s", text);
    return transport_error(&t->base, what, err, "given up, because %s", text);
}

// polled[2 + i]: the alarms.
static bool hear_alarms(Tcp *t, const char *what, Error *err) {
    for (size_t i = 0; i < count_alarms(t); i++)
        if (t->alarm[i] >= 0 && t->polled[2 + i].revents && !hear_alarm(t, i, what, err)) return false;
    return true;
}

static int poll_alarms(Tcp *t, int milliseconds) {
    for (size_t i = 0; i < count_alarms(t); i++)
        t->polled[2 + i] = (struct pollfd){.fd = t->alarm[i], .events = POLLIN};
    return poll(t->polled, (nfds_t)(2 + count_alarms(t)), milliseconds);
}

// A connection broke; why may still be on its way.
static bool lost(Tcp *t, const Exchange *e, size_t peer, Error *err) {
    const int reason = errno;
    t->polled[0].fd = t->polled[1].fd = -1;
    for (double end = clock_seconds() + 1; clock_seconds() < end;)
        if (poll_alarms(t, 100) > 0 && !hear_alarms(t, e->what, err)) return false;
    return transport_error(&t->base, e->what, err, "rank %zu is gone: %s", peer,
                           reason ? strerror(reason) : "its connection closed");
}

static void tcp_tell(Transport *base, const char *text) {
    Tcp *t = (Tcp *)base;
    char words[TRANSPORT_TEXT] = "";
    snprintf(words, sizeof words, "%s", t->cause[0] ? t->cause : text);
    for (size_t i = 0; t->alarm && i < count_alarms(t); i++)
        if (t->alarm[i] >= 0) socket_send(t->alarm[i], words, sizeof words, clock_seconds() + 1);
}

// ---- exchanges ----

typedef struct Progress {
    int out, in; // files
    size_t sent, received;
    bool moved;
} Progress;

static bool interrupted(void) {
    return errno == EAGAIN || errno == EINTR;
}

// Moves what can be moved at once; false when a connection is broken.
static bool move(Tcp *t, const Exchange *e, Progress *p, Error *err) {
    p->moved = false;
    if (p->sent < e->out_bytes) {
        const ssize_t n = send(p->out, (const char *)e->out + p->sent, e->out_bytes - p->sent, MSG_NOSIGNAL);
        if (n > 0) p->sent += (size_t)n, p->moved = true;
        if (n < 0 && !interrupted()) return lost(t, e, e->to, err);
    }
    if (p->received < e->in_bytes) {
        const ssize_t n = recv(p->in, (char *)e->in + p->received, e->in_bytes - p->received, 0);
        if (n > 0) p->received += (size_t)n, p->moved = true;
        if (n == 0) errno = 0;
        if (n == 0 || (n < 0 && !interrupted())) return lost(t, e, e->from, err);
    }
    return true;
}

static bool wait_to_move(Tcp *t, const Exchange *e, const Progress *p, double until, Error *err) {
    const double left = until - clock_seconds();
    const bool sends = p->sent < e->out_bytes, receives = p->received < e->in_bytes;
    if (left <= 0) return transport_timed_out(&t->base, e, receives, err);
    t->polled[0] = (struct pollfd){.fd = sends ? p->out : -1, .events = POLLOUT};
    t->polled[1] = (struct pollfd){.fd = receives ? p->in : -1, .events = POLLIN};
    if (poll_alarms(t, left > 3600 ? 3600000 : (int)(left * 1000) + 1) <= 0) return true;
    if (t->polled[0].revents || t->polled[1].revents) return true; // bytes go before alarms
    return hear_alarms(t, e->what, err);
}

static bool tcp_exchange(Transport *base, const Exchange *e, Error *err) {
    Tcp *t = (Tcp *)base;
    const bool ring = e->channel == CHANNEL_RING;
    Progress p = {.out = ring ? t->ring_out : t->star[e->to], .in = ring ? t->ring_in : t->star[e->from]};
    const double patience = transport_patience(base, e);
    double until = clock_seconds() + patience;
    while (p.sent < e->out_bytes || p.received < e->in_bytes) {
        if (!move(t, e, &p, err)) return false;
        if (p.moved)
            until = clock_seconds() + patience;
        else if (!wait_to_move(t, e, &p, until, err))
            return false;
    }
    return true;
}

// ---- meeting ----

static const char meeting[] = "meeting the other ranks";

static bool resolve(Tcp *t, Error *err) {
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    const Launch *l = &t->base.launch;
    const int failed = getaddrinfo(l->address, l->port, &hints, &found);
    if (failed)
        return transport_error(&t->base, meeting, err,
                               "MASTER_ADDR \"%s\" is no host with an IPv4 address: %s", l->address,
                               gai_strerror(failed));
    memcpy(&t->master, found->ai_addr, sizeof t->master);
    freeaddrinfo(found);
    return true;
}

static Hello hello_of(const Tcp *t, Role role, unsigned short ring_port) {
    Hello h = {.rank = (uint32_t)t->base.launch.rank,
               .world_size = (uint32_t)t->base.launch.world_size,
               .role = role,
               .ring_port = ring_port};
    memcpy(h.magic, magic, sizeof magic);
    return h;
}

// The next connection that says hello; strangers are sent away.
static int accept_hello(Tcp *t, int listener, Hello *h, struct sockaddr_in *peer, double deadline,
                        Error *err) {
    for (;;) {
        const int file = socket_accept(listener, peer, deadline);
        if (file < 0) {
            transport_error(&t->base, meeting, err, "not all of %zu ranks have come: %s",
                            t->base.launch.world_size, strerror(errno));
            return -1;
        }
        if (socket_receive(file, h, sizeof *h, clock_seconds() + 5) &&
            !memcmp(h->magic, magic, sizeof magic) && h->role < ROLE_COUNT)
            return file;
        close(file);
    }
}

static bool check_hello(const Tcp *t, const Hello *h, Error *err) {
    const size_t world = t->base.launch.world_size;
    if (h->world_size != world)
        return transport_error(&t->base, meeting, err, "rank %u says the world has %u ranks, expected %zu",
                               h->rank, h->world_size, world);
    if (h->rank == 0 || h->rank >= world || h->role == ROLE_RING)
        return transport_error(&t->base, meeting, err, "a process came as rank %u, expected 1 to %zu",
                               h->rank, world - 1);
    if ((h->role == ROLE_STAR ? t->star : t->alarm)[h->rank] >= 0)
        return transport_error(&t->base, meeting, err, "two processes say they are rank %u", h->rank);
    return true;
}

// Rank 0: takes everybody in, then tells each where its next rank waits.
static bool host_meeting(Tcp *t, int listener, unsigned short ring_port, Neighbour *where, double deadline,
                         Error *err) {
    const size_t world = t->base.launch.world_size;
    where[0] = (Neighbour){0, ring_port};
    for (size_t n = 0; n < 2 * (world - 1); n++) {
        Hello h;
        struct sockaddr_in peer;
        const int file = accept_hello(t, listener, &h, &peer, deadline, err);
        if (file < 0) return false;
        if (!check_hello(t, &h, err)) {
            close(file);
            return false;
        }
        (h.role == ROLE_STAR ? t->star : t->alarm)[h.rank] = file;
        const bool local = ntohl(peer.sin_addr.s_addr) >> 24 == 127;
        where[h.rank] = (Neighbour){local ? 0 : peer.sin_addr.s_addr, h.ring_port};
    }
    for (size_t r = 1; r < world; r++)
        if (!socket_send(t->star[r], &where[(r + 1) % world], sizeof *where, deadline))
            return transport_error(&t->base, meeting, err, "rank %zu is gone: %s", r, strerror(errno));
    return true;
}

static bool open_host(Tcp *t, unsigned short ring_port, Neighbour *next, double deadline, Error *err) {
    const Launch *l = &t->base.launch;
    unsigned short bound;
    const int listener = socket_listen((unsigned short)strtoul(l->port, NULL, 10), &bound);
    if (listener < 0)
        return transport_error(&t->base, meeting, err, "port %s (MASTER_PORT) cannot be listened on: %s",
                               l->port, strerror(errno));
    Neighbour *where = mem_zeroed(l->world_size, sizeof *where);
    const bool ok = host_meeting(t, listener, ring_port, where, deadline, err);
    *next = where[1];
    free(where);
    close(listener);
    return ok;
}

static int connect_hello(Tcp *t, struct sockaddr_in address, Hello h, size_t to, double deadline,
                         Error *err) {
    const int file = socket_connect(address, deadline);
    if (file >= 0 && socket_send(file, &h, sizeof h, deadline)) return file;
    transport_error(&t->base, meeting, err, "rank %zu cannot be reached at %s, port %u: %s", to,
                    t->base.launch.address, ntohs(address.sin_port), strerror(errno));
    if (file >= 0) close(file);
    return -1;
}

static bool open_guest(Tcp *t, unsigned short ring_port, Neighbour *next, double deadline, Error *err) {
    t->star[0] = connect_hello(t, t->master, hello_of(t, ROLE_STAR, ring_port), 0, deadline, err);
    if (t->star[0] < 0) return false;
    // Rank 0 was there a moment ago: who cannot reach it now was turned away.
    const double soon = clock_seconds() + 2;
    t->alarm[0] = connect_hello(t, t->master, hello_of(t, ROLE_ALARM, ring_port), 0,
                                soon < deadline ? soon : deadline, err);
    if (t->alarm[0] < 0) return false;
    errno = 0;
    return socket_receive(t->star[0], next, sizeof *next, deadline) ||
           transport_error(&t->base, meeting, err, "rank 0 has not gathered all %zu ranks: %s",
                           t->base.launch.world_size, errno ? strerror(errno) : "it closed the connection");
}

static bool close_ring(Tcp *t, int listener, Neighbour next, double deadline, Error *err) {
    const size_t rank = t->base.launch.rank, world = t->base.launch.world_size;
    struct sockaddr_in address = t->master, peer;
    if (next.address) address.sin_addr.s_addr = next.address;
    address.sin_port = htons((uint16_t)next.port);
    t->ring_out = connect_hello(t, address, hello_of(t, ROLE_RING, 0), (rank + 1) % world, deadline, err);
    if (t->ring_out < 0) return false;
    Hello h;
    t->ring_in = accept_hello(t, listener, &h, &peer, deadline, err);
    if (t->ring_in < 0) return false;
    const size_t before = (rank + world - 1) % world;
    return (h.role == ROLE_RING && h.rank == before) ||
           transport_error(&t->base, meeting, err, "rank %u came, expected rank %zu", h.rank, before);
}

static bool meet(Tcp *t, Error *err) {
    const double deadline = clock_seconds() + t->base.timeout;
    unsigned short ring_port;
    Neighbour next;
    if (!resolve(t, err)) return false;
    const int listener = socket_listen(0, &ring_port);
    if (listener < 0)
        return transport_error(&t->base, meeting, err, "no socket to listen on: %s", strerror(errno));
    const bool first = t->base.launch.rank == 0;
    const bool ok = (first ? open_host : open_guest)(t, ring_port, &next, deadline, err) &&
                    close_ring(t, listener, next, deadline, err);
    close(listener);
    return ok;
}

static void tcp_close(Transport *base, bool in_peace) {
    Tcp *t = (Tcp *)base;
    if (in_peace) tcp_tell(base, "");
    for (size_t i = 0; i < base->launch.world_size; i++) {
        if (t->star[i] >= 0) close(t->star[i]);
        if (t->alarm[i] >= 0) close(t->alarm[i]);
    }
    if (t->ring_out >= 0) close(t->ring_out);
    if (t->ring_in >= 0) close(t->ring_in);
    free(t->star);
    free(t->alarm);
    free(t->polled);
    free(t);
}

bool transport_open_tcp(Transport **out, const Launch *launch, double timeout, Error *err) {
    Tcp *t = mem_zeroed(1, sizeof *t);
    *out = &t->base;
    t->base = (Transport){*launch, timeout, "", tcp_exchange, tcp_tell, tcp_close};
    snprintf(t->base.detail, sizeof t->base.detail, "sockets, rank 0 at %.60s:%s", launch->address,
             launch->port);
    t->ring_out = t->ring_in = -1;
    t->star = mem_alloc(launch->world_size * sizeof *t->star);
    t->alarm = mem_alloc(launch->world_size * sizeof *t->alarm);
    t->polled = mem_zeroed(2 + launch->world_size, sizeof *t->polled);
    for (size_t i = 0; i < launch->world_size; i++) t->star[i] = t->alarm[i] = -1;
    return meet(t, err); // on failure the caller still tells the others and closes
}
