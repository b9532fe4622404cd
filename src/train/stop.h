// Ending a run politely: the first Ctrl-C (SIGINT) or SIGTERM asks the run to finish its step and save, the
// second ends the program at once.
#pragma once

// Installs the handlers. Also ignores SIGXFSZ, so that a file-size limit is an error of the write and not the
// end.
void stop_on_signals(void);
int stop_signal(void); // the signal that asked for the end, 0 when none
