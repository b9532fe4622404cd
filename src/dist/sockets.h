// Sockets of IPv4 for transport_tcp.c: they are non-blocking, and every function gives up at a deadline
// (clock_seconds). On failure errno says why; ETIMEDOUT: the deadline.
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

int socket_listen(unsigned short port, unsigned short *bound); // port 0: any; -1 on failure
// Tries again until somebody listens there; -1 at the deadline.
int socket_connect(struct sockaddr_in address, double deadline);
int socket_accept(int listener, struct sockaddr_in *peer, double deadline);
bool socket_send(int file, const void *bytes, size_t n, double deadline);
bool socket_receive(int file, void *bytes, size_t n, double deadline); // errno 0: the peer has gone
