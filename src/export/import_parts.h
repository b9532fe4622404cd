// Between the two files of import: the halves of the folder as backbones.
#pragma once
#include "export/import.h"
#include "model/backbone.h"

// weights are borrowed, config is a new reference.
Backbone import_half(const ImportSource *s, BackboneKind kind);
