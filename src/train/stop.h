// Ending a run politely: the first Ctrl-C (SIGINT), SIGTERM or SIGUSR1 (Slurm, before a job's time is over)
// asks the run to finish its step (and a validation that has begun) and save, the second ends the program at
// once.
//
// A thread of its own waits for the signals and all others block them, because no signal handler may run on a
// thread that computes: oneDNN's f32 kernels (2.6, AVX2) put their stack pointer into a heap buffer while
// they run, so that a signal's frame there overwrites the heap in front of it.
#pragma once

// Blocks the three signals in this thread and those it starts, and starts the waiting one: to be called
// before any other thread is there. Until stop_gently a signal ends the program at once. Also ignores
// SIGXFSZ, so that a file-size limit is an error of the write and not the end.
void stop_on_signals(void);
void stop_gently(void); // from here on the first signal only asks
int stop_signal(void);  // the signal that asked for the end, 0 when none
