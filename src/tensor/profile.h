// Where the time of a run goes, operator by operator: a profile watches a backend through its hooks and adds
// up, under each operator's name, calls, seconds and the work that the tensors of the calls make it. It needs
// a backend whose calls are complete when they return, as the CPU's are.
#pragma once
#include "tensor/backend.h"

// What bounds an operator: the speed of multiply-adds (products, attention) or that of memory (the rest).
typedef enum WorkKind { WORK_PRODUCT, WORK_ATTENTION, WORK_MEMORY } WorkKind;

typedef struct ProfileRow {
    const char *name; // the operator's
    WorkKind kind;
    size_t calls;
    double wall, cpu; // seconds: elapsed, and of processor time over all threads
    double flops;     // of products and attention: a multiply-add is two
    double bytes;     // what has to pass between memory and processor when no cache holds it
} ProfileRow;

enum { PROFILE_ROWS = 48 };

typedef struct Profile {
    Backend *be;
    ProfileRow rows[PROFILE_ROWS]; // in the order of their first call
    size_t count;
    double wall, cpu;    // at the begin of the call in work
    int32_t *starts;     // host: what a call's `starts` held
    size_t starts_count; // room in it
} Profile;

// Begins to watch; nobody else may. The profile must outlive the watching.
void profile_begin(Profile *p, Backend *be);
void profile_watch(Profile *p, bool watch); // between the two: looks away, or again
void profile_end(Profile *p);               // stops watching; the rows stay
ProfileRow profile_total(const Profile *p); // all rows in one, name "all"
void profile_sort(Profile *p);              // the row with the most time first
