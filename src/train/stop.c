#include "train/stop.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t asked; // the signal

static void on_signal(int number) {
    static const char text[] = "\nvlm: finishing this step and saving; once more to end at once\n";
    if (asked) _exit(128 + number);
    asked = number;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
}

void stop_on_signals(void) {
    asked = 0;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);
}

int stop_signal(void) {
    return asked;
}
