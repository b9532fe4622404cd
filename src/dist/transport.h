// How bytes get from rank to rank: MPI (transport_mpi.c) or sockets (transport_tcp.c). Used by the thread of
// comm.c alone.
#pragma once
#include "dist/launch.h"

typedef enum Channel {
    CHANNEL_RING, // each rank to the next one, from the one before: large sums
    CHANNEL_STAR, // each rank and rank 0: the small things
} Channel;

// One exchange: out_bytes to rank `to` and in_bytes from rank `from` at the same time; 0 bytes: that side is
// not there.
typedef struct Exchange {
    Channel channel;
    const void *out;
    size_t out_bytes, to;
    void *in;
    size_t in_bytes, from;
    const char *what; // for errors
} Exchange;

typedef struct Transport Transport;
struct Transport {
    Launch launch;
    double timeout; // seconds without a byte after which an exchange fails
    char detail[96];
    bool (*exchange)(Transport *t, const Exchange *e, Error *err);
    // Tells all ranks that can be reached that this one gives up; what they wait for fails with the text.
    void (*tell)(Transport *t, const char *text);
    void (*close)(Transport *t, bool in_peace);
};

// Meet the other ranks; without MPI in the build, transport_open_mpi is an error.
bool transport_open_tcp(Transport **t, const Launch *launch, double timeout, Error *err);
bool transport_open_mpi(Transport **t, const Launch *launch, double timeout, Error *err);
bool transport_mpi_is_built_in(void);

enum { TRANSPORT_TEXT = 768 }; // bytes of a farewell, with its 0
// "rank 1 of 4, gradients: ..."; returns false.
bool transport_error(const Transport *t, const char *what, Error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
// Seconds to wait: twice the time limit for a word of rank 0, which may itself be waiting for another rank,
// and then it is rank 0 that knows which one.
double transport_patience(const Transport *t, const Exchange *e);
bool transport_timed_out(const Transport *t, const Exchange *e, bool in_missing, Error *err);
