// LINK: synth
#include "synth/kinds.h"
#include "support/golden.h"
int main(void) { return 0; }
