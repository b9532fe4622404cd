// Which chat format a Jinja text describes. Only ChatML is known: in all its spellings, alone or with a
// default system message in front.
#pragma once
#include "base/vec.h"

#include <stdbool.h>

// Appends to system what the template puts in front of a conversation that does not begin with a system
// message (often nothing). False: the text is another template.
bool chat_template_parse(const char *template_text, CharVec *system);
