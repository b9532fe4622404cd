#include "train/stop.h"
#include "base/check.h"
#include "base/cores.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

static atomic_int asked; // the signal
static atomic_bool is_gentle;

static sigset_t stop_set(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    return set;
}

static void *wait_for_signals(void *unused) {
    static const char text[] = "\nvlm: finishing this step and saving; once more to end at once\n";
    const sigset_t set = stop_set();
    int number;
    for (;;) {
        if (sigwait(&set, &number) != 0) continue;
        if (!is_gentle || asked) _exit(128 + number);
        ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
        (void)written;
        asked = number;
    }
    return unused;
}

void stop_on_signals(void) {
    static bool is_waiting;
    const sigset_t set = stop_set();
    asked = 0;
    is_gentle = false;
    signal(SIGINT, SIG_DFL); // a shell starts background jobs with it ignored
    signal(SIGXFSZ, SIG_IGN);
    if (is_waiting) return;
    pthread_t thread;
    int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (!failed) failed = cores_start_thread(&thread, wait_for_signals, NULL);
    CHECK(!failed, "no thread for signals: error %d", failed);
    pthread_detach(thread);
    is_waiting = true;
}

void stop_gently(void) {
    is_gentle = true;
}

int stop_signal(void) {
    return asked;
}
