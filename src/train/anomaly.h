// Finds the operator that made the first NaN, by looking at everything operators write (--detect_anomaly).
// Slow: each output is brought to the host.
#pragma once
#include "tensor/backend.h"

typedef struct Anomaly {
    Backend *be;
    void (*enter)(Backend *be, const OpCall *call); // whoever had the hooks before
    void (*leave)(Backend *be, const OpCall *call);
    void *next_state;
    void *buffer;
    size_t size;
    char text[160]; // what was found first; empty: nothing
} Anomaly;

void anomaly_attach(Anomaly *a, Backend *be); // a must stay where it is until anomaly_detach
void anomaly_detach(Anomaly *a);              // gives the hooks back
