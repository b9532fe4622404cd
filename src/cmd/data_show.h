// Rows of a data set as a page of HTML.
#pragma once
#include "cmd/data_setup.h"

// rows: numbers and ranges from 0, e.g. "3", "0-9,40". A row that gives no sample is shown with the reason;
// a row that does not exist is an error. Writes the page to `path` and says so.
bool data_show(DataSetup *setup, const char *rows, const char *path, Error *err);
