// A backend that proves the seam to a device: the CPU's operators over memory that nobody else can touch. A
// tensor's pages are accessible only while an operator runs that was given this tensor (and writable only if
// it is an output), or while an upload or download copies it. Any other access, by the model or a kernel,
// ends the test by SIGSEGV.
#pragma once
#include "tensor/backend.h"

bool backend_guard_create(Backend **be, Error *err); // backend_destroy frees it

// Whether reading (or writing) this address would end the process by SIGSEGV: a forked child tries it.
bool read_faults(const volatile void *address);
bool write_faults(volatile void *address);
