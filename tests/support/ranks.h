// Ranks as processes: this program again, with "--rank <scene> <folder>", and what each reports.
#pragma once
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

#define EXPECT_IN(text, part)                                                                                \
    do {                                                                                                     \
        if (!strstr(text, part)) fail_msg("\"%s\" is not in \"%s\"", part, text);                            \
    } while (0)

typedef struct World {
    char folder[64];
    const char *master; // host of rank 0; NULL: this one
    size_t size;
    pid_t children[8];
    char reports[8][2048];
    int ends[8]; // exit status, or minus the signal
} World;

void open_world(World *w, size_t size);
int free_port(void);
// said_world: WORLD_SIZE as this rank is told.
pid_t start_rank(const World *w, const char *scene, size_t rank, size_t said_world, int port);
int end_of(pid_t child);
void read_reports(World *w);
World run_sockets(const char *scene, size_t size);
// The end of mpirun itself goes into ends[0].
World run_mpi(const char *scene, size_t size);
void expect_fine(const World *w); // ended with 0 and the report "fine"
// All but the last rank end with status 1 and a report with both parts.
void expect_failed(const World *w, const char *part, const char *other_part);
// What a rank does at its end.
void ranks_report(const char *folder, size_t rank, const char *text);
