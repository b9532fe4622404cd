// Host memory for bookkeeping. Running out of it ends the program with a message, because no caller could go
// on; large buffers (tensors, images, files) are asked for through functions that return an error instead.
#pragma once
#include <stddef.h>

void *mem_alloc(size_t bytes);                 // uninitialised; caller frees with free()
void *mem_zeroed(size_t count, size_t size);   // zeroed, overflow-checked; caller frees
void *mem_resize(void *p, size_t bytes);       // realloc
char *mem_strdup(const char *text);            // caller frees; NULL stays NULL
char *mem_strndup(const char *text, size_t n); // caller frees
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2))); // caller frees

// To be called once, first of all, by a program that keeps many large pictures and rows for a while: its
// threads share one heap, and blocks of 128 KiB and more go back to the system when they are freed.
void mem_settle(void);

// Bytes of the heap that are in use, in all threads.
size_t mem_heap(void);

// Gives the pages of the heap back that lie between blocks in use: after much has been freed at once.
void mem_trim(void);

// Bytes that the system takes at a time for a large block that is asked for with MADV_HUGEPAGE.
size_t mem_huge_page(void);

// Resident memory of this process in bytes as Linux counts it, now and at most so far (getrusage would count
// a parent's before exec, too); 0 where it does not say.
size_t mem_resident(void);
size_t mem_resident_peak(void);
// Of it what is mapped to no file, and so never taken away under pressure.
size_t mem_resident_anonymous(void);
// Of it what the program's own file and its libraries are mapped to: their code, as far as it has been used.
size_t mem_resident_code(void);
